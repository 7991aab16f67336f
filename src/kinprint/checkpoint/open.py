"""From a path to a checkpoint."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kinprint.checkpoint.base import Checkpoint
from kinprint.checkpoint.faults import fault
from kinprint.checkpoint.folder import ModelSet, check_index, choose, read_index, set_of_file
from kinprint.checkpoint.gguf_file import GgufFile
from kinprint.checkpoint.gguf_header import MAGIC as GGUF_MAGIC
from kinprint.checkpoint.jsonfile import read_object
from kinprint.checkpoint.local import LocalFile, not_a_checkpoint
from kinprint.checkpoint.parts import FileCheckpoint, Part
from kinprint.checkpoint.pytorch_file import LEGACY_MAGIC, ZIP_MAGIC, PytorchFile
from kinprint.checkpoint.safetensors_file import LENGTH_BYTES, SafetensorsFile
from kinprint.checkpoint.vocabulary import folder_vocabulary

CONFIG_BYTES = 16_000_000
"""Longest ``config.json`` that is read; real ones have some kilobytes."""


def open_checkpoint(ref: str | Path) -> Checkpoint:
    """Open a local model: a folder, one file, or the index of a sharded one.

    Only headers are read. Nothing in a file is ever executed.

    Args:
        ref: Path to a folder that holds a model, to one ``.safetensors``, ``.bin``, ``.pt``, ``.pth`` or ``.gguf``
            file, or to an ``.index.json``.

    Returns:
        The checkpoint. Where a folder holds several sets of files, ``notes`` says which one was read.

    Raises:
        CheckpointError: There is no such file, or it cannot be believed: truncated, contradicting itself, asking for
            code, or leading out of its folder.
    """
    path = Path(ref)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - Path.is_dir() hides why it failed
    except (OSError, ValueError) as error:
        raise fault(
            str(ref), "is no file or folder here", "check the path; a model on the Hub must be fetched first"
        ) from error
    if is_folder:
        chosen, notes = choose(path)
        return _open(path, chosen, name=path.resolve().name, location=str(ref), notes=notes, use_config=True)
    chosen, alone = set_of_file(path)
    config_there = (path.parent / "config.json").exists()
    notes = (f"config.json beside {path.name} was {'used' if alone else 'not used'}",) if config_there else ()
    return _open(path.parent, chosen, name=path.name, location=str(ref), notes=notes, use_config=alone)


def _open(
    folder: Path, chosen: ModelSet, *, name: str, location: str, notes: tuple[str, ...], use_config: bool
) -> FileCheckpoint:
    """Open the files of one set, with the config and tokenizer beside them."""
    weight_map = read_index(folder / chosen.index) if chosen.index is not None else {}
    files = tuple(dict.fromkeys(weight_map.values())) or chosen.files
    absent = chosen.missing or tuple(file for file in files if not (folder / file).exists())
    if absent:
        raise fault(location, f"{absent[0]} is missing", "fetch the missing file")
    parts: list[Part] = []
    settings: Mapping[str, Any] | None = None
    for file in files:
        parts.append(_open_part(folder / file, settings))
        first = parts[0]
        settings = first.settings if isinstance(first, GgufFile) else None
    if chosen.index is not None:
        notes = (*notes, *check_index(weight_map, parts, str(folder / chosen.index)))
    first = parts[0]
    config: Mapping[str, Any] = {}
    vocabulary: Callable[[], tuple[str, ...] | None] = lambda: None  # noqa: E731
    if isinstance(first, GgufFile):
        config, vocabulary = first.settings, first.tokens
        # A GGUF carries its own settings, so the file beside it is never needed.
        notes = tuple(note for note in notes if not note.startswith("config.json"))
    elif use_config:
        config_path = folder / "config.json"
        config = read_object(config_path, max_bytes=CONFIG_BYTES) if config_path.exists() else {}
        vocabulary = lambda: folder_vocabulary(folder)  # noqa: E731
    return FileCheckpoint(parts, name=name, location=location, config=config, vocabulary=vocabulary, notes=notes)


def _open_part(path: Path, settings: Mapping[str, Any] | None) -> Part:
    """Open one file by what it starts with; its name only decides how an unreadable one is described."""
    source = LocalFile(path)
    head = bytes(source.view(0, min(source.size, 16)))
    if head.startswith(GGUF_MAGIC):
        return GgufFile(source, settings=settings)
    if head.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        return PytorchFile(source)
    if head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        return SafetensorsFile(source)
    known = not_a_checkpoint(source)
    if known is not None:
        raise fault(source.where, *known)
    if path.suffix == ".safetensors":
        return SafetensorsFile(source)
    if head[:1] == b"\x80":
        raise fault(source.where, "is a pickle that torch.save did not write: refused", "save it as safetensors")
    raise fault(
        source.where,
        "is in no format that kinprint reads",
        "give safetensors, a file of torch.save, or GGUF; or " + "fetch it again",
    )
