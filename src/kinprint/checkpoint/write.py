"""Writing models as safetensors, in one file or in shards, with nothing half-written left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kinprint.checkpoint.base import BLOCK_BYTES, Array
from kinprint.checkpoint.faults import checked_name, shown
from kinprint.checkpoint.folder import INDEX_SUFFIX, model_sets
from kinprint.checkpoint.local import LocalFiles
from kinprint.checkpoint.memory import dtype_name
from kinprint.checkpoint.parts import bytes_of
from kinprint.checkpoint.safetensors_file import LENGTH_BYTES, METADATA_KEY
from kinprint.errors import CheckpointError, UsageError

SUFFIX = ".safetensors"


def write_safetensors(
    target: str | Path,
    tensors: Mapping[str, Array] | Iterable[tuple[str, Array]],
    *,
    config: Mapping[str, Any] | None = None,
    vocabulary_file: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    shard_bytes: int | None = None,
    prefix: str = "model",
) -> tuple[Path, ...]:
    """Write tensors, and what belongs to them, so that either all of it is there or nothing.

    Everything is written under a temporary name on the same disk and renamed at the end: a new folder in one step, a
    folder that exists file by file with the index last. An iterator is consumed one tensor at a time, and only one is
    held.

    Args:
        target: A folder, or one file that ends in ``.safetensors``.
        tensors: Arrays by name: f64, f32, f16, bf16, f8_e4m3, f8_e5m2 (ml_dtypes), integers or booleans.
        config: Becomes ``config.json`` in the folder.
        vocabulary_file: Copied into the folder under its own name.
        metadata: Text for the header; ``format`` is ``pt`` unless given, which is what transformers expects.
        shard_bytes: Most tensor bytes in one file; one tensor is never split. One file when None.
        prefix: What the file names start with when the target is a folder.

    Returns:
        The model files, in order, then the index if there is one.

    Raises:
        UsageError: No tensors, a name twice, a dtype that safetensors does not have, shards asked for in one file, or
            a folder that already holds another model.
    """
    path = Path(target)
    as_file = path.suffix == SUFFIX
    if as_file and shard_bytes is not None:
        raise UsageError(f"{path}: one file cannot be sharded; give a folder")
    folder = path.parent if as_file else path
    is_new = not folder.exists()
    stage = (folder.parent if is_new else folder) / f".{folder.name}-{secrets.token_hex(8)}.tmp"
    items = cast("Mapping[str, Array]", tensors).items() if isinstance(tensors, Mapping) else tensors
    try:
        stage.mkdir(parents=True)
        shards = _spool(stage, items, shard_bytes, str(path))
        names = [path.name] if as_file else _names(prefix, len(shards))
        header_text = {"format": "pt", **(metadata or {})}
        for shard, name in zip(shards, names, strict=True):
            shard.finish(stage / name, header_text)
        if len(shards) > 1:
            names.append(f"{prefix}{SUFFIX}{INDEX_SUFFIX}")
            _write_json(stage / names[-1], _index(shards, names))
        if config is not None:
            _write_json(stage / "config.json", config)
        if vocabulary_file is not None:
            shutil.copyfile(vocabulary_file, stage / vocabulary_file.name)
        if is_new:
            stage.rename(folder)
        else:
            _move_in(stage, folder, names, check=not as_file)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return tuple(folder / name for name in names)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor in the spool: what the header will say, and where the bytes wait."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    itemsize: int
    start: int
    nbytes: int


class _Shard:
    """The tensors of one file to be. Their bytes wait in a spool, since the header before them is not known yet."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.entries: list[_Entry] = []
        self.nbytes = 0

    def add(self, name: str, array: Array) -> None:
        """Append one tensor's bytes, little-endian and in C order."""
        plain = array.astype(array.dtype.newbyteorder("<"), copy=False)
        with self._spool.open("ab") as file:
            file.write(bytes_of(plain))
        shape = tuple(int(length) for length in array.shape)
        dtype = dtype_name(array.dtype)
        self.entries.append(_Entry(name, dtype, shape, array.dtype.itemsize, self.nbytes, array.nbytes))
        self.nbytes += array.nbytes

    def finish(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write header and bytes, and delete the spool."""
        # Wide elements first and a header of a multiple of 8 bytes: then every tensor is aligned in the file.
        self.entries.sort(key=lambda entry: -entry.itemsize)
        header: dict[str, Any] = {METADATA_KEY: dict(metadata)}
        position = 0
        for entry in self.entries:
            offsets = [position, position + entry.nbytes]
            header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
            position += entry.nbytes
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % LENGTH_BYTES)
        with self._spool.open("rb") as spool, path.open("wb") as file:
            file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
            for entry in self.entries:
                spool.seek(entry.start)
                left = entry.nbytes
                while left:
                    left -= file.write(spool.read(min(left, BLOCK_BYTES)))
            file.flush()
            os.fsync(file.fileno())
        self._spool.unlink()


def _spool(stage: Path, pairs: Iterable[tuple[str, Array]], shard_bytes: int | None, where: str) -> list[_Shard]:
    """Write every tensor's bytes to a spool and return the shards that they form."""
    shards: list[_Shard] = []
    seen: set[str] = set()
    for name, array in pairs:
        try:
            checked_name(name, where)
            dtype_name(array.dtype)
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        except KeyError as error:
            raise UsageError(
                f"{where}: tensor {shown(name)} has dtype {array.dtype}, which cannot be written"
            ) from error
        if name in seen or name == METADATA_KEY:
            raise UsageError(f"{where}: the name {shown(name)} is given twice or reserved; rename the tensor")
        seen.add(name)
        full = shard_bytes is not None and shards and shards[-1].nbytes + array.nbytes > shard_bytes
        if not shards or full:
            spool = stage / f"spool-{len(shards)}"
            spool.touch()
            shards.append(_Shard(spool))
        shards[-1].add(name, array)
    if not shards:
        raise UsageError(f"{where}: there are no tensors to write")
    return shards


def _names(prefix: str, count: int) -> list[str]:
    """Return the file names of so many shards."""
    if count == 1:
        return [prefix + SUFFIX]
    return [f"{prefix}-{number:05d}-of-{count:05d}{SUFFIX}" for number in range(1, count + 1)]


def _index(shards: Iterable[_Shard], names: Iterable[str]) -> dict[str, Any]:
    """Return the index that Hugging Face's loaders read."""
    places = list(zip(shards, names, strict=False))
    return {
        "metadata": {"total_size": sum(shard.nbytes for shard, _ in places)},
        "weight_map": {entry.name: name for shard, name in places for entry in shard.entries},
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as people read it."""
    path.write_text(json.dumps(dict(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _move_in(stage: Path, folder: Path, names: list[str], *, check: bool) -> None:
    """Rename the staged files into a folder that exists: settings first, then the model, then its index."""
    sets = model_sets(LocalFiles(folder))
    others = sorted({name for old in sets for name in (*old.files, old.index or "")} - {*names, ""})
    if check and others:
        raise UsageError(f"{folder}: already holds {others[0]}; give a new or empty folder")
    staged = sorted(
        (entry.name for entry in stage.iterdir()), key=lambda name: names.index(name) if name in names else -1
    )
    for name in staged:
        (stage / name).replace(folder / name)
