"""A checkpoint that lives in memory: what transformations produce and tests start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kinprint.checkpoint.base import Array, Checkpoint, Codec, TensorInfo

_SPELLING = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return safetensors' spelling of a numpy dtype.

    Example:
        >>> dtype_name(np.dtype(np.float32))
        'F32'
    """
    return _SPELLING[dtype.name]


class MemoryCheckpoint(Checkpoint):
    """Tensors given as arrays."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        *,
        config: Mapping[str, Any] | None = None,
        vocabulary: tuple[str, ...] | None = None,
        name: str = "memory",
        codecs: Mapping[str, Codec] | None = None,
    ) -> None:
        """Hold arrays; ``codecs`` says of which the values were rounded, and how."""
        self.name = name
        self.location = f"memory:{name}"
        self.format = "memory"
        self.config = dict(config or {})
        self.notes = ()
        self._arrays = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        self._vocabulary = vocabulary
        self.tensors = {
            key: TensorInfo(key, dtype_name(value.dtype), value.shape, value.nbytes, "memory", (codecs or {}).get(key))
            for key, value in self._arrays.items()
        }

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; see :meth:`Checkpoint.read`."""
        array = self._arrays[name]
        view = array[rows] if rows is not None else array[...]
        view.flags.writeable = False
        return view

    def raw(self, name: str) -> memoryview:
        """Return the bytes of one tensor."""
        return self._arrays[name].reshape(-1).view(np.uint8).data

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id, as given."""
        return self._vocabulary
