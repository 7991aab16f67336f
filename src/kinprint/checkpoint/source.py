"""What every place that bytes come from looks like: one file as a range of bytes, a folder as files by name.

The seam between formats and storage: readers of formats see nothing else, so that every format can be read from every
place.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from functools import cached_property
from typing import Any

from kinprint.checkpoint.faults import FETCH_AGAIN, fault
from kinprint.checkpoint.intervals import Intervals, Range

Pending = Sequence["Future[Any]"]
"""What ends when the bytes that were asked for are there."""


class ByteSource(ABC):
    """Bytes that are addressed by offset and fetched only when asked for.

    Attributes:
        name: File name, for :attr:`TensorInfo.file`.
        where: Path or address, for messages: of two models that are compared, both may be ``model.safetensors``.
        size: Length in bytes.
    """

    name: str
    where: str
    size: int

    @abstractmethod
    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes from ``offset``, read-only and without a copy where the source allows it.

        Raises:
            CheckpointError: The range is not inside the source, or the source is closed.
            NetworkError: The bytes could not be fetched.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the source. Views already handed out stay valid."""

    def check(self, offset: int, length: int) -> None:
        """Make sure that a range lies inside the source; nothing is read.

        Raises:
            CheckpointError: It does not.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            what = f"ends at byte {self.size} before what its header promises"
            raise fault(self.where, what, "truncated: " + FETCH_AGAIN)

    def request(self, ranges: Iterable[Range]) -> Pending:
        """Begin to fetch ranges (start, end) and return at once; nothing, where everything is at hand.

        Raises:
            CheckpointError: A range is not inside the source, or the source is closed.
        """
        del ranges
        return ()

    def fetch(self, ranges: Iterable[Range]) -> None:
        """Fetch ranges (start, end) together, so that views of them need not wait. Any thread may call it.

        Raises:
            CheckpointError: A range is not inside the source, or the source is closed.
            NetworkError: The bytes could not be fetched.
        """
        settle(self.request(ranges))

    def hold_back(self, active: bool) -> None:  # noqa: B027 - only maps read ahead
        """Stop, or allow again, that more is read than is asked for, as while headers are read."""

    @cached_property
    def handed(self) -> Intervals:
        """The bytes that were handed out."""
        return Intervals()

    @cached_property
    def _counting(self) -> threading.Lock:
        return threading.Lock()

    def note(self, offset: int, length: int) -> None:
        """Count a range that is handed out; every view calls it."""
        with self._counting:
            self.handed.add(offset, offset + length)

    @property
    def bytes_read(self) -> int:
        """How many different bytes were handed out so far, headers included."""
        return self.handed.total

    @property
    def bytes_fetched(self) -> int:
        """How many bytes came over a network so far."""
        return 0


class Files(ABC):
    """A flat folder of named files, wherever it lies.

    Attributes:
        location: Path or address, for messages and records.
        name: Label for people.
        remote: Whether each access waits for a network, so that files had better be opened side by side.
        revision: Commit of the folder, where it has one.
        notes: What a reader must know about where it came from.
    """

    location: str
    name: str
    remote: bool = False
    revision: str | None = None
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._opened: dict[str, ByteSource] = {}

    @abstractmethod
    def names(self, *, folders: bool = False) -> list[str]:
        """Return the names of the files, sorted; those of folders among them if asked for.

        Raises:
            CheckpointError: The folder cannot be listed.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Tell whether a file is there."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which of several files are not there."""
        return [name for name in names if not self.has(name)]

    @abstractmethod
    def where(self, name: str) -> str:
        """Return a file's path or address, for messages."""

    @abstractmethod
    def open(self, name: str) -> ByteSource:
        """Open a file anew.

        Raises:
            CheckpointError: It is not there or cannot be opened.
            NetworkError: It could not be reached.
        """

    def source(self, name: str) -> ByteSource:
        """Return a file, opened on first use."""
        found = self._opened.get(name)
        return self._opened.setdefault(name, self.open(name)) if found is None else found

    def inside(self, name: str, beside: ByteSource) -> bool:
        """Tell whether a file that another one names lies in this folder, also after links are followed."""
        del name, beside
        return True

    def digest(self, name: str) -> str | None:
        """Return a file's SHA-256 as the place lists it, as hexadecimal digits; nothing is read."""
        del name
        return None

    def close(self) -> None:
        """Close every file that was opened."""
        for source in list(self._opened.values()):
            source.close()

    @property
    def bytes_read(self) -> int:
        """How many different bytes of all files were handed out so far."""
        return sum(source.bytes_read for source in list(self._opened.values()))

    @property
    def bytes_fetched(self) -> int:
        """How many bytes came over a network so far."""
        return sum(source.bytes_fetched for source in list(self._opened.values()))


def settle(pending: Pending) -> None:
    """Wait until all that was begun has ended; where the wait is broken off, what has not begun never does.

    Raises:
        CheckpointError: Something that was fetched cannot be believed.
        NetworkError: Something could not be fetched.
    """
    try:
        for future in pending:
            try:
                future.result()
            except CancelledError:
                continue  # another reader gave up; whoever needs the bytes asks for them again
    except BaseException:
        for future in pending:
            future.cancel()
        raise


def fetch_together(wanted: Iterable[tuple[ByteSource, Range]]) -> None:
    """Fetch ranges of several sources side by side.

    Raises:
        CheckpointError: A range is not inside its source, or a source is closed.
        NetworkError: Something could not be fetched.
    """
    by_source: dict[int, tuple[ByteSource, list[Range]]] = {}
    for source, span in wanted:
        by_source.setdefault(id(source), (source, []))[1].append(span)
    settle([future for source, ranges in by_source.values() for future in source.request(ranges)])
