"""A checkpoint as the sum of its files: each file is a part, whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kinprint.checkpoint.base import Array, Checkpoint, TensorInfo
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.local import ByteSource


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
    ) -> None:
        """Join parts.

        Raises:
            CheckpointError: Two parts hold a tensor of one name.
        """
        self.name = name
        self.location = location
        self.format = parts[0].format
        self.config = config
        self.notes = (*notes, *(note for part in parts for note in part.notes))
        self._parts = tuple(parts)
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

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor; of a strided tensor, its elements in C order."""
        return self._owner[name].raw(name)

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


def bytes_of(array: Array) -> memoryview:
    """Return an array's elements as bytes in C order; a copy only if they do not lie so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def take(array: Array, rows: slice | None) -> Array:
    """Return some rows of an array, or all of it."""
    return array if rows is None else array[rows]
