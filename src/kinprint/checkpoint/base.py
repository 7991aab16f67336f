"""What every format looks like from above: lazy named tensors, read-only."""

from __future__ import annotations

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kinprint import canonical

Array = np.ndarray[Any, np.dtype[Any]]

Wanted = tuple[str, slice | None]
"""A tensor and the rows of it that will be read, all of them for None."""

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Dtypes (safetensors' spelling) whose stored values are the parameters themselves."""

BLOCK_BYTES = 1 << 25
"""Bytes that a streaming reader holds at once."""

_MOST_HASHED = 4
"""Most tensors whose bytes are hashed at the same time: what is compressed on disk lies in memory whole."""

_WAITING = 1024
"""Most tensors that wait to be hashed."""


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
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether the tensor holds parameters, as opposed to indices, masks and packed integers."""
        return self.dtype in FLOAT_DTYPES or ":" in self.dtype


def sliced(data: memoryview, info: TensorInfo, first: int, last: int) -> memoryview:
    """Return the bytes of some rows of a tensor that lies in C order.

    Example:
        >>> bytes(sliced(memoryview(b"aabbcc"), TensorInfo("w", "U8", (3, 2), 6, "f"), 1, 3))
        b'bbcc'
    """
    row_bytes = len(data) // max(info.shape[0], 1)
    return data[first * row_bytes : last * row_bytes]


class Checkpoint(ABC):
    """Named tensors of one model, wherever they lie.

    Attributes:
        name: Label for people (the folder's or file's name). Never evidence.
        location: Where it was opened from.
        format: ``safetensors``, ``pytorch``, ``gguf`` or ``memory``.
        config: The parsed ``config.json`` (GGUF: its key-value pairs under GGUF's names); empty if there is none.
        notes: What a reader must know about how it was opened, such as which of two sets was chosen.
        tensors: Header of every tensor, by name, in file order.
        revision: Commit that it was read at, where it lies in a repository of the Hub.
        file_digests: SHA-256 of each file of weights as the Hub lists it, which takes no reading; None elsewhere.
    """

    name: str
    location: str
    format: str
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    revision: str | None = None
    file_digests: Mapping[str, str] | None = None

    @abstractmethod
    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis, in its stored dtype.

        Plain dtypes come memory-mapped and read-only (bf16 and fp8 as ml_dtypes); quantised blocks come decoded to
        float32. Only the bytes asked for are touched.

        Raises:
            KeyError: No tensor of that name.
            CheckpointError: The bytes cannot be read.
            NetworkError: They could not be fetched.
        """

    @abstractmethod
    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor, undecoded, for digests."""

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the stored bytes of a range of the first axis; only they are read where the format allows it."""
        return sliced(self.raw(name), self.tensors[name], first, last)

    def read_item(self, name: str, item: int, rows: slice) -> Array:
        """Return some rows of one item of the first axis: of a stacked tensor ``[items, rows, ...]``, ``[rows, ...]``.

        Only they are read where the format allows it; see :meth:`read`.
        """
        return self.read(name, slice(item, item + 1))[0][rows]

    def fetch(self, wanted: Iterable[Wanted]) -> None:  # noqa: B027 - memory has nothing to fetch
        """Bring together what later reads will need: in few requests, many at a time. Nothing where all is at hand.

        Any thread may call it, also while another one reads.

        Args:
            wanted: Tensors, each with its rows or None for all.

        Raises:
            KeyError: No tensor of that name.
            CheckpointError: The bytes cannot be read.
            NetworkError: They could not be fetched; those that were are kept.
        """

    @property
    def bytes_read(self) -> int:
        """How many different bytes of files were handed out so far, headers included."""
        return 0

    @property
    def remote(self) -> bool:
        """Whether its bytes come, or once came, over a network."""
        return self.revision is not None or "://" in self.location

    @property
    def bytes_fetched(self) -> int:
        """How many bytes came over a network so far."""
        return 0

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id as the tokenizer file has them, or None where the checkpoint holds none."""

    @cached_property
    def header_digest(self) -> str:
        """SHA-256 over sorted names, dtypes and shapes: the layout, not the values."""
        stored = (self.tensors[name] for name in sorted(self.tensors))
        return canonical.digest([[info.name, info.dtype, list(info.shape)] for info in stored])

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over sorted names, dtypes, shapes and bytes. Sharding and metadata do not enter. Reads everything."""

        def row(name: str) -> list[object]:
            info = self.tensors[name]
            return [name, info.dtype, list(info.shape), hashlib.sha256(self.raw(name)).hexdigest()]

        names, rows = sorted(self.tensors), list[list[object]]()
        # From a network one after the other: two that lie side by side would each ask for the block that they share.
        most = 1 if self.remote else min(os.cpu_count() or 1, _MOST_HASHED)
        with ThreadPoolExecutor(most, thread_name_prefix="digest") as pool:
            for first in range(0, len(names), _WAITING):  # a header may name a million tensors
                rows += pool.map(row, names[first : first + _WAITING])
        return canonical.digest(rows)

    def close(self) -> None:  # noqa: B027 - most readers hold nothing that needs closing
        """Release the files. Arrays already handed out stay valid."""
