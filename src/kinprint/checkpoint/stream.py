"""A part of a file as what the standard library's parsers read from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.source import ByteSource

WINDOW_BYTES = 1 << 14
"""Bytes that are looked at together: parsers of pickles ask for one at a time."""

MEMBER_HEAD_BYTES = 512
"""Bytes from the start of a zip's member that hold its header, and most headers of arrays behind it."""


class Stream(io.RawIOBase):
    """The file-like face of a range of a source that ``pickletools`` and ``zipfile`` read through.

    No read returns or allocates more than the range holds, whatever length a header claims.
    """

    LINE_BYTES = 4096

    def __init__(self, source: ByteSource, start: int = 0, length: int | None = None) -> None:
        super().__init__()
        self._source = source
        self._start = start
        self._size = source.size - start if length is None else length
        source.check(start, self._size)
        self._position = 0
        self._window, self._window_at = memoryview(b""), 0
        self.where = source.where

    def _bytes(self, first: int, end: int) -> bytes:
        """Return a range, from the window if it lies in it."""
        if first < self._window_at or end > self._window_at + len(self._window):
            ahead = min(max(end, first + WINDOW_BYTES), self._size)
            self._window, self._window_at = self._source.view(self._start + first, ahead - first), first
        return bytes(self._window[first - self._window_at : end - self._window_at])

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes."""
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        chunk = self._bytes(self._position, end) if end > self._position else b""
        self._position = max(end, self._position)
        return chunk

    def readline(self, size: int | None = -1) -> bytes:
        """Return up to the next line break, but never a long line: names are short."""
        del size
        chunk = self._bytes(self._position, min(self._position + self.LINE_BYTES, self._size))
        line = chunk[: chunk.find(b"\n") + 1] or chunk
        self._position += len(line)
        return line

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as files do; a place outside the range is an error or gives empty reads."""
        position = offset + (0, self._position, self._size)[whence]
        if position < 0:
            raise ValueError("seek before the start")
        self._position = min(position, self._size)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True


def local_headers(source: ByteSource, infos: Iterable[zipfile.ZipInfo]) -> list[Range]:
    """Return where the headers of a zip's members lie, with the bytes behind them where members start."""
    starts = (min(info.header_offset, source.size) for info in infos)
    return [(start, min(start + MEMBER_HEAD_BYTES, source.size)) for start in starts]
