"""Which values are the same number, whatever the dtype that each is stored in."""

from __future__ import annotations

from typing import Any, cast

import ml_dtypes
import numpy as np

from kinprint.checkpoint import Array


def equal_values(left_N: Array, right_N: Array) -> Array:
    """Return which values are equal up to rounding: NaN equals NaN, and 0 equals -0.

    Of two dtypes, the values are equal if one is what the other rounds to, or if one number rounds to both: f16 and
    bf16 each hold numbers that the other does not, and what was rounded twice may end on the other side of a midpoint.

    Example:
        >>> left, right = np.array([1.0, np.nan, 1.5], np.float32), np.array([1.001, np.nan, 1.0], np.float16)
        >>> equal_values(left, right.astype(ml_dtypes.bfloat16)).tolist()
        [True, True, False]
    """
    if left_N.dtype == right_N.dtype:
        return _equal(left_N, right_N)
    if _finfo(left_N.dtype).nmant > _finfo(right_N.dtype).nmant:
        left_N, right_N = right_N, left_N
    with np.errstate(all="ignore"):  # what is too large for the coarser dtype becomes infinite
        equal_N = _equal(left_N, right_N.astype(left_N.dtype))
        rest = ~equal_N
        if rest.any():
            coarse_M, fine_M = left_N[rest], right_N[rest]
            apart_M = np.abs(wide(coarse_M) - wide(fine_M))
            meet_M = apart_M <= (_steps(coarse_M) + _steps(fine_M)) / 2
            equal_N[rest] = meet_M | _equal(coarse_M.astype(fine_M.dtype), fine_M)
    return equal_N


def _steps(values: Array) -> Array:
    """Return the distance of each value to the next larger one of its dtype."""
    finfo = _finfo(values.dtype)
    exponents = np.frexp(wide(values))[1] - 1
    return np.ldexp(1.0, np.maximum(exponents, finfo.minexp) - finfo.nmant)


def _equal(left_N: Array, right_N: Array) -> Array:
    """Return which values of one dtype are equal."""
    equal_N: Array = bits(left_N) == bits(right_N)
    if not equal_N.all():
        left_N, right_N = wide(left_N), wide(right_N)
        equal_N = equal_N | (left_N == right_N) | (np.isnan(left_N) & np.isnan(right_N))
    return equal_N


def bits(values: Array) -> Array:
    """Return the bits of values as whole numbers."""
    return values.view(f"u{values.dtype.itemsize}")


def wide(values: Array) -> Array:
    """Return values as float32, float64 as it is."""
    return np.asarray(values, dtype=np.float64 if values.dtype == np.float64 else np.float32)


def _finfo(dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - the package has no types
    return cast("Any", ml_dtypes.finfo)(dtype)
