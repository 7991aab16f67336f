"""Singular values of a few whole matrices, to look at: with the Marchenko-Pastur bulk and the spikes above it.

Axes: M = output rows, N = input columns, S = singular values, J = ranks that are kept.

The law is one of matrices, not of the products that GhostSpec compares. Taken are the first, the middle and the last
layer that have the matrix: the MLP's gate (up, where there is none), which no order of units, no basis of the stream
and no exchange of scale between up and down changes once the gain before it is folded in, and the output projection of
attention for models without. Of large matrices every so many rows and columns are taken: part of a matrix with
independent entries is such a matrix, so the law stays, while spikes lose length in proportion.

Nothing here enters a similarity. What spikes are worth is said in :mod:`kinprint.linalg.bulk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import ModelView
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError, UsageError
from kinprint.fingerprints import Fingerprint
from kinprint.linalg import singular_values
from kinprint.linalg.bulk import fit
from kinprint.types import Cell, Table

MLP = ("mlp.gate", "mlp.up")
OUTPUT = "attn.o"
PLACES = ("first", "middle", "last")

ROWS, COLUMNS = 512, 2048
"""Most rows and columns of a matrix: its spectrum then takes a twentieth of a second."""

HEAD, TAIL = 24, 40
"""Ranks that are kept: the first ones each, since spikes are there, and others spread over the rest."""

DIGITS = 6
"""Significant digits of a value that is kept."""


def matrix_spectra(model: ModelView, *, fold: bool) -> tuple[dict[str, Array], list[str]]:
    """Return singular values of a model's matrices as arrays of a fingerprint, and what was left out.

    Args:
        model: The model.
        fold: Multiply norm gains into the matrices first.

    Returns:
        ``matrix.ROLE.PLACE`` float64 [S], largest first, and beside it ``matrix.ROLE.PLACE.of``, int64: the layer, and
        the rows and columns that were taken.
    """
    arrays: dict[str, Array] = {}
    problems: list[str] = []
    mlp = next((role for role in MLP if model.layers(role)), None)
    for role in (mlp, OUTPUT):
        layers = model.layers(role) if role is not None else []
        if role is None or not layers:
            continue
        for place, layer in zip(PLACES, (layers[0], layers[len(layers) // 2], layers[-1]), strict=True):
            try:
                part_MN = _part(model, role, layer, fold=fold)
                values_S = _checked(part_MN)
            except (NonFiniteError, UsageError, np.linalg.LinAlgError) as error:
                problems.append(f"spectrum of {role}, layer {layer} left out: {error}")
                continue
            if values_S.size < 2:  # no bulk
                continue
            arrays[f"matrix.{role}.{place}"] = values_S
            arrays[f"matrix.{role}.{place}.of"] = np.array([layer, *part_MN.shape], dtype=np.int64)
    return arrays, problems


def _checked(part_MN: Array) -> Array:
    with np.errstate(all="ignore"):  # what overflowed is found below
        values_S = singular_values(part_MN)
    if not np.isfinite(values_S).all():
        raise UsageError("its singular values exceed what float64 holds")
    return values_S


def _part(model: ModelView, role: str, layer: int, *, fold: bool) -> Array:
    rows, columns = model.shape(role, layer)
    return model.chosen(role, layer, rows=_every(rows, ROWS), fold=fold)[:, _every(columns, COLUMNS)]


def _every(count: int, most: int) -> slice:
    """Return which of so many lines are taken: all, or equally far apart."""
    return slice(None, None, -(-count // most))


@dataclass(frozen=True, slots=True)
class _Side:
    """One model's values of a matrix by place, with the layer and the shape of what was taken."""

    values: Mapping[str, Array]
    of: Mapping[str, Array]


def spectrum_tables(suspect: Fingerprint, base: Fingerprint) -> tuple[Table, ...]:
    """Return the spectra of the first matrix that both models have, thinned, and their bulks; nothing without one."""
    for role in (*MLP, OUTPUT):
        sides = {name: _side(one, role) for name, one in (("suspect", suspect), ("base", base))}
        if all(side.values for side in sides.values()):
            return _values(role, sides), _bulks(role, sides)
    return ()


def _side(fingerprint: Fingerprint, role: str) -> _Side:
    held = fingerprint.arrays
    there = [place for place in PLACES if f"matrix.{role}.{place}" in held]
    # A matrix of zeros has no bulk.
    there = [place for place in there if np.median(held[f"matrix.{role}.{place}"]) > 0]
    return _Side(
        {place: held[f"matrix.{role}.{place}"] for place in there},
        {place: held[f"matrix.{role}.{place}.of"] for place in there},
    )


def _values(role: str, sides: Mapping[str, _Side]) -> Table:
    columns = [(place, name) for place in PLACES for name, side in sides.items() if place in side.values]
    most = max(sides[name].values[place].size for place, name in columns)
    rows: list[tuple[Cell, ...]] = []
    for rank in _ranks(most):
        found = (sides[name].values[place] for place, name in columns)
        rows.append((rank, *(_short(values_S[rank - 1]) if rank <= values_S.size else None for values_S in found)))
    return Table(
        title=f"Singular values of {role} by rank",
        columns=("rank", *(f"{place} {name}" for place, name in columns)),
        rows=tuple(rows),
        plotted=True,
    )


def _ranks(most: int) -> list[int]:
    """Return ranks from 1: the first ones, then others at equal ratios, the last among them.

    Example:
        >>> _ranks(3), _ranks(2048)[22:27], _ranks(2048)[-1]
        ([1, 2, 3], [23, 24, 27, 30, 34], 2048)
    """
    if most <= HEAD:
        return list(range(1, most + 1))
    spread = np.geomspace(HEAD, most, TAIL + 1).round().astype(int)
    return sorted({*range(1, HEAD + 1), *spread.tolist()})


def _bulks(role: str, sides: Mapping[str, _Side]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for place in PLACES:
        for name, side in sides.items():
            if place not in side.values:
                continue
            layer, m, n = (int(number) for number in side.of[place])
            bulk = fit(side.values[place], (m, n))
            numbers = (_short(bulk.sigma), _short(bulk.edge), bulk.spikes, _short(bulk.distance))
            rows.append((place, name, layer, m, n, *numbers))
    return Table(
        title=f"Marchenko-Pastur bulk of {role}",
        columns=("place", "model", "layer", "rows", "columns", "sigma", "edge", "spikes", "distance from the law"),
        rows=tuple(rows),
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
