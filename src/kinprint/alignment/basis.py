"""One basis for the residual streams of two models: as stored, from tokens that both know, or from MLP units.

Axes: A, B = residual coordinates of suspect and base, K = directions that both are brought to (the smaller width),
N = tokens, F = units.

A basis is a pair of matrices with orthonormal columns, ``suspect_AK`` and ``base_BK``: an array of residual coordinates
goes into the common basis by multiplication. Fits are orthogonal Procrustes solutions: of the cross product of two sets
of matched rows, X^T Y = U S V^T, the basis is (U, V). Where widths differ the narrower model's space is kept whole;
where both models are wider than ``WIDE``, the ``WIDE_DIRECTIONS`` leading directions are.

A fit brings strangers nearer to each other too (their embeddings reach a cosine of .5), so a basis is no evidence.
Whatever is tested afterwards must not have been used for the fit; ``fitted_on`` says what was.

Each fit turns with the models: rotating a model's stream rotates its side of the basis and changes nothing else. It
does not depend on the order of heads, units or experts either, so a test that permutes any of these stays exact.

Source: Schoenemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31 (1966); embeddings
as the start, AWM (arXiv 2510.06738), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kinprint.alignment.forms import DIRECTIONS, WIDE, WIDE_DIRECTIONS, WRITING, Factors, Form, FormValue, drawn_axes
from kinprint.alignment.trunk import Trunk, Units, spaced
from kinprint.alignment.vocabulary import row_blocks_of, shared_tokens
from kinprint.architecture import ModelView, PartKey
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.linalg import products
from kinprint.linalg.assignment import assignment
from kinprint.linalg.device import CPU, Device, DeviceArray
from kinprint.linalg.products import facing_cosines, in_common, turned, unit_rows
from kinprint.linalg.threads import side_by_side, threads_for
from kinprint.shapes import Float, Float32, Float64

BasisKind = Literal["stored", "tokens", "coordinates", "units"]

TOKENS = 8192
"""Most shared tokens that are read: more rows move a fit of some thousand coordinates by little."""

WIDE_TOKENS = 4096
"""The same for wide models, of which only the leading directions are fitted."""

MOST_TOKEN_ENTRIES = 1 << 24
"""Most entries of a wide model's embedding that are read: of 8,192 coordinates, those of 2,048 tokens."""

_COLUMN_TOKENS = 2048
"""Least tokens that columns of wide embeddings are compared by: strangers then reach a cosine of .13 at most."""

MOST_PAIRS = 1 << 24
"""Most pairs of coordinates that are matched by their columns: all of two streams of 4,096; of 8,192 they take 2 GB."""

_LEAST_TOKENS = 8
_SEED = 0


@dataclass(frozen=True, slots=True)
class Basis:
    """A common basis of two residual streams.

    Attributes:
        kind: Where it comes from.
        suspect_AK: The suspect's coordinates into the common ones.
        base_BK: The base's coordinates into the common ones.
        fitted_on: What it was fitted on, for people; empty where nothing was.
        device: Where rows are brought into it.
    """

    kind: BasisKind
    suspect_AK: Float[Array, "A K"]
    base_BK: Float[Array, "B K"]
    fitted_on: str = ""
    device: Device = CPU

    def cosines(self, suspect_ND: Array, base_MD: Array) -> Float32[Array, "N M"]:
        """Return the cosine, in the basis, of every row of the suspect's with every row of the base's."""
        mine, theirs = self._common(suspect_ND, base_MD)
        with threads_for(self.directions):
            return self.device.get(mine @ theirs.T)

    def facing_cosines(self, suspect_ND: Array, base_ND: Array) -> Float64[Array, " N"]:
        """Return the cosine, in the basis, of every row of the suspect's with the base's row of the same place."""
        return self.device.get(facing_cosines(*self._common(suspect_ND, base_ND)))

    def _common(self, suspect_ND: Array, base_MD: Array) -> tuple[DeviceArray, DeviceArray]:
        put = self.device.put
        with threads_for(self.directions):
            return (
                in_common(put(suspect_ND), put(self.suspect_AK)),
                in_common(put(base_MD), put(self.base_BK)),
            )

    @property
    def directions(self) -> int:
        """Number of common directions."""
        return int(self.suspect_AK.shape[1])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no basis of a kind."""

    reason: str


def procrustes(suspect_NA: Float[Array, "N A"], base_NB: Float[Array, "N B"]) -> tuple[Array, Array]:
    """Return the orthonormal (suspect_AK, base_BK) that bring matched rows nearest to each other.

    Example:
        >>> left, right = procrustes(np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]]))
        >>> bool(np.allclose(np.eye(2) @ left, np.array([[0.0, 1.0], [-1.0, 0.0]]) @ right))
        True
    """
    return from_cross(suspect_NA.astype(np.float64).T @ base_NB.astype(np.float64))


def from_cross(cross_AB: Float[Array, "A B"], device: Device = CPU) -> tuple[Array, Array]:
    """Return the basis that a sum of products of matched rows gives.

    The narrower model's side is the identity. Where both models are wider than ``WIDE``, the basis has the
    ``WIDE_DIRECTIONS`` directions in which the rows agree most, found by a randomised range finder: to decompose all
    of 4,096 takes 20 s.
    """
    if min(cross_AB.shape) > WIDE:
        left, right = products.truncated_procrustes(device.put(cross_AB), directions=WIDE_DIRECTIONS, seed=_SEED)
    else:
        left, right = products.procrustes(device.put(cross_AB))
    return device.get(left), device.get(right)


def from_rows(suspect_NA: Array, base_NB: Array, device: Device = CPU) -> tuple[Array, Array]:
    """Return the basis that matched rows give; of two wide models as :func:`leading_from_rows`."""
    if min(suspect_NA.shape[1], base_NB.shape[1]) <= WIDE:
        return from_cross(suspect_NA.astype(np.float64).T @ base_NB.astype(np.float64), device)
    return leading_from_rows(suspect_NA, base_NB, device)


def leading_from_rows(suspect_NA: Array, base_NB: Array, device: Device = CPU) -> tuple[Array, Array]:
    """Return the ``WIDE_DIRECTIONS`` directions in which matched rows agree most, or as many as there are rows.

    float32: leading directions are far above its rounding.
    """
    rows = [side.astype(np.float32, copy=False) for side in (suspect_NA, base_NB)]
    if len(suspect_NA) > WIDE_DIRECTIONS:
        put = [device.put(side) for side in rows]
        left, right = products.truncated_procrustes_of_rows(*put, directions=WIDE_DIRECTIONS, seed=_SEED)
        return device.get(left), device.get(right)
    mine_AN, mine_NN = products.tall_qr(rows[0].T)
    theirs_BN, theirs_NN = products.tall_qr(rows[1].T)
    with threads_for(len(suspect_NA)):
        left, _, right = np.linalg.svd(mine_NN @ theirs_NN.T, full_matrices=False)
    return mine_AN @ left, theirs_BN @ right.T


def stored_basis(suspect: Trunk, base: Trunk) -> Basis | Refusal:
    """Return the identity, for models of one width."""
    if suspect.width != base.width:
        return Refusal(f"the models have {suspect.width} and {base.width} residual coordinates")
    # Of wide models in directions drawn once: what is compared in them is right to 1 / sqrt(WIDE_DIRECTIONS).
    axes = drawn_axes(suspect.width, WIDE_DIRECTIONS) if suspect.width > WIDE else np.eye(suspect.width)
    return Basis("stored", axes, axes)


def token_rows(suspect: ModelView, base: ModelView, role: str = "embed.token") -> tuple[Array, Array] | Refusal:
    """Return both models' embedding rows of the tokens that they share, at most ``TOKENS`` of them, float32.

    Tokens are the same where their strings are. Where one vocabulary is unknown and both models have as many tokens,
    equal ids are taken for equal tokens: if they are not, the fit finds nothing.

    Args:
        suspect: One model.
        base: The other.
        role: Which matrix: ``embed.token``, or ``unembed`` where both models have an output matrix of their own.
    """
    key = PartKey(role)
    if key not in suspect.parts or key not in base.parts:
        return Refusal(f"one of the models has no {'token embedding' if role == 'embed.token' else 'output matrix'}")
    rows = suspect.shape(key.role)[0], base.shape(key.role)[0]
    mine, theirs = suspect.checkpoint.vocabulary, base.checkpoint.vocabulary
    if mine is not None and theirs is not None:
        ids = shared_tokens(mine, theirs)
        there = (ids[0] < rows[0]) & (ids[1] < rows[1])
        ids = ids[0][there], ids[1][there]
    elif rows[0] == rows[1]:
        ids = np.arange(rows[0]), np.arange(rows[0])
    else:
        return Refusal(f"no vocabulary to tell which of {rows[0]} and {rows[1]} tokens are the same")
    if ids[0].size < _LEAST_TOKENS:
        return Refusal(f"the models share {ids[0].size} tokens, and {_LEAST_TOKENS} are the least to fit a basis on")
    widths = suspect.shape(key.role)[1], base.shape(key.role)[1]
    most = min(WIDE_TOKENS, max(_COLUMN_TOKENS, MOST_TOKEN_ENTRIES // max(widths))) if min(widths) > WIDE else TOKENS
    if ids[0].size > most:
        chosen = np.sort(np.random.default_rng(_SEED).choice(ids[0].size, most, replace=False))
        ids = ids[0][chosen], ids[1][chosen]
    try:
        found = [
            np.concatenate(list(row_blocks_of(view, key, own))) for view, own in zip((suspect, base), ids, strict=True)
        ]
    except NonFiniteError as error:
        return Refusal(str(error))
    return found[0], found[1]


def token_basis(rows: tuple[Array, Array], device: Device = CPU) -> Basis | Refusal:
    """Return the orthogonal (or rectangular) Procrustes fit of the embeddings of shared tokens.

    Args:
        rows: Of suspect and base, as ``token_rows`` gives them.
        device: Where the fit is worked out, and rows are brought into it.
    """
    if not rows[0].any() or not rows[1].any():
        return Refusal("the shared tokens' embeddings are zero")
    return Basis(
        "tokens", *from_rows(*rows, device), device=device, fitted_on=f"embeddings of {len(rows[0])} shared tokens"
    )


def coordinate_basis(rows: tuple[Array, Array]) -> Basis | Refusal:
    """Return the signed permutation that matches coordinates by their embedding columns (LAP on |cosine|).

    The narrower model keeps all its coordinates, up to ``MOST_PAIRS``: beyond, the suspect's longest columns are
    matched against all of the base's, whatever their numbers. Source: AWM (arXiv 2510.06738), section 4, steps 2 and 3.

    Args:
        rows: Of suspect and base, as ``token_rows`` gives them.
    """
    if not rows[0].any() or not rows[1].any():
        return Refusal("the shared tokens' embeddings are zero")
    wide = min(side.shape[1] for side in rows) > WIDE
    columns = [side[:: max(1, len(side) // _COLUMN_TOKENS)] if wide else side for side in rows]
    mine_AN = columns[0].T
    lengths = np.linalg.norm(mine_AN, axis=1)
    longest = np.sort(np.argsort(-lengths, kind="stable")[: max(1, MOST_PAIRS // columns[1].shape[1])])
    cosines_LB = unit_rows(mine_AN[longest]) @ unit_rows(columns[1].T).T
    found, there = assignment(np.abs(cosines_LB))
    signs = np.where(cosines_LB[found, there] < 0, -1.0, 1.0)
    here = longest[found]
    axes = drawn_axes(here.size, WIDE_DIRECTIONS) if here.size > WIDE else np.eye(here.size)
    suspect, base = (np.zeros((side.shape[1], axes.shape[1]), axes.dtype) for side in rows)
    suspect[here] = signs[:, None] * axes
    base[there] = axes
    return Basis("coordinates", suspect, base, fitted_on=f"embedding columns of {len(rows[0])} shared tokens")


def in_basis(form: FormValue, side_DK: Array, out_DK: Array | None = None, device: Device = CPU) -> Array:
    """Return a form in a common basis, without its mean diagonal, at unit length and flat; zeros where nothing is left.

    The mean diagonal says only how much of the stream is passed on, in which strangers agree.

    Args:
        form: Output coordinates by input coordinates.
        side_DK: The basis of the input.
        out_DK: The basis of the output, where it is another.
        device: Where it is worked out.
    """
    side, written = device.put(side_DK), device.put(side_DK if out_DK is None else out_DK)
    with threads_for(side_DK.shape[1]):
        if isinstance(form, Factors):
            made = turned(device.put(form.left_RD), written).T @ turned(device.put(form.right_RD), side)
        else:
            made = turned(turned(device.put(form.T), written).T, side)
    common = device.get(made)
    common = common - np.eye(len(common), dtype=np.float32) * np.float32(
        np.trace(common, dtype=np.float64) / len(common)
    )
    norm = float(np.linalg.norm(common))
    return (common / norm if norm > 0 else common).ravel()


def compared_in(basis: Basis) -> tuple[Array, Array]:
    """Return both sides of a basis, or of ``DIRECTIONS`` directions of it, drawn once, where it has more."""
    if basis.directions <= DIRECTIONS:
        return basis.suspect_AK, basis.base_BK
    axes = drawn_axes(basis.directions)
    return turned(axes.T, basis.suspect_AK.T).T, turned(axes.T, basis.base_BK.T).T


def form_similarities(
    suspect: Trunk,
    base: Trunk,
    basis: Basis,
    forms: Iterable[Form],
    write: Basis | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> Mapping[Form, Array]:
    """Return for each form the cosines of every layer of the suspect with every layer of the base.

    Rows and columns are in the order of ``Trunk.layers``; NaN where one of the two layers lacks the form.

    Args:
        suspect: One model.
        base: The other.
        basis: The common basis, for what is read from the stream.
        forms: Which forms.
        write: The basis for what is written to the stream, where it is another.
        rows: Positions of the suspect's layers to compare, where not all are; the others stay NaN.
    """
    wanted = tuple(forms)
    written = compared_in(basis if write is None else write)
    compared = (range(len(suspect.layers)) if rows is None else rows, range(len(base.layers)))
    sides = [
        _flat_forms(trunk, at, side, out, wanted, basis.device)
        for trunk, at, side, out in zip((suspect, base), compared, compared_in(basis), written, strict=True)
    ]
    found: dict[Form, Array] = {}
    for form in wanted:
        (here, mine), (there, theirs) = (side[form] for side in sides)
        table = np.full((len(suspect.layers), len(base.layers)), np.nan)
        if here and there:
            with threads_for(basis.directions):
                table[np.ix_(here, there)] = np.stack(mine) @ np.stack(theirs).T
        found[form] = table
    return found


def _flat_forms(
    trunk: Trunk, compared: Sequence[int], side_DK: Array, out_DK: Array, forms: tuple[Form, ...], device: Device
) -> dict[Form, tuple[list[int], list[Array]]]:
    """Return for each form the positions of the layers that have it, and it in a basis; layer by layer."""
    place = {number: at for at, number in enumerate(trunk.layers)}
    order = [place[number] for number in trunk.held_first(trunk.layers[at] for at in compared)]

    def flat(at: int) -> dict[Form, Array]:
        made = trunk.forms(trunk.layers[at])
        return {
            form: in_basis(made[form], side_DK, out_DK if form in WRITING else side_DK, device)
            for form in forms
            if form in made
        }

    found: dict[Form, tuple[list[int], list[Array]]] = {form: ([], []) for form in forms}
    for at, made in zip(order, side_by_side(flat, order, large=trunk.large, most=trunk.at_once), strict=True):
        for form, values in made.items():
            found[form][0].append(at)
            found[form][1].append(values)
    return found


def match_units(suspect: Units, base: Units, basis: Basis, *, most: int | None = None) -> tuple[Array, Array, Array]:
    """Match units of two MLPs by their gate rows in a common basis (LAP on cosine).

    Args:
        suspect: One MLP.
        base: The other; may have another number of units, the smaller side is matched whole.
        basis: The common basis.
        most: Match this many of the suspect's units where it has more, of all sizes, against all of the base's.

    Returns:
        The suspect's units, the base's units that face them, and the cosines of their gate rows (of up rows without a
        gate).
    """
    chosen = spaced(suspect, len(suspect.key_FD) if most is None else most)
    cosines = basis.cosines(suspect.key_FD[chosen], base.key_FD)
    here, there = assignment(cosines)
    return chosen[here], there, cosines[here, there]
