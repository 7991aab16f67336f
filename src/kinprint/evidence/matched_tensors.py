"""Matrices matched by shape and content, for models whose tensor names say nothing: by size.

Axes: S, B = matrices of one shape in suspect and base, N = values of a sample.

Stated against: independent training. Where no family table fits, nothing is known of roles, and heads and units cannot
be matched. Stored values still can: of every matrix a few rows are sampled, the same in all matrices of a shape. On
half of the columns the suspect's matrices are matched with the base's (LAP on cosine about the mean); on the other half
the matches are tested. No name is read.

Survives new names, fine-tuning, pruning, quantisation, merging, and layers dropped, repeated or reordered. Defeated by
any change of order or basis inside a matrix, so its silence says nothing: it never makes a model independent.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kinprint.alignment.pairing import parameter_names
from kinprint.alignment.trunk import unit_rows
from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.population import among_innocents
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import trunk_size
from kinprint.linalg.assignment import assignment
from kinprint.types import Evidence, Table

VALUES = 8192
"""Values of each matrix that are read, at least, in whole rows: strangers' cosines are then right to a hundredth."""

LEAST_VALUES = 1024
SEED = 0

STATEMENT = Statement(
    name="matrices matched by shape and content",
    id=method_id("matched-tensors", 1, seed=SEED, values=VALUES),
    rung=2,
    null="independent training: a matrix that agrees with another on some columns does not agree on the others",
    defeats="units, heads or coordinates in another order; a rotated residual stream; rescaled units",
)


def test(suspect: ModelView, base: ModelView) -> Evidence:
    """Test one pair; neither needs a family table."""
    found = measure(suspect, base)
    if found is None:
        return STATEMENT.not_applicable(f"the models share no shape of a matrix with {LEAST_VALUES} values or more")
    size, rows = found
    shown = tuple((mine, theirs, cosine) for mine, theirs, cosine in sorted(rows, key=lambda row: -row[2])[:200])
    return STATEMENT.sized(
        size,
        tables=(Table(title="matched matrices", columns=("suspect", "base", "tested cosine"), rows=shown),),
        notes=(f"mean over the better half of {len(rows)} matrices; columns they were matched on are left out",),
    ).model_copy(update={**among_innocents("tensors", size, (_width(suspect), _width(base))), "carries": True})


def measure(suspect: ModelView, base: ModelView) -> tuple[float, list[tuple[str, str, float]]] | None:
    """Return the size and the tested cosine of every matched pair of matrices; None where no shapes are shared."""
    shapes = _by_shape(suspect), _by_shape(base)
    rows: list[tuple[str, str, float]] = []
    for shape in sorted(shapes[0].keys() & shapes[1].keys()):
        samples = [_samples(view, names[shape], shape) for view, names in zip((suspect, base), shapes, strict=True)]
        (mine, mine_SN), (theirs, theirs_BN) = samples
        if not mine or not theirs:
            continue
        half = mine_SN.shape[1] // 2
        here, there = assignment(_cosines(mine_SN[:, :half], theirs_BN[:, :half]))
        tested = _cosines(mine_SN[:, half:], theirs_BN[:, half:])[here, there]
        rows += [(mine[i], theirs[j], float(cosine)) for i, j, cosine in zip(here, there, tested, strict=True)]
    size = trunk_size([cosine for _, _, cosine in rows])
    return None if size is None else (size, rows)


def _by_shape(view: ModelView) -> dict[tuple[int, ...], list[str]]:
    found: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in parameter_names(view):
        info = view.checkpoint.tensors[name]
        if len(info.shape) >= 2 and info.size >= LEAST_VALUES:
            found[info.shape].append(name)
    return found


def _samples(view: ModelView, names: list[str], shape: tuple[int, ...]) -> tuple[list[str], Array]:
    """Return the names of the matrices that could be read, and a sample of each, first halves of rows before second."""
    width = int(np.prod(shape[1:]))
    count = min(shape[0], -(-VALUES // width))
    chosen = np.sort(np.random.default_rng(SEED).choice(shape[0], count, replace=False))
    kept: list[str] = []
    samples: list[Array] = []
    for name in names:
        rows = [view.checkpoint.read(name, slice(int(row), int(row) + 1)) for row in chosen]
        values = np.concatenate(rows).astype(np.float32).reshape(count, width)
        if np.isfinite(values).all():
            kept.append(name)
            samples.append(np.concatenate([values[:, : width // 2].ravel(), values[:, width // 2 :].ravel()]))
    return kept, np.array(samples)


def _cosines(left_SN: Array, right_BN: Array) -> Array:
    """Return Pearson's correlations of all samples with all; 0 where one is constant."""
    sides = [unit_rows(side - side.mean(axis=1, keepdims=True)) for side in (left_SN, right_BN)]
    return sides[0] @ sides[1].T


def _width(view: ModelView) -> int:
    return view.geometry.hidden or 0
