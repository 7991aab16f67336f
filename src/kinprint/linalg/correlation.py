"""Correlations of short sequences over depth.

Axes: L = points of one sequence, N = points after resampling.

A sequence without spread correlates with nothing: the answer is NaN, never 0, because unrelated and unknown differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinprint.shapes import Float, Float64

Array = np.ndarray[Any, np.dtype[Any]]

_ROUNDING = 1e-12
"""Spread, as a share of the largest entry, at or below which a sequence counts as constant. Float64 arithmetic on equal
numbers leaves less; one step of float32 or bfloat16 in one entry is more."""


def zscore(values_L: Float[Array, " L"]) -> Float64[Array, " L"]:
    """Return a sequence with mean 0 and population standard deviation 1; all NaN where it is constant.

    Example:
        >>> zscore(np.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """
    values = values_L.astype(np.float64)
    if _constant(values):
        return np.full(values.size, np.nan)
    return (values - values.mean()) / values.std()


def resample(values_L: Float[Array, " L"], length: int) -> Float64[Array, " N"]:
    """Return a sequence on another grid by linear interpolation; the ends stay the ends.

    Args:
        values_L: At least one value; a single one is repeated.
        length: Points to return.

    Example:
        >>> resample(np.array([0.0, 2.0, 4.0]), 5).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    old, new = np.arange(values_L.size, dtype=np.float64), np.linspace(0.0, values_L.size - 1.0, length)
    return np.interp(new, old, values_L.astype(np.float64))


def distance_correlation(left_L: Float[Array, " L"], right_L: Float[Array, " L"]) -> float:
    """Return the distance correlation of two sequences, 0 to 1; NaN where one is constant.

    The V-statistic, biased upwards for short sequences: independent ones are not at 0. It is 1 only for an exact
    straight line, rising or falling.

    Source: Szekely, Rizzo & Bakirov, Measuring and Testing Dependence by Correlation of Distances, Annals of Statistics
    35 (2007), definition 5.

    Example:
        >>> round(distance_correlation(np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0])), 12)
        1.0
    """
    left, right = left_L.astype(np.float64), right_L.astype(np.float64)
    if _constant(left) or _constant(right):
        return float("nan")
    left_LL, right_LL = _centred_distances(left), _centred_distances(right)
    # The covariance is negative only by rounding. Two roots: the product of the variances could underflow.
    share = float((left_LL * right_LL).mean() / np.sqrt((left_LL**2).mean()) / np.sqrt((right_LL**2).mean()))
    return float(np.sqrt(np.clip(share, 0.0, 1.0)))


def _constant(values_L: Array) -> bool:
    """Return whether a sequence has no spread beyond rounding, or none that can be told: empty, NaN or infinite."""
    if values_L.size == 0 or not np.isfinite(values_L).all():
        return True
    return float(np.ptp(values_L)) <= _ROUNDING * float(np.abs(values_L).max())


def _centred_distances(values_L: Array) -> Array:
    """Return the matrix of absolute differences, in units of the largest, without row means, column means and mean."""
    distances_LL = np.abs(values_L[:, None] - values_L[None, :])
    distances_LL /= distances_LL.max()
    rows_L1 = distances_LL.mean(axis=1, keepdims=True)
    return distances_LL - rows_L1 - rows_L1.T + distances_LL.mean()
