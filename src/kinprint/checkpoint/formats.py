"""Which reader a file needs: decided by what it starts with, since ``model.bin`` may be in one of three formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinprint.checkpoint import ctranslate2_file, onnx_file
from kinprint.checkpoint.faults import fault
from kinprint.checkpoint.folder import READS
from kinprint.checkpoint.gguf_file import GgufFile
from kinprint.checkpoint.gguf_header import MAGIC as GGUF_MAGIC
from kinprint.checkpoint.local import foreign, not_a_checkpoint
from kinprint.checkpoint.msgpack_file import MsgpackFile
from kinprint.checkpoint.npz_file import NpzFile, holds_arrays
from kinprint.checkpoint.parts import Part
from kinprint.checkpoint.pytorch_file import LEGACY_MAGIC, ZIP_MAGIC, PytorchFile
from kinprint.checkpoint.safetensors_file import LENGTH_BYTES, SafetensorsFile
from kinprint.checkpoint.source import ByteSource, Files


def open_part(files: Files, name: str, settings: Mapping[str, Any] | None = None) -> Part:
    """Open one file by what it starts with; its name only decides what is tried last, and the message.

    Args:
        files: Where it lies.
        name: The file.
        settings: Those of the first file of a split GGUF, when this is a later one.

    Raises:
        CheckpointError: It is in no format that is read, or cannot be believed.
        NetworkError: It could not be fetched.
    """
    source = files.source(name)
    source.hold_back(True)
    try:
        return _read(source, files, settings)
    finally:
        source.hold_back(False)


def _read(source: ByteSource, files: Files, settings: Mapping[str, Any] | None) -> Part:
    """Read the header of a file by the reader that it needs."""
    suffix = source.name[source.name.rfind(".") :] if "." in source.name else ""
    head = bytes(source.view(0, min(source.size, ctranslate2_file.HEAD_BYTES)))
    part = _by_magic(source, head, suffix, settings)
    if part is not None:
        return part
    known = not_a_checkpoint(source)
    if known is not None:
        raise fault(source.where, *known)
    if suffix == ".safetensors":
        return SafetensorsFile(source)
    if suffix == ".onnx" or onnx_file.looks_like_it(head):
        return onnx_file.OnnxFile(source, files)
    if suffix == ".msgpack":
        return MsgpackFile(source)
    if head[:1] == b"\x80":
        raise fault(source.where, "is a pickle that torch.save did not write: refused", "save it as safetensors")
    raise fault(source.where, "is in no format that kinprint reads", f"{READS}; or fetch it again")


def _by_magic(source: ByteSource, head: bytes, suffix: str, settings: Mapping[str, Any] | None) -> Part | None:
    """Open a file whose first bytes leave no doubt; None for the others."""
    if head.startswith(GGUF_MAGIC):
        return GgufFile(source, settings=settings)
    if head.startswith(ZIP_MAGIC):
        unread = foreign(source.name)
        if unread is not None:
            raise fault(source.where, *unread)
        return NpzFile(source) if holds_arrays(source) else PytorchFile(source)
    if head.startswith(LEGACY_MAGIC):
        return PytorchFile(source)
    if head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        return SafetensorsFile(source)
    if ctranslate2_file.looks_like_it(head):
        return ctranslate2_file.Ctranslate2File(source)
    # A map of up to 15 entries whose first key is a short text, as Flax writes; no pickle starts with these two bytes.
    if len(head) > 1 and 0x81 <= head[0] <= 0x8F and 0xA0 <= head[1] <= 0xDB and suffix != ".safetensors":
        return MsgpackFile(source)
    return None
