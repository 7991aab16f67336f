"""Checkpoints as long as real ones that need little disk: data in a few layers, holes elsewhere.

For tests of scale. A hole is a range of a file that was never written: it reads as zeros and takes no room, where the
file system knows sparse files. Which layers hold data follows from a seed, and no file in the folder says it.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np

from kinprint.checkpoint import Array, open_checkpoint
from kinprint.errors import UsageError
from kinprint.zoo.model import as_json
from kinprint.zoo.sparse_plan import ITEM_BYTES, Dtype, Layout, Place, Plan, Unit, blocks, known, plan
from kinprint.zoo.sparse_recipe import Base, Kind, Recipe, filled_layers
from kinprint.zoo.sparse_shapes import FP8_BLOCK, SHAPES, Shape, config
from kinprint.zoo.sparse_values import Values, row_blocks

__all__ = ["SHAPES", "Dtype", "Kind", "Layout", "Shape", "filled_layers", "folder_bytes", "plan", "write_sparse"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

MOST_WORKERS = 4
"""Most units at work side by side: each holds a few blocks of rows."""

_FP8_MAX = 448.0
"""Largest value of e4m3."""

_STAT_BLOCK_BYTES = 512
"""Unit in which POSIX counts the room that a file takes, whatever the blocks of the file system are."""


def write_sparse(
    shape: Shape | str,
    folder: Path,
    *,
    seed: int,
    kind: Kind = "stranger",
    base: Path | None = None,
    layers: int | None = None,
    filled: int | None = 6,
    filled_experts: int | None = 8,
    layout: Layout = "per-expert",
    dtype: Dtype = "bf16",
    change: float = 0.1,
    embeddings: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write a checkpoint of a published shape in which only some layers hold data.

    The same arguments give the same bytes. The embedding and the last norm are filled too, the output matrix only
    where all layers are.

    Args:
        shape: A shape or its name in :data:`SHAPES`.
        folder: Where to write it; it must not exist yet, or be empty.
        seed: Seed of everything drawn.
        kind: ``stranger`` is drawn; with a base, it has data where the base has: its innocent twin. ``finetuned`` is
            the base with noise. ``upcycled`` has attention, norms and embedding of a dense base, experts cut from its
            MLPs, and a router of its own, all but the router with noise. ``laundered`` is the base with noise, all
            its axes permuted and its MLP units rescaled, which keeps the function.
        base: The checkpoint to start from, in any layout and dtype that kinprint reads.
        layers: Only the first so many layers; all when None.
        filled: How many layers hold data, if there is no base; all when None.
        filled_experts: How many experts of each do, if no base says it; all when None.
        layout: Whether every expert has tensors of its own, or one tensor holds those of all.
        dtype: ``fp8`` stores the matrices of layers in blocks of e4m3 with scales.
        change: Root mean square of the noise of a child, relative to that of the values it lies on.
        embeddings: Whether embedding and output matrix may hold data at all.
        progress: Hears of progress.

    Returns:
        The folder.

    Raises:
        UsageError: An unknown shape, kind, layout or dtype, numbers out of range, a base that is missing or does not
            fit, or a folder that cannot be written.
        CheckpointError: The base cannot be read.
    """
    folder = Path(folder)
    _check(kind, base, change, seed, filled, filled_experts)
    whole = plan(shape, layers=layers, layout=layout, dtype=dtype)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already: choose another folder")
    opened = open_checkpoint(base) if base is not None else None
    recipe = Recipe(
        shape=whole.shape,
        kind=kind,
        seed=seed,
        base=Base(opened) if opened is not None else None,
        filled=filled_layers(whole.shape, seed, filled=filled, filled_experts=filled_experts),
        experts=filled_experts,
        embeddings=embeddings,
        change=change,
    )
    stage = folder.parent / f".{folder.name}-{secrets.token_hex(8)}.tmp"
    try:
        stage.mkdir(parents=True)
        _write(whole, recipe, stage, progress)
        if folder.exists():
            folder.rmdir()
        stage.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}: choose another place") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if opened is not None:
            opened.close()
    return folder


def folder_bytes(folder: Path) -> tuple[int, int]:
    """Return how long a folder's files are together, and how much room they take, as far as the system says."""
    apparent = actual = 0
    for path in folder.iterdir():
        found = path.stat()
        apparent += found.st_size
        actual += found.st_blocks * _STAT_BLOCK_BYTES if hasattr(found, "st_blocks") else found.st_size
    return apparent, actual


def _check(kind: str, base: Path | None, change: float, *counts: int | None) -> None:
    known("kind", kind, get_args(Kind))
    if kind != "stranger" and base is None:
        raise UsageError(f"a checkpoint that is {kind} needs one to come from: give a base")
    if not 0 <= change < float("inf"):
        raise UsageError(f"a change of {change} is no size: give a number of at least 0")
    if any(count is not None and count < 0 for count in counts):
        raise UsageError("the seed and the numbers of filled layers and experts must be at least 0")


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(whole: Plan, recipe: Recipe, stage: Path, progress: Progress | None) -> None:
    """Write all files; units are written side by side, each at its place."""
    for file, header in whole.headers.items():
        with (stage / file).open("wb") as out:
            out.write(header)
            out.truncate(whole.sizes[file])

    def put(job: tuple[Unit, Place]) -> None:
        rows = recipe.rows(job[0])
        if rows is not None:
            for first, last in row_blocks(job[0].shape):
                _put_rows(whole, stage, *job, first, rows(first, last))

    # The largest first: an embedding that one worker starts at the end would let the others wait.
    jobs = sorted(whole.units, key=lambda job: -job[0].size)
    with ThreadPoolExecutor(min(MOST_WORKERS, cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(put, jobs), 1):
            if progress is not None:
                progress("tensors and experts", done, len(jobs))
    shape = whole.shape
    (stage / "model.safetensors.index.json").write_bytes(as_json(whole.index()))
    (stage / "config.json").write_bytes(as_json(config(shape, fp8=whole.dtype == "fp8")))
    (stage / "tokenizer.json").write_bytes(as_json(_tokenizer(shape.vocab)))


def _put_rows(whole: Plan, stage: Path, unit: Unit, place: Place, first: int, values: Values) -> None:
    """Write a block of rows, with its scales if it has any."""
    columns = unit.shape[1] if len(unit.shape) > 1 else 1
    if place.scales is None:
        exact = whole.tensors[place.tensor].dtype == "F32"
        stored = values if exact else values.astype(ml_dtypes.bfloat16)
    else:
        stored, scales = _fp8(values)
        down, across = first // FP8_BLOCK, blocks(1, columns)[1]
        _put(whole, stage, place.scales, place.first_scale + down * across, scales)
    _put(whole, stage, place.tensor, place.first + first * columns, stored)


def _put(whole: Plan, stage: Path, name: str, first: int, values: Array) -> None:
    tensor = whole.tensors[name]
    plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    with (stage / tensor.file).open("r+b") as file:
        file.seek(len(whole.headers[tensor.file]) + tensor.offset + first * ITEM_BYTES[tensor.dtype])
        file.write(plain.view(np.uint8).data)


def _fp8(values_MN: Values) -> tuple[Array, Array]:
    """Return values in e4m3 and the float32 factor of each block, which its largest value decides."""
    rows, columns = values_MN.shape
    down, across = blocks(rows, columns)
    padded = np.zeros((down * FP8_BLOCK, across * FP8_BLOCK), np.float32)
    padded[:rows, :columns] = values_MN
    tiles = padded.reshape(down, FP8_BLOCK, across, FP8_BLOCK)
    largest = np.abs(tiles).max(axis=(1, 3))
    scales = np.where(largest > 0, largest / np.float32(_FP8_MAX), np.float32(1)).astype(np.float32)
    tiles /= scales[:, None, :, None]
    return padded[:rows, :columns].astype(ml_dtypes.float8_e4m3fn), scales


def _tokenizer(tokens: int) -> dict[str, object]:
    """Return a tokenizer of whole words, the same for every checkpoint of as many tokens."""
    words = {f"token-{number}": number for number in range(tokens)}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "token-0"},
    }
