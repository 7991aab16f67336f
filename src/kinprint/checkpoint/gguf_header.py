"""The header of a GGUF file, read with every length checked against the file before it is believed.

``gguf.GGUFReader`` trusts counts, string lengths and dimensions, and keeps two numpy arrays per token; this scanner
reads the same fields in bounded memory. The package is still what decodes the quantised blocks.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Any

from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, checked_shape, fault, shown
from kinprint.checkpoint.local import HEADER_BYTES
from kinprint.checkpoint.source import ByteSource

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_DIMENSIONS = 4
"""ggml's own limit."""

TOKENS_KEY = "tokenizer.ggml.tokens"

KEPT_ITEMS = 1024
"""Longest array that is kept as a setting. Per-layer settings have a few hundred items, token lists many thousands."""

KEPT_BYTES = 1 << 20
"""Longest string that is kept as a setting; chat templates have some ten thousand bytes."""

WINDOW_BYTES = 1 << 16
"""Bytes by which the part of the header that is looked at grows."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9
_SMALLEST_PAIR_BYTES = 8 + 4 + 1
_SMALLEST_TENSOR_BYTES = 8 + 4 + 4 + 8
_KEY = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as the header has it.

    Attributes:
        name: GGUF's name.
        shape: Lengths, slowest axis first (GGUF stores them the other way round).
        type_id: ggml's number of the quantisation.
        offset: First byte, from the start of the tensor data.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the tensor data.

    Attributes:
        settings: Key-value pairs: scalars, text and short arrays. Token lists and the like are left out.
        tensors: In file order.
        data_start: Offset of the tensor data in the file.
        tokens_at: Offset and count of the token strings; None if there are none.
    """

    settings: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int
    tokens_at: tuple[int, int] | None


def read_header(source: ByteSource) -> GgufHeader:
    """Read and check a GGUF header.

    Raises:
        CheckpointError: Another version or byte order, or a count, length or name that the file cannot hold.
    """
    cursor = _Cursor(source)
    if cursor.take(len(MAGIC)) != MAGIC:
        raise fault(source.where, "does not start with GGUF", FETCH_AGAIN)
    version = cursor.number("<I")
    if version not in VERSIONS:
        what = "is big-endian" if version & 0xFFFF == 0 else f"is GGUF version {version}"
        raise fault(source.where, what, "convert it to little-endian GGUF version 3 with llama.cpp")
    tensor_count, pair_count = cursor.number("<Q"), cursor.number("<Q")
    if pair_count * _SMALLEST_PAIR_BYTES + tensor_count * _SMALLEST_TENSOR_BYTES > cursor.left:
        raise fault(
            source.where,
            f"claims {tensor_count} tensors and {pair_count} settings, more than it can hold",
            "the header lies or is damaged: " + FETCH_AGAIN,
        )
    settings: dict[str, Any] = {}
    seen: set[str] = set()
    tokens_at: tuple[int, int] | None = None
    for _ in range(pair_count):
        key = cursor.key()
        if key in seen:
            raise fault(source.where, f"holds the setting {shown(key)} twice", "damaged: " + FETCH_AGAIN)
        seen.add(key)
        value, place = cursor.value()
        if value is not None:
            settings[key] = value
        if key == TOKENS_KEY:
            tokens_at = place
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    alignment = settings.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise fault(source.where, f"has an impossible alignment ({shown(alignment)})", "damaged: " + FETCH_AGAIN)
    return GgufHeader(settings, tensors, -(-cursor.position // alignment) * alignment, tokens_at)


def read_tokens(source: ByteSource, place: tuple[int, int]) -> tuple[str, ...]:
    """Return the token strings at a place that :func:`read_header` found.

    Bytes that are not UTF-8 are written as escapes, so that different tokens stay different.
    """
    cursor = _Cursor(source)
    cursor.position = place[0]
    return tuple(cursor.string().decode("utf-8", "backslashreplace") for _ in range(place[1]))


class _Cursor:
    """A position in the header. Every read is checked against the end of the header's longest believable extent."""

    def __init__(self, source: ByteSource) -> None:
        self.where = source.where
        self._source = source
        self._end = min(source.size, HEADER_BYTES)
        self.data = memoryview(b"")
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that remain."""
        return self._end - self.position

    def look(self, position: int) -> None:
        """Have ``data`` reach up to a position, and a little further."""
        if position > len(self.data):
            end = min(position + WINDOW_BYTES, self._end)
            self.data = self._source.view(0, end)

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self.skip(count)
        return bytes(self.data[self.position - count : self.position])

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        if count > self.left:
            raise fault(
                self.where,
                f"has a header that needs {shown(count)} bytes where {self.left} are left",
                "truncated or lying: " + FETCH_AGAIN,
            )
        self.position += count
        self.look(self.position)

    def number(self, code: str) -> Any:  # noqa: ANN401 - int, float or bool, as the code says
        """Return one scalar."""
        self.skip(struct.calcsize(code))
        return struct.unpack_from(code, self.data, self.position - struct.calcsize(code))[0]

    def string(self) -> bytes:
        """Return a length and that many bytes."""
        return self.take(self.number("<Q"))

    def key(self) -> str:
        """Return the name of a setting."""
        text = self.string().decode("utf-8", "replace")
        if _KEY.fullmatch(text) is None:
            raise fault(self.where, f"holds a setting with a bad name ({shown(text)})", "damaged: " + FETCH_AGAIN)
        return text

    def value(self) -> tuple[Any, tuple[int, int] | None]:
        """Read a value; return it if it is short (else None), and where its strings lie if it is an array of them."""
        kind = self.number("<I")
        if kind in _SCALARS:
            return _finite(self.number(_SCALARS[kind])), None
        if kind == _STRING:
            start, text = self.position, self.string()
            return (text.decode("utf-8", "replace") if self.position - start <= KEPT_BYTES else None), None
        if kind == _ARRAY:
            return self.array()
        raise fault(self.where, f"holds a setting of unknown type {shown(kind)}", "damaged: " + FETCH_AGAIN)

    def array(self) -> tuple[list[Any] | None, tuple[int, int] | None]:
        """Read an array; see :meth:`value`. Arrays of arrays, which no converter writes, are refused."""
        kind, count = self.number("<I"), self.number("<Q")
        start = self.position
        if kind in _SCALARS:
            code = _SCALARS[kind]
            self.skip(count * struct.calcsize(code))
            if count > KEPT_ITEMS:
                return None, None
            numbers = struct.iter_unpack(code, self.data[start : self.position])
            return [_finite(number) for (number,) in numbers], None
        if kind != _STRING:
            raise fault(self.where, f"holds an array of type {shown(kind)}", "damaged: " + FETCH_AGAIN)
        if count <= KEPT_ITEMS:
            texts = [self.string().decode("utf-8", "backslashreplace") for _ in range(count)]
            return (texts if self.position - start <= KEPT_BYTES else None), (start, count)
        self.skip_strings(count)
        return None, (start, count)

    def skip_strings(self, count: int) -> None:
        """Pass over strings. A plain loop, for there are hundreds of thousands of tokens and merges."""
        unpack, data, position, end = struct.Struct("<Q").unpack_from, self.data, self.position, len(self.data) - 8
        for _ in range(count):
            if position > end:
                if position > self._end - 8:
                    break
                self.look(position + 8)
                data, end = self.data, len(self.data) - 8
            position += 8 + unpack(data, position)[0]
        else:
            self.skip(position - self.position)
            return
        raise fault(self.where, f"claims {count} strings and ends before them", "truncated or lying: " + FETCH_AGAIN)


def _finite(number: Any) -> Any:  # noqa: ANN401 - int, float or bool, as stored
    """Return a number, or None for NaN and infinities: no setting means anything by them."""
    return number if not isinstance(number, float) or math.isfinite(number) else None


def _tensor(cursor: _Cursor) -> GgufTensor:
    """Read one entry of the tensor table."""
    name = checked_name(cursor.string().decode("utf-8", "replace"), cursor.where)
    dimensions = cursor.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise fault(cursor.where, f"tensor {shown(name)} has {dimensions} axes", "damaged: " + FETCH_AGAIN)
    lengths = [cursor.number("<Q") for _ in range(dimensions)]
    type_id, offset = cursor.number("<I"), cursor.number("<Q")
    return GgufTensor(name, checked_shape(lengths[::-1], cursor.where, name), type_id, offset)
