"""How many threads the BLAS library may use for one piece of work.

A small decomposition is made slower by threads: they wait for each other at every column, and where a core is busy or
virtual each wait can last a scheduler's turn, which is longer than the work itself.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

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


def blas() -> str:
    """Return the BLAS libraries in use, with their versions."""
    found: list[dict[str, Any]] = _controller().info()
    names = [f"{one.get('internal_api')} {one.get('version')}" for one in found if one.get("user_api") == "blas"]
    return ", ".join(dict.fromkeys(names)) or "unknown"


@cache
def _controller() -> Any:  # noqa: ANN401 - threadpoolctl has no types
    from threadpoolctl import ThreadpoolController  # pyright: ignore[reportMissingTypeStubs]

    return ThreadpoolController()
