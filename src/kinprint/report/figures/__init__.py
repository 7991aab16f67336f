"""Figures of a comparison: what each shows and says, from the record alone; what draws them is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kinprint.errors import UsageError
from kinprint.report.figures.gains import gains
from kinprint.report.figures.layers import layers
from kinprint.report.figures.parts import parts
from kinprint.report.figures.place import place
from kinprint.report.figures.records import Figure, Missing
from kinprint.report.figures.sigmas import sigmas
from kinprint.report.figures.spectra import spectra
from kinprint.types import Comparison

__all__ = ["KINDS", "figure", "found"]

KINDS: Mapping[str, Callable[[Comparison], Figure | Missing]] = {
    "place": place,
    "layers": layers,
    "parts": parts,
    "sigmas": sigmas,
    "spectra": spectra,
    "gains": gains,
}
"""Every kind of figure, by name."""


def figure(kind: str, comparison: Comparison) -> Figure:
    """Return one figure.

    Raises:
        UsageError: There is no such kind, or the comparison has no numbers for it.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown figure {kind!r}: choose from {', '.join(KINDS)}")
    made = KINDS[kind](comparison)
    if isinstance(made, Missing):
        raise UsageError(f"nothing to draw for {kind}: {made.reason}")
    return made


def found(comparison: Comparison, *kinds: str) -> list[Figure]:
    """Return the figures of these kinds that a comparison has numbers for."""
    made = (KINDS[kind](comparison) for kind in kinds)
    return [one for one in made if isinstance(one, Figure)]
