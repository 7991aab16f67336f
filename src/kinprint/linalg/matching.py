"""One-to-one matching of the units of two layers, and what the order of the matches is worth.

Axes: M = rows of the smaller side, N = rows of the larger side, K = columns, B = blocks (layers).

Source: Zhu et al., Independence Tests for Language Models (ICML 2025, arXiv 2502.12292), section 2: MATCH, the t-test
of Spearman's correlation, and Fisher's sum over blocks. The floor and the two sides are those of the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from kinprint.linalg.assignment import assignment
from kinprint.shapes import Float, Float64, Int64

Array = np.ndarray[Any, np.dtype[Any]]

FLOOR = 2.2e-308
"""Smallest p-value of one block, as in the paper's code: whatever is smaller is set to it."""

CHEAP_UNITS = 4096
"""Layers of at most so many units are all matched: a second each at this size, half a minute at 14,336."""

SAMPLED_LAYERS = 8
"""Layers that are matched where they are wider."""


def affordable(layers: Sequence[int], units: int, *, seed: int) -> list[int]:
    """Return the layers to match: all of them, or a sample in order where the layers are wider than ``CHEAP_UNITS``.

    Args:
        layers: Layers that could be matched.
        units: Units of the widest.
        seed: Of the sample.

    Example:
        >>> affordable([0, 1, 2], 1024, seed=0), len(affordable(range(32), 11008, seed=0))
        ([0, 1, 2], 8)
    """
    if units <= CHEAP_UNITS or len(layers) <= SAMPLED_LAYERS:
        return list(layers)
    drawn = np.random.default_rng(seed).choice(len(layers), size=SAMPLED_LAYERS, replace=False)
    return [layers[index] for index in sorted(drawn.tolist())]


def match_rows(left_MK: Float[Array, "M K"], right_NK: Float[Array, "N K"]) -> Int64[Array, " M"]:
    """Match every row of the smaller side with a row of its own of the larger: the highest sum of plain cosines.

    Zero rows have cosine 0 with everything. Padding the smaller side with zero rows up to N gives the same matches: the
    padding adds 0 whatever is left over for it.

    Args:
        left_MK: One unit in each row.
        right_NK: At least as many units. In float64, because the assignment depends on differences of cosines; the
            table of cosines takes 8 M N bytes.

    Returns:
        The row of ``right_NK`` for each row of ``left_MK``.

    Example:
        >>> match_rows(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.1, 3.0], [0.0, 0.0], [5.0, 0.2]])).tolist()
        [2, 0]
    """
    return assignment(_directions(left_MK) @ _directions(right_NK).T)[1]


def _directions(rows_MK: Array) -> Array:
    """Return rows of length 1; their largest entry is divided out first, since squares could overflow or vanish."""
    rows = rows_MK.astype(np.float64)
    largest_M1 = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows /= np.where(largest_M1 > 0, largest_M1, 1.0)
    norms_M1 = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms_M1 > 0, norms_M1, 1.0)


def spearman(first_M: Int64[Array, " M"], second_M: Int64[Array, " M"]) -> float:
    """Return Spearman's rank correlation of two sequences without ties, at least two entries long.

    Example:
        >>> spearman(np.array([0, 1, 2]), np.array([10, 30, 20]))
        0.5
    """
    count = first_M.size
    apart_M = _ranks(first_M) - _ranks(second_M)
    return 1.0 - 6.0 * int(apart_M @ apart_M) / (count * (count * count - 1))


def _ranks(values_M: Array) -> Array:
    ranks_M = np.empty(values_M.size, dtype=np.int64)
    ranks_M[np.argsort(values_M)] = np.arange(values_M.size)
    return ranks_M


def correlation_p(correlation: float, count: int) -> float:
    """Return the two-sided p-value of a correlation by Student's t, never below ``FLOOR``.

    t = r sqrt((count - 2) / (1 - r^2)) with count - 2 degrees of freedom; its tail is the regularised incomplete beta
    function I(1 - r^2; (count - 2) / 2, 1 / 2), which stays exact where 1 - r^2 is tiny. The normal theory behind it is
    an approximation for ranks: at r = 1 it says 0, where all 1 / count! orders say 2 / count!.

    Args:
        correlation: -1 to 1.
        count: Pairs behind it, at least 3.

    Example:
        >>> round(correlation_p(0.5, 3), 12)
        0.666666666667
    """
    special: Any = import_module("scipy.special")
    left_over = (1.0 - correlation) * (1.0 + correlation)
    return max(float(special.betainc((count - 2) / 2, 0.5, left_over)), FLOOR)


def fisher_log10(p_B: Float64[Array, " B"]) -> float:
    """Return the decimal logarithm of Fisher's combined p-value of independent blocks.

    -2 sum ln p is chi-squared with 2 B degrees of freedom. For an even number its tail is a finite sum, taken here in
    logarithms, so that the answer is finite where the p-value itself is below what float64 holds.

    Args:
        p_B: At least one p-value, each above 0.

    Example:
        >>> round(10 ** fisher_log10(np.array([0.05])), 12)
        0.05
    """
    half = -float(np.log(p_B).sum())
    if half <= 0:
        return 0.0
    orders_B = np.arange(p_B.size)
    log_factorials_B = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, p_B.size)))])
    terms_B = orders_B * np.log(half) - log_factorials_B
    return min(0.0, float(np.logaddexp.reduce(terms_B) - half) / float(np.log(10.0)))
