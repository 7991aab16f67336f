"""Files that ``torch.save`` wrote: the zip format (since torch 1.6) and the older one. Nothing in them is executed.

A zip holds ``<top>/data.pkl`` and, stored without compression, the elements of each storage in ``<top>/data/<key>``.
The older format is five pickles (magic number, protocol, byte order, the object, the storages' keys) and then, for each
key, a count of elements and the elements. Both can be mapped.

Source: torch/serialization.py, ``_save`` and ``_legacy_save``.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.parts import Part, bytes_of, enclosing, take
from kinprint.checkpoint.pickled import PICKLE_BYTES, Storage, TensorRef, load
from kinprint.checkpoint.source import ByteSource
from kinprint.checkpoint.stream import Stream, local_headers

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
"""The pickle of 0x1950a86a20f9469cfc6c, which starts every file of the older format."""

LEGACY_PROTOCOL = 1001

NESTING = 4
"""How deep a state dict may lie inside the dicts of a training checkpoint."""

_RESAVE = "save its state_dict with torch.save, or as safetensors"


class PytorchFile(Part):
    """One file of ``torch.save``."""

    format = "pytorch"

    def __init__(self, source: ByteSource) -> None:
        """Read the pickle and check every tensor against the bytes that are there.

        Raises:
            CheckpointError: The file is damaged, asks for code, or holds no dict of tensors.
        """
        self.source = source
        zipped = bytes(source.view(0, min(source.size, len(ZIP_MAGIC)))) == ZIP_MAGIC
        root, self._storage_start = _read_zip(source) if zipped else _read_legacy(source)
        path, found, ignored = _state_dict(root, source.where)
        self._refs = {checked_name(name, source.where): ref for name, ref in found.items()}
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(name, ref.dtype, ref.shape, _nbytes(ref), source.name) for name, ref in self._refs.items()
        }
        notes: list[str] = []
        if path:
            notes.append(f"{source.name}: the tensors are those under {'.'.join(path)}")
        if ignored:
            notes.append(f"{source.name}: {ignored} other entries are no tensors of the model and were left out")
        self.notes = tuple(notes)
        for ref in self._refs.values():
            start, end = self._span(ref, None)
            source.check(start, end - start)

    def read(self, name: str, rows: slice | None) -> Array:
        """View one tensor, or its rows, in the map, strided if it was saved so."""
        ref = self._refs[name]
        itemsize = (dtypes.bits(ref.dtype) or 8) // 8
        strides = tuple(step * itemsize for step in ref.strides)
        start, end = self._span(ref, rows)
        data = self.source.view(start, end - start)
        if rows is None or not ref.shape:
            whole = dtypes.array(data, ref.dtype, ref.shape, self.source.where, name, strides=strides)
            return take(whole, rows)
        first, last, step = enclosing(rows, ref.shape[0])
        shape = (last - first, *ref.shape[1:])
        return dtypes.array(data, ref.dtype, shape, self.source.where, name, strides=strides)[::step]

    def raw(self, name: str) -> memoryview:
        """Return the tensor's bytes: in the map, or a copy in C order of a tensor that was saved strided."""
        ref = self._refs[name]
        if _contiguous(ref) or ref.dtype not in dtypes.READABLE:
            start, end = self._span(ref, None)
            return self.source.view(start, end - start)
        return bytes_of(self.read(name, None))

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows, in the map where they lie in C order."""
        ref = self._refs[name]
        if not _contiguous(ref):
            return super().raw_rows(name, first, last)
        start, end = self._span(ref, slice(first, last))
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the range from the first element of the rows to the last."""
        yield self.source, self._span(self._refs[name], rows)

    def _span(self, ref: TensorRef, rows: slice | None) -> Range:
        """Return where the first element of a tensor or of some rows begins, and where the last one ends."""
        itemsize = (dtypes.bits(ref.dtype) or 8) // 8
        first, last, _ = enclosing(rows, ref.shape[0]) if ref.shape else (0, 1, 1)
        shape = (last - first, *ref.shape[1:]) if ref.shape else ()
        if 0 in shape:
            return 0, 0
        storage_itemsize = (dtypes.bits(ref.storage.dtype) or 8) // 8
        start = self._storage_start[ref.storage.key] + ref.storage.start * storage_itemsize + ref.offset * itemsize
        start += first * ref.strides[0] * itemsize if ref.shape else 0
        beyond = sum((length - 1) * step for length, step in zip(shape, ref.strides, strict=True))
        return start, start + (beyond + 1) * itemsize


def _nbytes(ref: TensorRef) -> int:
    """Return the bytes of a tensor's elements."""
    count = 1
    for length in ref.shape:
        count *= length
    return count * (dtypes.bits(ref.dtype) or 8) // 8


def _contiguous(ref: TensorRef) -> bool:
    """Tell whether a tensor's elements lie in C order without gaps."""
    expected = 1
    for length, step in zip(reversed(ref.shape), reversed(ref.strides), strict=True):
        if length > 1 and step != expected:
            return False
        expected *= length
    return True


# -- which dict is the model ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A dict that holds tensors, and how it was reached."""

    path: tuple[str, ...]
    tensors: dict[str, TensorRef]
    others: int

    @property
    def elements(self) -> int:
        """Bytes in its tensors, which is what the largest is chosen by."""
        return sum(_nbytes(ref) for ref in self.tensors.values())


def _state_dict(root: object, where: str) -> tuple[tuple[str, ...], dict[str, TensorRef], int]:
    """Find the dict that directly holds the most bytes of tensors; of equals, the one that comes first.

    Optimizers keep a dict for each parameter, so their dicts are small ones.

    Returns:
        The keys that lead to it, its tensors, and how many other entries lie in it and beside the way to it.
    """
    candidates: list[_Candidate] = []
    seen: set[int] = set()
    level: list[tuple[tuple[str, ...], object, int]] = [((), root, 0)]
    for _ in range(NESTING):
        below: list[tuple[tuple[str, ...], object, int]] = []
        for path, value, beside in level:
            entries = _entries_of(value)
            if id(value) in seen:
                continue
            seen.add(id(value))
            tensors = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, TensorRef)}
            if tensors:
                candidates.append(_Candidate(path, tensors, beside + len(entries) - len(tensors)))
            # Values that are no dicts have no entries, so there is no need to tell them apart here.
            below.extend(((*path, k), v, beside + len(entries) - 1) for k, v in entries.items() if isinstance(k, str))
        level = below
    if not candidates:
        raise fault(where, "holds no dict of named tensors", _RESAVE)
    best = max(candidates, key=lambda candidate: candidate.elements)
    return best.path, best.tensors, best.others


def _entries_of(value: object) -> dict[object, object]:
    """Return a dict's entries; none for anything else."""
    return cast("dict[object, object]", value) if isinstance(value, dict) else {}


# -- the zip format ---------------------------------------------------------------------------------------------------


def _read_zip(source: ByteSource) -> tuple[object, dict[str, int]]:
    """Return the unpickled object and where each storage starts in the file."""
    spans = _entries(source)
    tops = [name.removesuffix("/data.pkl") for name in spans if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise fault(source.where, "is a zip archive that torch.save did not write (no data.pkl)", "give a model file")
    top = tops[0]
    if f"{top}/constants.pkl" in spans:
        raise fault(source.where, "is a TorchScript archive, which holds code", _RESAVE)
    order = spans.get(f"{top}/byteorder", (0, 0))
    if bytes(source.view(order[0], min(order[1], 8))) not in (b"little", b""):
        raise fault(source.where, "is not little-endian", _RESAVE + " on a little-endian machine")
    start, length = spans[f"{top}/data.pkl"]
    if length > PICKLE_BYTES:
        raise fault(source.where, f"holds a pickle of more than {PICKLE_BYTES} bytes", _RESAVE)
    root, storages = load(Stream(source, start, length))
    starts: dict[str, int] = {}
    for storage in storages.values():
        place, size = spans.get(f"{top}/data/{storage.key}", (0, -1))
        if size < storage.numel * (dtypes.bits(storage.dtype) or 8) // 8:
            what = "is missing" if size < 0 else f"has {size} bytes, too few for {storage.numel} of {storage.dtype}"
            raise fault(source.where, f"storage {shown(storage.key)} {what}", "damaged: " + FETCH_AGAIN)
        starts[storage.key] = place
    return root, starts


def _entries(source: ByteSource) -> dict[str, tuple[int, int]]:
    """Return where the data of each zip entry starts and how long it is. Compressed archives are refused whole."""
    try:
        with zipfile.ZipFile(Stream(source)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, IndexError, struct.error) as error:
        raise fault(source.where, "is a damaged zip archive", "truncated or damaged: " + FETCH_AGAIN) from error
    spans: dict[str, tuple[int, int]] = {}
    position = 0
    source.fetch(local_headers(source, infos))
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        if name in spans or ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise fault(source.where, f"holds a zip entry twice or with a bad path: {shown(name)}", _RESAVE)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise fault(source.where, f"zip entry {shown(name)} is compressed or encrypted", _RESAVE)
        header = source.view(info.header_offset, 30)
        name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
        stored_name = bytes(source.view(info.header_offset + 30, name_bytes))
        text = stored_name.decode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace")
        start = info.header_offset + 30 + name_bytes + extra_bytes
        if bytes(header[:4]) != ZIP_MAGIC or text != name or info.header_offset < position:
            raise fault(source.where, f"zip entry {shown(name)} is not where the directory says", FETCH_AGAIN)
        source.check(start, info.file_size)
        position = start + info.file_size
        spans[name] = (start, info.file_size)
    return spans


# -- the older format -------------------------------------------------------------------------------------------------


def _read_legacy(source: ByteSource) -> tuple[object, dict[str, int]]:
    """Return the unpickled object and where each storage starts in the file."""
    stream = Stream(source, 0, min(source.size, PICKLE_BYTES))
    load(stream)
    protocol, _ = load(stream)
    system, _ = load(stream)
    root, storages = load(stream)
    keys, _ = load(stream)
    if (
        protocol != LEGACY_PROTOCOL
        or _entries_of(system).get("little_endian") is not True
        or not isinstance(keys, list)
    ):
        raise fault(source.where, "is an old torch file of another protocol or byte order", _RESAVE)
    starts: dict[str, int] = {}
    position = stream.tell()
    source.fetch(_counts(source, cast("list[object]", keys), storages, position))
    for key in cast("list[object]", keys):
        storage = storages.pop(key, None) if isinstance(key, str) else None
        if storage is None:
            raise fault(source.where, f"stores a block {shown(key)} that no tensor uses", _RESAVE)
        count = int.from_bytes(source.view(position, 8), "little")
        if count != storage.numel:
            raise fault(source.where, f"storage {shown(key)} has another length than it claims", FETCH_AGAIN)
        starts[storage.key] = position + 8
        position += 8 + storage.numel * (dtypes.bits(storage.dtype) or 8) // 8
    if storages or position > source.size:
        raise fault(source.where, "ends before the last tensor", "truncated: " + FETCH_AGAIN)
    return root, starts


def _counts(source: ByteSource, keys: Sequence[object], storages: Mapping[str, Storage], position: int) -> list[Range]:
    """Return where the counts before the storages lie, if the storages have the lengths that they claim."""
    found: list[Range] = []
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or position + 8 > source.size:
            break
        found.append((position, position + 8))
        position += 8 + storage.numel * (dtypes.bits(storage.dtype) or 8) // 8
    return found
