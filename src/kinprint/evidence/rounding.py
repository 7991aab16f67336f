"""Are two tensors equal up to quantisation?

Axes: R = rows of a tensor, N = its columns.

H0: none; the size of the difference is held against what rounding explains. The unit is the half-width of the interval
that a quantised value was rounded from, estimated from the decoded values (``checkpoint.quantised.rounding_error``).
Rounding to the nearest leaves a root mean square of .58 half-widths and hardly any value beyond two; scales that are
chosen otherwise a little more. Some quantisers move the weights that are still to be rounded so as to make up for those
that were (GPTQ), or weigh errors by what they do (K- and I-quants): their differences are a few half-widths, and a
fine-tuning that is smaller than that hides in them. So they are no proof that nothing else was changed.

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

FAR = 2.0
"""Half-widths beyond which rounding to the nearest puts no value, but for what the estimate of the width is off."""

MOST_FAR = 0.02
"""Largest share of such values: rounding leaves .001 or less, and a light fine-tuning beneath 4 bits .05 or more."""

COMPENSATED = 4.0
"""Largest root mean square difference where the rounding of one weight is made up for in others."""

COMPENSATING = ("GPTQ", "AWQ", "INT", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ")
"""Starts of the schemes whose quantisers do that, or may."""

DISTINCT = 0.7
"""Largest share of the difference after a shuffle, or few levels would make strangers equal."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far two tensors are apart.

    Attributes:
        difference: Root mean square difference, in half-widths.
        shuffled: The same with the values of one shuffled.
        far: Share of values that differ by more than ``FAR`` half-widths of their own.
        schemes: Of those that are quantised.
    """

    difference: float
    shuffled: float
    far: float
    schemes: tuple[str, ...]

    @property
    def nearest(self) -> bool:
        """Whether rounding to the nearest explains the difference."""
        return self.far <= MOST_FAR and self.difference <= min(NEAREST, DISTINCT * self.shuffled)

    @property
    def compensated(self) -> bool:
        """Whether rounding that makes up for itself elsewhere explains it."""
        if not any(scheme.startswith(COMPENSATING) for scheme in self.schemes):
            return self.nearest
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
        >>> found.nearest, round(found.difference, 1), found.far, found.shuffled > 100
        (True, 0.6, 0.0, True)
    """
    left_RN, right_RN = np.asarray(left_RN, np.float64), np.asarray(right_RN, np.float64)
    halves = [
        rounding_error(codec, values).astype(np.float64)
        for codec, values in zip(codecs, (left_RN, right_RN), strict=True)
        if codec is not None
    ]
    schemes = tuple(codec.scheme for codec in codecs if codec is not None)
    half_RN = sum(halves[1:], halves[0])
    unit = float(np.sqrt(np.mean(np.square(half_RN))))
    if not unit > 0:
        return Noise(float("inf"), float("inf"), 1.0, schemes)
    apart_RN = np.abs(left_RN - right_RN)
    far = float(np.mean(apart_RN > FAR * half_RN))
    mixed = float(np.sqrt(np.mean(np.square(rng.permutation(left_RN.reshape(-1)) - right_RN.reshape(-1)))))
    return Noise(float(np.sqrt(np.mean(np.square(apart_RN)))) / unit, mixed / unit, far, schemes)
