"""Where axes begin and end and where they are ticked: the same in every renderer."""

from __future__ import annotations

import math
from typing import Literal

from kinprint.report.figures.records import Axis, Chart

_MARGIN = 0.05
"""Share of what is drawn that is left free at an end that the figure does not fix."""


def ends(chart: Chart, which: Literal["x", "y"]) -> tuple[float, float]:
    """Return the ends of an axis, never the same number twice.

    Args:
        chart: Whose.
        which: Across or down.
    """
    axis = chart.x if which == "x" else chart.y
    values = [value for one in chart.series for value in (one.x if which == "x" else one.y) if value is not None]
    values += [rule.at for rule in chart.rules if rule.upright == (which == "x")]
    values = [value for value in values if not axis.logarithmic or value > 0] or [1.0]
    low, high = min(values), max(values)
    if axis.logarithmic:
        return (low, high) if high > low else (low / 2, low * 2)
    free = 0.5 if axis.whole else _MARGIN * ((high - low) or abs(high) or 1.0)
    low = low - free if axis.low is None else axis.low
    high = high + free if axis.high is None else axis.high
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def ticks(axis: Axis, ends: tuple[float, float], *, most: int) -> list[tuple[float, str]]:
    """Return at most about so many places with what stands at them.

    Example:
        >>> ticks(Axis("", whole=True), (-0.5, 5.5), most=4)
        [(0.0, '0'), (2.0, '2'), (4.0, '4')]
        >>> ticks(Axis("", logarithmic=True), (1.0, 2048.0), most=4)
        [(1.0, '1'), (10.0, '10'), (100.0, '100'), (1000.0, '1000')]
    """
    if axis.named:
        return list(axis.named)
    low, high = ends
    if axis.logarithmic:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        return [(10.0**power, f"{10.0**power:g}") for power in powers]
    least = (high - low) / max(1, most)
    apart = float(step(least)) if axis.whole else _round(least)
    first = math.ceil(low / apart - 1e-9)
    # Zero, and not minus zero nor what rounding leaves of it.
    places = [at * apart if at else 0.0 for at in range(first, math.floor(high / apart + 1e-9) + 1)]
    return [(place, f"{place:.6g}") for place in places]


def step(least: float) -> int:
    """Return by how many whole numbers ticks stand apart that are to be at least so far apart.

    Example:
        >>> step(0.4), step(2.6), step(6.0)
        (1, 5, 10)
    """
    return max(1, round(_round(least)))


def _round(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, ... times a power of ten that is at least so large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
