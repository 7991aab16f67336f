"""Where the bytes of a checkpoint come from. A local file is one read-only memory map."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kinprint.checkpoint.faults import FETCH_AGAIN, fault
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.source import ByteSource, Files, Pending

HEADER_BYTES = 100_000_000
"""Longest header that is read: the limit of the safetensors format, used for every format."""

_FROM_TF = "convert it with transformers 4: AutoModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)"
_SOURCE = "give the model that it was converted from"

FOREIGN = {
    ".h5": ("TensorFlow weights (HDF5)", _FROM_TF),
    ".hdf5": ("an HDF5 file", _FROM_TF),
    ".keras": ("a Keras model", "convert it: numpy.savez(FILE, **{w.path: w.numpy() for w in MODEL.weights})"),
    ".index": ("a TensorFlow checkpoint", "convert it: transformers-cli convert of transformers 4 writes a .bin file"),
    ".tflite": ("a TensorFlow Lite model", _SOURCE),
    ".mlmodel": ("a Core ML model", _SOURCE),
    ".mlpackage": ("a Core ML model", _SOURCE),
    ".nemo": ("a NeMo archive", "unpack it with tar -xf and give the .ckpt or the folder of weights inside"),
    ".engine": ("a TensorRT engine, which keeps no names", _SOURCE),
    ".plan": ("a TensorRT engine, which keeps no names", _SOURCE),
    ".xml": ("an OpenVINO model", _SOURCE),
    ".ot": ("a model of rust-bert", "give the .bin or safetensors file of the same model"),
    ".npy": ("a single NumPy array", "give the arrays of the model together: numpy.savez(FILE, **ARRAYS)"),
}
"""What is not read, by the end of the file's name: how a message calls it, and what to do."""

_HDF5 = b"\x89hdf\r\n\x1a\n"
_NPY = b"\x93numpy"
_TFLITE = b"tfl3"
_LFS_POINTER = b"version https://git-lfs"
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


class LocalFile(ByteSource):
    """A file on disk, mapped read-only. Pages are loaded when they are touched.

    A file that another process cuts short while it is mapped kills the process that reads the lost pages (SIGBUS), as
    with every memory map.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.where = str(path)
        # Without O_NONBLOCK a named pipe would make open() wait for a writer for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise fault(str(path), f"cannot be opened ({reason})", "check the path and its permissions") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise fault(str(path), "is no regular file", "give a model file or a folder of them")
            self.size = status.st_size
            # A map of length 0 is an error, and an empty file needs none.
            self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if self.size else None
        except OSError as error:
            raise fault(str(path), f"cannot be mapped ({error.strerror})", "copy it to a local disk") from error
        finally:
            os.close(descriptor)
        self._bytes: memoryview | None = memoryview(self._map) if self._map is not None else memoryview(b"")

    def view(self, offset: int, length: int) -> memoryview:
        """Return a slice of the map; see :meth:`ByteSource.view`."""
        if self._bytes is None:
            raise fault(self.where, "was closed", "open the checkpoint again")
        self.check(offset, length)
        self.note(offset, length)
        return self._bytes[offset : offset + length]

    def request(self, ranges: Iterable[Range]) -> Pending:
        """Have the system load pages ahead of their use; see :meth:`ByteSource.request`."""
        for start, end in ranges:
            self.check(start, end - start)
            aligned = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._advise("MADV_WILLNEED", aligned, end - aligned)
        return ()

    def hold_back(self, active: bool) -> None:
        """Stop or allow the system's read-ahead, which may load megabytes around every header."""
        self._advise("MADV_RANDOM" if active else "MADV_NORMAL", 0, self.size)

    def _advise(self, name: str, start: int, length: int) -> None:
        """Give the system a hint, where it takes any."""
        option: int | None = getattr(mmap, name, None)
        if option is not None and self._map is not None and length > 0:
            self._map.madvise(option, start, length)

    def close(self) -> None:
        """Drop the map. The system keeps it until the last array that was handed out is gone."""
        self._bytes = None
        self._map = None


class LocalFiles(Files):
    """A folder on disk."""

    def __init__(self, folder: Path, *, location: str | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.location = str(folder) if location is None else location
        self.name = folder.resolve().name

    def names(self, *, folders: bool = False) -> list[str]:
        """List the folder; see :meth:`Files.names`."""
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if folders or not entry.is_dir())
        except OSError as error:
            raise fault(
                str(self.folder), f"cannot be listed ({error.strerror})", "check the path and its permissions"
            ) from error

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return (self.folder / name).exists()

    def where(self, name: str) -> str:
        """Return a file's path."""
        return str(self.folder / name)

    def open(self, name: str) -> ByteSource:
        """Map a file; see :meth:`Files.open`."""
        return LocalFile(self.folder / name)

    def inside(self, name: str, beside: ByteSource) -> bool:
        """Tell whether a file lies in the folder or, if both are links, beside what the other one links to."""
        target = (self.folder / name).resolve().parent
        return target in {self.folder.resolve(), Path(beside.where).resolve().parent}


def not_a_checkpoint(source: ByteSource) -> tuple[str, str] | None:
    """Say what people often have in place of a checkpoint, and what to do about it; None if it is none of them."""
    head = bytes(source.view(0, min(source.size, 64))).lstrip().lower()
    if source.size == 0:
        return "is empty (0 bytes)", FETCH_AGAIN
    if head.startswith(_LFS_POINTER):
        return "is a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"
    if head.startswith(_NPY):
        return foreign("x.npy")
    if head.startswith(_HDF5):
        return foreign("x.h5")
    if head[4:8] == _TFLITE:
        return foreign("x.tflite")
    known = foreign(source.name)
    if known is None and head.startswith(_WEB_PAGES):
        return "is a web page, not a model file", "the download failed: " + FETCH_AGAIN
    return known


def foreign(name: str) -> tuple[str, str] | None:
    """Say whose format a file is in by its name, and how to convert it; None for a name that tells nothing.

    Example:
        >>> foreign("model.tflite")
        ('is a TensorFlow Lite model, which is not read', 'give the model that it was converted from')
    """
    dot = name.rfind(".")
    known = FOREIGN.get(name[dot:].lower()) if dot >= 0 else None
    return None if known is None else (f"is {known[0]}, which is not read", known[1])
