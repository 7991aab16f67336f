"""Where the bytes of a checkpoint come from. A local file is one read-only memory map."""

from __future__ import annotations

import mmap
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path

from kinprint.checkpoint.faults import FETCH_AGAIN, fault

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


class ByteSource(ABC):
    """Bytes that are addressed by offset and fetched only when asked for.

    The seam between formats and storage: a format reader sees nothing else, so a source that sends HTTP range requests
    needs only these members.

    Attributes:
        name: File name, for :attr:`TensorInfo.file`.
        where: Path or address, for messages: of two models that are compared, both may be ``model.safetensors``.
        size: Length in bytes.
    """

    name: str
    where: str
    size: int

    @abstractmethod
    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes from ``offset``, read-only and without a copy where the source allows it.

        Raises:
            CheckpointError: The range is not inside the source, or the source is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the source. Views already handed out stay valid."""


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
        if offset < 0 or length < 0 or offset + length > self.size:
            raise fault(
                self.where, f"ends at byte {self.size} before what its header promises", "truncated: " + FETCH_AGAIN
            )
        return self._bytes[offset : offset + length]

    def close(self) -> None:
        """Drop the map. The system keeps it until the last array that was handed out is gone."""
        self._bytes = None
        self._map = None


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
