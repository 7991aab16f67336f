"""Do layers relate tokens to tokens alike? No basis is fitted; by size.

Axes: N = shared tokens, A, B = residual coordinates of suspect and base, S, T = layers.

H0: the models were trained independently. A layer's form M (qk, vo; gains folded) between the embeddings of tokens,
E M E^T, says how much token i attends to token j, or moves towards j. No basis of the stream enters: a rotation turns E
and M together. For tokens that both models know, the statistic is the cosine of the two token forms. Token x token
matrices are never made: with G = E_A^T E_B

    <E_A M_A E_A^T, E_B M_B E_B^T> = trace(M_A^T G M_B G^T).

The mean embedding of the tokens is subtracted first: where it is long, forms along it make strangers alike. Nothing is
whitened. It rests on which string each token stands for, and on the embeddings; on no numbering of anything else.

Survives: rotation, order and signs of the stream, another width, any order and gauge of heads, exchanged gains, a cut
vocabulary or depth. Defeated by new embeddings or embeddings trained far, and by tokens without strings in another
order.

Layers face each other by this very statistic, so strangers are a little above 0; innocents trained on the same text
reach .04 to .12 in the first layer, which reads nothing but tokens. Siblings from one random start had .25.

Source: worked out here; attention between tokens as in Elhage et al., A Mathematical Framework for Transformer
Circuits (2021), "QK and OV circuits".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kinprint.alignment.basis import TOKENS, Refusal
from kinprint.alignment.forms import Form, between, inner, norm
from kinprint.alignment.layer_map import layer_map
from kinprint.alignment.trunk import Trunk
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.controls import off_map, spread
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import trunk_size
from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float32, Float64, Int64
from kinprint.types import Cell, Evidence, Table, Value

COMPARED: tuple[Form, ...] = ("qk", "vo")

SHUFFLED_LAYERS = 4
"""Facing layers that are compared with shuffled tokens for the control, spread over the depth."""

_SEED = 0

_ROUNDING = 1e-6
"""What embeddings that are all the same keep about their mean after storage in float32, as a share."""


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="attention between tokens",
        id=method_id("token-forms", 2, seed=_SEED, tokens=TOKENS),
        rung=2,
        null="independent training: which tokens attend to and move towards which differs from model to model",
        defeats="new or heavily trained embeddings; tokens without strings in another order",
    )


def test(pair: Pair) -> Evidence:
    """Measure one pair."""
    said = statement()
    if (reason := pair.obstacle) is not None:
        return said.not_applicable(reason)
    rows = pair.token_rows
    if isinstance(rows, Refusal):
        return said.not_applicable(rows.reason)
    if (rows[0].shape[1], rows[1].shape[1]) != (pair.suspect.width, pair.base.width):
        return said.not_applicable("the token embeddings are not as wide as the layers")
    sides = TokenSide(pair.suspect, centred_tokens(rows[0])), TokenSide(pair.base, centred_tokens(rows[1]))
    if not sides[0].tokens_ND.any() or not sides[1].tokens_ND.any():
        return said.not_applicable("the shared tokens' embeddings do not differ")
    tables = token_cosines(*sides)
    mean_ST = _mean_table(tables)
    facing = [Facing(row, at) for row, at in enumerate(layer_map(mean_ST).partners) if at is not None]
    size = trunk_size([float(mean_ST[at.suspect, at.base]) for at in facing])
    if size is None:
        return said.not_applicable("one of the models has no layer with attention that could be read")
    return said.sized(
        size,
        controls=(off_map(mean_ST, facing), _shuffled(*sides, facing)),
        tables=(_table(pair, facing, {**tables, "mean": mean_ST}),),
        notes=(f"{len(rows[0])} shared tokens",),
    )


def centred_tokens(rows_ND: Array) -> Float32[Array, "N D"]:
    """Return embeddings about their mean over tokens, at a total length of 1; zero where they do not differ."""
    # float64: a common direction may be far longer than what is left of each row.
    centred_ND = rows_ND - rows_ND.mean(axis=0, dtype=np.float64)
    norm, before = float(np.linalg.norm(centred_ND)), float(np.linalg.norm(rows_ND.astype(np.float64)))
    if norm <= _ROUNDING * before:
        return np.zeros(rows_ND.shape, dtype=np.float32)
    return (centred_ND / norm).astype(np.float32)


@dataclass(frozen=True)
class TokenSide:
    """One model's layers and the embeddings of the shared tokens, as ``centred_tokens`` gives them."""

    trunk: Trunk
    tokens_ND: Float32[Array, "N D"]

    @cached_property
    def norms(self) -> Mapping[tuple[int, Form], float]:
        """Norms of the token forms that there are, by layer and form.

        From a root C of E^T E = C^T C, as the norm of C M C^T: the trace formula would subtract large terms here.
        """
        root_RD = _root(self.tokens_ND)
        return {
            (number, form): norm(between(root_RD, self.trunk.forms(number)[form]))
            for number in self.trunk.layers
            for form in COMPARED
            if form in self.trunk.forms(number)
        }


def _root(tokens_ND: Float32[Array, "N D"]) -> Float32[Array, "R D"]:
    """Return a C with C^T C = E^T E: the tokens themselves where they are few, otherwise one with D rows."""
    if len(tokens_ND) <= tokens_ND.shape[1]:
        return tokens_ND
    with threads_for(tokens_ND.shape[1]):
        gram_DD = (tokens_ND.T @ tokens_ND).astype(np.float64)
        try:
            return np.linalg.cholesky(gram_DD).T.astype(np.float32)
        except np.linalg.LinAlgError:  # coordinates that no token uses
            squares_D, axes_DD = np.linalg.eigh(gram_DD)
            return (np.sqrt(np.maximum(squares_D, 0.0))[:, None] * axes_DD.T).astype(np.float32)


def token_cosines(
    suspect: TokenSide,
    base: TokenSide,
    *,
    facing: Collection[Facing] | None = None,
    order: Int64[Array, " N"] | None = None,
) -> Mapping[Form, Float64[Array, "S T"]]:
    """Return for each form the cosines of token forms of every layer with every layer; NaN where one lacks the form.

    Args:
        suspect: One model.
        base: The other, with the same tokens in the same order.
        facing: Layers to compare, by position; all with all unless given, and NaN in the others.
        order: Which of the base's tokens stands for each of the suspect's, where not that of its place. Norms stay.
    """
    with threads_for(suspect.trunk.width):
        cross_AB = suspect.tokens_ND.T @ (base.tokens_ND if order is None else base.tokens_ND[order])
    layers = suspect.trunk.layers, base.trunk.layers
    tables: dict[Form, Array] = {form: np.full((len(layers[0]), len(layers[1])), np.nan) for form in COMPARED}
    for column, there in enumerate(layers[1]):
        rows = range(len(layers[0])) if facing is None else [at.suspect for at in facing if at.base == column]
        for form in COMPARED:
            if not rows or form not in base.trunk.forms(there):
                continue
            moved = between(cross_AB, base.trunk.forms(there)[form])
            for row in rows:
                here = layers[0][row]
                if form in suspect.trunk.forms(here):
                    scale = suspect.norms[here, form] * base.norms[there, form]
                    product = inner(moved, suspect.trunk.forms(here)[form])
                    tables[form][row, column] = product / scale if scale > 0 else 0.0
    return tables


def _mean_table(tables: Mapping[Form, Array]) -> Array:
    """Return the mean over forms: a layer that has one has the other."""
    return np.stack(list(tables.values())).mean(axis=0)


def _shuffled(suspect: TokenSide, base: TokenSide, facing: Sequence[Facing]) -> Value:
    """Return the mean cosine of facing layers where each token of the suspect stands for another of the base."""
    drawn = spread(facing, SHUFFLED_LAYERS)
    order_N = np.random.default_rng(_SEED).permutation(len(base.tokens_ND))
    mean_ST = _mean_table(token_cosines(suspect, base, facing=drawn, order=order_N))
    return Value(
        name="shuffled tokens",
        value=float(np.mean([mean_ST[at.suspect, at.base] for at in drawn])),
        kind="similarity",
        note=f"mean over at most {SHUFFLED_LAYERS} facing layers",
    )


def _table(pair: Pair, facing: Sequence[Facing], tables: Mapping[str, Array]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            pair.suspect.layers[at.suspect],
            pair.base.layers[at.base],
            *(float(table_ST[at.suspect, at.base]) for table_ST in tables.values()),
        )
        for at in facing
    ]
    columns = ("suspect layer", "base layer", *tables)
    return Table(title="cosines of facing layers' token forms", columns=columns, rows=tuple(rows))
