"""Do residual coordinates of the same number resemble each other? Exact.

H0: the models were initialised independently. Label group: the coordinates of the residual stream, one numbering for
every tensor that reads or writes the stream: norm gains and all matrices of all layers enter one statistic, permuted
once. Embeddings and output matrices enter a statistic of their own, which says something about the embedding and
nothing about the trunk: they are the part that is most often taken over alone. (Layers' norm gains, tested one by one
and combined as if independent, accuse innocents: they share one numbering, and the gains of one model resemble each
other.) The statistic is the sum over tensors of the cosines of facing columns; a vector of gains counts as one tensor,
about its mean.

Columns of matrices can only be compared where rows correspond. In ``stored`` order rows of the same number do, which
needs models of one shape; ``matched`` pairs MLP units by properties that no renumbering of coordinates changes;
``embeddings`` (and output rows) are those of tokens that both models know. Layers of the same number face each other
where depths agree, else as a basis that is free of the coordinates' numbering says.

Defeated by renumbering or turning the residual stream, or flipping its signs. Not valid under positions of fixed
frequencies added to the stream; family tables say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kinprint.alignment.basis import Refusal, token_rows
from kinprint.alignment.trunk import Layer, Trunk, same_groups
from kinprint.alignment.unit_basis import match_by_properties
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.exact_units import numbered
from kinprint.evidence.pair import Facing, Pair, spread
from kinprint.evidence.records import NOISE, SEED, Statement
from kinprint.linalg.permutation import permutation_test
from kinprint.linalg.products import unit_rows
from kinprint.linalg.threads import threads_for
from kinprint.types import Evidence

LAYERS = 8
"""Most facing layers whose matrices enter, spread over the depth; gains of all layers do."""

MATCHED_LAYERS = 2
"""Most facing layers whose units are matched first, which is dear."""

COORDINATES = 1024
"""Most coordinates whose labels are permuted: fixed numbers, whose relabellings are a group of their own."""

ROWS = 1024
"""Most rows of a matrix of a wide model that enter, of fixed numbers."""

DRAWS = 999

_VECTORS = ("norm.attn", "norm.mlp", "norm.attn_post", "norm.mlp_post", "norm.attn.bias", "norm.mlp.bias")
_SINGLE_VECTORS = ("norm.final", "norm.embed", "norm.final.bias", "norm.embed.bias")


def statement(rows: str) -> Statement:
    """Return what this test says about itself for one way of pairing rows."""
    return Statement(
        name="embedding coordinates in stored order"
        if rows == "embeddings"
        else f"residual coordinates in stored order, {rows} rows",
        id=method_id(
            "exact-residual",
            2,
            rows=rows,
            coordinates=COORDINATES,
            layers=LAYERS,
            matched=MATCHED_LAYERS,
            most=ROWS,
            draws=DRAWS,
            seed=SEED,
        ),
        rung=1,
        null="independent initialisation: the numbering of residual coordinates is exchangeable"
        + (" (embedding and output matrix only)" if rows == "embeddings" else " (all tensors of the layers together)"),
        defeats="a residual stream permuted, rotated, or with signs flipped"
        + ("; units and heads in another order" if rows == "stored" else ""),
    )


def test(pair: Pair, rows: str, log10_alpha: float) -> Evidence:
    """Test one pair, with rows paired ``stored`` or ``matched``, or by token: ``embeddings``."""
    said = statement(rows)
    for trunk in (pair.suspect, pair.base):
        if (reason := trunk.view.family.exchangeable("residual")) is not None:
            return said.not_applicable(reason)
    if pair.suspect.width != pair.base.width:
        return said.not_applicable(f"the models have {pair.suspect.width} and {pair.base.width} residual coordinates")
    total, used = np.zeros((len(_coordinates(pair)), len(_coordinates(pair)))), 0
    for scores, tensors in _scores(pair, rows):
        total += scores
        used += tensors
    if not used:
        return said.not_applicable("no tensor of the stream could be paired")
    found = permutation_test([total], draws=DRAWS, seed=SEED, noise=NOISE)
    size = float(np.trace(total)) / len(total) / used
    return said.exact(found, size=size, log10_alpha=log10_alpha, notes=(f"{len(total)} labels in {used} tensors",))


def _scores(pair: Pair, rows: str) -> Iterator[tuple[Array, int]]:
    """Yield sums of cosines of every coordinate's column with every column of the other model, and of how many tensors.

    Vectors come as one sum: its terms would be as large as those of matrices, and there are hundreds.
    """
    if rows == "embeddings":
        for found in (pair.token_rows, token_rows(pair.suspect.view, pair.base.view, "unembed")):
            if not isinstance(found, Refusal) and found[0].shape[1] == pair.suspect.width == found[1].shape[1]:
                yield column_cosines(*found, _coordinates(pair)), 1
        return
    vectors = list(_vectors(pair.suspect, pair.base, _SINGLE_VECTORS, None, None))
    facing = label_free_facing(pair)
    for both in facing:
        vectors += _vectors(pair.suspect, pair.base, _VECTORS, *pair.numbers(both))
    for both in spread(facing, LAYERS if rows == "stored" else MATCHED_LAYERS):
        for scores in _matrices(pair, both, rows):
            yield scores, 1
    if vectors:
        mine_VD, theirs_VD = (np.stack([both[side] for both in vectors])[:, _coordinates(pair)] for side in (0, 1))
        with threads_for(pair.suspect.width):
            # The diagonal sums to Pearson's correlations; times the root of the count they weigh as matrices do.
            yield mine_VD.T @ theirs_VD * np.sqrt(pair.suspect.width), len(vectors)


def label_free_facing(pair: Pair) -> list[Facing]:
    """Return facing layers that do not depend on how coordinates are numbered."""
    if len(pair.suspect.layers) == len(pair.base.layers):
        return [Facing(i, i) for i in range(len(pair.suspect.layers))]
    # Not by Pair.best: whether the stored basis is the best one depends on the numbering that is permuted.
    return [] if pair.best_free is None else pair.facing_in(pair.best_free.kind)


def _vectors(
    suspect: Trunk, base: Trunk, roles: tuple[str, ...], here: int | None, there: int | None
) -> Iterator[tuple[Array, Array]]:
    """Yield vectors that face each other, about their means and at unit length."""
    for role in roles:
        if suspect.view.has(role, here) and base.view.has(role, there):
            try:
                mine, theirs = suspect.view.array(role, here), base.view.array(role, there)
            except NonFiniteError:
                continue
            mine, theirs = (vector.astype(np.float64) - vector.mean(dtype=np.float64) for vector in (mine, theirs))
            norms = float(np.linalg.norm(mine)), float(np.linalg.norm(theirs))
            # Rounding of a constant vector leaves some 1e-16 of it, which is no gain.
            if norms[0] * norms[1] > 1e-12 and mine.size == suspect.width and theirs.size == base.width:
                yield mine / norms[0], theirs / norms[1]


def _coordinates(pair: Pair) -> Array:
    return subset(pair.suspect.width, COORDINATES)


def subset(count: int, most: int) -> Array:
    """Return fixed numbers below a count, rising: all of them where there are no more than asked for."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def _matrices(pair: Pair, facing: Facing, rows: str) -> Iterator[Array]:
    mine, theirs = pair.layers(facing)
    if rows == "stored":
        for left, right in _stored(pair, facing, mine, theirs):
            if left.shape[0] == right.shape[0]:
                yield column_cosines(left, right, _coordinates(pair))
        return
    if not mine.mlps or not theirs.mlps:
        return
    matched = match_by_properties(pair.unit_tables, *pair.numbers(facing))
    yield column_cosines(*matched, _coordinates(pair))


def _stored(pair: Pair, facing: Facing, mine: Layer, theirs: Layer) -> Iterator[tuple[Array, Array]]:
    a, b = mine.attention, theirs.attention
    if a is not None and b is not None and not (a.numbers is None and b.numbers is None):
        a, b = same_groups(a, b) or (None, None)
    if a is not None and b is not None:
        for left, right in ((a.q_HD, b.q_HD), (a.k_KD, b.k_KD), (a.v_KD, b.v_KD), (a.o_HD, b.o_HD)):
            if len(left) == len(right):
                chosen = subset(len(left), ROWS) if pair.suspect.wide else slice(None)
                yield left[chosen], right[chosen]
    if mine.mlps and theirs.mlps:
        a, b = mine.mlps[0], theirs.mlps[0]
        if a.numbers is not None or b.numbers is not None:
            if a.count != b.count:
                return
            try:
                a, b = numbered(pair, facing, a, b, subset(a.count, ROWS))
            except NonFiniteError:
                return
        yield from ((a.key_FD, b.key_FD), (a.up_FD, b.up_FD), (a.down_FD, b.down_FD))


def column_cosines(left_ND: Array, right_ND: Array, coordinates: Array | None = None) -> Array:
    """Return the cosine of every column with every column of the other array, or of some with the same ones."""
    if coordinates is not None and len(coordinates) < left_ND.shape[1]:
        left_ND, right_ND = left_ND[:, coordinates], right_ND[:, coordinates]
    with threads_for(left_ND.shape[1]):
        return (unit_rows(left_ND.T) @ unit_rows(right_ND.T).T).astype(np.float64)
