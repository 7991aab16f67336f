"""Are layers alike once residual coordinates are matched by the embeddings of shared tokens? By size.

H0: the models were trained independently. Coordinates of the stream are matched, with signs, by their columns in the
embeddings of tokens that both know (LAP on |cosine|), the narrower model keeping all of its own. The match is then
tested on tensors that took no part in it: the forms vo and ud of the layers (see ``kinprint.alignment.trunk``), and the
columns of the output matrix where neither model ties it to the embedding. It rests on no numbering of coordinates,
heads or units, only on which string each token stands for. Layers face each other by all their forms in the same
basis, so strangers are a little above 0; layers that do not face each other, and coordinates matched at random, show
how much.

Survives: a permuted stream, flipped signs, any order and gauge of heads and units, exchanged gains, a cut width or
vocabulary. Defeated by a rotated stream (then no coordinate is anyone's), by new embeddings, by tokens without strings
in another order.

The columns of the output matrix are shown apart, beside columns of coordinates that do not face each other: output and
input embeddings of a token have to do with each other in every trained model, and strangers reached .24 there.

Source: AWM (arXiv 2510.06738), section 4, steps 2 and 3 (the match); its test, on queries and keys by CKA, is
``kinprint.evidence.cka``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kinprint.alignment.basis import TOKENS, Basis, Refusal, form_similarities, in_basis
from kinprint.alignment.forms import FORMS, Form
from kinprint.alignment.layer_map import layer_map
from kinprint.alignment.vocabulary import row_blocks_of, shared_tokens
from kinprint.architecture import ModelView, PartKey
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.controls import off_map, spread
from kinprint.evidence.pair import Facing, Pair, mean_table
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import trunk_size
from kinprint.linalg.products import unit_rows
from kinprint.types import Cell, Evidence, Table, Value

TESTED: tuple[Form, ...] = ("vo", "ud")

SHUFFLED_LAYERS = 4
"""Layers whose coordinates are matched at random for the control, spread over the depth."""

_SEED = 0
_UNEMBED = PartKey("unembed")


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="layers in matched residual coordinates",
        id=method_id("matched-coordinates", 1, seed=_SEED, tokens=TOKENS),
        rung=2,
        null="independent training: coordinates matched by embeddings of shared tokens agree in nothing else",
        defeats="a rotated residual stream; new embeddings; tokens without strings in another order",
    )


def test(pair: Pair) -> Evidence:
    """Measure one pair."""
    said = statement()
    if (reason := pair.obstacle) is not None:
        return said.not_applicable(reason)
    basis = pair.basis("coordinates")
    if isinstance(basis, Refusal):
        return said.not_applicable(basis.reason)
    every = form_similarities(pair.suspect, pair.base, basis, FORMS)
    # The map of Pair.map_in; its tables are needed here too, and dear.
    partners = layer_map(mean_table(every)).partners
    facing = [Facing(row, partner) for row, partner in enumerate(partners) if partner is not None]
    tables: dict[Form, Array] = {form: every[form] for form in TESTED}
    mean_ST = mean_table(tables)
    size = trunk_size([_known(mean_ST, at) for at in facing])
    if size is None:
        return said.not_applicable("no facing layers have attention or an MLP that both could be read")
    outputs = output_columns(pair, basis)
    return said.sized(
        size,
        controls=(off_map(mean_ST, facing), _shuffled(pair, facing, basis)),
        tables=(_layer_table(pair, facing, {**tables, "mean": mean_ST}), *_output_tables(outputs)),
        notes=(
            f"{basis.directions} coordinates matched by {basis.fitted_on}",
            *((f"output matrix: {outputs}",) if isinstance(outputs, str) else ()),
        ),
    )


def _known(table_ST: Array, at: Facing) -> float | None:
    value = float(table_ST[at.suspect, at.base])
    return None if np.isnan(value) else value


def _layer_table(pair: Pair, facing: Sequence[Facing], tables: Mapping[str, Array]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            pair.suspect.layers[at.suspect],
            pair.base.layers[at.base],
            *(_known(table_ST, at) for table_ST in tables.values()),
        )
        for at in facing
    ]
    columns = ("suspect layer", "base layer", *tables)
    return Table(title="cosines of facing layers in matched coordinates", columns=columns, rows=tuple(rows))


def _shuffled(pair: Pair, facing: Sequence[Facing], basis: Basis) -> Value:
    """Return the size where coordinates are matched at random."""
    order = np.random.default_rng(_SEED).permutation(basis.directions)
    suspect_AK = basis.suspect_AK[:, order]
    cosines: list[float] = []
    for at in spread(facing, SHUFFLED_LAYERS):
        mine = pair.suspect.forms(pair.suspect.layers[at.suspect])
        theirs = pair.base.forms(pair.base.layers[at.base])
        cosines += [
            float(in_basis(mine[form], suspect_AK) @ in_basis(theirs[form], basis.base_BK))
            for form in TESTED
            if form in mine and form in theirs
        ]
    return Value(
        name="coordinates matched at random",
        value=float(np.mean(cosines)) if cosines else None,
        kind="similarity",
        reason=None if cosines else "the layers drawn share no form",
        note=f"mean over at most {SHUFFLED_LAYERS} facing layers",
    )


# -- the output matrix ---------------------------------------------------------------------------------------------


def output_columns(pair: Pair, basis: Basis) -> tuple[float, float] | str:
    """Return the mean cosine of matched columns of both output matrices and of unmatched ones, or why there is none."""
    sides: list[Array] = []
    ids = _output_ids(pair)
    if isinstance(ids, str):
        return ids
    for trunk, own, side_DK in zip((pair.suspect, pair.base), ids, (basis.suspect_AK, basis.base_BK), strict=True):
        try:
            rows_ND = np.concatenate(list(row_blocks_of(trunk.view, _UNEMBED, own)))
            rows_ND = rows_ND * _gain_signs(trunk.view)
        except NonFiniteError as error:
            return str(error)
        if rows_ND.shape[1] != len(side_DK):
            return "not as wide as the layers"
        sides.append(unit_rows((rows_ND.astype(np.float32) @ side_DK.astype(np.float32)).T))
    matched = np.einsum("kn,kn->k", *sides)
    unmatched = np.einsum("kn,kn->k", sides[0], np.roll(sides[1], 1, axis=0))
    return float(matched.mean()), float(unmatched.mean())


def _output_ids(pair: Pair) -> tuple[Array, Array] | str:
    views = pair.suspect.view, pair.base.view
    if any(_UNEMBED not in view.parts for view in views):
        return "tied to the embedding, or absent, in one of the models"
    rows = [view.shape(_UNEMBED.role)[0] for view in views]
    mine, theirs = (view.checkpoint.vocabulary for view in views)
    if mine is not None and theirs is not None:
        here, there = shared_tokens(mine, theirs)
        known = (here < rows[0]) & (there < rows[1])
        here, there = here[known], there[known]
    else:  # the basis was fitted, so both embeddings have as many rows
        here = there = np.arange(min(rows))
    if not here.size:
        return "no row for any shared token"
    drawn = np.random.default_rng(_SEED).permutation(here.size)[:TOKENS]
    chosen = np.sort(drawn)
    return here[chosen], there[chosen]


def _gain_signs(view: ModelView) -> Array:
    """Return the signs of the gains that feed the output matrix: their sizes change no column's direction."""
    reads = view.parts[_UNEMBED].part.reads
    return np.sign(view.gain(reads)) if reads and view.has(reads) else np.ones(1)


def _output_tables(outputs: tuple[float, float] | str) -> tuple[Table, ...]:
    if isinstance(outputs, str):
        return ()
    columns = ("tensor", "matched columns", "unmatched columns")
    return (Table(title="columns of the output matrix", columns=columns, rows=(("unembed", *outputs),)),)
