"""Cosines, common bases and products of forms in the array API: one code for numpy and for torch on any device.

Axes: N, M = rows of two sides, D = their columns, A, B = residual coordinates of two models, K = common directions,
G, H = groups of two models, C, E = rows of one group. ``...`` are axes worked through together, such as layers.

Arrays lie where the caller put them (:mod:`kinprint.linalg.device`), and results lie there too. Floats are at least
float32: ``Device.put`` widens what is narrower.

**Precision.** u is the unit roundoff: 2^-53 in float64 (``exact``), 2^-24 in float32 (``single``), 2^-8 in bfloat16. A
cosine is a sum of products that are at most 1 together, so its error has a bound whatever the rows are, and cosines are
what ``mixed`` is offered for: rows of bfloat16, sums in float32. Rounding a row's entries turns it by an angle of at
most asin u, and lengths are taken after it; so a true cosine c comes out wrong by at most
2 u sqrt(1 - c^2) + 2 u^2, and what the sum of D products adds (:func:`cosine_bound`). What else is here has no such
bound: a row turned by a rounded basis may be off by u sqrt(K) of its length, a form may be a small difference of large
products, and a polar factor loses what the smallest singular value has lost. They are single or exact.

Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1 and 3.5 (sums of products);
Blanchard et al., Mixed Precision Block Fused Multiply-Add, SISC 42 (2020) (bfloat16 in, float32 sums).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import numpy as np

from kinprint.linalg.device import DeviceArray, multiplied_in_bfloat16, namespace, place
from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float

Precision = Literal["exact", "single", "mixed"]

TRUNCATED_FROM = 1024
"""From more coordinates than this on, both sides', :func:`truncated_procrustes` is worth its error."""

OVERSAMPLED = 32
"""Directions drawn beyond those that are wanted: they take most of the error of the last ones wanted."""

POWER_ITERATIONS = 2

_HALF = 2.0**-8
_BLOCK_ELEMENTS = 1 << 24
"""Numbers of a product that are held at once while it is summed up."""

_MOST_FACTORS = 4
"""Cholesky factorisations after which columns that are not orthonormal yet are left to reflections."""

_ORTHONORMAL = 2e-6
"""How far products of float32 columns may be from those of orthonormal ones: a dozen roundings."""

_ROUNDING = 1e-6
"""Share of its largest possible value below which a sum of float32 products counts as 0: ten times its rounding."""


def cosine_bound(precision: Precision, columns: int, cosine: float = 0.0) -> float:
    """Return how wrong a cosine of :func:`row_cosines` may be, whatever the rows are.

    Args:
        precision: How it is worked out.
        columns: Numbers in a row.
        cosine: The true cosine: rounding to bfloat16 turns rows, and next to 1 a turn costs least.

    Example:
        >>> round(cosine_bound("mixed", 8192), 4), round(cosine_bound("mixed", 8192, 0.99), 4)
        (0.0098, 0.0031)
    """
    # Six roundings make a unit row of another. Tensor cores cut where others round, so their sums have twice the u.
    sums = (columns + 16) * {"exact": 2.0**-53, "single": 2.0**-24, "mixed": 2.0**-22}[precision]
    turn = 2 * _HALF * float(np.sqrt(max(0.0, 1 - cosine**2))) + 2 * _HALF**2
    return sums + (turn if precision == "mixed" else 0.0)


def unit_rows(rows_ND: Float[DeviceArray, "... N D"]) -> Float[DeviceArray, "... N D"]:
    """Return rows at unit length, float32; a zero row stays zero.

    Entries are divided by the row's largest first, since squares of tiny numbers are zero in float32 and those of large
    ones infinite. Sums are float64, so that the length is right to 2^-22 however long the row is.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).round(6).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    xp = namespace(rows_ND)
    return _unit(xp, xp.astype(rows_ND, xp.float32, copy=False))


def _unit(xp: Any, rows_ND: DeviceArray) -> DeviceArray:  # noqa: ANN401
    scaled_ND = rows_ND / _or_one(xp, xp.max(xp.abs(rows_ND), axis=-1, keepdims=True))
    return scaled_ND / _or_one(xp, _lengths(xp, scaled_ND))


def _lengths(xp: Any, rows_ND: DeviceArray) -> DeviceArray:  # noqa: ANN401
    squares_N1 = xp.sum(rows_ND * rows_ND, axis=-1, keepdims=True, dtype=xp.float64)
    return xp.astype(xp.sqrt(squares_N1), rows_ND.dtype)


def _or_one(xp: Any, values: DeviceArray) -> DeviceArray:  # noqa: ANN401
    return xp.where(values > 0, values, xp.ones_like(values))


def turned(rows_ND: Float[DeviceArray, "N D"], side_DK: Float[DeviceArray, "D K"]) -> Float[DeviceArray, "N K"]:
    """Return rows in a common basis, float32; nothing is multiplied where the basis is the model's own.

    An entry is wrong by at most (D + 2) u of the sum of its products' sizes.

    Args:
        rows_ND: Rows of residual coordinates.
        side_DK: That model's side of the basis, on the same device.
    """
    xp = namespace(rows_ND, side_DK)
    rows_ND = xp.astype(rows_ND, xp.float32, copy=False)
    if side_DK.shape[0] == side_DK.shape[1] and bool(xp.all(side_DK == _eye(xp, side_DK))):
        return rows_ND
    with threads_for(max(side_DK.shape)):
        return rows_ND @ xp.astype(side_DK, xp.float32, copy=False)


def _eye(xp: Any, like_DD: DeviceArray) -> DeviceArray:  # noqa: ANN401
    return xp.eye(like_DD.shape[0], dtype=like_DD.dtype, device=place(like_DD))


def in_common(rows_ND: Float[DeviceArray, "N D"], side_DK: Float[DeviceArray, "D K"]) -> Float[DeviceArray, "N K"]:
    """Return rows in a common basis at unit length, float32. What lies outside the basis is left out before."""
    return unit_rows(turned(rows_ND, side_DK))


def row_cosines(
    left_ND: Float[DeviceArray, "... N D"], right_MD: Float[DeviceArray, "... M D"], *, precision: Precision = "single"
) -> Float[DeviceArray, "... N M"]:
    """Return the cosine of every row of one side with every row of the other; 0 where a row is zero.

    Args:
        left_ND: One side's rows.
        right_MD: The other's.
        precision: ``exact`` works in float64, ``single`` in float32; ``mixed`` rounds unit rows to bfloat16 and adds in
            float32. :func:`cosine_bound` says what each may cost.

    Returns:
        Float64 where exact, else float32.

    Example:
        >>> row_cosines(np.array([[2.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]), precision="exact").tolist()
        [[0.6, 0.0]]
    """
    xp = namespace(left_ND, right_MD)
    dtype = xp.float64 if precision == "exact" else xp.float32
    left_ND, right_MD = (_unit(xp, xp.astype(side, dtype, copy=False)) for side in (left_ND, right_MD))
    with threads_for(left_ND.shape[-1]):
        if precision != "mixed":
            return left_ND @ xp.matrix_transpose(right_MD)
        left_ND, right_MD = _to_eight_bits(left_ND), _to_eight_bits(right_MD)
        products_NM = multiplied_in_bfloat16(left_ND, xp.matrix_transpose(right_MD))
    lengths_N1, lengths_M1 = (_or_one(xp, _lengths(xp, side)) for side in (left_ND, right_MD))
    return products_NM / lengths_N1 / xp.matrix_transpose(lengths_M1)


def _to_eight_bits(values: DeviceArray) -> DeviceArray:
    """Round float32 of at most 1 to the eight significant bits of bfloat16, to nearest: Veltkamp's splitting."""
    large = values * (2.0**16 + 1.0)
    return large - (large - values)


def facing_cosines(left_ND: Float[DeviceArray, "N D"], right_ND: Float[DeviceArray, "N D"]) -> Float[DeviceArray, " N"]:
    """Return the cosine of every row with the row that faces it, float64, of rows at unit length in float32."""
    xp = namespace(left_ND, right_ND)
    return xp.sum(unit_rows(left_ND) * unit_rows(right_ND), axis=-1, dtype=xp.float64)


# -- forms of groups -----------------------------------------------------------------------------------------------


def group_cosines(
    left_GCK: Float[DeviceArray, "... G C K"],
    right_GCK: Float[DeviceArray, "... G C L"],
    other_left_HCK: Float[DeviceArray, "... H E K"],
    other_right_HCK: Float[DeviceArray, "... H E L"],
) -> Float[DeviceArray, "... G H"]:
    """Return the cosine of every group's form ``left^T right`` with every form of the other model's groups.

    The inner product of two forms is the sum of products of two small matrices, <A^T B, C^T D> = sum((A C^T) (B D^T)),
    so that no form is made. Leading axes are worked through together, and those of length 1 are repeated.

    Args:
        left_GCK: A of every group, in the common basis.
        right_GCK: B of every group.
        other_left_HCK: C of every group of the other model.
        other_right_HCK: D of every group of the other model.

    Returns:
        Float64. Products are in the dtype of the arguments. 0 where a form is zero, or is all but zero because its
        terms undo each other, so that rounding is what is left of it.

    Example:
        >>> one, other = np.array([[[1.0, 0.0]]]), np.array([[[0.6, 0.8]]])
        >>> group_cosines(one, one, other, other).round(12).tolist()
        [[0.36]]
    """
    xp = namespace(left_GCK, right_GCK, other_left_HCK, other_right_HCK)
    with threads_for(left_GCK.shape[-1]):
        products = _form_products(xp, left_GCK, right_GCK, other_left_HCK, other_right_HCK)
        lengths_G, lengths_H = (
            _form_lengths(xp, left_GCK, right_GCK),
            _form_lengths(xp, other_left_HCK, other_right_HCK),
        )
    scale = lengths_G[..., :, None] * lengths_H[..., None, :]
    return xp.where(scale > 0, products, xp.zeros_like(products)) / _or_one(xp, scale)


def _form_products(
    xp: Any,  # noqa: ANN401
    left_GCK: DeviceArray,
    right_GCK: DeviceArray,
    other_left_HCK: DeviceArray,
    other_right_HCK: DeviceArray,
) -> DeviceArray:
    groups, rows = left_GCK.shape[-3:-1]
    others, other_rows = other_left_HCK.shape[-3:-1]
    turned_left, turned_right = (xp.matrix_transpose(_flat(xp, side)) for side in (other_left_HCK, other_right_HCK))
    layers = max(prod(left_GCK.shape[:-3]), prod(other_left_HCK.shape[:-3]))
    step = max(1, _BLOCK_ELEMENTS // max(1, layers * rows * others * other_rows))
    found: list[DeviceArray] = []
    for first in range(0, groups, step):
        part = slice(first, min(first + step, groups))
        part_left, part_right = left_GCK[..., part, :, :], right_GCK[..., part, :, :]
        both = (_flat(xp, part_left) @ turned_left) * (_flat(xp, part_right) @ turned_right)
        blocks = xp.reshape(both, (*both.shape[:-2], part_left.shape[-3], rows, others, other_rows))
        found.append(xp.sum(blocks, axis=(-3, -1), dtype=xp.float64))
    return xp.concat(found, axis=-2)


def _flat(xp: Any, blocks_GCK: DeviceArray) -> DeviceArray:  # noqa: ANN401
    *layers, groups, rows, columns = blocks_GCK.shape
    return xp.reshape(blocks_GCK, (*layers, groups * rows, columns))


def _form_lengths(xp: Any, left_GCK: DeviceArray, right_GCK: DeviceArray) -> DeviceArray:  # noqa: ANN401
    left_GCC, right_GCC = (side @ xp.matrix_transpose(side) for side in (left_GCK, right_GCK))
    square = xp.sum(left_GCC * right_GCC, axis=(-2, -1), dtype=xp.float64)
    norms = [xp.sqrt(xp.sum(gram * gram, axis=(-2, -1), dtype=xp.float64)) for gram in (left_GCC, right_GCC)]
    return xp.sqrt(xp.where(square > _ROUNDING * norms[0] * norms[1], square, xp.zeros_like(square)))


# -- common bases --------------------------------------------------------------------------------------------------


def cross_product(left_NA: Float[DeviceArray, "N A"], right_NB: Float[DeviceArray, "N B"]) -> Float[DeviceArray, "A B"]:
    """Return ``left^T right``, the sum of products of matched rows, in float64, converted block by block.

    With one array for both it holds that array's second moments.

    Example:
        >>> cross_product(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [1.0]])).tolist()
        [[4.0], [6.0]]
    """
    xp = namespace(left_NA, right_NB)
    count = left_NA.shape[0]
    step = max(1, _BLOCK_ELEMENTS // max(1, left_NA.shape[1], right_NB.shape[1]))
    total: DeviceArray = None
    with threads_for(min(left_NA.shape[1], right_NB.shape[1])):
        for first in range(0, max(1, count), step):
            part = slice(first, min(first + step, count))
            left, right = (xp.astype(side[part, :], xp.float64, copy=False) for side in (left_NA, right_NB))
            product = xp.matrix_transpose(left) @ right
            total = product if total is None else total + product
    return total


def procrustes(cross_AB: Float[DeviceArray, "A B"]) -> tuple[DeviceArray, DeviceArray]:
    """Return the orthonormal (A, K) and (B, K) that bring matched rows nearest to each other, from their cross product.

    The polar factor by a singular value decomposition in float64, with the identity on the narrower side. The factor is
    as well determined as the smallest singular values are far from 0: by about u |cross| / (s_A + s_A-1).

    Source: Schoenemann, Psychometrika 31 (1966); Higham, Functions of Matrices, section 8.2.
    """
    xp = namespace(cross_AB)
    with threads_for(min(cross_AB.shape)):
        left, _, right = xp.linalg.svd(xp.astype(cross_AB, xp.float64, copy=False), full_matrices=False)
        turn_AB = left @ right
    rows, columns = turn_AB.shape
    if rows < columns:
        return _eye(xp, turn_AB), xp.matrix_transpose(turn_AB)
    return turn_AB, _eye(xp, turn_AB[:columns, :])


def truncated_procrustes(
    cross_AB: Float[DeviceArray, "A B"], directions: int, seed: int
) -> tuple[Float[DeviceArray, "A K"], Float[DeviceArray, "B K"]]:
    """Return orthonormal bases of the leading singular directions of a cross product, each facing its partner.

    A randomised range finder of q power iterations, made orthonormal after every product, in float32; then a
    decomposition of the small remainder, in float64. In expectation what the A side leaves of the cross product is, in
    the spectral norm, at most [1 + sqrt(K / (p - 1)) + e sqrt(K + p) / p sqrt(min(A, B) - K)]^(1 / 2 q) times the first
    singular value beyond K, with p directions drawn beyond K; a singular direction k comes out turned by about
    (s_K+p+1 / s_k)^(2 q). So where a spectrum falls off they are those of the full decomposition, and where it is
    flat, so that there are no leading directions, they are some of many. Directions below 1e-6 of the largest singular
    value are rounding; they are orthonormal all the same. Where most directions are wanted, the full decomposition is
    what is returned.

    Source: Halko, Martinsson & Tropp, Finding Structure with Randomness, SIAM Review 53 (2011), algorithms 4.4 and 5.1;
    corollary 10.10 and, for the exponent, proposition 8.6.

    Args:
        cross_AB: Sum of products of matched rows.
        directions: How many (K); all where there are no more.
        seed: Of the directions that are drawn; the same on every device.

    Returns:
        (A, K) and (B, K), float32, in the order of falling singular values.
    """
    xp = namespace(cross_AB)
    # Without the sizes of all entries in memory: a cross product of wide models is large.
    largest = xp.maximum(xp.max(cross_AB), -xp.min(cross_AB))
    cross_AB = xp.astype(cross_AB / _or_one(xp, largest), xp.float32, copy=False)
    cross_BA = xp.matrix_transpose(cross_AB)
    shape = (cross_AB.shape[0], cross_AB.shape[1])
    return _leading(
        lambda side_BK: cross_AB @ side_BK, lambda side_AK: cross_BA @ side_AK, shape, directions, seed, like=cross_AB
    )


def truncated_procrustes_of_rows(
    left_NA: Float[DeviceArray, "N A"], right_NB: Float[DeviceArray, "N B"], directions: int, seed: int
) -> tuple[Float[DeviceArray, "A K"], Float[DeviceArray, "B K"]]:
    """Return what :func:`truncated_procrustes` returns of ``left^T right``, which is not multiplied out.

    Cheaper while there are fewer rows than half the coordinates. A direction below 1e-6 of the largest singular value
    is rounding here too.

    Args:
        left_NA: One side's rows.
        right_NB: The rows that they face.
        directions: How many (K).
        seed: Of the directions that are drawn.
    """
    xp = namespace(left_NA, right_NB)
    left, right = (
        xp.astype(side / _or_one(xp, xp.maximum(xp.max(side), -xp.min(side))), xp.float32, copy=False)
        for side in (left_NA, right_NB)
    )
    left_AN, right_BN = xp.matrix_transpose(left), xp.matrix_transpose(right)
    return _leading(
        lambda side_BK: left_AN @ (right @ side_BK),
        lambda side_AK: right_BN @ (left @ side_AK),
        (left_NA.shape[1], right_NB.shape[1]),
        directions,
        seed,
        like=left,
    )


def _leading(
    times_cross: Callable[[DeviceArray], DeviceArray],
    times_transposed: Callable[[DeviceArray], DeviceArray],
    shape: tuple[int, int],
    directions: int,
    seed: int,
    *,
    like: DeviceArray,
) -> tuple[DeviceArray, DeviceArray]:
    xp = namespace(like)
    rows, columns = shape
    kept = min(directions, rows, columns)
    drawn = min(kept + OVERSAMPLED, rows, columns)
    if 3 * drawn > 2 * min(rows, columns):
        # Most directions are wanted: to decompose the product itself is quicker, and exact.
        cross_AB = times_cross(xp.eye(columns, dtype=xp.float32, device=place(like)))
        with threads_for(min(rows, columns)):
            left, _, right = xp.linalg.svd(xp.astype(cross_AB, xp.float64), full_matrices=False)
        return (
            xp.astype(left[:, :kept], xp.float32),
            xp.astype(xp.matrix_transpose(right)[:, :kept], xp.float32),
        )
    drawn_AK = np.random.default_rng(seed).standard_normal((rows, drawn), dtype=np.float32)
    left_AK = xp.asarray(drawn_AK, device=place(like))
    # Products have the order of the cross product, decompositions that of the directions: see threads_for.
    for _ in range(POWER_ITERATIONS - 1):
        left_AK = _well_conditioned(xp, times_cross(_well_conditioned(xp, times_transposed(left_AK))))
    left_AK, _ = tall_qr(times_cross(_well_conditioned(xp, times_transposed(left_AK))))
    right_BK, core_KK = tall_qr(times_transposed(left_AK))
    with threads_for(drawn):
        # left^T cross = core^T right^T, whose decomposition is that of the small core. In float64: a GPU's Jacobi
        # rotations leave vectors of float32 only 4e-5 from orthonormal.
        small_left, _, small_right = xp.linalg.svd(xp.astype(xp.matrix_transpose(core_KK), xp.float64))
    small_left, small_right = (xp.astype(side, xp.float32) for side in (small_left, small_right))
    return left_AK @ small_left[:, :kept], right_BK @ xp.matrix_transpose(small_right)[:, :kept]


def tall_qr(columns_AK: Float[DeviceArray, "A K"]) -> tuple[Float[DeviceArray, "A R"], Float[DeviceArray, "R K"]]:
    """Return orthonormal columns of the same span, float32, and the matrix (not triangular) that gives the rest back.

    More columns than rows span all there is: then the first is the identity.

    Cholesky's factors of Gram matrices, two to four times, which are products and so quick; where that does not end in
    orthonormal columns, because some depend on others, Householder reflections, which are right for every spectrum.

    Source: Fukaya et al., Shifted Cholesky QR, SISC 42 (2020), algorithm 4.1.

    Example:
        >>> columns, rest = tall_qr(np.array([[3.0, 3.0], [4.0, 4.0], [0.0, 5.0]], np.float32))
        >>> (columns @ rest).round(5).tolist()
        [[3.0, 3.0], [4.0, 4.0], [0.0, 5.0]]
    """
    xp = namespace(columns_AK)
    columns_AK = xp.astype(columns_AK, xp.float32, copy=False)
    if columns_AK.shape[1] > columns_AK.shape[0]:
        return _eye(xp, columns_AK), columns_AK
    found_AK = _well_conditioned(xp, columns_AK)
    for _ in range(_MOST_FACTORS - 1):
        found_AK = _well_conditioned(xp, found_AK)
        off_KK = xp.matrix_transpose(found_AK) @ found_AK - _eye(xp, found_AK[: found_AK.shape[1], :])
        if bool(xp.all(xp.abs(off_KK) < _ORTHONORMAL)):
            break
    else:
        with threads_for(columns_AK.shape[1]):
            found_AK = xp.linalg.qr(columns_AK)[0]
    return found_AK, xp.matrix_transpose(found_AK) @ columns_AK


def _well_conditioned(xp: Any, columns_AK: DeviceArray) -> DeviceArray:  # noqa: ANN401
    """Return columns of the same span, all but orthonormal, by Cholesky's factor of their Gram matrix in float64.

    The shift makes the factor exist whatever the columns are, and leaves directions below 1e-4 of the largest shorter
    than 1. Source: Fukaya et al., Shifted Cholesky QR, SISC 42 (2020), equation 4.3.
    """
    rows, columns = columns_AK.shape
    wide_AK = xp.astype(columns_AK, xp.float64)
    gram_KK = xp.matrix_transpose(wide_AK) @ wide_AK
    shift = 11 * (rows * columns + columns * (columns + 1)) * 2.0**-53 * _or_one(xp, xp.linalg.matrix_norm(gram_KK))
    with threads_for(columns):
        inverse_KK = xp.linalg.inv(xp.linalg.cholesky(gram_KK + shift * _eye(xp, gram_KK)))
    return columns_AK @ xp.astype(xp.matrix_transpose(inverse_KK), xp.float32)
