"""Singular values of matrices and of products of two thin ones, and the shape of a spectrum.

Axes: M = rows, N = columns, K = inner dimension of a product (rows of both factors), S = singular values.

**How.** The squares of the singular values are the eigenvalues of a Gram matrix, several times cheaper than a singular
value decomposition. For a product ``left^T right`` with K below M and N no M x N matrix is formed: with
left left^T = L L^T the squares are the eigenvalues of the K x K matrix L^T (right right^T) L. A scale that is moved
between the two factors (row k of one times c, row k of the other over c) changes no error here.

**How well.** A Gram matrix squares the condition: the relative error of a value s is c u (bound / s)^2 / 2 with u the
unit roundoff, ``bound`` the norm of the matrix (of a product: the product of its factors' norms), and c at most the
length of the sums. Inside the effective rank s / bound falls to about .001 for products of log-normal factors with loud
channels, and to 1e-5 for one spike over a flat floor of 4096 values. In float32 (u = 6e-8) the former may cost 3 % of a
value even with c = 1; so the factors are converted before they are multiplied, and Gram matrices are accumulated in
float64, where it costs 6e-11. Each result is checked against the formula with the largest c. Where that is above
``TOLERANCE`` (spikes; factors that cancel), the values come from the factors by QR or from the matrix by SVD, in
float64, whose error is c u bound / s. Measured at width 4096 against a float64 SVD: 2e-14 inside the effective rank.

Every value inside the effective rank is right to ``TOLERANCE``; values that cannot be told from rounding are 0.

Source: Golub & Van Loan, Matrix Computations, 4th ed., sections 2.4, 5.2 and 8.6. Effective rank: Roy & Vetterli, The
effective rank, EUSIPCO 2007, definition 1. Truncation and scaling: GhostSpec, arXiv 2511.06390, section 3.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import numpy as np

from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float, Float64

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-6
"""Largest relative error of a value inside the effective rank."""

BLOCK_BYTES = 1 << 25
"""Bytes converted to float64 at once while a Gram matrix is accumulated."""

_LARGE_ORDER = 2048
"""Rows from which on a Gram matrix is accumulated by SciPy's BLAS."""

_SQUARE = 256

_UNIT = float(np.finfo(np.float64).eps) / 2

_TAIL = 1e-4
"""How far values lost in rounding may move the logarithm of the effective rank before a better method is taken."""


def singular_values(weight_MN: Float[Array, "M N"]) -> Float64[Array, " S"]:
    """Return all min(M, N) singular values of a matrix, largest first.

    Args:
        weight_MN: Any float dtype; magnitudes in the range of float32, so that fourth powers fit into float64.

    Returns:
        In the unit of the entries; all NaN where an entry is NaN or infinite.

    Example:
        >>> singular_values(np.array([[0.0, 3.0], [4.0, 0.0], [0.0, 0.0]])).tolist()
        [4.0, 3.0]
    """
    if not np.isfinite(weight_MN).all():
        return np.full(min(weight_MN.shape), np.nan)
    if weight_MN.size == 0:
        return np.zeros(min(weight_MN.shape))
    wide_SL = weight_MN if weight_MN.shape[0] <= weight_MN.shape[1] else weight_MN.T
    rounding = wide_SL.shape[1] * _UNIT
    with threads_for(wide_SL.shape[0]):
        squares_S = np.linalg.eigvalsh(_gram(wide_SL))
        values_S = resolved(squares_S, rounding * max(float(squares_S[-1]), 0.0))
        if values_S is not None:
            return values_S
        values_S = np.linalg.svd(wide_SL.astype(np.float64, copy=False), compute_uv=False)
    return np.where(values_S > rounding * values_S[0], values_S, 0.0)


def product_singular_values(left_KM: Float[Array, "K M"], right_KN: Float[Array, "K N"]) -> Float64[Array, " S"]:
    """Return the singular values of ``left^T right``, largest first, without forming it where K is below M and N.

    Args:
        left_KM: Any float dtype; magnitudes in the range of float32.
        right_KN: The same.

    Returns:
        min(K, M, N) values, as there are no other non-zero ones; all NaN where an entry is NaN or infinite.

    Example:
        >>> product_singular_values(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0, 4.0]])).round(12).tolist()
        [10.0]
    """
    rows, columns = left_KM.shape[1], right_KN.shape[1]
    count = min(left_KM.shape[0], rows, columns)
    if not (np.isfinite(left_KM).all() and np.isfinite(right_KN).all()):
        return np.full(count, np.nan)
    used_K = (left_KM != 0).any(axis=1) & (right_KN != 0).any(axis=1)
    if not used_K.all():  # a zero row adds nothing, and the thin core divides by the lengths of the rows
        left_KM, right_KN = left_KM[used_K], right_KN[used_K]
    with threads_for(left_KM.shape[0]):
        if left_KM.shape[0] < min(rows, columns):
            values_S = _thin_product(left_KM, right_KN)
        else:
            values_S = singular_values(_wide(left_KM).T @ _wide(right_KN))
    return np.pad(values_S, (0, count - values_S.size))


def _thin_product(left_KM: Array, right_KN: Array) -> Array:
    """Return the singular values of a product from its K x K core; no row is zero."""
    if left_KM.shape[0] == 0:
        return np.zeros(0)
    left_KK, right_KK = _gram(left_KM), _gram(right_KN)
    # Rows as long in one factor as in the other, so that the bound does not depend on how they share a scale. Cholesky
    # and QR do not mind unequal rows.
    balance_K = (right_KK.diagonal() / left_KK.diagonal()) ** 0.25
    left_KK *= np.outer(balance_K, balance_K)
    right_KK /= np.outer(balance_K, balance_K)
    left_norm, right_norm = float(np.linalg.norm(left_KK)), float(np.linalg.norm(right_KK))
    rounding = max(left_KM.shape[1], right_KN.shape[1]) * _UNIT
    lower_KK, shifts = _cholesky(left_KK, rounding * left_norm)
    if lower_KK is not None:
        squares_K = np.linalg.eigvalsh(lower_KK.T @ right_KK @ lower_KK)
        values_K = resolved(squares_K, (1 + shifts) * rounding * left_norm * right_norm)
        if values_K is not None:
            return values_K
    left_core, right_core = (cast("Array", np.linalg.qr(_wide(side).T, mode="r")) for side in (left_KM, right_KN))
    values_K = np.linalg.svd(left_core @ right_core.T, compute_uv=False)
    return np.where(values_K > rounding * np.sqrt(left_norm * right_norm), values_K, 0.0)


def _cholesky(gram_KK: Array, rounding: float) -> tuple[Array | None, int]:
    """Return the lower Cholesky factor, and how often the diagonal was raised by ``rounding`` to get it.

    Dependent rows stop Cholesky. A shift as small as what rounding may have done to the Gram matrix already does not.
    """
    for shifts in (0, 1):
        try:
            return np.linalg.cholesky(gram_KK + shifts * rounding * np.eye(gram_KK.shape[0])), shifts
        except np.linalg.LinAlgError:
            continue
    return None, 0


def _wide(array: Array) -> Array:
    return array.astype(np.float64, copy=False)


def _gram(weight_KM: Array) -> Array:
    """Return ``weight weight^T`` in float64, accumulated over blocks of columns."""
    inner, columns = weight_KM.shape
    width = max(1, BLOCK_BYTES // (8 * max(1, inner)))
    blocks = (_wide(weight_KM[:, first : first + width]) for first in range(0, columns, width))
    if inner < _LARGE_ORDER:
        gram_KK = np.zeros((inner, inner))
        for block in blocks:
            gram_KK += block @ block.T  # numpy computes one triangle and mirrors it
        return gram_KK
    # SciPy adds to the triangle in place, in half the time; for small matrices its import takes longer than they do.
    dsyrk = import_module("scipy.linalg.blas").dsyrk
    gram_KK = np.zeros((inner, inner), order="F")
    for block in blocks:
        gram_KK = dsyrk(1.0, block.T, beta=1.0, c=gram_KK, trans=1, lower=1, overwrite_c=1)
    _mirror(gram_KK)
    return gram_KK


def _mirror(lower_KK: Array) -> None:
    """Copy the lower triangle over the upper one, in place and square by square, which stay in the cache."""
    for first in range(0, len(lower_KK), _SQUARE):
        last = first + _SQUARE
        square = lower_KK[first:last, first:last]
        square[:] = np.tril(square) + np.tril(square, -1).T
        lower_KK[first:last, last:] = lower_KK[last:, first:last].T


def resolved(squares_K: Array, noise: float) -> Array | None:
    """Return the roots of eigenvalues, largest first, or None where rounding has spoilt more than it may.

    Args:
        squares_K: Eigenvalues in ascending order.
        noise: How wrong each of them may be.
    """
    values_K = np.sqrt(np.where(squares_K > noise, squares_K, 0.0))[::-1]
    total = float(values_K.sum())
    if total == 0:
        return values_K if noise == 0 else None
    last = float(values_K[max(1, _whole(effective_rank(values_K))) - 1])
    if noise > 2 * TOLERANCE * last**2:
        return None
    # A lost value is at most this share of the whole, and adds at most share * log(1 / share) to the entropy.
    share = np.sqrt(noise) / total
    lost = int((values_K == 0).sum())
    return None if lost * share * np.log(1 / share) > _TAIL else values_K


def effective_rank(values_S: Float[Array, " S"]) -> float:
    """Return exp of the entropy of singular values as shares of their sum: between 1 and S; 0 where all are zero.

    Args:
        values_S: Not negative; in any order.

    Returns:
        NaN where a value is NaN.

    Example:
        >>> round(effective_rank(np.array([1.0, 1.0, 1.0, 0.0])), 12)
        3.0
    """
    values = values_S[values_S != 0].astype(np.float64)
    if values.size == 0:
        return 0.0
    values = values / values.max()  # the sum cannot overflow then
    shares = values / values.sum()
    shares = shares[shares != 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def minmax(values_S: Float[Array, " S"]) -> Float64[Array, " S"]:
    """Return values moved and scaled to [0, 1]; all zero where they are equal to ``TOLERANCE``.

    Truncate first: the least value that is *kept* becomes 0.

    Example:
        >>> minmax(np.array([5.0, 3.0, 1.0])).tolist()
        [1.0, 0.5, 0.0]
        >>> minmax(np.array([5.0, 5.0 + 1e-12])).tolist()
        [0.0, 0.0]
    """
    values = values_S.astype(np.float64)
    if values.size == 0:
        return values
    low, high = float(values.min()), float(values.max())
    # Spectra are right to TOLERANCE: scaling up a smaller spread, as an orthogonal matrix has, would show rounding.
    if high - low <= TOLERANCE * max(abs(low), abs(high)):
        return np.zeros(values.size)
    return (values - low) / (high - low)


def kept_rank(left: float, right: float, available: int) -> int:
    """Return how many values a comparison keeps: the smaller effective rank rounded down, and at least 2.

    The paper does not say how a real number becomes a count. Fewer than two values have no shape after min-max. A rank
    that is whole but for rounding counts as whole: the identity keeps all its values.

    Args:
        left: Effective rank of one spectrum.
        right: Effective rank of the other.
        available: Length of the shorter spectrum; the count is never larger.

    Example:
        >>> kept_rank(9.9, 7.9, 64), kept_rank(5 - 1e-12, 6.0, 64), kept_rank(1.0, 1.0, 64), kept_rank(9.9, 7.9, 4)
        (7, 5, 2, 4)
    """
    return min(max(_whole(min(left, right)), 2), available)


def _whole(rank: float) -> int:
    return int(rank + 1e-6)


def spectrum_distance(left_S: Float[Array, " S"], right_T: Float[Array, " T"], kept: int) -> float:
    """Return the mean squared difference of two spectra, truncated first, then min-maxed.

    0 for equal shapes, below 1 always. Scale is discarded.

    Source: GhostSpec, arXiv 2511.06390, GhostSpec-mse (one term of D_ij).

    Args:
        left_S: Singular values, largest first.
        right_T: The other singular values, largest first.
        kept: How many values of each are compared: see :func:`kept_rank`.

    Example:
        >>> round(spectrum_distance(np.array([5.0, 4.0, 3.0, 1.0]), np.array([9.0, 8.0, 5.0, 3.0]), 3), 6)
        0.020833
    """
    return float(np.mean((minmax(left_S[:kept]) - minmax(right_T[:kept])) ** 2))
