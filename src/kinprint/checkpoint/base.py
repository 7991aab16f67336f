"""What every format looks like from above: lazy named tensors, read-only."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kinprint import canonical

Array = np.ndarray[Any, np.dtype[Any]]

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Dtypes (safetensors' spelling) whose stored values are the parameters themselves."""

BLOCK_BYTES = 1 << 25
"""Bytes that a streaming reader holds at once."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of a quantised tensor were rounded.

    Attributes:
        scheme: Name of the format's own (``GPTQ``, ``AWQ``, ``NF4``, ``FP8``, ``MXFP4``, ``Q4_K``, ...).
        bits: Bits that tell the values of one block apart, without scales and zero points.
        block: Neighbours along the last axis of the *decoded* tensor that share a scale; 0 where a whole row does.
        exponent: Whether the grid is one of floating-point numbers (fp8, fp4), whose steps grow with the value.
    """

    scheme: str
    bits: int
    block: int
    exponent: bool = False

    def __str__(self) -> str:
        """Return ``scheme:bits``, which is also how ``TensorInfo.dtype`` spells it."""
        return f"{self.scheme}:{self.bits}"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor, after it was checked against the file.

    Attributes:
        name: Name in the checkpoint.
        dtype: safetensors' spelling (``BF16``, ``F8_E4M3``, ``I64``, ...), or ``GGUF:Q4_1``, ``GPTQ:4`` and so on for
            what decodes to float32.
        shape: Lengths of the axes, slowest first, as numpy has them.
        nbytes: Bytes on disk.
        file: File inside the checkpoint that holds it.
        codec: How its values were rounded, where it is quantised.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    codec: Codec | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1

    @property
    def floating(self) -> bool:
        """Whether the tensor holds parameters, as opposed to indices, masks and packed integers."""
        return self.dtype in FLOAT_DTYPES or ":" in self.dtype


class Checkpoint(ABC):
    """Named tensors of one model, wherever they lie.

    Attributes:
        name: Label for people (the folder's or file's name). Never evidence.
        location: Where it was opened from.
        format: ``safetensors``, ``pytorch``, ``gguf`` or ``memory``.
        config: The parsed ``config.json`` (GGUF: its key-value pairs under GGUF's names); empty if there is none.
        notes: What a reader must know about how it was opened, such as which of two sets was chosen.
        tensors: Header of every tensor, by name, in file order.
    """

    name: str
    location: str
    format: str
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]

    @abstractmethod
    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis, in its stored dtype.

        Plain dtypes come memory-mapped and read-only (bf16 and fp8 as ml_dtypes); quantised blocks come decoded to
        float32. Only the bytes asked for are touched.

        Raises:
            KeyError: No tensor of that name.
            CheckpointError: The bytes cannot be read.
        """

    @abstractmethod
    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor, undecoded, for digests."""

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id as the tokenizer file has them, or None where the checkpoint holds none."""

    @cached_property
    def header_digest(self) -> str:
        """SHA-256 over sorted names, dtypes and shapes: the layout, not the values."""
        return canonical.digest(sorted([t.name, t.dtype, list(t.shape)] for t in self.tensors.values()))

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over sorted names, dtypes, shapes and bytes. Sharding and metadata do not enter. Reads everything."""
        rows: list[list[object]] = []
        for name in sorted(self.tensors):
            info = self.tensors[name]
            rows.append([name, info.dtype, list(info.shape), hashlib.sha256(self.raw(name)).hexdigest()])
        return canonical.digest(rows)

    def close(self) -> None:  # noqa: B027 - most readers hold nothing that needs closing
        """Release the files. Arrays already handed out stay valid."""
