"""Spectra of a matrix of both models, with the edge of the Marchenko-Pastur bulk and the spikes above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kinprint.report.figures.records import Axis, Chart, Figure, Missing, Role, Rule, Series
from kinprint.report.figures.tables import as_number, column, method, numbers, table
from kinprint.types import Comparison, Table

CAPTION = (
    "A matrix of random numbers would end at the edge; dots are spikes above it. Of large matrices every so many rows "
    "and columns were taken, which keeps the law. Trained weights need not follow it, and unrelated models have like "
    "spectra: this enters no verdict."
)

VALUES, BULKS = "Singular values of ", "Marchenko-Pastur bulk of "


@dataclass(frozen=True, slots=True)
class _Bulk:
    layer: int
    edge: float
    spikes: int


def spectra(comparison: Comparison) -> Figure | Missing:
    """Return the spectra of the first, the middle and the last layer."""
    result = method(comparison, "ghostspec-mse")
    values, bulks = (table(result.tables, title) if result is not None else None for title in (VALUES, BULKS))
    if values is None or bulks is None:
        return Missing("spectra", "the record holds no spectra; compare again with --method ghostspec-mse")
    held = dict(_bulks(bulks))
    places = [place for place in ("first", "middle", "last") if (place, "suspect") in held and (place, "base") in held]
    if not places:
        return Missing("spectra", "no layer of both models has a matrix with a bulk")
    matrix = values.title.removeprefix(VALUES).removesuffix(" by rank")
    return Figure(
        kind="spectra",
        title=_finding(matrix, [(held[place, "suspect"], held[place, "base"]) for place in places]),
        caption=CAPTION,
        panels=tuple(_panel(place, matrix, values, held) for place in places),
        abreast=len(places),
    )


def _bulks(bulks: Table) -> Iterator[tuple[tuple[str, str], _Bulk]]:
    cells = (column(bulks, name) for name in ("place", "model", "layer", "edge", "spikes"))
    for place, model, layer, edge, spikes in zip(*cells, strict=False):
        height = as_number(edge)
        if isinstance(layer, int) and isinstance(spikes, int) and height is not None:
            yield (str(place), str(model)), _Bulk(layer, height, spikes)


def _finding(matrix: str, both: list[tuple[_Bulk, _Bulk]]) -> str:
    suspect, base = ([one[side].spikes for one in both] for side in (0, 1))
    told = " and ".join(
        f"{', '.join(map(str, counts))} in the {name}" for name, counts in (("suspect", suspect), ("base", base))
    )
    words = {1: "one layer", 2: "two layers", 3: "the first, middle and last layer"}
    return f"Singular values of {matrix} above the edge of a random matrix: {told} ({words[len(both)]})."


def _panel(place: str, matrix: str, values: Table, held: dict[tuple[str, str], _Bulk]) -> Chart:
    ranks = numbers(values, "rank")
    series: list[Series] = []
    rules: list[Rule] = []
    sides: tuple[tuple[str, Role], ...] = (("suspect", "suspect"), ("base", "base"))
    for name, role in sides:
        bulk = held[place, name]
        points = [
            (rank, value)
            for rank, value in zip(ranks, numbers(values, f"{place} {name}"), strict=False)
            if rank is not None and rank >= 1 and value is not None
        ]
        spikes = [point for point in points if point[1] > bulk.edge]
        series.append(Series(name, role, *_columns(points), joined=True))
        series.append(Series(name, role, *_columns(spikes)))
        rules.append(Rule(f"edge, {name}", bulk.edge, role, upright=False))
    suspect, base = held[place, "suspect"], held[place, "base"]
    where = f"layer {suspect.layer}" if suspect.layer == base.layer else f"layers {suspect.layer} and {base.layer}"
    return Chart(
        title=f"{where}: {suspect.spikes} and {base.spikes} spikes",
        x=Axis("rank (logarithmic)", logarithmic=True, whole=True),
        y=Axis(f"singular value of {matrix}", low=0.0),
        series=tuple(series),
        rules=tuple(rules),
    )


def _columns(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in points), tuple(y for _, y in points)
