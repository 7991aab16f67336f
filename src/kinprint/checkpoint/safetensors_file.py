"""The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.

The header is checked as the reference implementation checks it: sizes follow from dtype and shape, and the tensors
cover the rest of the file exactly, so that nothing overlaps, nothing is missing and nothing is hidden. In one thing
this reader knows more: a dtype that is new to it is listed, and only its values are refused.

Source: https://github.com/huggingface/safetensors (README, "Format"; ``Metadata::validate`` in the Rust library).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, checked_shape, fault, natural, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.jsonfile import parse_object
from kinprint.checkpoint.local import HEADER_BYTES
from kinprint.checkpoint.parts import Part, enclosing, take
from kinprint.checkpoint.source import ByteSource

LENGTH_BYTES = 8
"""Bytes of the header's length, which every file starts with."""

METADATA_KEY = "__metadata__"
"""The one header entry that is no tensor."""


class SafetensorsFile(Part):
    """One safetensors file, memory-mapped.

    Attributes:
        metadata: The free text of the header.
    """

    format = "safetensors"

    def __init__(self, source: ByteSource) -> None:
        """Read and check the header.

        Raises:
            CheckpointError: The header is cut off, malformed, or contradicts the file.
        """
        self.source = source
        header, self._data_start = _header(source)
        spans = {
            checked_name(name, source.where): _entry(source, name, value, source.size - self._data_start)
            for name, value in header.items()
            if name != METADATA_KEY
        }
        self.metadata = _metadata(source, header.get(METADATA_KEY))
        self._begin: dict[str, int] = {}
        self.tensors: Mapping[str, TensorInfo] = {}
        for name, (begin, info) in sorted(spans.items(), key=lambda item: (item[1][0], item[1][0] + item[1][1].nbytes)):
            self._begin[name] = begin
            self.tensors[name] = info
        _check_cover(source, self._begin, self.tensors, source.size - self._data_start)

    def read(self, name: str, rows: slice | None) -> Array:
        """View one tensor, or its rows, in the map."""
        info = self.tensors[name]
        if rows is None or not info.shape:
            return take(dtypes.array(self.raw(name), info.dtype, info.shape, self.source.where, name), rows)
        first, last, step = enclosing(rows, info.shape[0])
        shape = (last - first, *info.shape[1:])
        return dtypes.array(self.raw_rows(name, first, last), info.dtype, shape, self.source.where, name)[::step]

    def read_item(self, name: str, item: int, rows: slice) -> Array:
        """View some rows of one item of the first axis in the map."""
        info = self.tensors[name]
        first, last, step = enclosing(rows, info.shape[1])
        row_bytes = info.nbytes // max(info.shape[0] * info.shape[1], 1)
        start = self._span(name, slice(item, item + 1))[0] + first * row_bytes
        shape = (last - first, *info.shape[2:])
        data = self.source.view(start, (last - first) * row_bytes)
        return dtypes.array(data, info.dtype, shape, self.source.where, name)[::step]

    def raw(self, name: str) -> memoryview:
        """Return the tensor's bytes in the map."""
        start, end = self._span(name, None)
        return self.source.view(start, end - start)

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows in the map."""
        start, end = self._span(name, slice(first, last))
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the one range that holds the rows."""
        yield self.source, self._span(name, rows)

    def _span(self, name: str, rows: slice | None) -> Range:
        """Return where a tensor, or the smallest range that holds some rows of it, lies in the file."""
        info, start = self.tensors[name], self._data_start + self._begin[name]
        if rows is None or not info.shape:
            return start, start + info.nbytes
        first, last, _ = enclosing(rows, info.shape[0])
        row_bytes = info.nbytes // max(info.shape[0], 1)
        return start + first * row_bytes, start + last * row_bytes


def _header(source: ByteSource) -> tuple[dict[str, Any], int]:
    """Return the parsed header and the offset of the first tensor byte."""
    if source.size < LENGTH_BYTES:
        raise fault(source.where, f"has {source.size} bytes, too few for a safetensors file", FETCH_AGAIN)
    length = int.from_bytes(source.view(0, LENGTH_BYTES), "little")
    if length > HEADER_BYTES:
        raise fault(
            source.where,
            f"claims a safetensors header of {length} bytes",
            "this is no safetensors file: " + FETCH_AGAIN,
        )
    if LENGTH_BYTES + length > source.size:
        raise fault(
            source.where,
            f"claims a safetensors header of {length} bytes in a file of {source.size}",
            "truncated: " + FETCH_AGAIN,
        )
    source.fetch([(LENGTH_BYTES, LENGTH_BYTES + length)])
    text = bytes(source.view(LENGTH_BYTES, length))
    if text[:1] != b"{":
        raise fault(source.where, "has a safetensors header that does not start with {", FETCH_AGAIN)
    return parse_object(text, source.where, unique=True), LENGTH_BYTES + length


def _metadata(source: ByteSource, metadata: object) -> Mapping[str, str]:
    """Return the header's metadata; refuse what is not a flat map of text to text."""
    if metadata is None:
        return {}
    values = list(cast("dict[str, object]", metadata).values()) if isinstance(metadata, dict) else [None]
    if not all(isinstance(value, str) for value in values):
        raise fault(source.where, f"has a {METADATA_KEY} that is no map of text to text", FETCH_AGAIN)
    return cast("dict[str, str]", metadata)


def _entry(source: ByteSource, name: str, value: object, data_bytes: int) -> tuple[int, TensorInfo]:
    """Check one entry of the header; return where the tensor begins after the header, and what it is."""
    where = source.where
    if not isinstance(value, dict):
        raise fault(where, f"the header entry of {shown(name)} is no object", FETCH_AGAIN)
    entry = cast("dict[str, object]", value)
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or (dtype not in dtypes.READABLE and not dtypes.is_spelling(dtype)):
        raise fault(where, f"tensor {shown(name)} has no believable dtype ({shown(dtype)})", FETCH_AGAIN)
    shape = checked_shape(entry.get("shape"), where, name)
    offsets = entry.get("data_offsets")
    begin, end = cast("list[object]", offsets) if isinstance(offsets, list) and len(offsets) == 2 else (None, None)  # pyright: ignore[reportUnknownArgumentType]
    if not natural(begin) or not natural(end) or begin > end:
        raise fault(where, f"tensor {shown(name)} has no believable data_offsets", FETCH_AGAIN)
    if end > data_bytes:
        raise fault(
            where,
            f"tensor {shown(name)} ends {shown(end - data_bytes)} bytes past the end of the file",
            "truncated or lying header: " + FETCH_AGAIN,
        )
    bits = dtypes.bits(dtype)
    if bits is not None:
        elements = 1
        for length in shape:
            elements *= length
        if elements * bits != 8 * (end - begin):
            raise fault(
                where,
                f"tensor {shown(name)} has {end - begin} bytes, but {dtype} of shape {list(shape)} "
                f"needs {-(-elements * bits // 8)}",
                "the header lies or is damaged: " + FETCH_AGAIN,
            )
    return begin, TensorInfo(name, dtype, shape, end - begin, source.name)


def _check_cover(
    source: ByteSource, begin: Mapping[str, int], tensors: Mapping[str, TensorInfo], data_bytes: int
) -> None:
    """Refuse tensors, sorted by offset, that overlap or leave bytes of the file unclaimed."""
    position = 0
    for name, info in tensors.items():
        if begin[name] != position:
            what = "overlaps the tensor before it" if begin[name] < position else "leaves a gap before it"
            raise fault(source.where, f"tensor {shown(name)} {what}", "the header lies or is damaged: " + FETCH_AGAIN)
        position += info.nbytes
    if position != data_bytes:
        raise fault(
            source.where,
            f"{data_bytes - position} bytes after the last tensor belong to none",
            "the header lies or is damaged: " + FETCH_AGAIN,
        )
