"""What evidence by size is held against: layers that do not face each other.

Axes: S, T = layers of suspect and base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinprint.checkpoint import Array
from kinprint.evidence.pair import Facing
from kinprint.shapes import Float
from kinprint.types import Value


def mismatched(similarities: Sequence[float], note: str) -> Value:
    """Return the control of layers that do not face each other: the mean of their similarities.

    Args:
        similarities: None where the base has no second layer.
        note: Which layers they are of.
    """
    known = [value for value in similarities if np.isfinite(value)]
    return Value(
        name="mismatched layers",
        value=float(np.mean(known)) if known else None,
        kind="similarity",
        reason=None if known else "no layer has a second partner that could be compared",
        note=note,
    )


def off_map(table_ST: Float[Array, "S T"], facing: Sequence[Facing]) -> Value:
    """Return the control of a table of similarities: the mean over all pairs of layers that do not face each other."""
    off_ST = np.ones(table_ST.shape, dtype=bool)
    for at in facing:
        off_ST[at.suspect, at.base] = False
    return mismatched(table_ST[off_ST].tolist(), "mean over all pairs of layers that do not face each other")


def next_layer(facing: Facing, layers: int) -> Facing | None:
    """Return the pair with the base's next layer instead, after the last the first; None where there is but one.

    Example:
        >>> next_layer(Facing(0, 2), 3)
        Facing(suspect=0, base=0)
    """
    return Facing(facing.suspect, (facing.base + 1) % layers) if layers > 1 else None


def spread(facing: Sequence[Facing], most: int) -> list[Facing]:
    """Return at most so many pairs of facing layers, spread over the depth.

    Example:
        >>> [at.suspect for at in spread([Facing(i, i) for i in range(9)], 3)]
        [0, 4, 8]
    """
    if len(facing) <= most:
        return list(facing)
    return [facing[int(i)] for i in np.linspace(0, len(facing) - 1, most).round()]
