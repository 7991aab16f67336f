"""Statistics of vectors of norm gains.

Axes: L, M = layers of two models, N = coordinates, S = shuffles, K = numbers of one sample.

Gains are mostly positive, so their plain cosine is large whatever they are: everything here comes with its value about
the mean, under shuffling, or by expectation.
"""

from __future__ import annotations

from typing import Any, cast

import ml_dtypes
import numpy as np

from kinprint.shapes import Float64, Int64

Array = np.ndarray[Any, np.dtype[Any]]


def cosine_table(
    left_LN: Float64[Array, "L N"], right_MN: Float64[Array, "M N"], *, centred: bool = False
) -> Float64[Array, "L M"]:
    """Return the cosine of every row of one array with every row of another; NaN where a row has no direction.

    Args:
        left_LN: One vector in each row.
        right_MN: One vector in each row.
        centred: Subtract each row's mean first (Pearson's correlation); a constant row then has no direction.

    Example:
        >>> cosine_table(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, nan]]
    """
    return np.clip(_directions(left_LN, centred) @ _directions(right_MN, centred).T, -1.0, 1.0)


def _directions(rows_LN: Array, centred: bool) -> Array:
    if centred:
        # The mean of a constant row is off by rounding; after subtracting its first entry it is exactly zero.
        rows_LN = rows_LN - rows_LN[:, :1]
        rows_LN = rows_LN - rows_LN.mean(axis=1, keepdims=True)
    norms_L1 = np.linalg.norm(rows_LN, axis=1, keepdims=True)
    return rows_LN / np.where(norms_L1 > 0, norms_L1, np.nan)


def shuffled_cosines(
    left_N: Float64[Array, " N"],
    right_N: Float64[Array, " N"],
    orders_SN: Int64[Array, "S N"],
    *,
    centred: bool = False,
) -> Float64[Array, " S"]:
    """Return the cosine of two vectors after each of several permutations of the left one.

    The permutations are an argument, so that vectors that share their coordinates can be shuffled together.
    """
    left, right = _directions(left_N[None], centred)[0], _directions(right_N[None], centred)[0]
    return np.clip(left[orders_SN] @ right, -1.0, 1.0)


def coefficient_of_variation(values_N: Float64[Array, " N"]) -> float:
    """Return the standard deviation over the size of the mean, infinite where the mean is zero.

    The population standard deviation: with it the expected cosine of shuffled vectors is exact.

    Example:
        >>> coefficient_of_variation(np.array([1.0, 3.0]))
        0.5
    """
    mean = abs(float(values_N.mean()))
    return float(values_N.std()) / mean if mean > 0 else float("inf")


def effect_size(sample_K: Float64[Array, " K"], baseline_K: Float64[Array, " K"]) -> float | None:
    """Return the difference of two means in units of their spread (Cohen's d), or None where there is no spread.

    The unit is the root of the mean of the two population variances.

    Example:
        >>> effect_size(np.array([4.0, 6.0]), np.array([0.0, 2.0]))
        4.0
    """
    spread = float(np.sqrt((sample_K.var() + baseline_K.var()) / 2))
    return float(sample_K.mean() - baseline_K.mean()) / spread if spread > 0 else None


def equal_share(left_N: Array, right_N: Array) -> float:
    """Return the share of entries that are equal after rounding both arrays to the coarser of their dtypes.

    Coarser is the one with fewer bits in the mantissa: a checkpoint re-saved in another dtype loses exactly those.

    Example:
        >>> equal_share(np.array([1.0, 1.00001], np.float16), np.array([1.00001, 2.0], np.float32))
        0.5
    """
    coarser = min((left_N.dtype, right_N.dtype), key=_mantissa_bits)
    with np.errstate(over="ignore"):  # what is too large for the coarser dtype becomes infinite
        equal_N: Array = left_N.astype(coarser) == right_N.astype(coarser)
    return float(equal_N.mean())


def _mantissa_bits(dtype: np.dtype[Any]) -> int:
    finfo = cast("Any", ml_dtypes.finfo)
    return int(finfo(dtype).nmant)


def expected_cosine(cv_left: float, cv_right: float) -> float:
    """Return the expected cosine of independent positive vectors from their coefficients of variation.

    Example:
        >>> round(expected_cosine(0.1, 0.1), 4)
        0.9901
    """
    return float(1.0 / np.sqrt((1.0 + cv_left**2) * (1.0 + cv_right**2)))
