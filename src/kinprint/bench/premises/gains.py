"""Premise: gains that start at 1 give strangers a raw cosine near 1, gains that start at random do not.

Raw cosine, the cosine expected of independent vectors with these spreads, and the cosine about the means, for norm
gains of pairs whose relation is known. Untrained gains need no measurement: two vectors of ones have cosine 1 and no
direction about their mean; of two drawn independently about m with standard deviation s the raw cosine is expected at
1 / (1 + (s / m)^2), which is 0 for m = 0, and the centred one at 0.

Source of the premise: rebuttals in the Solar-Open-100B / GLM-4.5-Air dispute (January 2026), see
:mod:`kinprint.methods.layernorm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from kinprint.bench.premises.models import Models, Told
from kinprint.bench.premises.records import Curves, Premise, Series, unmeasured
from kinprint.linalg.gains import expected_cosine
from kinprint.methods import layernorm
from kinprint.types import Cell, Table

NAME = "gains"
TITLE = "Gains that start at 1 make strangers look alike"
COLUMNS = ("relation", "pair", "vectors", "raw cosine", "lowest raw", "expected raw", "centred cosine", "bit-equal")

ONES = "strangers, gains from 1"
RANDOM = "strangers, gains from random"
MIXED = "strangers, one of each"
CHILD = "parent and child"
THEORY = "theory: untrained"
LAUNDERED = "parent and laundered child"

SPREAD = 0.5
"""Standard deviation about 1 of the gains that the zoo draws at random."""


def measure(models: Models, tell: Told) -> Premise:
    """Compare gains of every pair whose relation is known."""
    pairs = _pairs(models)
    if not pairs:
        return unmeasured(NAME, TITLE, f"needs {models.roster.base} and a twin, or {models.roster.random_gains}")
    names = sorted({name for _, *pair in pairs for name in pair})
    tell("gains")
    views = {name: models.view(name) for name in names}
    gains = {name: layernorm.extract(views[name]) for name in names}
    rows: list[tuple[Cell, ...]] = []
    points: dict[str, list[tuple[float | None, float | None]]] = {}
    for relation, left, right in pairs:
        result = layernorm.compare(gains[left], gains[right])
        if not result.tables:
            rows.append((relation, f"{left} / {right}", 0, None, None, None, None, None))
            continue
        lines = result.tables[0].rows
        rows.append((relation, f"{left} / {right}", len(lines), *_summary(lines)))
        raw, centred = layernorm.COLUMNS.index("raw cosine"), layernorm.COLUMNS.index("centred cosine")
        points.setdefault(relation, []).extend((_float(line[raw]), _float(line[centred])) for line in lines)
    drawn = expected_cosine(SPREAD, SPREAD)
    rows += [
        (THEORY, "all 1", None, 1.0, 1.0, 1.0, None, 1.0),
        (THEORY, f"drawn about 1, standard deviation {SPREAD}", None, None, None, drawn, 0.0, None),
        (THEORY, "drawn about 0", None, None, None, 0.0, 0.0, None),
    ]
    roster = models.roster
    everyone = (roster.base, *roster.children, *roster.laundered, *roster.twins, *roster.random_gains)
    return Premise(
        name=NAME,
        title=TITLE,
        status="measured",
        tables={"gains": Table(title="cosines of norm gains", columns=COLUMNS, rows=tuple(rows))},
        curves=(_picture(points),),
        notes=(
            "means over all norms of the residual stream; one vector per norm and layer; layers share their "
            "coordinates, so that they are not independent evidence",
            *models.missing_note(everyone),
        ),
    )


def _pairs(models: Models) -> list[tuple[str, str, str]]:
    roster = models.roster
    base, twins = models.present([roster.base]), models.present(roster.twins)
    drawn = models.present(roster.random_gains)
    return [
        *((ONES, left, right) for left, right in combinations((*base, *twins), 2)),
        *((RANDOM, left, right) for left, right in combinations(drawn, 2)),
        *((MIXED, left, right) for left in base for right in drawn),
        *((CHILD, left, right) for left in base for right in models.present(roster.children)),
        *((LAUNDERED, left, right) for left in base for right in models.present(roster.laundered)),
    ]


def _summary(lines: Sequence[tuple[Cell, ...]]) -> tuple[float | None, ...]:
    raw = _column(lines, "raw cosine")
    rest = (_column(lines, name) for name in ("expected raw", "centred cosine", "bit-equal"))
    return (_mean(raw), min(raw, default=None), *(_mean(column) for column in rest))


def _column(lines: Sequence[tuple[Cell, ...]], name: str) -> list[float]:
    place = layernorm.COLUMNS.index(name)
    return [number for line in lines if (number := _float(line[place])) is not None]


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def _float(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None


def _picture(points: dict[str, list[tuple[float | None, float | None]]]) -> Curves:
    series: list[Series] = []
    for panel, place in (("raw cosine", 0), ("centred cosine", 1)):
        for row, (relation, found) in enumerate(points.items()):
            shown = [number for pair in found if (number := pair[place]) is not None]
            # Spread over a band, so that points do not hide one another; the order is that of pairs and layers.
            band = row + np.linspace(-0.3, 0.3, len(shown))
            series.append(
                Series(panel=panel, label=relation, x=tuple(shown), y=tuple(float(y) for y in band), style="points")
            )
    return Curves(
        name="premises-gains",
        title="Norm gains: one point per pair, norm and layer",
        x_label="cosine",
        y_label="",
        series=tuple(series),
    )
