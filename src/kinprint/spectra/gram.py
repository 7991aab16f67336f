"""Gram matrices of a few rows (the experts of a router), compared after a matching that no numbering changes.

Axes: E = rows of the smaller side, F = rows of the larger side, K, L = their entries off the diagonal, P = pairs of
rows.

Sorted entries of a row are the same under every numbering. The linear assignment by them is improved by further ones,
each on the products of rows under the last matching, as long as the likeness grows: the quadratic assignment problem,
of which a local optimum is found. It is the true matching where the rows of derived sides are still told apart by their
sorted entries.

Source: the improvement is one of the Frank-Wolfe steps of Vogelstein et al., Fast Approximate Quadratic Programming for
Graph Matching, PLOS ONE 10 (2015), always taken whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinprint.linalg.assignment import assignment
from kinprint.shapes import Float64, Int64

Array = np.ndarray[Any, np.dtype[Any]]

ROUNDS = 20
"""Improvements of a matching at most; a few are made."""

_ROUNDING = 1e-9
"""Spread of cosines below which all experts are equally far apart: what differs is rounding."""


def cosines(gram_EE: Float64[Array, "E E"], *, centred: bool) -> Float64[Array, "E E"]:
    """Return the cosines of the rows behind a Gram matrix, 0 on the diagonal.

    Args:
        gram_EE: Inner products of the rows.
        centred: Subtract the mean row first. A row that is the mean has no direction: its cosines are 0.

    Example:
        >>> cosines(np.array([[1.0, 0.0], [0.0, 4.0]]), centred=False).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
        >>> cosines(np.array([[1.0, 0.0], [0.0, 4.0]]), centred=True).round(12).tolist()
        [[0.0, -1.0], [-1.0, 0.0]]
    """
    size = float(np.trace(gram_EE))
    if centred:
        gram_EE = gram_EE - gram_EE.mean(axis=0) - gram_EE.mean(axis=1)[:, None] + gram_EE.mean()
    squares_E = np.where(gram_EE.diagonal() > _ROUNDING * size, gram_EE.diagonal(), np.inf)
    found_EE = gram_EE / np.sqrt(np.outer(squares_E, squares_E))
    np.fill_diagonal(found_EE, 0.0)
    return found_EE


def likeness(left_EE: Float64[Array, "E E"], right_EE: Float64[Array, "E E"]) -> float:
    """Return the cosine about the means of the entries above the diagonal; NaN where one side's are all the same."""
    above = np.triu_indices(len(left_EE), 1)
    sides = [side[above] - side[above].mean() for side in (left_EE, right_EE)]
    norms = [float(np.linalg.norm(side_P)) for side_P in sides]
    if min(norms) <= _ROUNDING:
        return float("nan")
    return float(np.clip(sides[0] @ sides[1] / norms[0] / norms[1], -1.0, 1.0))


def matched(left_EE: Float64[Array, "E E"], right_FF: Float64[Array, "F F"]) -> Int64[Array, " E"]:
    """Return a partner for each expert of the smaller side, found from cosines alone.

    Args:
        left_EE: Cosines with a zero diagonal.
        right_FF: The same of at least as many experts.
    """
    partners_E = assignment(-_apart(_sorted_rows(left_EE), _sorted_rows(right_FF)))[1]
    # About the mean, or rows that are large throughout would be everyone's best partner.
    level = float(right_FF.sum()) / max(1, right_FF.size - len(right_FF))
    right_about = right_FF - level
    np.fill_diagonal(right_about, 0.0)
    best = likeness(left_EE, right_FF[np.ix_(partners_E, partners_E)])
    for _ in range(ROUNDS):
        fresh_E = assignment(left_EE @ right_about[:, partners_E].T)[1]
        found = likeness(left_EE, right_FF[np.ix_(fresh_E, fresh_E)])
        if not found > best + _ROUNDING:
            break
        best, partners_E = found, fresh_E
    return partners_E


def _sorted_rows(cosines_EE: Array) -> Array:
    """Return each row without its diagonal entry, in rising order, [E, E - 1]."""
    count = len(cosines_EE)
    return np.sort(cosines_EE[~np.eye(count, dtype=bool)].reshape(count, count - 1), axis=1)


def _apart(left_EK: Array, right_FL: Array) -> Array:
    """Return the mean squared difference of every two sorted rows, [E, F].

    Rows of one length entry by entry; else each entry of the shorter from the nearest of the longer, which is 0 where
    the shorter's experts are some of the longer's.
    """
    if left_EK.shape[1] == right_FL.shape[1]:
        return np.stack([((right_FL - row_K) ** 2).mean(axis=1) for row_K in left_EK])
    apart_EF = np.empty((len(left_EK), len(right_FL)))
    for column, row_L in enumerate(right_FL):
        after = np.clip(np.searchsorted(row_L, left_EK), 1, row_L.size - 1)
        nearest = np.minimum(np.abs(left_EK - row_L[after - 1]), np.abs(left_EK - row_L[after]))
        apart_EF[:, column] = (nearest**2).mean(axis=1)
    return apart_EF
