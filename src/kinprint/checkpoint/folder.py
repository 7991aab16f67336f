"""Which files of a folder are its model. Folders often hold the same weights two or three times.

The order in which sets are preferred: safetensors, then consolidated safetensors (the vendor's own layout), then files
of ``torch.save``, then consolidated ones, then GGUF, CTranslate2's ``model.bin``, Flax's msgpack, ONNX and ``.npz``;
within each the names that transformers writes before others; ``model.safetensors`` before an index, as transformers
does. Two sets that rank equal are an error, never a guess. A folder without a model may hold an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from kinprint.checkpoint.ctranslate2_file import HEAD_BYTES, looks_like_it
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.jsonfile import read_object
from kinprint.checkpoint.local import HEADER_BYTES, foreign
from kinprint.checkpoint.parts import Part
from kinprint.checkpoint.source import ByteSource, Files
from kinprint.errors import CheckpointError

INDEX_SUFFIX = ".index.json"

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Where PEFT keeps an adapter's tensors, in the order in which it looks."""

ADAPTER_CONFIG = "adapter_config.json"

_EXTENSIONS = {"safetensors": 0, "bin": 2, "pt": 2, "pth": 2, "gguf": 4, "msgpack": 6, "onnx": 7, "npz": 8}
_CTRANSLATE2 = 5
_NUMBERED = re.compile(r"(?P<prefix>.+?)[-_.](?P<number>\d{1,6})[-_]of[-_](?P<total>\d{1,6})\.(?P<extension>\w+)")
_NOT_THE_MODEL = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|trainer_state|adapter_|mmproj|openvino_|events)"
    r".*|.*tokenizer.*|.*lora_weights.*",
    re.IGNORECASE,
)
MOST_NUMBERED = 1000
"""Longest series of numbered files that is looked for where nothing lists them."""

_STANDARD = ("model", "pytorch_model", "flax_model")
READS = (
    "kinprint reads safetensors, files of torch.save (.bin, .pt, .pth), GGUF, CTranslate2's model.bin, "
    "Flax's .msgpack, ONNX and .npz"
)
"""What every message says that has to list the formats."""

_CONSOLIDATED = ("safetensors", "bin", "pt", "pth")


@dataclass(frozen=True, slots=True)
class ModelSet:
    """Files that together hold one model.

    Attributes:
        title: How a note names it: the one file, the index, or the pattern of numbered files.
        rank: Smaller is preferred.
        files: Names of the files that are there, in order.
        index: Name of the index, if there is one.
        missing: Names that the numbering implies and that are not there.
        weight_map: What the index says; None for one that is broken, which is an error only once it is chosen.
    """

    title: str
    rank: tuple[int, int, int]
    files: tuple[str, ...]
    index: str | None = None
    missing: tuple[str, ...] = ()
    weight_map: Mapping[str, str] | None = None


def model_sets(files: Files) -> list[ModelSet]:
    """Return every set of model files in a folder, best first.

    Raises:
        CheckpointError: The folder cannot be listed.
    """
    names = files.names()
    found: list[ModelSet] = []
    covered: set[str] = set()
    for name in names:
        stem = name.removesuffix(INDEX_SUFFIX)
        if stem != name and _extension(stem) in _EXTENSIONS and not _NOT_THE_MODEL.fullmatch(stem):
            weight_map = _index_or_none(files.source(name))
            listed = tuple(dict.fromkeys((weight_map or {}).values()))
            covered |= set(listed)
            found.append(ModelSet(name, _rank(stem, "index"), listed, index=name, weight_map=weight_map))
    numbered: dict[tuple[str, int, str], dict[int, str]] = {}
    for name in names:
        if name in covered or _extension(name) not in _EXTENSIONS or _NOT_THE_MODEL.fullmatch(name):
            continue
        match = _NUMBERED.fullmatch(name)
        if match is None:
            rank = _rank(name, "single")
            found.append(ModelSet(name, (_CTRANSLATE2, *rank[1:]) if _is_ctranslate2(files, name) else rank, (name,)))
        else:
            group = (match["prefix"], int(match["total"]), match["extension"])
            numbered.setdefault(group, {})[int(match["number"])] = name
    found.extend(_numbered_set(*group, members) for group, members in numbered.items())
    return sorted(found, key=lambda candidate: (candidate.rank, candidate.title))


def choose(files: Files) -> tuple[ModelSet, tuple[str, ...]]:
    """Return the set to read and, if there were others, the note that says so.

    Raises:
        CheckpointError: There is none, two are equally good, or the best one is not complete.
    """
    sets = model_sets(files)
    if not sets:
        adapter = adapter_set(files)
        if adapter is not None:
            return adapter, ()
        raise fault(files.location, _why_none(files), f"{READS}: give the folder that holds them")
    best, others = sets[0], sets[1:]
    equal = [candidate.title for candidate in sets if candidate.rank == best.rank]
    if len(equal) > 1:
        raise fault(
            files.location,
            f"holds several models ({', '.join(equal[:5])}) and no index that joins them",
            "name one of them",
        )
    note = f"read {best.title}; left aside: {', '.join(other.title for other in others)}"
    return best, (note,) if others else ()


def adapter_set(files: Files) -> ModelSet | None:
    """Return the adapter that a folder holds, if it holds its tensors and its config."""
    if not files.has(ADAPTER_CONFIG):
        return None
    found = [name for name in ADAPTER_FILES if files.has(name)]
    return ModelSet(found[0], (0, 0, 0), (found[0],)) if found else None


def set_of_file(files: Files, name: str) -> tuple[ModelSet, bool]:
    """Return the set that a named file stands for, and whether it is a model of its folder on its own.

    An index stands for its shards, and the first file of a split GGUF for all of them. Any other file stands for
    itself.
    """
    try:
        sets = model_sets(files)
    except CheckpointError:
        sets = []  # a folder that may be entered but not listed
    whole = [candidate for candidate in sets if candidate.index == name or candidate.files[:1] == (name,)]
    single = ModelSet(name, (0, 0, 0), (name,))
    for candidate in whole:
        if candidate.index == name or len(candidate.files) == 1 or name.endswith(".gguf"):
            alone = not candidate.missing and [other.rank for other in sets].count(candidate.rank) == 1
            return candidate, alone
    return single, False


def read_index(source: ByteSource) -> dict[str, str]:
    """Return an index's map from tensor to file.

    Raises:
        CheckpointError: It is malformed, or a file name in it leads out of the folder.
    """
    weight_map = read_object(source, max_bytes=HEADER_BYTES, unique=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise fault(source.where, "has no weight_map", "fetch the index again")
    entries = cast("dict[str, Any]", weight_map)
    checked: set[str] = set()  # few files hold many tensors
    for tensor, file in entries.items():
        if not isinstance(file, str) or (file not in checked and not plain_name(file)):
            raise fault(
                source.where,
                f"places tensor {shown(tensor)} in {shown(file)}, which is no name of a file beside it",
                "do not trust this folder: fetch the model from its publisher",
            )
        checked.add(file)
    return entries


def check_index(weight_map: Mapping[str, str], parts: Iterable[Part], index: str) -> tuple[str, ...]:
    """Compare an index with the headers of its shards.

    Returns:
        A note, if the shards hold tensors that the index leaves out.

    Raises:
        CheckpointError: A tensor is not in the file that the index names.
    """
    actual = {tensor: part.source.name for part in parts for tensor in part.tensors}
    for tensor, file in weight_map.items():
        place = actual.get(tensor)
        if place != file:
            raise fault(
                index,
                f"places tensor {shown(tensor)} in {shown(file)}, but "
                + ("no shard holds it" if place is None else f"it is in {place}"),
                "index and shards are of different models: fetch both again",
            )
    extra = [tensor for tensor in actual if tensor not in weight_map]
    return (f"the index leaves out {len(extra)} tensors that the shards hold ({extra[0]}, ...)",) if extra else ()


def plain_name(file: str) -> bool:
    """Tell whether a name is that of a file in the same folder on every system: no path, drive, dots or controls."""
    return file.isprintable() and file not in {"", ".", ".."} and not set(file) & set('/\\:*?"<>|')


def numbered(name: str) -> list[str]:
    """Return the names of the series that a numbered file belongs to; none for another name, or an absurd series.

    Example:
        >>> numbered("m-00001-of-00002.gguf"), numbered("model.gguf")
        (['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf'], [])
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or int(match["total"]) > MOST_NUMBERED:
        return []
    start, end, width = match.start("number"), match.end("number"), len(match["number"])
    return [f"{name[:start]}{number:0{width}d}{name[end:]}" for number in range(1, int(match["total"]) + 1)]


def _extension(name: str) -> str:
    """Return what follows the last dot."""
    return name.rpartition(".")[2]


def _rank(name: str, kind: str) -> tuple[int, int, int]:
    """Return a set's place in the order: format and layout, usual name or not, single or index or numbered."""
    stem, _, extension = name.rpartition(".")
    standard = stem in _STANDARD
    # A lone file with a usual name is the model; one with another name may be anything, an index never is.
    order = ("single", "index", "numbered") if standard else ("index", "numbered", "single")
    consolidated = stem.startswith("consolidated") and extension in _CONSOLIDATED
    return _EXTENSIONS[extension] + consolidated, 0 if standard else 1, order.index(kind)


def _is_ctranslate2(files: Files, name: str) -> bool:
    """Tell whether a ``model.bin`` is CTranslate2's, which a name cannot: old torch files have it too."""
    if name != "model.bin":
        return False
    try:
        source = files.source(name)
        return looks_like_it(bytes(source.view(0, min(source.size, HEAD_BYTES))))
    except CheckpointError:
        return False  # said once the file is chosen


def _numbered_set(prefix: str, total: int, extension: str, files: Mapping[int, str]) -> ModelSet:
    """Return the set of files that carry numbers of one series."""
    # The total comes from a file name, so it must not set how much work is done.
    absent = (number for number in range(1, total + 1) if number not in files)
    missing = tuple(f"{prefix} {number} of {total}" for number, _ in zip(absent, range(3), strict=False))
    ordered = tuple(files[number] for number in sorted(files))
    return ModelSet(
        f"{prefix}-*-of-{total}.{extension}", _rank(f"{prefix}.{extension}", "numbered"), ordered, missing=missing
    )


def _index_or_none(source: ByteSource) -> dict[str, str] | None:
    """Return what an index says; None if it is broken, which is an error only once it is chosen."""
    try:
        return read_index(source)
    except CheckpointError:
        return None


def _why_none(files: Files) -> str:
    """Say what a folder without a model holds."""
    names = files.names(folders=True)
    if not names:
        return "is an empty folder"
    if any(name.startswith("adapter_model.") for name in names):
        return f"holds an adapter without its {ADAPTER_CONFIG}, and not the model that it changes"
    for name in names:
        known = foreign(name)
        if known is not None:
            return f"holds no model file that is read ({name} {known[0]}; to convert: {known[1]})"
    return "holds no model file"
