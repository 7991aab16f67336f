"""From a path to a checkpoint."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kinprint.checkpoint.adapter import merged
from kinprint.checkpoint.base import Checkpoint
from kinprint.checkpoint.ctranslate2_file import Ctranslate2File, ctranslate2_vocabulary
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.folder import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    ModelSet,
    check_index,
    choose,
    read_index,
    set_of_file,
)
from kinprint.checkpoint.formats import open_part
from kinprint.checkpoint.gguf_file import GgufFile
from kinprint.checkpoint.jsonfile import read_object
from kinprint.checkpoint.msgpack_file import MsgpackFile, index_name
from kinprint.checkpoint.parts import FileCheckpoint, Part
from kinprint.checkpoint.quantised import decoded
from kinprint.checkpoint.vocabulary import folder_vocabulary

CONFIG_BYTES = 16_000_000
"""Longest ``config.json`` that is read; real ones have some kilobytes."""


MAX_PARTS = 16
"""Most adapters in one reference."""


def open_checkpoint(ref: str | Path) -> Checkpoint:
    """Open a local model: a folder, one file, the index of a sharded one, or a model with adapters on it.

    Only headers are read. Nothing in a file is ever executed.

    Args:
        ref: Path to a folder that holds a model, to one model file (safetensors, ``torch.save``, GGUF, CTranslate2,
            Flax's msgpack, ONNX, ``.npz``), or to an ``.index.json``; or ``model+adapter``, where ``adapter`` is a
            folder of PEFT's, and further ``+adapter`` are applied one after the other. A ``+`` in the name of a path
            that exists is part of that name. An adapter alone opens as its own tensors.

    Returns:
        The checkpoint. Where a folder holds several sets of files, ``notes`` says which one was read.

    Raises:
        CheckpointError: There is no such file, or it cannot be believed: truncated, contradicting itself, asking for
            code, or leading out of its folder; or an adapter does not fit the model.
    """
    first, *adapters = _parts_of(ref)
    checkpoint = decoded(_open_path(first))
    for adapter in adapters:
        checkpoint = merged(checkpoint, Path(adapter))
    return checkpoint


def _parts_of(ref: str | Path) -> tuple[str | Path, ...]:
    """Split ``model+adapter+adapter`` at every ``+`` that no existing path has in its name, the last one first."""
    text = str(ref)
    if not _exists(text):
        places = [place for place, character in enumerate(text) if character == "+"][-MAX_PARTS:]
        for place in reversed(places):
            if _exists(text[place + 1 :]):
                parts = _parts_of(text[:place])
                if _exists(str(parts[0])):
                    return (*parts, text[place + 1 :])
    return (ref,)


def _exists(path: str) -> bool:
    """Tell whether a path can be looked at; an empty one cannot."""
    try:
        os.stat(path)  # noqa: PTH116 - Path("") is the working folder
    except (OSError, ValueError):
        return False
    return True


def _open_path(ref: str | Path) -> FileCheckpoint:
    """Open a folder, a file or an index."""
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
        parts.append(open_part(folder / file, settings))
        first = parts[0]
        settings = first.settings if isinstance(first, GgufFile) else None
    if chosen.index is not None:
        weight_map = _names_of_parts(weight_map, parts)
        notes = (*notes, *check_index(weight_map, parts, str(folder / chosen.index)))
    first = parts[0]
    config: Mapping[str, Any] = {}
    vocabulary: Callable[[], tuple[str, ...] | None] = lambda: None  # noqa: E731
    if isinstance(first, GgufFile):
        config, vocabulary = first.settings, first.tokens
        # A GGUF carries its own settings, so the file beside it is never needed.
        notes = tuple(note for note in notes if not note.startswith("config.json"))
    elif use_config:
        adapter = chosen.files[0] in ADAPTER_FILES
        config_path = folder / (ADAPTER_CONFIG if adapter else "config.json")
        config = read_object(config_path, max_bytes=CONFIG_BYTES) if config_path.exists() else {}
        vocabulary = lambda: folder_vocabulary(folder)  # noqa: E731
        if adapter:
            notes = (*notes, *_adapter_notes(config))
    if isinstance(first, Ctranslate2File):
        config = {**config, **first.settings}
        vocabulary = lambda: folder_vocabulary(folder) or ctranslate2_vocabulary(folder)  # noqa: E731
    return FileCheckpoint(parts, name=name, location=location, config=config, vocabulary=vocabulary, notes=notes)


def _adapter_notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Say that these are an adapter's tensors, and which base its config names."""
    base = config.get("base_model_name_or_path")
    lead = f"; its config names the base {shown(base)}, which is a lead and no evidence" if base else ""
    return (f"this is an adapter alone, not a model{lead}; to read it on its base: MODEL+ADAPTER",)


def _names_of_parts(weight_map: Mapping[str, str], parts: Sequence[Part]) -> Mapping[str, str]:
    """Return an index under the names that its shards have here: those of Flax are turned into torch's."""
    if not isinstance(parts[0], MsgpackFile):
        return weight_map
    held = {name for part in parts for name in part.tensors}
    return {next((name for name in index_name(key) if name in held), key): file for key, file in weight_map.items()}
