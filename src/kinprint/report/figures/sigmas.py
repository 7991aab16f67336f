"""Standard deviations of both models over depth, one curve over the other (Intrinsic Fingerprint)."""

from __future__ import annotations

from kinprint.report.cells import number
from kinprint.report.figures.records import Axis, Chart, Figure, Missing, Series
from kinprint.report.figures.tables import MOST_PANELS, column, method, numbers, table
from kinprint.types import Comparison, MethodResult, Table

CAPTION = (
    "Lines of one shape say little: models of one recipe have like curves, and unrelated ones have reached a "
    "correlation of .93. They enter no verdict."
)


def sigmas(comparison: Comparison) -> Figure | Missing:
    """Return one panel for each of Q, K, V and O."""
    result = method(comparison, "intrinsic")
    held = None if result is None else table(result.tables, "standard deviation of all entries")
    panels = [] if result is None or held is None else _panels(result, held)
    if result is None or not panels:
        return Missing("sigmas", "the method intrinsic did not measure this pair; compare with --method intrinsic")
    similarity = next((one.value for one in result.values if one.name == "similarity"), None)
    backwards = next((one.value for one in result.controls if one.name.endswith("reversed")), None)
    said = f"; with one model's layers reversed it is {number(backwards)}" if backwards is not None else ""
    return Figure(
        kind="sigmas",
        title=f"Standard deviations over depth correlate at {number(similarity)} (mean of Q, K, V, O){said}.",
        caption=CAPTION,
        panels=tuple(panels[:MOST_PANELS]),
        abreast=2,
    )


def _panels(result: MethodResult, held: Table) -> list[Chart]:
    layers = column(held, "layer")
    panels: list[Chart] = []
    for name in held.columns:
        role = name.removesuffix(" suspect")
        if role == name or f"{role} base" not in held.columns:
            continue
        sides = {side: numbers(held, f"{role} {side}") for side in ("suspect", "base")}
        if not any(value is not None for values in sides.values() for value in values):
            continue
        x = tuple(float(layer) if isinstance(layer, int | float) else float(at) for at, layer in enumerate(layers))
        correlation = next((one.value for one in result.values if one.name == f"{role} pearson"), None)
        panels.append(
            Chart(
                title=f"{role}: correlation {number(correlation)}",
                x=Axis("layer", whole=True),
                y=Axis("standard deviation"),
                series=(
                    Series("suspect", "suspect", x, sides["suspect"], joined=True),
                    Series("base", "base", x, sides["base"], joined=True),
                ),
            )
        )
    return panels
