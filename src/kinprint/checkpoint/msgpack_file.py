"""Flax's ``flax_model.msgpack``: nested maps whose leaves are arrays. The file is walked in place and mapped.

Only what Flax writes is read, with a small reader of its own: the ``msgpack`` package would copy every weight, and no
dependency is needed. Maps with text keys become dotted names; an array is extension type 1, holding (shape, dtype name,
bytes); arrays over 1 GB come as chunks in a map of their own.

Names become torch's, as transformers' own conversion makes them: ``kernel`` -> ``weight`` with axes [in, out] turned to
[out, in] (and [height, width, in, out] to [out, in, height, width]) as a strided view, ``embedding`` and ``scale`` ->
``weight``. Kernels of other ranks keep their name and axes.

Source: flax/serialization.py (``_ndarray_to_bytes``, ``_chunk``); the MessagePack specification;
transformers/modeling_flax_pytorch_utils.py (``rename_key_and_reshape_tensor``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, checked_shape, fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.parts import Part, bytes_of, enclosing, take
from kinprint.checkpoint.source import ByteSource

MAX_DEPTH = 32
"""Deepest nesting that is followed; models nest about ten deep."""

MAX_VALUES = 2_000_000
"""Most values that one file may hold."""

NDARRAY = 1
CHUNKED = "__msgpack_chunked_array__"

_RENAMED = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
_TURNED = {2: (1, 0), 4: (3, 2, 0, 1)}
_BY_NAME = {dtype.name: spelling for spelling, dtype in dtypes.READABLE.items()}


@dataclass(frozen=True, slots=True)
class _Ndarray:
    """An array as the file holds it: spans of elements in C order."""

    dtype: str
    shape: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class MsgpackFile(Part):
    """One file that ``flax.serialization.to_bytes`` wrote."""

    format = "msgpack"

    def __init__(self, source: ByteSource) -> None:
        """Walk the file and check every array against its bytes.

        Raises:
            CheckpointError: The file is damaged, nested too deeply, or holds no arrays.
        """
        self.source = source
        reader = _Reader(source)
        root = reader.value(0)
        if reader.position != source.size or not isinstance(root, dict):
            raise fault(
                source.where, "is no msgpack map, or has bytes after it", "truncated or damaged: " + FETCH_AGAIN
            )
        tree = cast("dict[str, object]", root)
        inside = tree.get("params")
        self._arrays: dict[str, tuple[_Ndarray, tuple[int, ...] | None]] = {}
        self.tensors: Mapping[str, TensorInfo] = {}
        self._add(cast("dict[str, object]", inside) if isinstance(inside, dict) else tree, ())
        if not self.tensors:
            raise fault(source.where, "holds no arrays", "give the file with the model's weights")
        notes = [f"{source.name}: Flax's names were turned into torch's, and kernels to [out, in]"]
        if isinstance(inside, dict) and len(tree) > 1:
            notes.append(f"{source.name}: the arrays are those under params; the rest was left out")
        self.notes = tuple(notes)

    def read(self, name: str, rows: slice | None) -> Array:
        """View one array in the map, a kernel turned around."""
        stored, turn = self._arrays[name]
        if rows is not None and self._by_rows(name):
            first, last, step = enclosing(rows, stored.shape[0])
            shape = (last - first, *stored.shape[1:])
            return dtypes.array(self.raw_rows(name, first, last), stored.dtype, shape, self.source.where, name)[::step]
        whole = dtypes.array(self._stored(stored), stored.dtype, stored.shape, self.source.where, name)
        return take(whole if turn is None else whole.transpose(turn), rows)

    def raw(self, name: str) -> memoryview:
        """Return the array's bytes, in C order of the axes that ``read`` gives."""
        stored, turn = self._arrays[name]
        return self._stored(stored) if turn is None else bytes_of(self.read(name, None))

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows, in the map where they lie together."""
        if not self._by_rows(name):
            return super().raw_rows(name, first, last)
        ((_, (start, end)),) = self.spans(name, slice(first, last))
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the one range that holds the rows, or all of the array."""
        stored, _ = self._arrays[name]
        if rows is None or not self._by_rows(name):
            for start, length in stored.spans:
                yield self.source, (start, start + length)
            return
        ((start, length),) = stored.spans
        first, last, _ = enclosing(rows, stored.shape[0])
        row_bytes = length // max(stored.shape[0], 1)
        yield self.source, (start + first * row_bytes, start + last * row_bytes)

    def _by_rows(self, name: str) -> bool:
        """Tell whether the rows that ``read`` gives lie one after the other."""
        stored, turn = self._arrays[name]
        return turn is None and len(stored.spans) == 1 and bool(stored.shape)

    def _stored(self, stored: _Ndarray) -> memoryview:
        """Return an array's bytes as they lie; chunks are joined in a copy."""
        if len(stored.spans) == 1:
            return self.source.view(*stored.spans[0])
        return memoryview(b"".join(self.source.view(*span) for span in stored.spans))

    def _add(self, tree: Mapping[str, object], path: tuple[str, ...]) -> None:
        """Add the arrays below one map."""
        for key, value in tree.items():
            here = (*path, key)
            if isinstance(value, dict):
                below = cast("dict[str, object]", value)
                if CHUNKED not in below:
                    self._add(below, here)
                    continue
                value = _joined(below, self.source.where, here)
            if not isinstance(value, _Ndarray):
                continue
            turn = _TURNED.get(len(value.shape)) if key == "kernel" else None
            name = checked_name(_torch_name(here, len(value.shape)), self.source.where)
            if name in self.tensors:
                raise fault(self.source.where, f"holds two arrays for the name {shown(name)}", FETCH_AGAIN)
            shape = value.shape if turn is None else tuple(value.shape[axis] for axis in turn)
            nbytes = sum(length for _, length in value.spans)
            cast("dict[str, TensorInfo]", self.tensors)[name] = TensorInfo(
                name, value.dtype, shape, nbytes, self.source.name
            )
            self._arrays[name] = value, turn


def index_name(key: str) -> tuple[str, ...]:
    """Return the names that a tensor of a shard's index, ``model/layers/0/kernel``, may have here."""
    path = tuple(key.removeprefix("params/").split("/"))
    return tuple(dict.fromkeys(_torch_name(path, rank) for rank in (2, 1)))


def _torch_name(path: Sequence[str], rank: int) -> str:
    """Return torch's name for one leaf."""
    leaf = path[-1]
    renamed = _RENAMED.get(leaf, leaf) if leaf != "kernel" or rank in _TURNED else leaf
    return ".".join((*path[:-1], renamed))


def _joined(chunked: Mapping[str, object], where: str, path: Sequence[str]) -> _Ndarray:
    """Return one array from the map that its chunks lie in."""
    chunks, lengths = chunked.get("chunks"), chunked.get("shape")
    parts, sizes = _in_order(chunks), _in_order(lengths)
    arrays = [part for part in parts if isinstance(part, _Ndarray) and len(part.spans) == 1]
    name = ".".join(path)
    shape = checked_shape(sizes, where, name)
    elements = sum(array.spans[0][1] for array in arrays)
    same = len({array.dtype for array in arrays}) == 1 and len(arrays) == len(parts)
    if not same or elements != _nbytes(arrays[0].dtype, shape):
        raise fault(where, f"array {shown(name)} does not fit its chunks", "damaged: " + FETCH_AGAIN)
    return _Ndarray(arrays[0].dtype, shape, tuple(array.spans[0] for array in arrays))


def _in_order(numbered: object) -> list[object]:
    """Return the values of a map whose keys count from 0, as Flax writes tuples."""
    entries = cast("dict[str, object]", numbered) if isinstance(numbered, dict) else {}
    return [entries[str(place)] for place in range(len(entries)) if str(place) in entries]


def _nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of an array."""
    elements = int(np.prod(shape, dtype=object)) if shape else 1
    return elements * dtypes.READABLE[dtype].itemsize


class _Reader:
    """Walks msgpack values. What is no map, number, text or array becomes None."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.position = 0
        self._left = MAX_VALUES

    def value(self, depth: int) -> object:
        """Return the value at the position: a dict, an :class:`_Ndarray`, an integer, text, or None."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise self._wrong("is nested too deeply or holds too many values")
        kind = self._number(1)
        if kind < 0x80 or kind >= 0xE0:
            return kind if kind < 0x80 else kind - 0x100
        if kind in {0xDE, 0xDF} or kind < 0x90:
            return self._map(kind & 0x0F if kind < 0x90 else self._number(2 << (kind - 0xDE)), depth)
        if kind in {0xDC, 0xDD} or kind < 0xA0:
            for _ in range(kind & 0x0F if kind < 0xA0 else self._number(2 << (kind - 0xDC))):
                self.value(depth + 1)
            return None
        if kind in {0xD9, 0xDA, 0xDB} or kind < 0xC0:
            return self._text(kind & 0x1F if kind < 0xC0 else self._number(1 << (kind - 0xD9)))
        if 0xCC <= kind <= 0xD3:
            return self._number(1 << (kind - 0xCC) % 4, signed=kind >= 0xD0)
        if 0xC7 <= kind <= 0xC9 or 0xD4 <= kind <= 0xD8:
            return self._extension(1 << (kind - 0xD4) if kind >= 0xD4 else self._number(1 << (kind - 0xC7)))
        return self._other(kind)

    def _other(self, kind: int) -> object:
        """Step over nil, booleans, floats and bytes."""
        if kind in {0xC0, 0xC2, 0xC3}:
            return None
        if kind in {0xCA, 0xCB}:
            self._skip(4 << (kind - 0xCA))
        elif 0xC4 <= kind <= 0xC6:
            self._skip(self._number(1 << (kind - 0xC4)))
        else:
            raise self._wrong("holds a byte that starts no value")
        return None

    def _map(self, count: int, depth: int) -> dict[str, object]:
        """Return a map of text to values."""
        found: dict[str, object] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise self._wrong(f"holds the key {shown(key)}, which is no text or comes twice")
            found[key] = self.value(depth + 1)
        return found

    def _extension(self, length: int) -> _Ndarray | None:
        """Return the array in an extension value; None for complex numbers and scalars."""
        kind = self._number(1)
        end = self.position + length
        if kind != NDARRAY:
            self._skip(length)
            return None
        if self._number(1) != 0x93:
            raise self._wrong("holds an array that Flax did not write")
        count = self._number(1)
        lengths = [self.value(MAX_DEPTH) for _ in range(count & 0x0F)] if 0x90 <= count < 0xA0 else None
        name = self.value(MAX_DEPTH)
        dtype = _BY_NAME.get(name) if isinstance(name, str) else None
        shape = checked_shape(lengths, self._source.where, f"at byte {self.position}")
        width = self._number(1) - 0xC4
        if dtype is None or width not in {0, 1, 2}:
            raise self._wrong(f"holds an array of dtype {shown(name)}, which is not read")
        size = self._number(1 << width)
        start = self.position
        self._skip(size)
        if self.position != end or size != _nbytes(dtype, shape):
            raise self._wrong(f"holds an array of {size} bytes that does not fit its shape {list(shape)}")
        return _Ndarray(dtype, shape, ((start, size),))

    def _text(self, length: int) -> str:
        """Return UTF-8 text."""
        try:
            return str(self._take(length), "utf-8")
        except ValueError as error:
            raise self._wrong("holds text that is no UTF-8") from error

    def _number(self, width: int, *, signed: bool = False) -> int:
        """Return a big-endian integer."""
        return int.from_bytes(self._take(width), "big", signed=signed)

    def _take(self, length: int) -> memoryview:
        """Step over bytes and return them."""
        view = self._source.view(self.position, length)
        self.position += length
        return view

    def _skip(self, length: int) -> None:
        """Step over bytes that must be there, unread."""
        self._source.check(self.position, length)
        self.position += length

    def _wrong(self, what: str) -> Exception:
        """Return the error for a malformed file."""
        return fault(self._source.where, f"{what} (byte {self.position})", "damaged: " + FETCH_AGAIN)
