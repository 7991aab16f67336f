"""How many threads the BLAS library may use for one piece of work.

A small decomposition is made slower by threads: they wait for each other at every column, and where a core is busy or
virtual each wait can last a scheduler's turn, which is longer than the work itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

MOST_WORKERS = 8
"""Most pieces of work side by side."""

LARGE_BYTES = 1 << 20
"""Bytes of a tensor from which on work on it is worth a thread of its own."""

THREADED_ORDER = 1024
"""Matrices with at least as many rows and columns are left to as many threads as the library takes by itself."""


@contextmanager
def threads_for(order: int) -> Generator[None]:
    """Run the block with one BLAS thread if the matrices in it are small, and as the caller set it otherwise."""
    if order >= THREADED_ORDER:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@contextmanager
def one_thread() -> Generator[None]:
    """Run the block with one BLAS thread: with more, sums add up in another order and the last bits differ."""
    with threads_for(0):
        yield


def side_by_side(
    work: Callable[[Item], Made], items: Iterable[Item], *, large: bool = True, most: int = MOST_WORKERS
) -> list[Made]:
    """Return ``work(item)`` for every item, in order, on as many cores as there are.

    Each piece runs with one BLAS thread, so its result does not depend on how many run beside it.

    Args:
        work: Array work, which releases Python's lock.
        items: What it is done to.
        large: Whether the arrays are large; to start threads for small ones takes longer than the work itself.
        most: Most pieces side by side, where memory leaves room for few.
    """
    waiting = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, most, MOST_WORKERS)
    with one_thread():
        if not large or cores < 2 or len(waiting) < 2:
            return [work(item) for item in waiting]
        with ThreadPoolExecutor(cores) as pool:
            return list(pool.map(work, waiting))


def blas() -> str:
    """Return the BLAS libraries in use, with their versions."""
    found: list[dict[str, Any]] = _controller().info()
    names = [f"{one.get('internal_api')} {one.get('version')}" for one in found if one.get("user_api") == "blas"]
    return ", ".join(dict.fromkeys(names)) or "unknown"


@cache
def _controller() -> Any:  # noqa: ANN401 - threadpoolctl has no types
    from threadpoolctl import ThreadpoolController  # pyright: ignore[reportMissingTypeStubs]

    return ThreadpoolController()
