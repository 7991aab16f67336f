"""Worker processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

_WATCH_SECONDS = 1.0


def channel() -> Any:  # noqa: ANN401 - a multiprocessing queue has no public type
    """Return a queue from workers to the process that starts them."""
    return _spawning().Queue()


@contextmanager
def workers(
    jobs: int,
    begin: Callable[..., None] | None = None,
    *arguments: Any,  # noqa: ANN401 - handed on
) -> Generator[ProcessPoolExecutor]:
    """Give a pool of processes. If the block fails or is interrupted, what runs is stopped and what waits is dropped.

    Args:
        jobs: Number of processes.
        begin: Called in each of them first.
        *arguments: What it is called with.
    """
    with ProcessPoolExecutor(
        jobs, mp_context=_spawning(), initializer=_begin, initargs=(os.getpid(), begin, arguments)
    ) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _spawning() -> Any:  # noqa: ANN401
    return multiprocessing.get_context("spawn")  # a fork of a process with threads may hang


def _begin(parent: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed parent tells nobody, and the pool would wait for ever."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
