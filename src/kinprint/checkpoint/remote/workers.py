"""Threads that fetch: a fixed number for each host, whoever asks, so that no server sees more connections."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from queue import PriorityQueue
from typing import Any

from kinprint.checkpoint.remote.limits import CONNECTIONS

_Task = tuple[int, int, "Future[None]", Callable[[], None]]


class Workers:
    """Runs tasks in daemon threads: a process that ends does not wait for what is still queued.

    That is the difference to ``ThreadPoolExecutor``, which would first fetch all of it.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = 0
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._order = itertools.count()
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], None], *, urgent: bool = False) -> Future[None]:
        """Queue a task, before all that are not urgent if it is."""
        future: Future[None] = Future()
        self._tasks.put((0 if urgent else 1, next(self._order), future, task))
        with self._lock:
            if self._threads < self._count:
                self._threads += 1
                threading.Thread(target=self._run, name="kinprint-fetch", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            _, _, future, task = self._tasks.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                task()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)


def workers_of(host: str) -> Workers:
    """Return the threads that fetch from one host."""
    return _workers(host, os.getpid())


@cache
def _workers(host: str, process: int) -> Workers:
    """Make them once for each process: threads do not survive a fork."""
    del host, process
    return Workers(CONNECTIONS)


def within(seconds: float, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the call returns
    """Return what a call returns, unless it takes too long: clients without a timeout of their own may never return.

    Raises:
        TimeoutError: It took longer; it goes on in a thread that nobody waits for.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="kinprint-call", daemon=True).start()
    return future.result(seconds)
