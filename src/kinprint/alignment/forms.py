"""What a layer does to the residual stream, whatever the order of its heads and units: its *forms*.

Axes: D = residual coordinates, R = rows of a factor, N = any rows.

Four matrices of residual coordinates by residual coordinates:

* ``qk``: the sum over query heads of W_q^T W_k, what attends to what;
* ``vo``: the sum over heads of W_o W_v, what attention moves;
* ``ud``: the sum over units of down and up, W_down W_up, the linear part of the MLP;
* ``gate``: the sum over units of the outer square of the gate row at unit length (of the up row in an MLP without one).

They are the same for any order of heads and units, any V/O mixing, any Q/K gauge that positions allow, any exchange of
scale between up and down and, where norms subtract the mean, any constant added to what is written to all coordinates;
a rotation of the stream turns them, M -> R M R^T. Where an MLP is a mixture the mean over its experts is taken, so that
experts which are copies of one dense MLP have that MLP's forms.

Of narrow models a form is an array. Of wide ones it is kept as its factors, M = L^T R, and of an MLP only the units
with the longest gate rows enter: at 8,192 coordinates one array has 268 MB and takes a minute to multiply out.

Source: the products are GhostSpec's (arXiv 2511.06390, section 3.1) with gains folded, and those of the centred
residual signatures (arXiv 2608.14929); the gauges are those of ``kinprint.transform``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from kinprint.checkpoint import Array
from kinprint.linalg.products import tall_qr, unit_rows
from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float32

Form = Literal["qk", "vo", "ud", "gate"]
FORMS: tuple[Form, ...] = ("qk", "vo", "ud", "gate")

WRITING: tuple[Form, ...] = ("vo", "ud")
"""Forms whose rows are written to the stream; all others only read it."""

WIDE = 512
"""Width beyond which a model is wide: forms are kept as factors, and layers hold a sample of units. At least
``WIDE_DIRECTIONS`` less one. Not much more either: whole layers of 1,024 take ten times as long as samples of them."""

WIDE_DIRECTIONS = 512
"""Directions of the common bases of two wide models: cosines in them are right to 1 / sqrt(512)."""

FORM_UNITS = 256
"""Units of a wide MLP that enter its forms: those with the longest gate rows."""

DIRECTIONS = 256
"""Most common directions in which forms are compared, drawn once: a cosine of 256 x 256 numbers is right to a
hundredth, and whole forms of 4,096 coordinates would cost 250 times as much."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class Factors:
    """A form L^T R as its factors."""

    left_RD: Float32[Array, "R D"]
    right_RD: Float32[Array, "R D"]

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.left_RD.nbytes + self.right_RD.nbytes


FormValue = Array | Factors


def times(rows_ND: Array, form: FormValue) -> Array:
    """Return ``rows @ M``, [N, D]."""
    with threads_for(rows_ND.shape[1]):
        if isinstance(form, Factors):
            return (rows_ND @ form.left_RD.T) @ form.right_RD
        return rows_ND @ form


def times_transposed(rows_ND: Array, form: FormValue) -> Array:
    """Return ``rows @ M^T``, [N, D]."""
    with threads_for(rows_ND.shape[1]):
        if isinstance(form, Factors):
            return (rows_ND @ form.right_RD.T) @ form.left_RD
        return rows_ND @ form.T


def between(left_ND: Array, form: FormValue) -> FormValue:
    """Return ``left M left^T``, of factors as factors."""
    with threads_for(len(left_ND)):
        if isinstance(form, Factors):
            return Factors(form.left_RD @ left_ND.T, form.right_RD @ left_ND.T)
        return left_ND @ form @ left_ND.T


def norm(form: FormValue) -> float:
    """Return the Frobenius norm. Factors are multiplied out: from their Gram matrices large terms would cancel."""
    if isinstance(form, Factors):
        with threads_for(form.left_RD.shape[1]):
            return float(np.linalg.norm(form.left_RD.T @ form.right_RD))
    return float(np.linalg.norm(form))


def inner(first: FormValue, second: FormValue, *, transposed: bool = False) -> float:
    """Return the sum of products of two forms' entries, in float64; of the second one's transpose if asked for.

    Example:
        >>> rows = np.eye(2, dtype=np.float32)
        >>> inner(Factors(rows, 2 * rows), Factors(rows, rows))
        4.0
    """
    if isinstance(first, Factors) and isinstance(second, Factors):
        other = (second.right_RD, second.left_RD) if transposed else (second.left_RD, second.right_RD)
        with threads_for(first.left_RD.shape[1]):
            return float(((first.left_RD @ other[0].T) * (first.right_RD @ other[1].T)).sum(dtype=np.float64))
    if isinstance(first, Factors):
        return inner(second, first, transposed=transposed)
    if isinstance(second, Factors):
        with threads_for(first.shape[0]):
            left, right = (second.right_RD, second.left_RD) if transposed else (second.left_RD, second.right_RD)
            return float(((left @ first) * right).sum(dtype=np.float64))
    return float((first * (second.T if transposed else second)).sum(dtype=np.float64))


def trace(form: FormValue) -> float:
    """Return the trace, in float64."""
    if isinstance(form, Factors):
        return float(np.einsum("rd,rd->", form.left_RD, form.right_RD, dtype=np.float64))
    return float(np.trace(form, dtype=np.float64))


def in_axes(form: FormValue, axes_DS: Array) -> Array:
    """Return a form in some directions, flat, [S * S]; of an array all of it."""
    if isinstance(form, Factors):
        with threads_for(axes_DS.shape[1]):
            return ((form.left_RD @ axes_DS).T @ (form.right_RD @ axes_DS)).ravel()
    return form.ravel()


@cache
def drawn_axes(directions: int, count: int = DIRECTIONS) -> Float32[Array, "D S"]:
    """Return orthonormal directions, [directions, count], drawn once."""
    return tall_qr(np.random.default_rng(_SEED).standard_normal((directions, count), dtype=np.float32))[0]


def mlp_forms(mlps: Sequence[tuple[Array, Array, Array]], *, factored: bool) -> dict[Form, FormValue]:
    """Return ``ud`` and ``gate`` of the (key, up, down) rows of a layer's MLPs, each [F, D]."""
    keys = [unit_rows(key_FD) for key_FD, _, _ in mlps]
    if factored:
        # The mean over MLPs, as the factors stacked.
        share = np.float32(1 / np.sqrt(len(mlps)))
        up, down, gate = (
            np.concatenate(rows) * share for rows in ([up for _, up, _ in mlps], [down for _, _, down in mlps], keys)
        )
        return {"ud": Factors(down, up), "gate": Factors(gate, gate)}
    with threads_for(keys[0].shape[1]):
        return {
            "ud": _mean([down_FD.T @ up_FD for _, up_FD, down_FD in mlps]),
            "gate": _mean([key.T @ key for key in keys]),
        }


def _mean(arrays: Sequence[Array]) -> Array:
    return np.asarray(np.mean(np.stack(arrays), axis=0), dtype=np.float32)
