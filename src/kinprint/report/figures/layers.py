"""Every layer of the suspect against every layer of the base, with the map of layers drawn on it."""

from __future__ import annotations

from collections.abc import Sequence

from kinprint.report.cells import number
from kinprint.report.figures.records import Figure, Grid, Missing, Outline
from kinprint.report.summary import layer_line
from kinprint.types import Comparison, LayerMapInfo, LayerMatch

MOST_LAYERS = 256
"""Layers of each model that are drawn; no model has more, and a record that says so costs no more than this."""

ORDER = {
    "same": "the same order",
    "ordered": "in order, with cuts or repeats",
    "free": "with blocks repeated or in another order",
}

WHOLE = (
    "Cells are the mean cosine of what two layers do to the residual stream, in a common basis. "
    "Framed cells are the map of layers: full frames are beyond the margin, dashed ones the nearest layer. "
    "A diagonal is the same order, a step a cut or a repeat, a jump a reordering."
)
ALONE = (
    "Only the cells of the map of layers are in the record, with their similarity. Full frames are beyond the margin. "
    "A diagonal is the same order, a step a cut or a repeat, a jump a reordering."
)


def layers(comparison: Comparison) -> Figure | Missing:
    """Return the heat map of layers."""
    found = comparison.verdict.layer_map if comparison.verdict is not None else None
    if found is None or not found.layers:
        return Missing("layers", "there is no map of layers: the layers were not compared, or have no common basis")
    shown = found.layers[:MOST_LAYERS]
    across = [str(one.suspect) for one in shown]
    down = _base_layers(comparison, found)
    places = {layer: at for at, layer in enumerate(down)}
    cells = _whole(found, down, len(shown)) or _alone(shown, places)
    outlines = [
        Outline(row=places[one.base], column=column, sure=one.derived, told=_told(one))
        for column, one in enumerate(shown)
        if one.base is not None and one.base in places
    ]
    return Figure(
        kind="layers",
        title=_finding(found),
        caption=WHOLE if found.table else ALONE,
        panels=(
            Grid(
                title="",
                across="layer of the suspect",
                down="layer of the base",
                columns=tuple(across),
                rows=tuple(map(str, down)),
                cells=cells,
                scale="similarity",
                outlines=tuple(outlines),
            ),
        ),
    )


def _finding(found: LayerMapInfo) -> str:
    derived = sum(one.derived for one in found.layers)
    said = f"{derived} of {len(found.layers)} layers come from layers of the base"
    if not derived:
        return f"{said}; where the nearest ones stand is a guess."
    return f"{said}, {ORDER[found.kind]}: {layer_line(found)}."


def _base_layers(comparison: Comparison, found: LayerMapInfo) -> list[int]:
    """Return the base's layers that are rows: those that were compared, else all that there are."""
    if found.base_layers:
        return list(found.base_layers[:MOST_LAYERS])
    deepest = max((one.base for one in found.layers if one.base is not None), default=-1) + 1
    return list(range(min(MOST_LAYERS, max(comparison.base.geometry.layers or 0, deepest, 1))))


def _whole(found: LayerMapInfo, down: Sequence[int], across: int) -> tuple[tuple[float | None, ...], ...]:
    """Return the table with the base's layers as rows, or nothing where the record has none that fits."""
    table = found.table[:across]
    if len(table) != across or any(len(row) < len(down) for row in table):
        return ()
    return tuple(tuple(row[at] for row in table) for at in range(len(down)))


def _alone(shown: Sequence[LayerMatch], places: dict[int, int]) -> tuple[tuple[float | None, ...], ...]:
    cells: list[list[float | None]] = [[None] * len(shown) for _ in places]
    for column, one in enumerate(shown):
        if one.base is not None and one.base in places:
            sizes = [value for value in (one.similarity, one.heads, one.units) if value is not None]
            cells[places[one.base]][column] = sizes[0] if sizes else None
    return tuple(map(tuple, cells))


def _told(one: LayerMatch) -> str:
    return (
        f"suspect {one.suspect} from base {one.base}: similarity {number(one.similarity)}, heads {number(one.heads)}, "
        f"units {number(one.units)}, {'derived' if one.derived else 'not derived'}"
    )
