"""How far a quantised value may lie from the one that was rounded, judged from the decoded values alone.

Axes: M = rows, N = columns, K = blocks of a row.

Half of the interval that rounds to each value. The scales themselves are not known here; the values of a block show
them, for quantisers choose the scale by the largest. Where a block uses only a part of its grid the estimate is too
small, by at most the share that it leaves out.

Source: for grids of equal steps, the step is the range over 2^bits - 1. E4M3 has 3 bits of mantissa, E5M2 has 2, E2M1
has 1 (OCP Microscaling Formats 1.0). NF4's levels: Dettmers et al., QLoRA (arXiv 2305.14314), appendix E.
"""

from __future__ import annotations

import numpy as np

from kinprint.checkpoint.base import Array, Codec

NF4_LEVELS = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, over the largest value of a block."""

_MANTISSA = {"FP8-E5M2": 2, "FP8": 3, "MXFP8": 3}
_RANGE = {"FP8-E5M2": 57344.0 / 2**-16, "FP8": 448.0 / 2**-9, "MXFP8": 448.0 / 2**-9}
"""Largest number over the smallest step."""

_FP4_RANGE = 8.0
"""Largest number of a block over the smallest step: 12 for E2M1 if the block reaches its end, 8 where it ends at 4."""

_BNB_FP4_RANGE = 6.0
"""bitsandbytes' fp4 has no number between 1/6 of the largest and almost nothing."""


def rounding_error(codec: Codec, values_MN: Array) -> Array:
    """Return the half-width of the interval that was rounded to each value, in the units of the values.

    Args:
        codec: How they were rounded.
        values_MN: Decoded values, [rows, columns]; whole rows, so that blocks begin where they do in the tensor.

    Returns:
        float32 [M, N], of at least 0; NaN where a block holds NaN.

    Example:
        >>> rounding_error(Codec("INT", 2, 2), np.array([[0.0, 3.0, 5.0, 5.0]])).tolist()
        [[0.5, 0.5, 0.0, 0.0]]
    """
    values_MN = np.asarray(values_MN, np.float32)
    if values_MN.size == 0:
        return np.zeros(values_MN.shape, np.float32)
    columns = values_MN.shape[1]
    block = min(codec.block or columns, columns)
    starts_K: Array = np.arange(0, columns, block, dtype=np.int64)

    def spread(of_block_MK: Array) -> Array:
        return np.repeat(of_block_MK, block, axis=1)[:, :columns]

    with np.errstate(all="ignore"):
        if not codec.exponent and codec.scheme != "NF4":
            ranges_MK = np.maximum.reduceat(values_MN, starts_K, axis=1)
            ranges_MK -= np.minimum.reduceat(values_MN, starts_K, axis=1)
            return spread(ranges_MK / np.float32(2 * ((1 << codec.bits) - 1)))
        sizes_MN = np.abs(values_MN)
        largest_MN = spread(np.maximum.reduceat(sizes_MN, starts_K, axis=1))
        if codec.scheme == "NF4":
            return _nf4(values_MN, largest_MN)
        if codec.bits == 4:
            reach = _BNB_FP4_RANGE if codec.scheme == "FP4" else _FP4_RANGE
            return np.maximum(sizes_MN / 4, largest_MN / np.float32(2 * reach))
        relative = np.float32(2.0 ** -(_MANTISSA[codec.scheme] + 1))
        return np.maximum(sizes_MN * relative, largest_MN / np.float32(2 * _RANGE[codec.scheme]))


def _nf4(values_MN: Array, largest_MN: Array) -> Array:
    """Return half of the wider gap beside each level."""
    levels = np.array(NF4_LEVELS, np.float32)
    gaps = np.diff(levels)
    halves = np.maximum(np.append(gaps, 0), np.append(np.float32(0), gaps)) / 2
    share_MN = np.nan_to_num(values_MN / largest_MN)
    above_MN = np.searchsorted((levels[1:] + levels[:-1]) / 2, share_MN)
    return halves[above_MN] * largest_MN
