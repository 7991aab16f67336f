"""Parameter cosine similarity: the cosine of all parameters of two models, laid end to end.

Four variants, because published figures differ by them (Llemma against Llama-2-7b: .0098, .5052 and .668):

* *by name*: tensors of the same name and shape, as stored. HuRef's; tensors of two shapes are skipped and listed.
* *by role*: parts of the same role, layer, expert and shape, in one orientation. For models whose names differ.
* both again *without embeddings*: REEF leaves out embeddings and output matrix. It also truncates the rest to equal
  length, which misaligns models of different shapes; this method does not.

Ignores nothing: any permutation, rotation or rescaling brings a copy down to what strangers have. Strangers are not at
0 either: norm gains are positive and long, so they alone can hold the cosine up. The control, the same cosine after
the suspect's rows are shuffled inside each block, shows how much of it needs no correspondence at all.

Source: Zeng et al., HuRef (NeurIPS 2024, arXiv 2312.04828), PCS baseline; Zhang et al., REEF (ICLR 2025,
arXiv 2410.14273), PCS baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from kinprint.alignment import pairing
from kinprint.architecture import ModelView, PartKey, layout
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import PairwiseMethod
from kinprint.linalg.moments import cosine_of, moments
from kinprint.types import Cell, MethodResult, Table, Value

NAME = "pcs"
VERSION = 1  # raise whenever any output can change
SEED = 0
ID = method_id(NAME, VERSION, seed=SEED)
SOURCE = "HuRef (arXiv 2312.04828) and REEF (arXiv 2410.14273), PCS baseline"

_EMBEDDING_NAMES = ("embed", "lm_head", "wte", "wpe")
"""What tensors are called that hold embeddings, for models without a family table."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Sums of products of one pair of tensors (suspect, base, shuffled suspect), or why there are none."""

    label: str
    embedding: bool
    sums_SS: Array
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Variant:
    """One way to pair two models' parameters: what was paired, what did not fit, and why nothing was paired."""

    name: str
    pieces: Sequence[_Piece]
    misfits: Sequence[pairing.Misfit] = field(default_factory=tuple)
    reason: str = ""


def compare(suspect: ModelView, base: ModelView) -> MethodResult:
    """Return the cosine of the flattened parameters of two models, by name and by role.

    Args:
        suspect: One model.
        base: The other; the cosine is symmetric, the shuffled control is not.

    Returns:
        A value for each variant, with how many parameters entered and their share of each model; the shuffled cosine
        of each as a control. ``not_applicable`` where neither names nor roles pair anything.
    """
    named, known = _by_name(suspect, base)
    roles = _by_role(suspect, base, known)
    variants = [named, _without_embeddings(named), roles, _without_embeddings(roles)]
    values, controls = zip(*(_values(variant, suspect, base) for variant in variants), strict=True)
    if all(value.value is None for value in values):
        reason = f"{values[0].reason}; {values[2].reason}"
        return MethodResult(method=NAME, id=ID, source=SOURCE, status="not_applicable", reason=reason)
    return MethodResult(
        method=NAME,
        id=ID,
        source=SOURCE,
        status="measured",
        values=values,
        controls=tuple(control for control in controls if control.value is not None),
        tables=_tables(variants, suspect, base),
        notes=_notes(named, roles),
    )


# -- pairing -------------------------------------------------------------------------------------------------------


def _by_name(suspect: ModelView, base: ModelView) -> tuple[_Variant, dict[str, Array]]:
    """Pair by name; also return the sums by tensor name, so that parts that are whole tensors need no second read."""
    names, misfits = pairing.shared_names(suspect, base)
    left_out = _embedding_tensors(suspect) | _embedding_tensors(base)
    pieces = [_piece(name, name in left_out, *(_tensor(view, name) for view in (suspect, base))) for name in names]
    reason = "the models share no tensor name" if not misfits else "no tensor of the same name has the same shape"
    return _Variant("by name", pieces, misfits, reason), {
        piece.label: piece.sums_SS for piece in pieces if piece.problem is None
    }


def _by_role(suspect: ModelView, base: ModelView, known: dict[str, Array]) -> _Variant:
    keys, misfits = pairing.shared_parts(suspect, base)
    pieces: list[_Piece] = []
    for key in keys:
        embedding = _is_embedding(key)
        name = _same_whole_tensor(suspect, base, key)
        if name is not None and name in known:
            pieces.append(_Piece(str(key), embedding, known[name]))
        else:
            pieces.append(_piece(str(key), embedding, _part(suspect, key), _part(base, key)))
    unknown = [who for who, view in (("suspect", suspect), ("base", base)) if not view.parts]
    reason = "the models share no role"
    if unknown:
        reason = f"no role is known in the {' and the '.join(unknown)}: unknown family"
    elif misfits:
        reason = "no role has the same shape in both"
    return _Variant("by role", pieces, misfits, reason)


def _same_whole_tensor(suspect: ModelView, base: ModelView, key: PartKey) -> str | None:
    """Return the tensor's name where a part is all of one tensor, called and laid out alike in both models."""
    first, second = suspect.parts[key], base.parts[key]
    whole = layout.is_plain(first.rule) and layout.is_plain(second.rule)
    return first.tensor if whole and first.tensor == second.tensor else None


def _without_embeddings(variant: _Variant) -> _Variant:
    return _Variant(
        f"{variant.name}, without embeddings",
        [piece for piece in variant.pieces if not piece.embedding],
        [misfit for misfit in variant.misfits if not _named_like_embedding(misfit.label)],
        variant.reason if not variant.pieces else "only embeddings are shared",
    )


def _embedding_tensors(view: ModelView) -> set[str]:
    if view.parts:
        return {place.tensor for key, place in view.parts.items() if _is_embedding(key)}
    return {name for name in view.checkpoint.tensors if _named_like_embedding(name)}


def _is_embedding(key: PartKey) -> bool:
    return key.role.startswith(("embed.", "unembed"))


def _named_like_embedding(name: str) -> bool:
    return any(word in name.lower() for word in _EMBEDDING_NAMES)


# -- sums ----------------------------------------------------------------------------------------------------------

_Blocks = Callable[[], Iterable[Array]]


def _tensor(view: ModelView, name: str) -> _Blocks:
    return lambda: pairing.tensor_blocks(view.checkpoint, name)


def _part(view: ModelView, key: PartKey) -> _Blocks:
    return lambda: pairing.part_blocks(view, key)


def _piece(label: str, embedding: bool, suspect: _Blocks, base: _Blocks) -> _Piece:
    try:
        return _Piece(label, embedding, moments(_with_shuffled(suspect(), base()), 3))
    except NonFiniteError as error:
        return _Piece(label, embedding, np.zeros((4, 4)), str(error))


def _with_shuffled(suspect: Iterable[Array], base: Iterable[Array]) -> Iterator[tuple[Array, Array, Array]]:
    rng = np.random.default_rng(SEED)
    for left, right in zip(suspect, base, strict=True):
        yield left, right, left[rng.permutation(left.shape[0])] if left.ndim else left


# -- records -------------------------------------------------------------------------------------------------------


def _values(variant: _Variant, suspect: ModelView, base: ModelView) -> tuple[Value, Value]:
    """Return the cosine and its shuffled control."""
    control = f"{variant.name}, rows shuffled"
    problem = next((piece.problem for piece in variant.pieces if piece.problem is not None), None)
    sums_SS = _total(variant)
    cosine = None if problem else cosine_of(sums_SS, 0, 1)
    if cosine is None:
        reason = problem or (variant.reason if not variant.pieces else "all compared parameters are zero")
        return _absent(variant.name, reason), _absent(control, reason)
    count = int(sums_SS[-1, -1])
    shares = [f"{count / view.parameters:.1%}" for view in (suspect, base)]
    note = f"{count:,} parameters: {shares[0]} of the suspect, {shares[1]} of the base"
    return (
        Value(name=variant.name, value=cosine, kind="similarity", identical=1.0, note=note),
        Value(name=control, value=cosine_of(sums_SS, 2, 1), kind="similarity", note="needs no correspondence"),
    )


def _absent(name: str, reason: str) -> Value:
    return Value(name=name, value=None, kind="similarity", identical=1.0, reason=reason)


def _total(variant: _Variant) -> Array:
    return sum((piece.sums_SS for piece in variant.pieces), start=np.zeros((4, 4)))


def _tables(variants: Sequence[_Variant], suspect: ModelView, base: ModelView) -> tuple[Table, ...]:
    rows: list[tuple[Cell, ...]] = []
    for variant in variants:
        sums_SS = _total(variant)
        count = int(sums_SS[-1, -1])
        rows.append(
            (
                variant.name,
                cosine_of(sums_SS, 0, 1),
                len(variant.pieces),
                count,
                count / suspect.parameters if suspect.parameters else None,
                count / base.parameters if base.parameters else None,
                len(variant.misfits),
            )
        )
    columns = ("variant", "cosine", "pairs", "parameters", "of suspect", "of base", "skipped")
    found = Table(title="Parameters compared, by variant", columns=columns, rows=tuple(rows))
    skipped = [
        (variant.name, misfit.label, str(list(misfit.suspect)), str(list(misfit.base)))
        for variant in (variants[0], variants[2])
        for misfit in variant.misfits
    ]
    if not skipped:
        return (found,)
    columns = ("variant", "tensor", "suspect", "base")
    return found, Table(title="Skipped because the shapes differ", columns=columns, rows=tuple(skipped))


def _notes(named: _Variant, roles: _Variant) -> tuple[str, ...]:
    notes = ["stored basis: norm gains are not folded and no permutation is undone"]
    for variant in (named, roles):
        if variant.misfits and variant.pieces:
            notes.append(f"{variant.name}: {len(variant.misfits)} of two shapes skipped")
        notes.extend(f"{variant.name}: {piece.problem}" for piece in variant.pieces if piece.problem is not None)
    return tuple(notes)


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
