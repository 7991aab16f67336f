"""NumPy's ``.npz``: a zip of ``.npy`` arrays, under their file names without ``.npy``. Nothing in them is unpickled.

Members that are stored are mapped in place; deflated ones are decompressed when they are read, never to more than the
zip directory, the ``.npy`` header and the shape agree on. Array axes are as stored; an array in Fortran order is a
strided view.

Source: numpy/lib/format.py (``.npy`` versions 1 to 3); APPNOTE.TXT of PKWARE (zip).
"""

from __future__ import annotations

import ast
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, checked_shape, fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.parts import Part, bytes_of, enclosing, take
from kinprint.checkpoint.source import ByteSource
from kinprint.checkpoint.stream import Stream, local_headers

NPY_MAGIC = b"\x93NUMPY"
LOCAL_HEADER = b"PK\x03\x04"

HEADER_BYTES = 10_000
"""Longest ``.npy`` header that is read, the limit that numpy sets itself."""

FRONT_BYTES = 1024
"""What deflate may add to a header: the tables of its first block."""

BOMB_RATIO = 200
BOMB_BYTES = 1 << 26
"""A member that grows by more than the ratio to more than these bytes is refused: trained weights shrink by a third."""

_RESAVE = "save the arrays again with numpy.savez"
_NUMBERS = {
    f"{order}{dtype.str[1:]}": name
    for name, dtype in dtypes.READABLE.items()
    if dtype.kind in "fiub"
    for order in (("<",) if dtype.itemsize > 1 else ("|", "<"))
}
# numpy has no name for bfloat16 and writes ml_dtypes' as raw bytes; there is no other weight dtype of 2 raw bytes.
_DESCRIPTIONS = {**_NUMBERS, "<V2": "BF16", "|V2": "BF16"}


@dataclass(frozen=True, slots=True)
class _Member:
    """Where one array lies.

    Attributes:
        start: Offset of the member's bytes in the file.
        stored: Bytes it takes there.
        size: Bytes once decompressed.
        deflated: Whether it is compressed.
        crc: Checksum of the decompressed bytes.
        skip: Bytes of the ``.npy`` header; 0 until it was read.
        fortran: Whether the first axis is the fastest.
    """

    start: int
    stored: int
    size: int
    deflated: bool
    crc: int
    skip: int = 0
    fortran: bool = False


class NpzFile(Part):
    """One ``.npz`` file."""

    format = "npz"

    def __init__(self, source: ByteSource) -> None:
        """Read the zip directory and the header of every array.

        Raises:
            CheckpointError: The archive is damaged or lies, or a member is no plain array of numbers.
        """
        self.source = source
        self._members: dict[str, _Member] = {}
        self._last: tuple[str, bytes] = ("", b"")
        self.tensors: Mapping[str, TensorInfo] = {}
        for file, member in _members(source).items():
            if not file.endswith(".npy"):
                raise fault(source.where, f"member {shown(file)} of the archive is no .npy array", _RESAVE)
            name = checked_name(file.removesuffix(".npy"), source.where)
            self.tensors[name], self._members[name] = _array_header(source, name, member)
        if any(dtype == "BF16" for dtype in (info.dtype for info in self.tensors.values())):
            self.notes = (f"{source.name}: arrays of 2 raw bytes were read as bfloat16",)

    def read(self, name: str, rows: slice | None) -> Array:
        """View one array in the map, or decompress it; the one that was decompressed last is kept."""
        info, member = self.tensors[name], self._members[name]
        if rows is not None and info.shape and not member.deflated and not member.fortran:
            first, last, step = enclosing(rows, info.shape[0])
            shape = (last - first, *info.shape[1:])
            return dtypes.array(self.raw_rows(name, first, last), info.dtype, shape, self.source.where, name)[::step]
        strides = None
        if member.fortran:
            step = dtypes.READABLE[info.dtype].itemsize
            steps: list[int] = []
            for length in info.shape:
                steps.append(step)
                step *= max(length, 1)
            strides = tuple(steps)
        data = self._content(name)[member.skip :]
        return take(dtypes.array(data, info.dtype, info.shape, self.source.where, name, strides=strides), rows)

    def raw(self, name: str) -> memoryview:
        """Return the array's bytes in C order, decompressed."""
        if self._members[name].fortran:
            return bytes_of(self.read(name, None))
        return self._content(name)[self._members[name].skip :]

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows, in the map where the array is stored in C order."""
        if self._members[name].deflated or self._members[name].fortran:
            return super().raw_rows(name, first, last)
        start, end = self._span(name, slice(first, last))
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the one range that holds the rows, or the whole member."""
        yield self.source, self._span(name, rows)

    def _span(self, name: str, rows: slice | None) -> Range:
        """Return where an array or some rows of it lie; the whole member where rows cannot be told apart."""
        info, member = self.tensors[name], self._members[name]
        if member.deflated or member.fortran or rows is None or not info.shape:
            return member.start, member.start + member.stored
        first, last, _ = enclosing(rows, info.shape[0])
        row_bytes, start = info.nbytes // max(info.shape[0], 1), member.start + member.skip
        return start + first * row_bytes, start + last * row_bytes

    def _content(self, name: str) -> memoryview:
        """Return a whole member, header and all, read-only."""
        member = self._members[name]
        if not member.deflated:
            return self.source.view(member.start, member.size)
        if self._last[0] != name:
            content = _inflate(self.source, name, member, member.size)
            if len(content) != member.size or zlib.crc32(content) != member.crc:
                raise fault(
                    self.source.where, f"array {shown(name)} does not decompress to what was saved", FETCH_AGAIN
                )
            self._last = (name, content)
        return memoryview(self._last[1])


def holds_arrays(source: ByteSource) -> bool:
    """Tell an ``.npz`` from the other zip archives: it holds ``.npy`` members and no pickle of torch's."""
    try:
        with zipfile.ZipFile(Stream(source)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, IndexError, struct.error):
        return False
    return any(name.endswith(".npy") for name in names) and not any(name.endswith("/data.pkl") for name in names)


def _members(source: ByteSource) -> dict[str, _Member]:
    """Return every member by name, after the directory was checked against the members' own headers."""
    try:
        with zipfile.ZipFile(Stream(source)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, IndexError, struct.error) as error:
        raise fault(source.where, "is a damaged zip archive", "truncated or damaged: " + FETCH_AGAIN) from error
    found: dict[str, _Member] = {}
    position = 0
    source.fetch(local_headers(source, infos))
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        if name in found or ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise fault(source.where, f"holds a zip entry twice or with a bad path: {shown(name)}", _RESAVE)
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or info.flag_bits & 1:
            raise fault(source.where, f"zip entry {shown(name)} is encrypted or neither stored nor deflated", _RESAVE)
        start = _data_start(source, info, name, position)
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if not deflated and info.compress_size != info.file_size:
            raise fault(source.where, f"zip entry {shown(name)} is stored with another length than it claims", _RESAVE)
        if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * info.compress_size:
            raise fault(
                source.where,
                f"zip entry {shown(name)} would grow from {info.compress_size} to {info.file_size} bytes: refused",
                "a zip bomb, or no trained weights: " + _RESAVE,
            )
        source.check(start, info.compress_size)
        position = start + info.compress_size
        found[name] = _Member(start, info.compress_size, info.file_size, deflated, info.CRC)
    return found


def _data_start(source: ByteSource, info: zipfile.ZipInfo, name: str, position: int) -> int:
    """Return where a member's bytes start.

    Raises:
        CheckpointError: Its local header names another member, or lies inside the member before it.
    """
    header = source.view(info.header_offset, 30)
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
    stored_name = bytes(source.view(info.header_offset + 30, name_bytes))
    text = stored_name.decode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace")
    if bytes(header[:4]) != LOCAL_HEADER or text != name or info.header_offset < position:
        raise fault(source.where, f"zip entry {shown(name)} is not where the directory says", FETCH_AGAIN)
    return info.header_offset + 30 + name_bytes + extra_bytes


def _inflate(source: ByteSource, name: str, member: _Member, limit: int) -> bytes:
    """Return up to ``limit`` decompressed bytes of a member, and never more."""
    stream = zlib.decompressobj(-15)
    try:
        # The little that a header takes lies at the front, however long the member is.
        needed = member.stored if limit == member.size else min(member.stored, limit + FRONT_BYTES)
        return stream.decompress(source.view(member.start, needed), limit) if limit else b""
    except zlib.error as error:
        raise fault(source.where, f"array {shown(name)} cannot be decompressed", FETCH_AGAIN) from error


def _array_header(source: ByteSource, name: str, member: _Member) -> tuple[TensorInfo, _Member]:
    """Return what the header of one ``.npy`` says, checked against the member's length."""
    longest = min(member.size, HEADER_BYTES + 12)
    if member.deflated:
        head = _inflate(source, name, member, longest)
    else:
        head = bytes(source.view(member.start, min(longest, 12)))
        stated = int.from_bytes(head[8 : 12 if head[6:7] > b"\x01" else 10], "little")
        head = bytes(source.view(member.start, min(longest, 12 + stated)))
    wide = head[6:7] > b"\x01"
    first = 12 if wide else 10
    length = int.from_bytes(head[8:first], "little")
    skip = first + length
    if head[:6] != NPY_MAGIC or head[6:7] not in {b"\x01", b"\x02", b"\x03"} or skip > len(head):
        raise fault(source.where, f"member {shown(name)} is no .npy array, or its header is cut off", _RESAVE)
    fields = _literal(head[first:skip])
    if fields is None or set(fields) != {"descr", "fortran_order", "shape"}:
        raise fault(source.where, f"array {shown(name)} has a malformed header", _RESAVE)
    described, fortran = fields["descr"], fields["fortran_order"]
    dtype = _DESCRIPTIONS.get(described) if isinstance(described, str) else None
    if dtype is None or not isinstance(fortran, bool):
        what = "Python objects, which would be unpickled" if described == "|O" else f"the dtype {shown(described)}"
        raise fault(source.where, f"array {shown(name)} holds {what}: refused", "save plain arrays of numbers")
    shape = checked_shape(fields["shape"], source.where, name)
    info = TensorInfo(name, dtype, shape, dtypes.READABLE[dtype].itemsize, source.name)
    nbytes = info.size * info.nbytes
    if skip + nbytes != member.size:
        raise fault(
            source.where,
            f"array {shown(name)} has {member.size - skip} bytes, but {dtype} of shape {list(shape)} needs {nbytes}",
            "the header lies or is damaged: " + FETCH_AGAIN,
        )
    stays = _Member(member.start, member.stored, member.size, member.deflated, member.crc, skip, fortran)
    return TensorInfo(name, dtype, shape, nbytes, source.name), stays


def _literal(text: bytes) -> dict[str, object] | None:
    """Return the dict literal that a ``.npy`` header is; None for anything else. Only literals are evaluated."""
    try:
        value: object = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
