"""Bytes in memory as the kind of file that the standard library's parsers read from."""

from __future__ import annotations

import io


class Stream(io.RawIOBase):
    """The file-like face of a memory view that ``pickletools`` and ``zipfile`` read through.

    No read returns or allocates more than the view holds, whatever length a header claims.
    """

    LINE_BYTES = 4096

    def __init__(self, data: memoryview, where: str) -> None:
        super().__init__()
        self._data = data
        self._position = 0
        self.where = where

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes."""
        end = len(self._data) if size is None or size < 0 else min(len(self._data), self._position + size)
        chunk = bytes(self._data[self._position : end])
        self._position = max(end, self._position)
        return chunk

    def readline(self, size: int | None = -1) -> bytes:
        """Return up to the next line break, but never a long line: names are short."""
        del size
        chunk = bytes(self._data[self._position : self._position + self.LINE_BYTES])
        line = chunk[: chunk.find(b"\n") + 1] or chunk
        self._position += len(line)
        return line

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as files do; a place outside the view is an error or gives empty reads."""
        position = offset + (0, self._position, len(self._data))[whence]
        if position < 0:
            raise ValueError("seek before the start")
        self._position = min(position, len(self._data))
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
