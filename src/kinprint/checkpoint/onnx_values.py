"""The values of ONNX initialisers: inside the graph, or in files beside it that are mapped.

External data is believed only if it lies in the graph's own folder: a name with a path in it, or a link that leads
elsewhere than the graph's own file does, is refused.

Source: onnx/onnx.proto (``TensorProto``); onnx/docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_shape, fault, shown
from kinprint.checkpoint.folder import plain_name
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.parts import bytes_of, enclosing, take
from kinprint.checkpoint.source import ByteSource, Files

if TYPE_CHECKING:
    from onnx import TensorProto

DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
    12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2",
}  # fmt: skip
"""``TensorProto.DataType`` under safetensors' spelling; what is not here (text, complex, 4 bits) is not read."""

EXTERNAL = 1
"""``TensorProto.DataLocation.EXTERNAL``."""


class StoredValues:
    """The initialisers of one graph, by name."""

    def __init__(self, initialisers: Mapping[str, TensorProto], source: ByteSource, files: Files) -> None:
        self._initialisers = initialisers
        self._source = source
        self._files = files
        self._outside: dict[str, ByteSource] = {}
        self._infos: dict[str, TensorInfo] = {}

    def info(self, name: str) -> TensorInfo:
        """Return what one initialiser is, checked against its bytes.

        Raises:
            CheckpointError: Its dtype is not read, or its bytes do not fit its shape or do not lie where they may.
        """
        known = self._infos.get(name)
        if known is not None:
            return known
        tensor = self._initialisers[name]
        dtype = DTYPES.get(tensor.data_type)
        if dtype is None:
            raise fault(
                self._source.where,
                f"weight {shown(name)} has ONNX's data type {tensor.data_type}, which is not read",
                "export the model in float32, float16 or bfloat16",
            )
        shape = checked_shape(list(tensor.dims), self._source.where, name)
        elements = int(np.prod(shape, dtype=object))
        nbytes = elements * dtypes.READABLE[dtype].itemsize
        external = tensor.data_location == EXTERNAL
        stored = self._external(name, nbytes)[2] if external else _inline_bytes(tensor, dtype)
        if stored != nbytes:
            raise fault(
                self._source.where,
                f"weight {shown(name)} has {stored} bytes, but {dtype} of shape {list(shape)} needs {nbytes}",
                "the graph lies or is damaged: " + FETCH_AGAIN,
            )
        file = self._external(name, nbytes)[0].name if external else self._source.name
        self._infos[name] = TensorInfo(name, dtype, shape, nbytes, file)
        return self._infos[name]

    def array(self, name: str, rows: slice | None = None) -> Array:
        """Return one initialiser as stored, or some rows of it, read-only."""
        info, tensor = self.info(name), self._initialisers[name]
        if tensor.data_location == EXTERNAL:
            ((file, (start, end)),) = self.spans(name, rows)
            data = file.view(start, end - start)
            if rows is not None and info.shape:
                first, last, step = enclosing(rows, info.shape[0])
                return dtypes.array(data, info.dtype, (last - first, *info.shape[1:]), file.where, name)[::step]
        elif tensor.raw_data or not info.size:
            data = memoryview(tensor.raw_data)
        else:
            field, kind = _typed_field(info.dtype)
            values = np.array(getattr(tensor, field))
            # Bits of a half are stored in integers of 32 bits; what lies beyond them is cut off, as onnx does.
            data = bytes_of(values.astype(kind)).toreadonly()
        return take(dtypes.array(data, info.dtype, info.shape, self._source.where, name), rows)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield where an initialiser, or the rows of it, lies outside of the graph; nothing if it lies inside."""
        info = self.info(name)
        if self._initialisers[name].data_location != EXTERNAL:
            return
        file, offset, length = self._external(name, info.nbytes)
        if rows is None or not info.shape:
            yield file, (offset, offset + length)
            return
        first, last, _ = enclosing(rows, info.shape[0])
        row_bytes = length // max(info.shape[0], 1)
        yield file, (offset + first * row_bytes, offset + last * row_bytes)

    def _external(self, name: str, needed: int) -> tuple[ByteSource, int, int]:
        """Return the file, the offset and the length of an initialiser outside the graph."""
        entries = {entry.key: entry.value for entry in self._initialisers[name].external_data}
        location = entries.get("location", "")
        file = self._outside.get(location)
        if file is None:
            if not plain_name(location) or not self._files.inside(location, self._source):
                raise fault(
                    self._source.where,
                    f"keeps {shown(name)} in {shown(location)}, which is no file in its folder",
                    "do not trust this model: fetch it from its publisher",
                )
            if not self._files.has(location):
                raise fault(self._source.where, f"needs {location}, which is missing", "fetch the missing file")
            file = self._outside[location] = self._files.source(location)
        numbers = [entries.get("offset", "0"), entries.get("length", str(needed))]
        if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
            raise fault(self._source.where, f"places {shown(name)} at no believable offset", FETCH_AGAIN)
        offset, length = (int(number) for number in numbers)
        file.check(offset, length)
        return file, offset, length


def _typed_field(dtype: str) -> tuple[str, type[np.generic]]:
    """Return which of a tensor's typed fields holds its values, and as what."""
    fields: dict[str, tuple[str, type[np.generic]]] = {
        "F32": ("float_data", np.float32),
        "F64": ("double_data", np.float64),
        "I64": ("int64_data", np.int64),
        "U32": ("uint64_data", np.uint32),
        "U64": ("uint64_data", np.uint64),
        "I32": ("int32_data", np.int32),
        "I16": ("int32_data", np.int16),
        "U16": ("int32_data", np.uint16),
        "I8": ("int32_data", np.int8),
    }
    # Halves lie in integers as their bits, and what has 8 bits likewise.
    bits = np.uint16 if dtype in {"F16", "BF16"} else np.uint8
    return fields.get(dtype, ("int32_data", bits))


def _inline_bytes(tensor: TensorProto, dtype: str) -> int:
    """Return how many bytes of values the graph itself holds for a tensor."""
    field, kind = _typed_field(dtype)
    return len(tensor.raw_data) or len(getattr(tensor, field)) * np.dtype(kind).itemsize
