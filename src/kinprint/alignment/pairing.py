"""Which tensors of two models face each other: by role, by name, or by shape and order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import ModelView, PartKey
from kinprint.checkpoint import Array, Checkpoint
from kinprint.errors import NonFiniteError

BLOCK_BYTES = 1 << 23
"""Bytes of float32 in one block of one tensor; a comparison holds a few blocks at once."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A role or tensor that both models have, in different shapes."""

    label: str
    suspect: tuple[int, ...]
    base: tuple[int, ...]

    def __str__(self) -> str:
        """Return one readable phrase."""
        return f"{self.label}: {list(self.suspect)} against {list(self.base)}"


def shared_parts(suspect: ModelView, base: ModelView) -> tuple[list[PartKey], list[Misfit]]:
    """Return the parts that both models have in one shape, and those that they have in two, in the suspect's order."""
    fit: list[PartKey] = []
    misfit: list[Misfit] = []
    for key in suspect.parts:
        if key not in base.parts:
            continue
        shapes = [view.shape(key.role, key.layer, key.expert) for view in (suspect, base)]
        if shapes[0] == shapes[1]:
            fit.append(key)
        else:
            misfit.append(Misfit(str(key), *shapes))
    return fit, misfit


def parameter_names(view: ModelView) -> list[str]:
    """Return the names of all tensors that hold parameters, in file order."""
    return [name for name, info in view.checkpoint.tensors.items() if info.floating and name not in view.ignored]


def shared_names(suspect: ModelView, base: ModelView) -> tuple[list[str], list[Misfit]]:
    """Return the tensor names that both models have in one shape, and those that they have in two."""
    there = set(parameter_names(base))
    fit: list[str] = []
    misfit: list[Misfit] = []
    for name in parameter_names(suspect):
        if name not in there:
            continue
        shapes = suspect.checkpoint.tensors[name].shape, base.checkpoint.tensors[name].shape
        if shapes[0] == shapes[1]:
            fit.append(name)
        else:
            misfit.append(Misfit(name, *shapes))
    return fit, misfit


def paired_by_shape(suspect: ModelView, base: ModelView) -> list[tuple[str, str]]:
    """Pair the k-th tensor of each shape in one model with the k-th of that shape in the other.

    For models whose names mean nothing to us and are not shared: it assumes that both were written in the same order.
    """
    waiting: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in reversed(parameter_names(base)):
        waiting[base.checkpoint.tensors[name].shape].append(name)
    pairs: list[tuple[str, str]] = []
    for name in parameter_names(suspect):
        same_shape = waiting[suspect.checkpoint.tensors[name].shape]
        if same_shape:
            pairs.append((name, same_shape.pop()))
    return pairs


def tensor_blocks(checkpoint: Checkpoint, name: str, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
    """Yield one stored tensor in blocks of rows, as float32 (float64 stays).

    Raises:
        NonFiniteError: A block holds NaN or Inf.
    """
    info = checkpoint.tensors[name]
    if not info.shape:
        yield _widened(checkpoint.read(name), name)
        return
    step = max(1, block_bytes // (4 * max(1, info.size // max(1, info.shape[0]))))
    for first in range(0, info.shape[0], step):
        yield _widened(checkpoint.read(name, slice(first, min(first + step, info.shape[0]))), name)


def part_blocks(view: ModelView, key: PartKey, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
    """Yield one part in blocks of rows, as float32 (float64 stays).

    Raises:
        NonFiniteError: A block holds NaN or Inf.
    """
    return (block for _, block in view.row_blocks(key.role, key.layer, key.expert, block_bytes=block_bytes))


def _widened(values: Array, name: str) -> Array:
    wide = np.asarray(values, dtype=np.float64 if values.dtype == np.float64 else np.float32)
    if not np.isfinite(wide).all():
        raise NonFiniteError(name)
    return wide
