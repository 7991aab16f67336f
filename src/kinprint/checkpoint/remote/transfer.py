"""One range of one remote file, whatever goes wrong on the way: cut, slow, refused for now, or of another length."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

from kinprint.checkpoint.faults import network_fault
from kinprint.checkpoint.remote.limits import Limits
from kinprint.errors import NetworkError

Value = TypeVar("Value")


class Interrupted(Exception):  # noqa: N818 - no error yet: it is tried again
    """A try failed in a way that another one may mend.

    Attributes:
        what: What happened, for the message if no try succeeds.
        wait: Seconds that the server asks to wait; None if it does not say.
    """

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait


class RemoteBytes(ABC):
    """One remote file as ranges that are streamed.

    Attributes:
        name: File name.
        where: Address for messages, without secrets.
        host: Whose connections are counted.
        size: Length in bytes, as the place states it.
        key: What tells this content from every other: address with version, digest or time.
    """

    name: str
    where: str
    host: str
    size: int
    key: tuple[str, ...]

    @abstractmethod
    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range that is not empty, in order; it may end early.

        Raises:
            Interrupted: It may succeed if it is tried again.
            CheckpointError: The file is not there or may not be read.
            NetworkError: The server lies, and would lie again.
        """

    def check(self, content: bytes) -> None:
        """Hold the whole content against a digest that the place lists, if it lists one.

        Raises:
            NetworkError: It is another.
        """
        del content


def receive(remote: RemoteBytes, start: int, end: int, into: bytearray, limits: Limits, stop: threading.Event) -> None:
    """Fetch a range, going on where a try was cut.

    Args:
        remote: The file.
        start: First byte.
        end: Byte after the last.
        into: What has come so far; after an error, what came before it.
        limits: Patience.
        stop: Set when nobody wants the bytes any more.

    Raises:
        NetworkError: It did not come after all tries, or more came than was asked for.
        CheckpointError: The file is not there or may not be read.
    """
    failures = 0
    while len(into) < end - start:
        had = len(into)
        if stop.is_set():
            raise network_fault(remote.where, f"bytes {start} to {end} are not wanted any more")
        try:
            _take(remote, start, end, into, limits, stop)
            if len(into) < end - start:
                raise Interrupted(f"the connection was closed {end - start - len(into)} bytes early")
        except Interrupted as interrupted:
            failures = 1 if len(into) - had >= limits.progress_bytes else failures + 1
            if failures >= limits.attempts or stop.is_set():
                raise network_fault(remote.where, f"bytes {start} to {end} did not come: {interrupted.what}") from None
            stop.wait(limits.pause(failures, interrupted.wait))


def _take(remote: RemoteBytes, start: int, end: int, into: bytearray, limits: Limits, stop: threading.Event) -> None:
    """Make one try."""
    mark, due = len(into), time.monotonic() + limits.progress_seconds
    for chunk in remote.stream(start + len(into), end):
        if len(into) + len(chunk) > end - start:
            raise network_fault(remote.where, f"sends more than bytes {start} to {end}, which were asked for")
        into += chunk
        if stop.is_set():
            raise Interrupted("nobody wants it any more")
        if len(into) - mark >= limits.progress_bytes:
            mark, due = len(into), time.monotonic() + limits.progress_seconds
        elif time.monotonic() > due:
            raise Interrupted(f"less than {limits.progress_bytes} bytes came in {limits.progress_seconds:g} seconds")


def patiently(where: str, call: Callable[[], Value], limits: Limits) -> Value:
    """Return what a call returns, tried again while it is :class:`Interrupted`.

    Raises:
        NetworkError: It did not succeed after all tries.
    """
    for failures in range(1, limits.attempts + 1):
        try:
            return call()
        except Interrupted as interrupted:
            last = interrupted
            if failures < limits.attempts:
                time.sleep(limits.pause(failures, interrupted.wait))
    raise network_fault(where, last.what)  # pyright: ignore[reportPossiblyUnboundVariable]


def status_fault(where: str, status: int) -> NetworkError:
    """Return the error for an answer that no rule covers."""
    return network_fault(where, f"the server answers {status}", "check the address")
