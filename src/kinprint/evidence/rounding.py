"""Are two tensors equal up to quantisation?

Axes: R = rows of a tensor, N = its columns.

H0: none; the size of the difference is held against what rounding explains. The unit is the half-width of the interval
that a quantised value was rounded from, estimated from the decoded values (``checkpoint.quantised.rounding_error``).
Rounding to the nearest leaves a root mean square of .58 half-widths; scales that are chosen otherwise a little more.
GPTQ moves the weights that are still to be rounded so as to make up for those that were: its differences are a few
half-widths, and a fine-tuning that is smaller than the rounding hides in them.

The same after a shuffle of the values stands beside it: where a block has few levels (one or two bits), half-widths are
as wide as the weights themselves, and strangers would pass.

No source: it is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint import Array, Codec
from kinprint.checkpoint.quantised import rounding_error

NEAREST = 1.25
"""Largest root mean square difference, in half-widths, that rounding to the nearest explains."""

COMPENSATED = 4.0
"""The same where the rounding of one weight is made up for in others (GPTQ)."""

DISTINCT = 0.7
"""Largest share of the difference after a shuffle, or few levels would make strangers equal."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far two tensors are apart.

    Attributes:
        difference: Root mean square difference, in half-widths.
        shuffled: The same with the values of one shuffled.
    """

    difference: float
    shuffled: float

    @property
    def nearest(self) -> bool:
        """Whether rounding to the nearest explains the difference."""
        return self.difference <= min(NEAREST, DISTINCT * self.shuffled)

    @property
    def compensated(self) -> bool:
        """Whether rounding that makes up for itself elsewhere explains it."""
        return self.difference <= min(COMPENSATED, DISTINCT * self.shuffled)


def noise(
    left_RN: Array, right_RN: Array, codecs: tuple[Codec | None, Codec | None], rng: np.random.Generator
) -> Noise:
    """Return how far two tensors are apart, in the half-widths of those that are quantised.

    Args:
        left_RN: Whole rows of one tensor, decoded.
        right_RN: The same rows of the other.
        codecs: How each was rounded; one of them must have been.
        rng: Draws the shuffle.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> values_RN = rng.standard_normal((8, 64))
        >>> step = np.ptp(values_RN, axis=1, keepdims=True) / 255
        >>> rounded_RN = np.round(values_RN / step) * step
        >>> found = noise(values_RN, rounded_RN, (None, Codec("INT", 8, 0)), rng)
        >>> found.nearest, round(found.difference, 1), found.shuffled > 100
        (True, 0.6, True)
    """
    left_RN, right_RN = np.asarray(left_RN, np.float64), np.asarray(right_RN, np.float64)
    widths = [
        np.square(rounding_error(codec, values).astype(np.float64))
        for codec, values in zip(codecs, (left_RN, right_RN), strict=True)
        if codec is not None
    ]
    unit = float(np.sqrt(np.mean(sum(widths[1:], widths[0]))))
    if not unit > 0:
        return Noise(float("inf"), float("inf"))
    apart = float(np.sqrt(np.mean(np.square(left_RN - right_RN))))
    # By entries: rows of one block alike would survive a shuffle of rows.
    mixed = float(np.sqrt(np.mean(np.square(rng.permutation(left_RN.reshape(-1)) - right_RN.reshape(-1)))))
    return Noise(apart / unit, mixed / unit)
