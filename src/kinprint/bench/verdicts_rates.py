"""How verdicts fare on pairs of known lineage: conclusions, misses, accusations, and layers that were matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from kinprint.bench.records import Row
from kinprint.types import Conclusion

CONCLUSIONS: tuple[Conclusion, ...] = get_args(Conclusion)

LAYERS_BAR = 0.95
"""Least share of layers that must have their right partner, over all pairs whose layers were moved."""


def judged(rows: Sequence[Row]) -> list[Row]:
    """Return the pairs that have a verdict."""
    return [row for row in rows if row.verdict is not None]


def counts(rows: Sequence[Row]) -> tuple[int, ...]:
    """Return how many pairs came to each conclusion, in the order of ``CONCLUSIONS``."""
    found = [row.verdict.conclusion for row in rows if row.verdict is not None]
    return tuple(found.count(conclusion) for conclusion in CONCLUSIONS)


def misses(rows: Sequence[Row]) -> list[Row]:
    """Return the derived pairs that are called neither derived nor identical; abstaining earns nothing."""
    return [row for row in judged(rows) if row.case.label == "derived" and not _accused(row)]


def accusations(rows: Sequence[Row]) -> list[Row]:
    """Return the unrelated pairs that are called derived or identical."""
    return [row for row in judged(rows) if row.case.label == "unrelated" and _accused(row)]


def acquittals(rows: Sequence[Row]) -> list[Row]:
    """Return the unrelated pairs that are called independent."""
    return [
        row
        for row in rows
        if row.case.label == "unrelated" and row.verdict is not None and row.verdict.conclusion == "independent"
    ]


def undecided(rows: Sequence[Row]) -> list[Row]:
    """Return the unrelated pairs that are neither accused nor called independent."""
    return [
        row
        for row in rows
        if row.case.label == "unrelated"
        and row.verdict is not None
        and row.verdict.conclusion in ("inconclusive", "not_comparable")
    ]


def _accused(row: Row) -> bool:
    return row.verdict is not None and row.verdict.accuses


@dataclass(frozen=True, slots=True)
class LayerScore:
    """How much of one pair's layer map is right.

    Attributes:
        row: The pair.
        right: Layers of the suspect whose partner is one of those that they come from.
        layers: Layers of the suspect that come from one of the base's.
        moved: Whether some layer stands elsewhere than in the base: only then is there something to find.
    """

    row: Row
    right: int
    layers: int
    moved: bool


def layer_scores(rows: Sequence[Row]) -> list[LayerScore]:
    """Judge the layer map of every derived pair whose true one is known; a pair without a map has no layer right."""
    scores: list[LayerScore] = []
    for row in judged(rows):
        if row.case.label == "derived" and row.true_layers and row.verdict is not None:
            found = row.verdict.layers or ()
            # An identical model has no map, and needs none.
            if row.verdict.conclusion == "identical":
                found = tuple(range(len(row.true_layers)))
            scores.append(_score(row, found, row.true_layers))
    return scores


def _score(row: Row, found: Sequence[int | None], true_layers: Sequence[Sequence[int]]) -> LayerScore:
    partners = [*found, *[None] * (len(true_layers) - len(found))]
    return LayerScore(
        row=row,
        right=sum(partner in true for partner, true in zip(partners, true_layers, strict=True)),
        layers=sum(bool(true) for true in true_layers),
        moved=any(true and place not in true for place, true in enumerate(true_layers)),
    )


def share_right(scores: Sequence[LayerScore]) -> float | None:
    """Return the share of layers with their right partner, over pairs whose layers were moved; None without any."""
    moved = [score for score in scores if score.moved]
    layers = sum(score.layers for score in moved)
    return sum(score.right for score in moved) / layers if layers else None
