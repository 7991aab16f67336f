"""From a path to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from kinprint.checkpoint.places import Place, parts_of, place_of
from kinprint.checkpoint.quantised import decoded
from kinprint.checkpoint.source import Files
from kinprint.checkpoint.vocabulary import folder_vocabulary

CONFIG_BYTES = 16_000_000
"""Longest ``config.json`` that is read; real ones have some kilobytes."""

OPENED_TOGETHER = 16
"""Files of a remote model whose headers are read side by side."""


def open_checkpoint(ref: str | Path) -> Checkpoint:
    """Open a model: a folder, one file, the index of a sharded one, or a model with adapters on it.

    Only headers are read, of what lies elsewhere too. Nothing in a file is ever executed.

    Args:
        ref: Path to a folder that holds a model, to one model file (safetensors, ``torch.save``, GGUF, CTranslate2,
            Flax's msgpack, ONNX, ``.npz``), or to an ``.index.json``; where no such path exists, ``org/name@revision``
            for a model of the Hub, or an ``https://``, ``s3://`` or ``gs://`` address; or ``model+adapter``, where
            ``adapter`` is a folder of PEFT's, and further ``+adapter`` are applied one after the other. A ``+`` in the
            name of a path that exists is part of that name. An adapter alone opens as its own tensors.

    Returns:
        The checkpoint. Where a folder holds several sets of files, ``notes`` says which one was read.

    Raises:
        CheckpointError: There is no such file, or it cannot be believed: truncated, contradicting itself, asking for
            code, or leading out of its folder; or an adapter does not fit the model.
        NetworkError: A server cannot be reached, or does not send what it promised.
    """
    first, *adapters = parts_of(ref)
    checkpoint = decoded(_open_place(place_of(first)))
    for adapter in adapters:
        checkpoint = merged(checkpoint, place_of(adapter))
    return checkpoint


def _open_place(place: Place) -> FileCheckpoint:
    """Open the model that a folder holds, or that a file or an index stands for."""
    files = place.files
    if place.file is None:
        chosen, notes = choose(files)
        return _open(place, chosen, notes=notes, use_config=True)
    chosen, alone = set_of_file(files, place.file)
    notes = (f"config.json beside {place.file} was {'used' if alone else 'not used'}",)
    return _open(place, chosen, notes=notes if files.has("config.json") else (), use_config=alone)


def _open(place: Place, chosen: ModelSet, *, notes: tuple[str, ...], use_config: bool) -> FileCheckpoint:
    """Open the files of one set, with the config and tokenizer beside them."""
    files = place.files
    weight_map = chosen.weight_map or {}
    if chosen.index is not None and not weight_map:
        weight_map = read_index(files.source(chosen.index))
    names = tuple(dict.fromkeys(weight_map.values())) or chosen.files
    absent = chosen.missing or files.missing(names)
    if absent:
        raise fault(place.location, f"{absent[0]} is missing", "fetch the missing file")
    parts = _open_parts(files, names)
    if chosen.index is not None:
        weight_map = _names_of_parts(weight_map, parts)
        notes = (*notes, *check_index(weight_map, parts, files.where(chosen.index)))
    first = parts[0]
    config: Mapping[str, Any] = {}
    vocabulary: Callable[[], tuple[str, ...] | None] = lambda: None  # noqa: E731
    if isinstance(first, GgufFile):
        config, vocabulary = first.settings, first.tokens
        # A GGUF carries its own settings, so the file beside it is never needed.
        notes = tuple(note for note in notes if not note.startswith("config.json"))
    elif use_config:
        adapter = chosen.files[0] in ADAPTER_FILES
        config_name = ADAPTER_CONFIG if adapter else "config.json"
        config = read_object(files.source(config_name), max_bytes=CONFIG_BYTES) if files.has(config_name) else {}
        vocabulary = lambda: folder_vocabulary(files)  # noqa: E731
        if adapter:
            notes = (*notes, *_adapter_notes(config))
    if isinstance(first, Ctranslate2File):
        config = {**config, **first.settings}
        vocabulary = lambda: folder_vocabulary(files) or ctranslate2_vocabulary(files)  # noqa: E731
    return FileCheckpoint(
        parts,
        name=place.name,
        location=place.location,
        config=config,
        vocabulary=vocabulary,
        notes=(*files.notes, *notes),
        files=files,
    )


def _open_parts(files: Files, names: Sequence[str]) -> list[Part]:
    """Open the files of one set: one after the other on disk, side by side where each waits for a network."""
    # Later files of a split GGUF have no settings of their own.
    alone = 1 if names[0].endswith(".gguf") or not files.remote else 0
    parts = [open_part(files, name) for name in names[:alone]]
    settings = parts[0].settings if parts and isinstance(parts[0], GgufFile) else None
    if not files.remote or len(names) == 1:
        return [*parts, *(open_part(files, name, settings) for name in names[alone:])]
    with ThreadPoolExecutor(OPENED_TOGETHER, "kinprint-open") as pool:
        return [*parts, *pool.map(partial(open_part, files, settings=settings), names[alone:])]


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
