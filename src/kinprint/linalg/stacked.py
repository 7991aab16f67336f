"""Spectra of many matrices at once on a device: those of :mod:`kinprint.linalg.spectrum`, stacked where shapes agree.

Axes: T = matrices of a stack, M, N = rows and columns, K = inner dimension of a product, S = singular values.

The way is the same: Gram matrices in float64, for a product L^T (right right^T) L with left left^T = L L^T, then
eigenvalues. So is the check of each result, and what does not pass it (spikes; factors that cancel) is worked out by
:mod:`kinprint.linalg.spectrum` on the processor. Every value inside the effective rank is right to ``TOLERANCE`` either
way, and numbers of two devices differ by as much as those of two processors.

There is no other precision. A Gram matrix squares the condition: where s / bound is .001, as it is inside the effective
rank of learned layers, float32 would cost 3 % of a value and bfloat16 all of it.

Source: as in :mod:`kinprint.linalg.spectrum`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from kinprint.linalg import spectrum
from kinprint.linalg.device import Device, DeviceArray
from kinprint.linalg.threads import threads_for

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[Array, Array]

STACK_BYTES = 1 << 31
"""Bytes of float64 factors that one stack may hold on the device."""

_UNIT = 2.0**-53


def singular_values_of(weights: Iterable[Array], device: Device | None) -> list[Array]:
    """Return the singular values of every matrix, as :func:`kinprint.linalg.spectrum.singular_values` gives them.

    Args:
        weights: Matrices [M, N] of any shapes and float dtypes.
        device: Where; without one, one after the other in numpy.

    Returns:
        In the order of the matrices, float64, largest first; all NaN where an entry is NaN or infinite, and, with a
        device, where squares exceed float64.

    Example:
        >>> [values.tolist() for values in singular_values_of([np.diag([3.0, 4.0]), np.diag([1.0])], Device.of("cpu"))]
        [[4.0, 3.0], [1.0]]
    """
    if device is None:
        return [spectrum.singular_values(weight) for weight in weights]
    return _by_shape([(weight,) for weight in weights], device, _matrices, lambda one: spectrum.singular_values(one[0]))


def product_singular_values_of(pairs: Iterable[Pair], device: Device | None) -> list[Array]:
    """Return the singular values of every ``left^T right``, as ``spectrum.product_singular_values`` gives them.

    Args:
        pairs: Factors [K, M] and [K, N] of any shapes and float dtypes.
        device: Where; without one, one after the other in numpy.

    Returns:
        In the order of the pairs, float64, largest first; NaN as above.
    """
    if device is None:
        return [spectrum.product_singular_values(*pair) for pair in pairs]
    return _by_shape(list(pairs), device, _products, lambda pair: spectrum.product_singular_values(*pair))


_Found = list[Array | None]
_Worked = Callable[[Sequence[Sequence[Array]], Device], _Found]


def _by_shape(
    items: Sequence[tuple[Array, ...]], device: Device, work: _Worked, alone: Callable[[Any], Array]
) -> list[Array]:
    """Work through stacks of items that have the same shapes and dtypes; what is out of the ordinary goes alone."""
    stacks: dict[tuple[object, ...], list[int]] = {}
    for at, item in enumerate(items):
        if all(part.size for part in item):
            stacks.setdefault(tuple((part.shape, part.dtype.name) for part in item), []).append(at)
    found: _Found = [None] * len(items)
    for members in stacks.values():
        held = sum(8 * part.size for part in items[members[0]])
        step = max(1, STACK_BYTES // held)
        for first in range(0, len(members), step):
            chosen = members[first : first + step]
            for at, values_S in zip(chosen, work([items[at] for at in chosen], device), strict=True):
                found[at] = values_S
    return [_alone(items[at], alone) if values_S is None else values_S for at, values_S in enumerate(found)]


def _alone(item: tuple[Array, ...], work: Callable[[Any], Array]) -> Array:
    try:
        return work(item)
    except np.linalg.LinAlgError:  # raised where squares exceed float64; it must not take the rest of a stack along
        return np.full(min(length for part in item for length in part.shape), np.nan)


def _put(parts: Sequence[Array], device: Device) -> DeviceArray:
    """Return parts of one shape as one float64 array on the device, [T, ...]; they cross as they are stored."""
    xp = device.xp
    # float64: a Gram matrix of float32 loses small values.
    return xp.stack([xp.astype(device.put(part), xp.float64, copy=False) for part in parts])


def _gram(xp: Any, stack_TKM: DeviceArray) -> DeviceArray:  # noqa: ANN401
    return stack_TKM @ xp.matrix_transpose(stack_TKM)


def _matrices(items: Sequence[Sequence[Array]], device: Device) -> _Found:
    """Return the singular values of matrices of one shape; None where rounding may have spoilt them."""
    return _of_stack(_put([item[0] for item in items], device), device)


def _of_stack(stack_TMN: DeviceArray, device: Device) -> _Found:
    xp = device.xp
    if stack_TMN.shape[1] > stack_TMN.shape[2]:
        stack_TMN = xp.matrix_transpose(stack_TMN)
    _, rows, columns = stack_TMN.shape
    with threads_for(rows):
        grams_TMM = _gram(xp, stack_TMN)
        try:
            # Not a number where the matrix holds one: its row then has no length.
            squares_TS = device.get(xp.linalg.eigvalsh(grams_TMM)) if bool(xp.all(xp.isfinite(grams_TMM))) else None
        except device.not_decomposed:
            squares_TS = None
    if squares_TS is None:
        return _halved(len(stack_TMN), lambda part: _of_stack(stack_TMN[part, :, :], device))
    rounding = columns * _UNIT
    return [spectrum.resolved(squares_S, rounding * max(float(squares_S[-1]), 0.0)) for squares_S in squares_TS]


def _products(items: Sequence[Sequence[Array]], device: Device) -> _Found:
    """Return the singular values of products of one shape; None where rounding may have spoilt them."""
    lefts_TKM, rights_TKN = (_put([item[side] for item in items], device) for side in (0, 1))
    inner, rows, columns = *lefts_TKM.shape[1:], rights_TKN.shape[2]
    if inner < min(rows, columns):
        return _of_thin_stack(lefts_TKM, rights_TKN, device)
    with threads_for(inner):
        return _of_stack(device.xp.matrix_transpose(lefts_TKM) @ rights_TKN, device)


def _of_thin_stack(lefts_TKM: DeviceArray, rights_TKN: DeviceArray, device: Device) -> _Found:
    xp = device.xp
    with threads_for(lefts_TKM.shape[1]):
        grams = _gram(xp, lefts_TKM), _gram(xp, rights_TKN)
        # Rows as long in one factor as in the other, as for a single product.
        lefts_TK, rights_TK = (xp.linalg.diagonal(gram_TKK) for gram_TKK in grams)
        norms_squares: tuple[Array, ...] | None = None
        if all(bool(xp.all(xp.isfinite(squares_TK) & (squares_TK > 0))) for squares_TK in (lefts_TK, rights_TK)):
            balance_TK = xp.sqrt(xp.sqrt(rights_TK / lefts_TK))
            scale_TKK = balance_TK[:, :, None] * balance_TK[:, None, :]
            norms_squares = _core_squares(grams[0] * scale_TKK, grams[1] / scale_TKK, device)
    if norms_squares is None:
        return _halved(
            len(lefts_TKM), lambda part: _of_thin_stack(lefts_TKM[part, :, :], rights_TKN[part, :, :], device)
        )
    *norms, squares_TK = norms_squares
    noise_T = max(lefts_TKM.shape[2], rights_TKN.shape[2]) * _UNIT * norms[0] * norms[1]
    return [spectrum.resolved(squares_K, float(noise)) for squares_K, noise in zip(squares_TK, noise_T, strict=True)]


def _core_squares(lefts_TKK: DeviceArray, rights_TKK: DeviceArray, device: Device) -> tuple[Array, ...] | None:
    """Return the norms of both stacks [T], and the eigenvalues of the products' cores [T, K] in ascending order.

    None where a matrix has no Cholesky factor, as the rows of its factor depend on each other.
    """
    xp = device.xp
    try:
        lowers_TKK = xp.linalg.cholesky(lefts_TKK)
        squares_TK = xp.linalg.eigvalsh(xp.matrix_transpose(lowers_TKK) @ rights_TKK @ lowers_TKK)
    except device.not_decomposed:
        return None
    norms = (xp.linalg.matrix_norm(gram_TKK) for gram_TKK in (lefts_TKK, rights_TKK))
    return (*(device.get(norms_T) for norms_T in norms), device.get(squares_TK))


def _halved(count: int, work: Callable[[slice], _Found]) -> _Found:
    """Work through the two halves of a stack that cannot be worked through whole; a single one is given up."""
    return [None] if count == 1 else [*work(slice(0, count // 2)), *work(slice(count // 2, count))]
