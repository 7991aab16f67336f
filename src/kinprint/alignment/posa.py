"""POSA: the best strictly increasing map of a shallower model's layers into a deeper one's.

Axes: N = layers of the shallower model, M = layers of the deeper one.

Source: GhostSpec, arXiv 2511.06390, Algorithm 1 (Penalty-based Optimal Spectral Alignment).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kinprint.errors import UsageError
from kinprint.shapes import Float

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class LayerMap:
    """A map of layers.

    Attributes:
        distance: Mean distance over the mapped pairs. Penalties steer the map and are not in it.
        pairs: (row, column) of the distance matrix for every mapped pair, both strictly increasing.
        transposed: Whether the columns were the shallower model: every column is mapped, and rows may be skipped.
    """

    distance: float
    pairs: tuple[tuple[int, int], ...]
    transposed: bool


def posa(distances: Float[Array, "A B"], penalty: float) -> LayerMap:
    """Map every layer of the shallower model to a layer of the deeper one, in order.

    The first layer may start anywhere and the last may end anywhere; each layer skipped between two mapped ones costs
    ``penalty``. Where both models have as many layers the map is the identity. Of maps that cost the same, the one
    that ends earliest is taken, and before its end the smaller skips. O(N M): the best predecessor
    ``min_k C[i-1, k] + (j - k - 1) * penalty`` is a running minimum.

    Args:
        distances: Distance of layer i of one model to layer j of the other, at least one each. Where there are more
            rows than columns the two change roles, and the result says so.
        penalty: Cost of a skipped layer, in units of distance; at least 0.

    Raises:
        UsageError: A distance is missing or not finite, or the penalty is negative or not finite.

    Example:
        >>> posa(np.array([[0.0, 9.0, 9.0], [9.0, 9.0, 1.0]]), penalty=0.5)
        LayerMap(distance=0.5, pairs=((0, 0), (1, 2)), transposed=False)
    """
    if distances.size == 0 or not np.isfinite(distances).all():
        raise UsageError("cannot map layers by distances that are missing or not finite: leave those layers out")
    if not (penalty >= 0 and np.isfinite(penalty)):
        raise UsageError(f"the penalty of a skipped layer is {penalty}: give a finite number, 0 or more")
    if distances.shape[0] > distances.shape[1]:
        turned = posa(np.ascontiguousarray(distances.T), penalty)
        return LayerMap(turned.distance, tuple((row, column) for column, row in turned.pairs), transposed=True)
    rows, columns = distances.shape
    costs_M = distances[0].astype(np.float64)
    previous = np.zeros((rows, columns), dtype=np.int64)
    for row in range(1, rows):
        fresh_M = np.full(columns, np.inf)
        best, at = np.inf, row - 1
        for column in range(row, columns):
            # A predecessor moves one column further away at every step, and so costs one penalty more.
            best += penalty
            if costs_M[column - 1] <= best:
                best, at = float(costs_M[column - 1]), column - 1
            fresh_M[column] = best + distances[row, column]
            previous[row, column] = at
        costs_M = fresh_M
    column = int(np.argmin(costs_M[rows - 1 :])) + rows - 1
    pairs = [(rows - 1, column)]
    for row in range(rows - 1, 0, -1):
        column = int(previous[row, column])
        pairs.append((row - 1, column))
    pairs.reverse()
    distance = float(np.mean([distances[pair] for pair in pairs], dtype=np.float64))
    return LayerMap(distance, tuple(pairs), transposed=False)
