"""A checkpoint as the sum of its files: each file is a part, whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kinprint.checkpoint.base import Array, Checkpoint, TensorInfo, Wanted, sliced
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.source import ByteSource, Files, fetch_together


class Part(ABC):
    """The tensors of one file.

    Attributes:
        format: ``safetensors``, ``pytorch`` or ``gguf``.
        source: The file's bytes.
        tensors: Headers by name, in file order.
        notes: What a reader must know about this file.
    """

    format: str
    source: ByteSource
    tensors: Mapping[str, TensorInfo]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, name: str, rows: slice | None) -> Array:
        """Return one tensor or some of its rows; see :meth:`Checkpoint.read`."""

    @abstractmethod
    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor, in C order."""

    def read_item(self, name: str, item: int, rows: slice) -> Array:
        """Return some rows of one item of the first axis; see :meth:`Checkpoint.read_item`."""
        return self.read(name, slice(item, item + 1))[0][rows]

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the stored bytes of a range of the first axis; see :meth:`Checkpoint.raw_rows`."""
        return sliced(self.raw(name), self.tensors[name], first, last)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the ranges of bytes that :meth:`read` needs; none where the format does not tell."""
        del name, rows
        return iter(())


class FileCheckpoint(Checkpoint):
    """Tensors that lie in one or several files."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        name: str,
        location: str,
        config: Mapping[str, Any],
        vocabulary: Callable[[], tuple[str, ...] | None],
        notes: Sequence[str] = (),
        files: Files | None = None,
    ) -> None:
        """Join parts, which lie in ``files``.

        Raises:
            CheckpointError: Two parts hold a tensor of one name.
        """
        self.name = name
        self.location = location
        self.format = parts[0].format
        self.config = config
        self.notes = (*notes, *(note for part in parts for note in part.notes))
        self._parts = tuple(parts)
        self._files = files
        if files is not None and files.revision is not None:
            self.revision = files.revision
            digests = {part.source.name: files.digest(part.source.name) for part in parts}
            self.file_digests = {file: digest for file, digest in digests.items() if digest is not None}
        self._owner: dict[str, Part] = {}
        for part in parts:
            for tensor in part.tensors:
                first = self._owner.setdefault(tensor, part)
                if first is not part:
                    raise fault(
                        location,
                        f"tensor {shown(tensor)} is in {first.source.name} and in {part.source.name}",
                        "keep the files of one model only",
                    )
        self.tensors = {key: part.tensors[key] for key, part in self._owner.items()}
        self._find_vocabulary = vocabulary
        self._vocabulary: tuple[str, ...] | None = None
        self._vocabulary_known = False

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; see :meth:`Checkpoint.read`."""
        return self._owner[name].read(name, rows)

    def read_item(self, name: str, item: int, rows: slice) -> Array:
        """Return some rows of one item of the first axis; see :meth:`Checkpoint.read_item`."""
        return self._owner[name].read_item(name, item, rows)

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor; of a strided tensor, its elements in C order."""
        return self._owner[name].raw(name)

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the stored bytes of a range of the first axis; see :meth:`Checkpoint.raw_rows`."""
        return self._owner[name].raw_rows(name, first, last)

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        """Fetch what reads will need, of all files side by side; see :meth:`Checkpoint.fetch`."""
        fetch_together(span for name, rows in wanted for span in self._owner[name].spans(name, rows))

    @property
    def bytes_read(self) -> int:
        """How many different bytes of all files were handed out so far, headers included."""
        return 0 if self._files is None else self._files.bytes_read

    @property
    def bytes_fetched(self) -> int:
        """How many bytes came over a network so far."""
        return 0 if self._files is None else self._files.bytes_fetched

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id, read from the tokenizer file on first use; an id that it leaves out has ``""``.

        Raises:
            CheckpointError: There is a tokenizer file and it cannot be believed.
        """
        if not self._vocabulary_known:
            self._vocabulary = self._find_vocabulary()
            self._vocabulary_known = True
        return self._vocabulary

    def close(self) -> None:
        """Release the files. Arrays already handed out stay valid."""
        for part in self._parts:
            part.source.close()
        if self._files is not None:
            self._files.close()


def bytes_of(array: Array) -> memoryview:
    """Return an array's elements as bytes in C order; a copy only if they do not lie so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def enclosing(rows: slice | None, length: int) -> tuple[int, int, int]:
    """Return the smallest range of rows that holds those of a slice, and the step that takes them out of it.

    Example:
        >>> enclosing(slice(7, None, -3), 6), enclosing(None, 6)
        ((2, 6, -3), (0, 6, 1))
    """
    wanted = range(length)[slice(None) if rows is None else rows]
    if not wanted:
        return 0, 0, 1
    return min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1, wanted.step


def take(array: Array, rows: slice | None) -> Array:
    """Return some rows of an array, or all of it."""
    return array if rows is None else array[rows]
