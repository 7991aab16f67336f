"""Do MLP units of the same number resemble each other, in a few rows of a few layers? Exact, and nearly free.

H0 and label group are those of ``exact_units``: independent initialisation, the units of an MLP. Neighbouring units of
a few facing layers are read, of fixed numbers, so that the relabellings among them are a group of their own; one
relabelling is applied to all layers at once. The statistic is the sum over layers and units of cos(gate) + cos(up), in
stored coordinates, gains folded. These are rows: some megabytes of a model of any size are enough, where columns of the
down matrix would cost all of it.

It is the first test of every plan. A copy that keeps its numbering is decided by it; everything else goes on.

Defeated by whatever defeats ``exact_units`` in the stored basis: units in another order, a turned residual stream.

Source: the constrained test of Zhu et al. (arXiv 2502.12292), section 3, on a sample of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.records import NOISE, SEED, Statement
from kinprint.evidence.sampling import Mlp, Sampling, fetch_rows, mlps_of
from kinprint.evidence.values import equal_values
from kinprint.linalg.permutation import permutation_test
from kinprint.linalg.products import unit_rows
from kinprint.linalg.threads import LARGE_BYTES, side_by_side, threads_for
from kinprint.types import Evidence, Value

LABELS = 128
"""Units of each MLP: p can go down to 10^-215."""

LAYERS = 4
"""Facing layers whose units enter, drawn once."""

DRAWS = 999

PARTS = ("gate", "up")


@dataclass(frozen=True, slots=True)
class Look:
    """What the first look at two models gave.

    Attributes:
        evidence: The test.
        layers: Pairs of facing layers that were read.
        equal: Share of the stored values read that are equal, up to rounding to the coarser dtype; None where no rows
            could be held against each other.
    """

    evidence: Evidence
    layers: tuple[tuple[int, int], ...]
    equal: float | None

    @property
    def same(self) -> bool:
        """Whether all that was read is equal, so that the models may be identical."""
        return self.equal == 1.0


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="a sample of units in stored order",
        id=method_id("exact-sample", 1, labels=LABELS, layers=LAYERS, draws=DRAWS, seed=SEED),
        rung=1,
        null="independent initialisation: the numbering of MLP units is exchangeable (gate and up together)",
        defeats="units in another order; a rotated residual stream",
    )


def test(suspect: ModelView, base: ModelView, log10_alpha: float) -> Evidence:
    """Test one pair."""
    return look(Sampling(suspect, base), log10_alpha).evidence


def look(sampling: Sampling, log10_alpha: float) -> Look:
    """Read a sample and test it."""
    said = statement()
    for view in (sampling.suspect, sampling.base):
        if (reason := view.family.exchangeable("ffn")) is not None:
            return Look(said.not_applicable(reason), (), None)
    mlps = list(mlps_of(sampling, sampling.live(LAYERS)))
    for side, view in enumerate((sampling.suspect, sampling.base)):
        fetch_rows(view, [(mlp.keys(part)[side], _rows(sampling, mlp)) for mlp in mlps for part in PARTS])
    large = 4 * LABELS * _most_coordinates(sampling, mlps) >= LARGE_BYTES
    read = side_by_side(lambda mlp: _Rows.of(sampling, mlp), mlps, large=large)
    units = [(mlp, rows) for mlp, rows in zip(mlps, read, strict=True) if rows is not None]
    if not units:
        return Look(
            said.not_applicable("no facing layers have MLPs of one width, with units that hold anything"), (), None
        )
    most = max(len(rows.mine[0]) for _, rows in units)
    units = [(mlp, rows) for mlp, rows in units if len(rows.mine[0]) == most]
    scores = np.sum(side_by_side(lambda unit: unit[1].scores(), units, large=large), axis=0)
    parts = sum(len(rows.mine) for _, rows in units)
    found = permutation_test([scores], draws=DRAWS, seed=SEED, noise=NOISE)
    shares = [rows.equal for _, rows in units if rows.equal is not None]
    equal = float(np.mean(shares)) if shares else None
    layers = tuple((mlp.suspect, mlp.base) for mlp, _ in units)
    notes = (
        f"{most} units of each of {len(layers)} layers ({', '.join(str(here) for here, _ in layers)})",
        *((f"{equal:.1%} of the values read are equal in both",) if equal else ()),
    )
    evidence = said.exact(found, size=float(np.trace(scores)) / most / parts, log10_alpha=log10_alpha, notes=notes)
    return Look(evidence.model_copy(update={"controls": (*evidence.controls, *_controls(units))}), layers, equal)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Unit rows of gate and up of two facing MLPs, and how many of the stored values are equal."""

    mine: tuple[Array, ...]
    theirs: tuple[Array, ...]
    equal: float | None

    @classmethod
    def of(cls, sampling: Sampling, mlp: Mlp) -> _Rows | None:
        views, rows = (sampling.suspect, sampling.base), _rows(sampling, mlp)
        parts = [
            part
            for part in PARTS
            if all(view.has(key.role, key.layer, key.expert) for view, key in zip(views, mlp.keys(part), strict=True))
        ]
        sides: tuple[list[Array], list[Array]] = ([], [])
        equal: list[float] = []
        try:
            for part in parts:
                keys = mlp.keys(part)
                for view, key, side in zip(views, keys, sides, strict=True):
                    side.append(unit_rows(view.rows(key.role, key.layer, key.expert, rows=rows, fold=True)))
                if sides[0][-1].shape != sides[1][-1].shape:
                    return None
                stored = [
                    view.stored_rows(key.role, key.layer, key.expert, rows=rows)
                    for view, key in zip(views, keys, strict=True)
                ]
                equal.append(float(equal_values(stored[0].ravel(), stored[1].ravel()).mean()))
        except NonFiniteError:
            return None
        return cls(tuple(sides[0]), tuple(sides[1]), float(np.mean(equal)) if equal else None) if parts else None

    def scores(self) -> Array:
        """Return cos(gate) + cos(up) of every unit with every unit of the base, [N, N]."""
        with threads_for(len(self.mine[0])):
            return np.sum([left @ right.T for left, right in zip(self.mine, self.theirs, strict=True)], axis=0)

    def facing(self, other: _Rows) -> float:
        """Return the mean cosine with the units of the same numbers in another layer's base, over the parts."""
        cosines = [np.einsum("nd,nd->n", *sides) for sides in zip(self.mine, other.theirs, strict=True)]
        return float(np.mean(cosines, dtype=np.float64))


def _most_coordinates(sampling: Sampling, mlps: Sequence[Mlp]) -> int:
    keys = [mlp.keys("up")[0] for mlp in mlps]
    return max((sampling.suspect.shape(key.role, key.layer, key.expert)[1] for key in keys), default=0)


def _rows(sampling: Sampling, mlp: Mlp) -> slice:
    """Return the units to read: neighbours from a seeded place; the first ones where the models have not as many."""
    counts = [
        view.shape(key.role, key.layer, key.expert)[0]
        for view, key in zip((sampling.suspect, sampling.base), mlp.keys("up"), strict=True)
    ]
    most = min(LABELS, *counts)
    first = 0
    if counts[0] == counts[1]:
        first = int(np.random.default_rng([SEED, mlp.suspect]).integers(counts[0] - most + 1))
    return slice(first, first + most)


def _controls(units: Sequence[tuple[Mlp, _Rows]]) -> tuple[Value, ...]:
    """Return the same mean cosine between layers that do not face each other."""
    sizes = [
        rows.facing(other)
        for at, (_, rows) in enumerate(units)
        for _, other in (units[(at + 1) % len(units)],)
        if len(units) > 1 and len(rows.mine) == len(other.theirs)
    ]
    if not sizes:
        return ()
    note = f"mean of {len(sizes)} layers against another layer of the base"
    return (Value(name="mismatched layers", value=math.fsum(sizes) / len(sizes), kind="similarity", note=note),)
