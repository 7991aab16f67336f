"""Cosine of the tensors that play the same role in two models, direct and about their means.

The per-tensor-type table of the Solar-Open-100B and GLM-4.5-Air dispute: norms, q, k, v, o, gate, up, down, router,
experts of the same index, biases, embedding and output rows of the same token string. One cosine for each layer (and
expert); a role's value is their plain mean. Models without a family table are compared tensor by tensor instead, paired
by name, or by shape and order where they share no name.

Ignores nothing: a cosine in the stored basis is destroyed by every permutation, rotation and rescaling that leaves the
model's function alone. So a cosine near 0 is what strangers *and* disguised copies have, and is no evidence against
descent. A direct cosine near 1 is no evidence for it where all entries are positive (norm gains); the centred one is.

Two controls for each role show what needs no correspondence: the suspect's tensor against the base's *next layer*, and
against the base's own layer after the suspect's rows are *shuffled* inside each block. Independent zero-mean tensors
of n entries have mean 0 and standard deviation 1/sqrt(n).

Source: the repositories sionic-ai/solar-vs-glm and hyunwoongko/solar-vs-glm-vs-phi (January 2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.alignment import pairing
from kinprint.alignment.vocabulary import row_blocks_of, shared_tokens
from kinprint.architecture import ModelView, PartKey
from kinprint.architecture.family import OTHER, ROLES
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import PairwiseMethod
from kinprint.linalg.moments import centred_cosine_of, cosine_of, moments
from kinprint.linalg.threads import LARGE_BYTES, side_by_side
from kinprint.types import Cell, MethodResult, Table, Value

NAME = "tensor-cosine"
VERSION = 1  # raise whenever any output can change
SEED = 0
ID = method_id(NAME, VERSION, seed=SEED)
SOURCE = "sionic-ai/solar-vs-glm; hyunwoongko/solar-vs-glm-vs-phi"


@dataclass(frozen=True, slots=True)
class _Row:
    """One pair of tensors: (direct, centred) cosines, or why there are none.

    ``unusable`` says that the reason is in the numbers (NaN, Inf) and not in a shape.
    """

    group: str
    label: str
    layer: int | None = None
    same: tuple[float | None, float | None] = (None, None)
    next_layer: tuple[float | None, float | None] = (None, None)
    shuffled: tuple[float | None, float | None] = (None, None)
    problem: str | None = None
    unusable: bool = False


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Rows of the two vocabularies that face each other, and how that was found out."""

    suspect_N: Array
    base_N: Array
    by_string: bool

    @property
    def same_id(self) -> int:
        """Number of shared tokens that have one id in both models."""
        return int((self.suspect_N == self.base_N).sum())


def compare(suspect: ModelView, base: ModelView) -> MethodResult:
    """Return the cosine of two models' tensors by role.

    Args:
        suspect: One model.
        base: The other; the cosines are symmetric, the controls are not.

    Returns:
        For each role the mean direct and centred cosine over its layers and experts; tables by role, and by layer
        and role. ``not_applicable`` where no role, name or shape is shared.
    """
    tokens = _tokens(suspect, base)
    rows, notes = _by_role(suspect, base, tokens)
    if not rows:
        rows, notes = _by_name(suspect, base)
        tokens = None
    groups = {row.group: [r for r in rows if r.group == row.group] for row in rows}
    values = [value for group, members in groups.items() for value in _values(group, members)]
    if all(value.value is None for value in values):
        reason = "the models share no role, no tensor name and no tensor shape"
        if values:
            reason = f"nothing that is shared can be compared; the first: {values[0].reason}"
        return MethodResult(method=NAME, id=ID, source=SOURCE, status="not_applicable", reason=reason)
    if tokens is not None and tokens.by_string:
        values.append(Value(name="shared tokens", value=tokens.suspect_N.size, kind="statistic"))
        values.append(Value(name="shared tokens with one id", value=tokens.same_id, kind="statistic"))
    return MethodResult(
        method=NAME,
        id=ID,
        source=SOURCE,
        status="measured",
        values=tuple(values),
        controls=tuple(control for group, members in groups.items() for control in _controls(group, members)),
        tables=_tables(groups),
        notes=tuple(notes),
    )


# -- by role -------------------------------------------------------------------------------------------------------


def _by_role(suspect: ModelView, base: ModelView, tokens: _Tokens | None) -> tuple[list[_Row], list[str]]:
    others = sorted(role for role in suspect.roles & base.roles if role.startswith(OTHER))
    roles = [role for role in ROLES if role in suspect.roles & base.roles and not role.startswith("head.")] + others
    keys = sorted(
        (key for key in suspect.parts if key in base.parts and key.role in roles),
        key=lambda key: (roles.index(key.role), key.layer or 0, key.expert or 0),
    )
    large = any(info.nbytes >= LARGE_BYTES for info in base.checkpoint.tensors.values())
    rows = side_by_side(lambda key: _part_row(suspect, base, key, tokens), keys, large=large)
    notes = ["stored basis: norm gains are not folded and no permutation is undone"]
    for who, here, there in (("suspect", suspect, base), ("base", base, suspect)):
        alone = sorted(role for role in here.roles - there.roles if not role.startswith("head."))
        if alone:
            notes.append(f"only the {who} has {', '.join(alone)}")
    depths = [view.geometry.layers or 0 for view in (suspect, base)]
    if depths[0] != depths[1]:
        notes.append(f"{depths[0]} layers against {depths[1]}: compared by index over the shorter")
    if any(role.startswith("head.") for role in suspect.roles | base.roles):
        notes.append("task heads left out: no evidence by themselves")
    return rows, notes + _token_notes(suspect, base, tokens, keys)


def _part_row(suspect: ModelView, base: ModelView, key: PartKey, tokens: _Tokens | None) -> _Row:
    shapes = [view.shape(key.role, key.layer, key.expert) for view in (suspect, base)]
    if _over_vocabulary(suspect, base, key) and tokens is not None and shapes[0][1:] == shapes[1][1:]:
        if tokens.suspect_N.size == 0:
            return _Row(key.role, str(key), problem="the vocabularies share no token")
        streams = [row_blocks_of(suspect, key, tokens.suspect_N), row_blocks_of(base, key, tokens.base_N)]
        return _measured(key.role, str(key), None, streams)
    if shapes[0] != shapes[1]:
        problem = str(pairing.Misfit(str(key), *shapes))
        if _over_vocabulary(suspect, base, key) and shapes[0][1:] == shapes[1][1:]:
            problem += ", and no vocabulary to match the tokens by"
        return _Row(key.role, str(key), key.layer, problem=problem)
    streams = [pairing.part_blocks(view, key) for view in (suspect, base)]
    following = PartKey(key.role, None if key.layer is None else key.layer + 1, key.expert)
    if following != key and following in base.parts and base.shape(*_place(following)) == shapes[1]:
        streams.append(pairing.part_blocks(base, following))
    return _measured(key.role, str(key), key.layer, streams)


def _place(key: PartKey) -> tuple[str, int | None, int | None]:
    return key.role, key.layer, key.expert


# -- tokens --------------------------------------------------------------------------------------------------------


def _over_vocabulary(suspect: ModelView, base: ModelView, key: PartKey) -> bool:
    return all(view.parts[key].part.out == "vocab" for view in (suspect, base))


def _tokens(suspect: ModelView, base: ModelView) -> _Tokens | None:
    """Return which rows stand for the same token, or None where nothing says so."""
    rows = [view.geometry.vocab for view in (suspect, base)]
    if rows[0] is None or rows[1] is None:
        return None
    vocabularies = [view.checkpoint.vocabulary for view in (suspect, base)]
    if vocabularies[0] is None or vocabularies[1] is None:
        ids = np.arange(rows[0])
        return _Tokens(ids, ids, by_string=False) if rows[0] == rows[1] else None
    # A tokenizer may list more tokens than the embedding has rows; those have no vector.
    here, there = shared_tokens(vocabularies[0][: rows[0]], vocabularies[1][: rows[1]])
    return _Tokens(here, there, by_string=True)


def _token_notes(suspect: ModelView, base: ModelView, tokens: _Tokens | None, keys: Sequence[PartKey]) -> list[str]:
    if tokens is None or not any(_over_vocabulary(suspect, base, key) for key in keys):
        return []
    if tokens.by_string:
        shared, same = tokens.suspect_N.size, tokens.same_id
        return [f"vocabulary rows compared by token string: {shared:,} shared tokens, {same:,} with one id in both"]
    missing = [who for who, view in (("suspect", suspect), ("base", base)) if view.checkpoint.vocabulary is None]
    return [f"vocabulary rows compared by id: no vocabulary in the {' and the '.join(missing)}"]


# -- by name -------------------------------------------------------------------------------------------------------


def _by_name(suspect: ModelView, base: ModelView) -> tuple[list[_Row], list[str]]:
    """Compare tensor by tensor, matrices and vectors apart: vectors are mostly positive gains."""
    names, misfits = pairing.shared_names(suspect, base)
    pairs, how = [(name, name) for name in names], "by name"
    notes = ["no role is shared: tensors paired by name"]
    if not pairs and not misfits:
        pairs, how = pairing.paired_by_shape(suspect, base), "by shape and order"
        notes = ["neither roles nor names are shared: tensors paired by shape and order of appearance"]
    order = pairing.parameter_names(base)
    rows: list[_Row] = []
    for left, right in pairs:
        info = base.checkpoint.tensors[right]
        streams = [pairing.tensor_blocks(suspect.checkpoint, left), pairing.tensor_blocks(base.checkpoint, right)]
        following = _next_of_shape(base, right, order)
        if following is not None:
            streams.append(pairing.tensor_blocks(base.checkpoint, following))
        label = left if left == right else f"{left} | {right}"
        rows.append(_measured(_kind(len(info.shape), how), label, None, streams))
    rows.extend(_Row(_kind(len(misfit.base), how), misfit.label, problem=str(misfit)) for misfit in misfits)
    return rows, notes


def _kind(rank: int, how: str) -> str:
    return f"{'matrices' if rank > 1 else 'vectors'} paired {how}"


def _next_of_shape(view: ModelView, name: str, order: Sequence[str]) -> str | None:
    """Return the next tensor of the same shape in file order: what a neighbouring layer is without a family table."""
    shape = view.checkpoint.tensors[name].shape
    later = order[order.index(name) + 1 :]
    return next((other for other in later if view.checkpoint.tensors[other].shape == shape), None)


# -- numbers -------------------------------------------------------------------------------------------------------


def _measured(group: str, label: str, layer: int | None, streams: Sequence[Iterable[Array]]) -> _Row:
    """Return the cosines of streams (suspect, base[, base's next layer])."""
    try:
        sums_SS = moments(_with_shuffled(streams), len(streams) + 1)
    except NonFiniteError as error:
        return _Row(group, label, layer, problem=str(error), unusable=True)

    def cosines(first: int, second: int) -> tuple[float | None, float | None]:
        return cosine_of(sums_SS, first, second), centred_cosine_of(sums_SS, first, second)

    following = cosines(1, 3) if len(streams) > 2 else (None, None)
    return _Row(group, label, layer, cosines(1, 2), following, cosines(0, 2))


def _with_shuffled(streams: Sequence[Iterable[Array]]) -> Iterator[tuple[Array, ...]]:
    """Yield blocks with the suspect's shuffled rows put in front of them."""
    rng = np.random.default_rng(SEED)
    for blocks in zip(*streams, strict=True):
        first: Array = blocks[0]
        yield (first[rng.permutation(first.shape[0])] if first.ndim else first, *blocks)


# -- records -------------------------------------------------------------------------------------------------------

_WHICH = ("cosine", "centred cosine")
_ABSENT = ("all zero in one of the models", "constant in one of the models")


def _values(group: str, rows: Sequence[_Row]) -> Iterator[Value]:
    reason = _reason(rows)
    skipped = sum(row.problem is not None for row in rows)
    note = f"{skipped} of {len(rows)} left out: shapes differ" if skipped and reason is None else None
    for which, what in enumerate(_WHICH):
        mean = None if reason is not None else _mean(row.same[which] for row in rows)
        why = None if mean is not None else (reason or _ABSENT[which])
        yield Value(name=f"{group} {what}", value=mean, kind="similarity", identical=1.0, reason=why, note=note)


def _reason(rows: Sequence[_Row]) -> str | None:
    """Return why a group has no value: a tensor of it holds NaN or Inf, or none of its shapes agree."""
    unusable = next((row.problem for row in rows if row.unusable), None)
    if unusable is not None or all(row.problem is not None for row in rows):
        return unusable or rows[0].problem
    return None


def _controls(group: str, rows: Sequence[_Row]) -> Iterator[Value]:
    if _reason(rows) is not None:
        return
    for name, found in (
        ("next layer", _mean(row.next_layer[0] for row in rows)),
        ("rows shuffled", _mean(row.shuffled[0] for row in rows)),
    ):
        if found is not None:
            yield Value(name=f"{group} cosine, {name}", value=found, kind="similarity")


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _tables(groups: dict[str, list[_Row]]) -> tuple[Table, ...]:
    tables = [_summary(groups)]
    if any(row.layer is not None for rows in groups.values() for row in rows):
        tables.extend(_layers(groups, which, what) for which, what in enumerate(_WHICH))
    if any(" paired " in group for group in groups):
        tables.append(_tensors(groups))
    return tuple(tables)


def _summary(groups: dict[str, list[_Row]]) -> Table:
    columns = (
        "role", "pairs", "cosine", "min", "max", "centred", "centred min", "centred max",
        "next layer", "next layer centred", "shuffled", "shuffled centred", "reason",
    )  # fmt: skip
    lines: list[tuple[Cell, ...]] = []
    for group, rows in groups.items():
        cells: list[Cell] = []
        for which in range(2):
            found = [row.same[which] for row in rows if row.same[which] is not None]
            cells += [_mean(found), min(found, default=None), max(found, default=None)]  # pyright: ignore[reportArgumentType]
        cells += [_mean(row.next_layer[which] for row in rows) for which in range(2)]
        cells += [_mean(row.shuffled[which] for row in rows) for which in range(2)]
        measured = sum(row.problem is None for row in rows)
        lines.append((group, measured, *cells, next((row.problem for row in rows if row.problem), None)))
    return Table(title="Cosine by role", columns=columns, rows=tuple(lines))


def _layers(groups: dict[str, list[_Row]], which: int, what: str) -> Table:
    """One row for each layer, one column for each role; experts averaged."""
    layered = {group: rows for group, rows in groups.items() if any(row.layer is not None for row in rows)}
    layers = sorted({row.layer for rows in layered.values() for row in rows if row.layer is not None})
    lines = tuple(
        (layer, *(_mean(row.same[which] for row in rows if row.layer == layer) for rows in layered.values()))
        for layer in layers
    )
    return Table(title=f"{what.capitalize()}, layer by role", columns=("layer", *layered), rows=lines)


def _tensors(groups: dict[str, list[_Row]]) -> Table:
    columns = ("tensor", "cosine", "centred", "next of its shape", "shuffled", "reason")
    lines = tuple(
        (row.label, *row.same, row.next_layer[0], row.shuffled[0], row.problem)
        for rows in groups.values()
        for row in rows
    )
    return Table(title="Cosine by tensor", columns=columns, rows=lines)


METHOD = PairwiseMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    compare=compare,
    notices=frozenset(
        {
            "residual-permutation", "residual-signs", "residual-rotation", "norm-gain-replacement", "ffn-permutation",
            "ffn-rescaling", "kv-group-permutation", "query-head-permutation", "vo-gauge", "qk-gauge",
            "expert-permutation",
        }
    ),
)  # fmt: skip
