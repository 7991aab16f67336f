"""Norm gains of the suspect against the base's: raw, where all models look alike, and centred, beside a shuffle."""

from __future__ import annotations

from collections.abc import Sequence

from kinprint.report.cells import number
from kinprint.report.figures.records import Axis, Chart, Figure, Missing, Role, Series
from kinprint.report.figures.tables import as_number, column, method, numbers, table
from kinprint.types import Cell, Comparison, MethodResult, Table, Value

CAPTION = (
    "Each dot is one coordinate of a norm's gain in both models; each cross sets it against another coordinate of the "
    "base, as a shuffle does; above them stand both cosines. Trained gains lie near one mean, so raw cosines are near "
    "1 for most pairs; what means alone give is a line of its own. About the means a copy lies on a slope and a "
    "stranger is a cloud, and so is a copy whose stream was permuted or rotated. This enters no verdict."
)

LINES: tuple[tuple[str, str, Role], ...] = (
    ("raw cosine", "raw cosine", "base"),
    ("expected from means alone", "expected raw", "innocent"),
    ("centred cosine", "centred cosine", "suspect"),
    ("centred, shuffled", "shuffled centred", "control"),
)

ABREAST = 3
"""Layers whose gains are drawn, and norms whose cosines are: three rows of panels, which a page of paper holds."""


def gains(comparison: Comparison) -> Figure | Missing:
    """Return scatters of sampled coordinates, raw and centred, and cosines over layers."""
    result = method(comparison, "layernorm")
    by_layer = None if result is None else table(result.tables, "Norm gains by layer")
    if result is None or by_layer is None or not by_layer.rows:
        return Missing("gains", "the method layernorm did not measure this pair; compare with --method layernorm")
    sample = table(result.tables, "Norm gains of sampled coordinates")
    scatters = _scatters(sample, by_layer) if sample is not None else []
    panels = [*scatters, *_curves(by_layer)[:ABREAST]]
    if not panels:
        return Missing("gains", "no norm of the residual stream has layers to draw")
    return Figure(
        kind="gains", title=_finding(result), caption=CAPTION, panels=tuple(panels), abreast=max(2, len(scatters) // 2)
    )


def _finding(result: MethodResult) -> str:
    centred = next((one for one in result.values if one.name.endswith(" centred cosine")), None)
    norm = centred.name.removesuffix(" centred cosine") if centred is not None else "norm"
    shuffled = _value(result.controls, f"{norm} shuffled centred cosine")
    raw, expected = _value(result.values, f"{norm} raw cosine"), _value(result.controls, f"{norm} expected raw cosine")
    return (
        f"Gains of {norm}: centred cosine {number(centred.value if centred is not None else None)}, "
        f"{number(shuffled)} after a shuffle; raw cosine {number(raw)}, {number(expected)} by the means alone."
    )


def _value(values: Sequence[Value], name: str) -> float | None:
    return next((one.value for one in values if one.name == name), None)


# -- scatters ----------------------------------------------------------------------------------------------------------


def _scatters(sample: Table, by_layer: Table) -> list[Chart]:
    raw: list[Chart] = []
    centred: list[Chart] = []
    norms = [name.removesuffix(" suspect") for name in sample.columns if name.endswith(" suspect")]
    for norm in norms[:ABREAST]:
        points = [
            (suspect, base, other)
            for suspect, base, other in zip(
                *(numbers(sample, f"{norm} {side}") for side in ("suspect", "base", "base elsewhere")), strict=False
            )
            if suspect is not None and base is not None and other is not None
        ]
        if not points:
            continue
        row = _row(by_layer, norm)
        name, _, layer = norm.partition("@")
        where = f"layer {layer}" if layer else name
        means = [sum(column) / len(points) for column in zip(*points, strict=True)]
        about = [tuple(value - mean for value, mean in zip(one, means, strict=True)) for one in points]
        raw.append(_scatter(f"{where}: {_cosines(row, 'raw cosine', 'shuffled raw')}", "raw gain", points))
        told = f"{where}: {_cosines(row, 'centred cosine', 'shuffled centred')}"
        centred.append(_scatter(told, "gain less mean", about))
    return [*raw, *centred]


def _scatter(title: str, what: str, points: Sequence[Sequence[float]]) -> Chart:
    values = [value for point in points for value in point]
    # From 0, so that raw gains are seen to be a small spot on a long way: that is why their cosine is near 1.
    low, high = min(0.0, *values), max(0.0, *values)
    free = 0.05 * (high - low) or 1.0
    suspect, base, other = (tuple(column) for column in zip(*points, strict=True))
    return Chart(
        title=title,
        x=Axis(f"{what}, base", low - free, high + free),
        y=Axis(f"{what}, suspect", low - free, high + free),
        series=(Series("shuffled", "control", other, suspect), Series("same coordinate", "suspect", base, suspect)),
    )


def _row(by_layer: Table, norm: str) -> dict[str, Cell]:
    name, _, layer = norm.partition("@")
    for row in by_layer.rows:
        if (
            len(row) == len(by_layer.columns)
            and str(row[0]) == name
            and str(row[1] if row[1] is not None else "") == layer
        ):
            return dict(zip(by_layer.columns, row, strict=True))
    return {}


def _cosines(row: dict[str, Cell], own: str, shuffled: str) -> str:
    values = (as_number(row.get(name)) for name in (own, shuffled))
    mine, chance = ("-" if value is None else f"{value:.2f}" for value in values)
    return f"{mine}, shuffled {chance}"


# -- curves ------------------------------------------------------------------------------------------------------------


def _curves(by_layer: Table) -> list[Chart]:
    panels: list[Chart] = []
    norms, layers = column(by_layer, "norm"), column(by_layer, "layer")
    held = {name: numbers(by_layer, name) for _, name, _ in LINES}
    for norm in dict.fromkeys(map(str, norms)):
        rows = [at for at, name in enumerate(norms) if str(name) == norm and isinstance(layers[at], int)]
        if len(rows) < 2:
            continue
        x = tuple(float(layer) for at in rows if isinstance(layer := layers[at], int))
        series = [
            Series(label, role, x, tuple(held[name][at] for at in rows), joined=True)
            for label, name, role in LINES
            if any(held[name][at] is not None for at in rows)
        ]
        if not series:
            continue
        panels.append(
            Chart(
                title=f"{norm}: cosines of gains",
                x=Axis("layer", whole=True),
                y=Axis("cosine", high=1.02),
                series=tuple(series),
            )
        )
    return panels
