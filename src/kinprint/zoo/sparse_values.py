"""The values of sparse checkpoints: drawn, or taken from a base, permuted, rescaled and with noise on top.

Axes: M = rows, N = columns (none in a vector). Values come in blocks of rows, each from a random stream of its own
that seed, purpose, unit and block name. So they do not depend on threads, on the layout or on what else is filled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.shapes import Float32, Int64
from kinprint.zoo.sparse_plan import AXES, Unit
from kinprint.zoo.sparse_shapes import FP8_BLOCK, Shape

Values = Float32[np.ndarray, "*M"]
Rows = Callable[[int, int], Values]
"""Gives the values of rows first to last; called with the bounds of :func:`row_blocks` only."""

BLOCK_VALUES = 1 << 22
"""Most values that one block of rows holds."""

_SPREAD = 0.25
"""Standard deviation of the logarithms of rows' and columns' sizes: what makes the tails of a matrix heavy."""

_RESCALING = 0.5
"""Standard deviation of the logarithms of the factors between the halves of an MLP."""


def stream(seed: int, *purpose: object) -> np.random.Generator:
    """Return the random numbers of one purpose."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.Generator(np.random.SFC64([seed, int.from_bytes(digest[:16], "little")]))


def row_blocks(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return bounds of blocks of rows; all but the last are a multiple of the rows that share a scale in fp8.

    Example:
        >>> row_blocks((1000, 8192))
        [(0, 512), (512, 1000)]
    """
    rows, columns = shape if len(shape) == 2 else (*shape, 1)
    step = max(BLOCK_VALUES // columns // FP8_BLOCK, 1) * FP8_BLOCK
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


def drawn(shape: Shape, unit: Unit, seed: int) -> Rows:
    """Return values of a unit's own.

    Matrices: Gaussian of standard deviation about 1/sqrt(N), times sizes of rows and columns. Gains: log-normal, with
    a level and a spread of their own. Biases: Gaussian.
    """
    rng, role = stream(seed, "values", shape.name, unit.name), unit.role
    if role.endswith("norm"):
        gains_M = np.exp(rng.normal(0, 0.2) + rng.uniform(0.1, 0.4) * rng.standard_normal(unit.shape[0]))
        return lambda first, last: gains_M[first:last].astype(np.float32)
    if len(unit.shape) == 1:
        bias_M = 0.1 * rng.standard_normal(unit.shape[0], dtype=np.float32)
        return lambda first, last: bias_M[first:last]
    rows, columns = unit.shape
    size_M = np.exp(_SPREAD * rng.standard_normal((rows, 1))).astype(np.float32) / np.float32(columns**0.5)
    size_N = np.exp(_SPREAD * rng.standard_normal(columns)).astype(np.float32)

    def block(first: int, last: int) -> Values:
        rng = stream(seed, "values", shape.name, unit.name, first)
        values_MN = rng.standard_normal((last - first, columns), dtype=np.float32)
        values_MN *= size_M[first:last]
        values_MN *= size_N
        return values_MN

    return block


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken from a source, in order: rows, columns, factors. None means all, as they are.

    Attributes:
        rows: Source row of each row.
        columns: Source column of each column.
        by_row: Factor of each row.
        by_column: Factor of each column.
    """

    rows: Int64[np.ndarray, " M"] | None = None
    columns: Int64[np.ndarray, " N"] | None = None
    by_row: Values | None = None
    by_column: Values | None = None


def derived(source: Array, taken: Taken, unit: Unit, *, change: float, seed: int) -> Rows:
    """Return values that come from a source, with Gaussian noise of a size relative to it.

    Args:
        source: Rows and columns of the base's matrix, or a vector.
        taken: What of it.
        unit: What it becomes.
        change: Root mean square of the noise over that of the values, before any factor.
        seed: Seed of the noise.
    """

    def block(first: int, last: int) -> Values:
        from_base = source[first:last] if taken.rows is None else source[taken.rows[first:last]]
        values = np.array(from_base, dtype=np.float32)
        if taken.columns is not None:
            values = values[:, taken.columns]
        if change:
            noise = stream(seed, "noise", unit.name, first).standard_normal(values.shape, dtype=np.float32)
            noise *= np.float32(change * np.sqrt(np.mean(np.square(values, dtype=np.float32), dtype=np.float64)))
            values += noise
        if taken.by_row is not None:
            values *= taken.by_row[first:last, None]
        if taken.by_column is not None:
            values *= taken.by_column
        return values

    return block


# -- function-preserving changes -------------------------------------------------------------------------------------


def permutation(shape: Shape, axis: str, unit: Unit, seed: int) -> Int64[np.ndarray, " axis"] | None:
    """Return where each place of an axis comes from in the base; None where the axis stays as it is.

    Heads are permuted with the queries that share their keys and values, and inside such a group.
    """
    match axis:
        case "residual":
            return stream(seed, axis).permutation(shape.hidden)
        case "group":
            return _coordinates(stream(seed, axis, unit.layer).permutation(shape.kv_heads), shape.head_dim)
        case "head":
            return _coordinates(_heads(shape, unit, seed), shape.head_dim)
        case "latent-query":
            return _coordinates(_heads(shape, unit, seed), shape.head_dim + shape.rotary_dim)
        case "latent-key":
            return _coordinates(_heads(shape, unit, seed), 2 * shape.head_dim)
        case "query-latent":
            return stream(seed, axis, unit.layer).permutation(shape.query_latent)
        case "key-latent":
            order = stream(seed, axis, unit.layer).permutation(shape.key_latent)
            # The rotated key that all heads share comes after the latent, and stays where it is.
            rotated = shape.key_latent + np.arange(shape.rotary_dim if unit.role == "kv_a" else 0)
            return np.concatenate([order, rotated])
        case "expert":
            return stream(seed, axis, unit.layer).permutation(shape.experts)
        case "unit":
            wide = unit.shape[1] if unit.role == "down" else unit.shape[0]
            return stream(seed, axis, unit.layer, unit.expert, unit.shared).permutation(wide)
        case _:
            return None


def _heads(shape: Shape, unit: Unit, seed: int) -> Int64[np.ndarray, " H"]:
    groups_G = stream(seed, "group", unit.layer).permutation(shape.kv_heads)
    share = shape.heads // shape.kv_heads
    rng = stream(seed, "head", unit.layer)
    inside_GH = np.stack([rng.permutation(share) for _ in range(shape.kv_heads)])
    return (groups_G[:, None] * share + inside_GH).ravel()


def laundering(shape: Shape, unit: Unit, seed: int) -> Taken:
    """Return the permutations and factors of one unit that together leave a model's function alone.

    Every axis is permuted, except tokens, coordinates inside a head and, here, experts: those are whole units of a
    mixture, see :func:`source_expert`. Each MLP unit's up row is multiplied by a factor and its down column divided.
    """
    axes = [permutation(shape, axis, unit, seed) for axis in AXES[unit.role]]
    rows, columns = axes[0], axes[1] if len(axes) > 1 else None
    if unit.role not in ("up", "down"):
        return Taken(rows, columns)
    wide = unit.shape[0] if unit.role == "up" else unit.shape[1]
    rng = stream(seed, "factor", unit.layer, unit.expert, unit.shared)
    factor = np.exp(_RESCALING * rng.standard_normal(wide)).astype(np.float32)
    return Taken(rows, columns, by_row=factor) if unit.role == "up" else Taken(rows, columns, by_column=1 / factor)


def source_expert(shape: Shape, unit: Unit, seed: int) -> int | None:
    """Return which of the base's experts a laundered model's expert was."""
    if unit.expert is None:
        return None
    return int(stream(seed, "expert", unit.layer).permutation(shape.experts)[unit.expert])


def upcycling(unit: Unit, dense_units: int, seed: int) -> Taken:
    """Return which units of a dense MLP an expert takes over.

    Permutations of all units are cut into as many experts as fit; shared experts have a permutation of their own.

    Args:
        unit: A projection of an expert, or of the shared experts.
        dense_units: Units of the base's MLP, at least as many as the expert has.
        seed: Seed of the permutations.

    Raises:
        UsageError: The expert has more.
    """
    wide = unit.shape[1] if unit.role == "down" else unit.shape[0]
    if wide > dense_units:
        raise UsageError(f"{unit.name} has {wide} units, a dense MLP only {dense_units}: give a narrower expert")
    turn, place = divmod(unit.expert or 0, dense_units // wide)
    order = stream(seed, "slices", unit.layer, unit.shared, turn).permutation(dense_units)
    chosen = order[place * wide : (place + 1) * wide]
    return Taken(columns=chosen) if unit.role == "down" else Taken(rows=chosen)


def _coordinates(heads_H: Int64[np.ndarray, " H"], head_dim: int) -> Int64[np.ndarray, " rows"]:
    return (heads_H[:, None] * head_dim + np.arange(head_dim)).ravel()
