"""Do facing layers' q, k, v and o relate residual coordinates alike? Unbiased CKA, by size.

H0: the models were trained independently. The samples are residual coordinates in the best common basis, the features
the rows of q, k, v (gains folded) and the columns of o. For each, the unbiased linear CKA of facing layers; a layer
has the mean of its four. It rests on the basis and the layer map, and on no numbering of heads or rows: what is
compared is W^T W, which no orthogonal change of rows touches.

Survives: any order of heads, any rotation of rows, other head counts and another number of key/value heads, and
whatever of the stream's order, signs or rotation the basis has undone.

Defeated by replaced embeddings in a rotated stream, where no basis is left. What scales rows unevenly only weakens it:
one scale for each rotary pair (q by s, k by 1/s, which the model does not notice) brought copies down to .74 and .56.

Strangers are not at 0 everywhere. The first layer reads nothing but tokens: innocents trained on the same text with
the same tokens reach .25 to .45 there, and a basis fitted on tokens lets it be seen. In a basis fitted on MLP units
all layers share the loud directions of the stream: innocents reach .2, and so do layers that do not face each other.
So the size means something only above its control, and the table shows layers one by one.
In wide models ``DIRECTIONS`` of the common coordinates are drawn once; fewer samples do not bias an unbiased estimate.

Source: AWM (arXiv 2510.06738), section 4, steps 4 and 5, on q and k; v and o, folding, and bases other than matched
coordinates are added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from kinprint.alignment.trunk import Attention, Trunk
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.controls import mismatched, next_layer
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import trunk_size
from kinprint.linalg.cka import centred_gram
from kinprint.linalg.threads import threads_for
from kinprint.types import Cell, Evidence, Table

ROLES = ("q", "k", "v", "o")

DIRECTIONS = 1024
"""Most common coordinates that are used as samples."""

_CACHED_LAYERS = 3
"""Layers of the base whose Gram matrices are kept: the partner and the one after it."""

_SEED = 0

Grams = Mapping[str, Array]


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="attention matrices by unbiased CKA",
        id=method_id("cka", 1, directions=DIRECTIONS, seed=_SEED),
        rung=2,
        null="independent training: residual coordinates relate differently in q, k, v and o once a basis is fitted",
        defeats="new embeddings in a rotated residual stream; weakened by uneven scales of rotary pairs",
    )


def test(pair: Pair) -> Evidence:
    """Measure one pair."""
    said = statement()
    if (reason := pair.obstacle) is not None:
        return said.not_applicable(reason)
    basis = pair.best
    if basis is None:
        return said.not_applicable("the models have no common basis")
    chosen = _chosen(basis.directions)

    @lru_cache(_CACHED_LAYERS)
    def theirs(at: int) -> Grams | None:
        return _grams(pair.base, at, basis.base_BK[:, chosen])

    found: list[tuple[Facing, dict[str, float]]] = []
    control: list[float] = []
    for at in pair.facing:
        mine, other = _grams(pair.suspect, at.suspect, basis.suspect_AK[:, chosen]), theirs(at.base)
        if mine is None or other is None:
            continue
        found.append((at, _scores(mine, other)))
        beside = next_layer(at, len(pair.base.layers))
        following = None if beside is None else theirs(beside.base)
        control += [] if following is None else [_mean(_scores(mine, following))]
    size = trunk_size([_mean(scores) for _, scores in found])
    if size is None:
        return said.not_applicable("no facing layers have attention that could be read")
    notes = [f"in the basis of kind {basis.kind}" + (f", fitted on {basis.fitted_on}" if basis.fitted_on else "")]
    if chosen.size < basis.directions:
        notes.append(f"{chosen.size} of {basis.directions} common coordinates, drawn once")
    return said.sized(
        size,
        controls=(mismatched(control, "each layer of the suspect against the layer after its partner"),),
        tables=(_table(pair, found),),
        notes=tuple(notes),
    )


def _chosen(count: int) -> Array:
    if count <= DIRECTIONS:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, DIRECTIONS, replace=False))


def _grams(trunk: Trunk, at: int, side_DK: Array) -> Grams | None:
    """Return the centred Gram matrices of a layer's four matrices over common coordinates."""
    attention = trunk.layer(trunk.layers[at]).attention
    if attention is None:
        return None
    with threads_for(side_DK.shape[1]):
        return {role: _gram(rows_ND, side_DK) for role, rows_ND in _matrices(attention).items()}


def _matrices(attention: Attention) -> Mapping[str, Array]:
    return dict(zip(ROLES, (attention.q_HD, attention.k_KD, attention.v_KD, attention.o_HD), strict=True))


def _gram(rows_ND: Array, side_DK: Array) -> Array:
    rows_NK = in_directions(rows_ND, side_DK)
    return centred_gram(rows_NK.T @ rows_NK)


def in_directions(rows_ND: Array, side_DK: Array) -> Array:
    """Return rows in common directions, float32; coordinates are only picked where every direction is one of them."""
    if np.count_nonzero(side_DK) == side_DK.shape[1]:
        at = np.abs(side_DK).argmax(axis=0)
        return rows_ND[:, at] * side_DK[at, np.arange(at.size)].astype(np.float32)
    return rows_ND @ side_DK.astype(np.float32)


def _scores(mine: Grams, theirs: Grams) -> dict[str, float]:
    return {role: float(np.vdot(mine[role], theirs[role])) for role in ROLES}


def _mean(scores: Mapping[str, float]) -> float:
    return float(np.mean(list(scores.values())))


def _table(pair: Pair, found: list[tuple[Facing, dict[str, float]]]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (pair.suspect.layers[at.suspect], pair.base.layers[at.base], *scores.values(), _mean(scores))
        for at, scores in found
    ]
    columns = ("suspect layer", "base layer", *ROLES, "mean")
    return Table(title="unbiased CKA of facing layers", columns=columns, rows=tuple(rows))
