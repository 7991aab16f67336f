"""Matrices matched by shape and content, for models whose tensor names say nothing: by size.

Axes: S, B = matrices of one shape in suspect and base, N = values of a sample.

Stated against: independent training. Where no family table fits, nothing is known of roles, and heads and units cannot
be matched. Stored values still can: of every matrix a few rows are sampled, the same in all matrices of a shape. On
half of the columns the suspect's matrices are matched with the base's (LAP on the cosine of what is left without the
means of rows and columns); on the other half the matches are tested. No name is read.

Strangers share what no training made: tables that are computed (waves of positions) and matrices that start from the
same numbers in every row or column (a state-space block's decays). The second have nothing left without those means;
the first are left out where they are equal to the bit and most matrices are not.

Survives new names, fine-tuning, pruning, quantisation, merging, and layers dropped, repeated or reordered. Defeated by
any change of order or basis inside a matrix, so its silence says nothing: it never makes a model independent.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kinprint.alignment.pairing import parameter_names
from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.population import among_innocents
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import trunk_size
from kinprint.linalg.assignment import assignment
from kinprint.linalg.products import unit_rows
from kinprint.types import Evidence, Table

VALUES = 8192
"""Values of each matrix that are read, at least, in whole rows: strangers' cosines are then right to a hundredth."""

LEAST_ROWS = 8
"""Rows that are read at least: fewer have no column means worth subtracting."""

LEAST_VALUES = 1024

NOTHING_LEFT = 1e-4
"""Share of a sample's norm below which what is left without the means is rounding."""
SEED = 0

STATEMENT = Statement(
    name="matrices matched by shape and content",
    id=method_id("matched-tensors", 2, seed=SEED, values=VALUES),
    rung=2,
    null="independent training: a matrix that agrees with another on some columns does not agree on the others",
    defeats="units, heads or coordinates in another order; a rotated residual stream; rescaled units",
)


def test(suspect: ModelView, base: ModelView) -> Evidence:
    """Test one pair; neither needs a family table."""
    found = measure(suspect, base)
    if found is None:
        return STATEMENT.not_applicable(f"the models share no shape of a matrix with {LEAST_VALUES} values or more")
    size, rows, equal = found
    shown = tuple((mine, theirs, cosine) for mine, theirs, cosine in sorted(rows, key=lambda row: -row[2])[:200])
    return STATEMENT.sized(
        size,
        tables=(Table(title="matched matrices", columns=("suspect", "base", "tested cosine"), rows=shown),),
        notes=(
            f"mean over the better half of {len(rows)} matrices; columns they were matched on are left out",
            *((f"{equal} more are equal to the bit, as computed tables are, and count for nothing",) if equal else ()),
        ),
    ).model_copy(update={**among_innocents("tensors", size, (_width(suspect), _width(base))), "carries": True})


def measure(suspect: ModelView, base: ModelView) -> tuple[float, list[tuple[str, str, float]], int] | None:
    """Return the size, the tested cosine of every matched pair of matrices, and how many equal pairs were left out.

    None where no shapes are shared.
    """
    shapes = _by_shape(suspect), _by_shape(base)
    rows: list[tuple[str, str, float]] = []
    equal: list[bool] = []
    for shape in sorted(shapes[0].keys() & shapes[1].keys()):
        samples = [_samples(view, names[shape], shape) for view, names in zip((suspect, base), shapes, strict=True)]
        (mine, mine_SRN), (theirs, theirs_BRN) = samples
        if not mine or not theirs:
            continue
        half = mine_SRN.shape[2] // 2
        here, there = assignment(_cosines(mine_SRN[:, :, :half], theirs_BRN[:, :, :half]))
        tested = _cosines(mine_SRN[:, :, half:], theirs_BRN[:, :, half:])[here, there]
        rows += [(mine[i], theirs[j], float(cosine)) for i, j, cosine in zip(here, there, tested, strict=True)]
        equal += [bool((mine_SRN[i] == theirs_BRN[j]).all()) for i, j in zip(here, there, strict=True)]
    few = 0 < sum(equal) <= len(equal) // 2
    kept = [row for row, same in zip(rows, equal, strict=True) if not (few and same)]
    size = trunk_size([cosine for _, _, cosine in kept])
    return None if size is None else (size, kept, len(rows) - len(kept))


def _by_shape(view: ModelView) -> dict[tuple[int, ...], list[str]]:
    found: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in parameter_names(view):
        info = view.checkpoint.tensors[name]
        if len(info.shape) >= 2 and info.size >= LEAST_VALUES:
            found[info.shape].append(name)
    return found


def _samples(view: ModelView, names: list[str], shape: tuple[int, ...]) -> tuple[list[str], Array]:
    """Return the names of the matrices that could be read, and the same sampled rows of each, [S, R, N]."""
    width = int(np.prod(shape[1:]))
    count = min(shape[0], max(LEAST_ROWS, -(-VALUES // width)))
    chosen = np.sort(np.random.default_rng(SEED).choice(shape[0], count, replace=False))
    kept: list[str] = []
    samples: list[Array] = []
    for name in names:
        rows = [view.checkpoint.read(name, slice(int(row), int(row) + 1)) for row in chosen]
        values = np.concatenate(rows).astype(np.float32).reshape(count, width)
        if np.isfinite(values).all():
            kept.append(name)
            samples.append(values)
    return kept, np.array(samples)


def _cosines(left_SRN: Array, right_BRN: Array) -> Array:
    """Return the cosines of all samples with all, without the means of rows and columns; 0 where nothing is left."""
    left, right = (_without_means(side) for side in (left_SRN, right_BRN))
    return left @ right.T


def _without_means(side_SRN: Array) -> Array:
    """Return unit vectors [S, R * N]; float64, for a difference of nearly equal numbers may be all that is left."""
    wide = side_SRN.astype(np.float64)
    left = wide - wide.mean(axis=2, keepdims=True)
    left -= left.mean(axis=1, keepdims=True)
    flat, whole = left.reshape(len(left), -1), wide.reshape(len(wide), -1)
    left_over = np.linalg.norm(flat, axis=1) > NOTHING_LEFT * np.linalg.norm(whole, axis=1)
    return unit_rows((flat * left_over[:, None]).astype(np.float32))


def _width(view: ModelView) -> int:
    return view.geometry.hidden or 0
