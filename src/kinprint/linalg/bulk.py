"""The Marchenko-Pastur bulk of a matrix's singular values, and the spikes above it.

Axes: S = singular values, P = points of a grid.

Let an m x n matrix have independent entries of variance sigma^2, n the longer side and beta = m / n. The squares of its
singular values over n sigma^2 follow, for large sides, the Marchenko-Pastur law on
[(1 - sqrt(beta))^2, (1 + sqrt(beta))^2]. sigma is fitted by the median, which spikes hardly move: the sample's median
is set to the law's. A finite matrix's largest value fluctuates about the edge; a spike must therefore exceed the 99 per
cent point of the Tracy-Widom law of the real case, centred and scaled for finite sides.

What it is worth on trained matrices: their entries are neither independent nor of one variance, so that the law need
not fit at all. ``distance`` says how badly it does. What lies above the edge of a law that does not fit is no evidence
of a spike, only a definition of one.

Source: Marchenko & Pastur, Math. USSR Sbornik 1 (1967); Johnstone, On the distribution of the largest eigenvalue in
principal components analysis, Annals of Statistics 29 (2001), theorem 1.1 (centre and scale); the median as in Gavish &
Donoho, The optimal hard threshold for singular values is 4/sqrt(3), IEEE Trans. Inf. Theory 60 (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kinprint.shapes import Float64

Array = np.ndarray[Any, np.dtype[Any]]

TRACY_WIDOM_99 = 2.0234
"""99 per cent point of the Tracy-Widom law for real matrices (Johnstone 2001, table 1)."""

_POINTS = 4096
"""Of the grid on which the law is summed: the median is right to 1e-6."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A fitted bulk.

    Attributes:
        sigma: Standard deviation of the entries that the fitted law belongs to.
        lower: Lower edge, as a singular value.
        upper: Upper edge, as a singular value.
        edge: Upper edge with the Tracy-Widom margin: what a spike exceeds.
        spikes: How many singular values exceed it.
        distance: Largest difference between the cumulative shares of the values up to ``edge`` and the law
            (Kolmogorov-Smirnov): 0 where the law fits.
    """

    sigma: float
    lower: float
    upper: float
    edge: float
    spikes: int
    distance: float


def fit(values_S: Float64[Array, " S"], shape: tuple[int, int]) -> Bulk:
    """Fit the bulk of a matrix's singular values and count the spikes above it.

    Args:
        values_S: All min(m, n) of them, in any order.
        shape: Sides m and n of the matrix, both at least 2.
    """
    short, long = sorted(shape)
    x_P, below_P = law(short / long)
    sigma = float(np.median(values_S) / np.sqrt(long * np.interp(0.5, below_P, x_P)))
    sides = np.sqrt(long - 1) + np.sqrt(short)
    spread = sides * (1 / np.sqrt(long - 1) + 1 / np.sqrt(short)) ** (1 / 3)
    edge = sigma * float(np.sqrt(sides**2 + TRACY_WIDOM_99 * spread))
    scale = sigma * np.sqrt(long)
    inside_S = np.sort(values_S[values_S <= edge])
    return Bulk(
        sigma=sigma,
        lower=float(scale * (1 - np.sqrt(short / long))),
        upper=float(scale * (1 + np.sqrt(short / long))),
        edge=edge,
        spikes=int((values_S > edge).sum()),
        distance=_distance(inside_S, scale, x_P, below_P),
    )


def law(beta: float) -> tuple[Float64[Array, " P"], Float64[Array, " P"]]:
    """Return points of the support, ascending, and the share of the Marchenko-Pastur law below each.

    With x = 1 + beta + 2 sqrt(beta) cos(phi) the density becomes 2 sin^2(phi) / (pi x), which is smooth at both edges.

    Args:
        beta: Shorter side over longer side, above 0 and at most 1.
    """
    phi_P = (np.arange(_POINTS, 0, -1) - 0.5) * np.pi / _POINTS
    x_P = 1 + beta + 2 * np.sqrt(beta) * np.cos(phi_P)
    weight_P = 2 / np.pi * np.sin(phi_P) ** 2 / x_P * (np.pi / _POINTS)
    # Each point stands in the middle of its piece of the law.
    return x_P, np.cumsum(weight_P) - weight_P / 2


def density(values_P: Float64[Array, " P"], bulk: Bulk, shape: tuple[int, int]) -> Float64[Array, " P"]:
    """Return the density that the fitted law gives singular values (not their squares)."""
    short, long = sorted(shape)
    beta, x_P = short / long, (values_P / bulk.sigma) ** 2 / long
    low, high = (1 - np.sqrt(beta)) ** 2, (1 + np.sqrt(beta)) ** 2
    root_P = np.sqrt(np.clip((high - x_P) * (x_P - low), 0, None))
    of_squares_P = root_P / (2 * np.pi * beta * np.where(x_P > 0, x_P, 1.0))
    return of_squares_P * 2 * values_P / (bulk.sigma**2 * long)


def _distance(inside_S: Array, scale: float, x_P: Array, below_P: Array) -> float:
    if scale == 0 or inside_S.size == 0:
        return 1.0
    law_S = np.interp((inside_S / scale) ** 2, x_P, below_P, left=0.0, right=1.0)
    count_S = np.arange(inside_S.size)
    gaps = (np.abs(law_S - edge_S / inside_S.size).max() for edge_S in (count_S, count_S + 1))
    return float(max(gaps))
