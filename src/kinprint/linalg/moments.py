"""Sums of products over streamed blocks: cosines of tensors that are never held whole.

Axes: T = tensors compared at once, S = T + 1 (the last one is the constant 1, so that its products are sums and the
count). Everything is accumulated in float64: float32 would lose the small cosines of strangers in rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float64

Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 1 << 15
"""Elements converted to float64 at once: a few rows of them stay in a core's cache."""

_ROUNDING = 1e-13
"""Share of its squared length below which a tensor's spread about its mean is rounding noise: float64 sums of a
constant tensor leave about 1e-16 of it, one bfloat16 step in one of 10^6 elements 1e-11."""


def moments(blocks: Iterable[Sequence[Array]], tensors: int) -> Float64[Array, "S S"]:
    """Return all sums of products of several tensors that arrive in aligned blocks.

    Args:
        blocks: Each item holds one block of every tensor; the blocks of one item have the same shape.
        tensors: How many tensors an item holds (T).

    Returns:
        Entry (i, j) is the sum of products of tensors i and j; the last row and column hold plain sums, and the corner
        the number of elements. All zero where there are no blocks.

    Example:
        >>> moments([[np.array([1.0, 2.0]), np.array([3.0, 4.0])]], 2).tolist()
        [[5.0, 11.0, 3.0], [11.0, 25.0, 7.0], [3.0, 7.0, 2.0]]
    """
    sums_SS = np.zeros((tensors + 1, tensors + 1))
    rows = np.ones((tensors + 1, _CHUNK))
    for block in blocks:
        flat = [np.ravel(part) for part in block]
        with threads_for(tensors):
            for first in range(0, flat[0].size, _CHUNK):
                count = min(_CHUNK, flat[0].size - first)
                for row, part in enumerate(flat):
                    rows[row, :count] = part[first : first + count]
                # Row by row: a matrix product of so few rows takes twice as long.
                for at, row in enumerate(rows):
                    sums_SS[at, at:] += rows[at:, :count] @ row[:count]
    return np.triu(sums_SS) + np.triu(sums_SS, 1).T


def cosine_of(sums_SS: Float64[Array, "S S"], first: int = 0, second: int = 1) -> float | None:
    """Return the cosine of two of the tensors, or None where one of them is all zero.

    Example:
        >>> cosine_of(moments([[np.array([3.0, 0.0]), np.array([3.0, 4.0])]], 2))
        0.6
    """
    return _ratio(sums_SS[first, second], sums_SS[first, first], sums_SS[second, second])


def centred_cosine_of(sums_SS: Float64[Array, "S S"], first: int = 0, second: int = 1) -> float | None:
    """Return the cosine about the means (Pearson's r) of two of the tensors, or None where one of them is constant.

    Example:
        >>> round(centred_cosine_of(moments([[np.array([1.0, 2.0, 3.0]), np.array([9.0, 8.0, 7.0])]], 2)), 12)
        -1.0
    """
    count = sums_SS[-1, -1]
    if count == 0:
        return None

    def about_means(i: int, j: int) -> float:
        return float(sums_SS[i, j] - sums_SS[i, -1] * sums_SS[j, -1] / count)

    for tensor in (first, second):
        if about_means(tensor, tensor) <= _ROUNDING * sums_SS[tensor, tensor]:
            return None
    return _ratio(about_means(first, second), about_means(first, first), about_means(second, second))


def _ratio(product: float, square: float, other_square: float) -> float | None:
    if square <= 0 or other_square <= 0:
        return None
    # Two roots rather than the root of a product, which could underflow or overflow.
    return float(np.clip(product / np.sqrt(square) / np.sqrt(other_square), -1.0, 1.0))
