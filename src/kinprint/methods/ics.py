"""Invariant terms of the last two layers, as seen by rare tokens: HuRef's ICS.

Axes: T = tokens, N = coordinates of the residual stream, K = rows of a key or value matrix, U = units of an MLP, F =
columns of a factor.

With X the embedding rows of the tokens that both models have (at most 4096), each of the last two layers gives three
matrices, tokens by tokens:

    M_a = X W_q^T W_k X^T        M_b = X W_v^T W_o^T X^T        M_f = X (W_gate * W_up)^T W_down^T X^T

where * is elementwise and a plain MLP has W_up alone. Each matrix is z-scored and flattened; the similarity is the
cosine of all six end to end, which is the mean of six Pearson correlations. Strangers: about 0. Widths and depths may
differ: the matrices are over tokens, and the last two layers stand against the last two.

Ignores one permutation of the residual stream, the order of units, heads, key/value groups and experts, whatever can be
moved between v and o, and scales moved between up and down. Notices changed norm gains, which are not folded, as
published. M_f is no function of the network: elementwise products lose the signs of residual coordinates, so already
turning those moves it, and a rotation brings it to 0; M_a and M_b survive a rotation as far as gains are constant.
Rotated copies of small models with gains near 1 are at .59 to .69, those with new gains as well at 0. Between q and k
it ignores what rotary positions allow, but not the scales that a q or k norm hides. New embeddings make a copy a
stranger.

Where this is not the published form to the letter:

* Tokens: the paper takes the 4096 rarest of a frequency list over Wikipedia. There is no such list here: the last 4096
  shared tokens in the order of the suspect's ids stand in, since ids mostly rise as tokens get rarer. Untrained
  reserved tokens at the end of a vocabulary are among them.
* Shared key/value heads are expanded by blocks of heads. Published code repeats rows or tiles the whole matrix.
* Mixtures of experts have no M_f. The similarity is then over what is left, and says so.

The control shuffles the tokens of one side, in rows and columns alike.

No matrix over tokens is held whole: each is a product of two T x F factors in float32 (float64 where the weights are),
taken in blocks of rows whose sums are kept in float64. Factors are scaled to entries of at most 1, which z-scores do
not see.

Source: Zeng et al., HuRef (NeurIPS 2024, arXiv 2312.04828), invariant terms and ICS; the grouped sums are worked out
in ``kinprint.linalg.heads``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.alignment.vocabulary import row_blocks_of, shared_tokens
from kinprint.architecture import ModelView, PartKey
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError, UsageError
from kinprint.fingerprints import PairwiseMethod
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.moments import centred_cosine_of, moments
from kinprint.types import MethodResult, Table, Value

NAME = "ics"
VERSION = 1  # raise whenever any output can change
TOKENS, LAYERS, SEED = 4096, 2, 0
ID = method_id(NAME, VERSION, chosen="last", layers=LAYERS, seed=SEED, tokens=TOKENS)
SOURCE = "Zeng et al., HuRef (NeurIPS 2024, arXiv 2312.04828), invariant terms and ICS"

EMBEDDING = "embed.token"

_BLOCK = 1 << 20
"""Entries of a matrix that are computed at once."""

_UNITS = 1024
"""Units of an MLP that are taken at once where the model is wider than there are tokens."""


# -- comparison ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One kind of matrix in one pair of layers: its correlation and that after the shuffle, or why there is none."""

    kind: str
    layers: tuple[int, int]
    correlation: float | None = None
    shuffled: float | None = None
    reason: str | None = None


def compare(suspect: ModelView, base: ModelView) -> MethodResult:
    """Correlate the invariant terms of two models' last layers.

    Args:
        suspect: One model; the order of its ids chooses the tokens.
        base: The other.

    Returns:
        Similarity over all matrices and the mean of each kind; the same with shuffled tokens as a control; one line
        for each matrix in the table. ``not_applicable`` where the models share no tokens or no kind of matrix.
    """
    try:
        here_T, there_T, note = _tokens(suspect, base)
        embeddings = _embedding(suspect, here_T), _embedding(base, there_T)
    except (NonFiniteError, UsageError) as error:
        return _not_applicable(str(error))
    # From the last layer backwards, so that a model of one layer is compared with the other's last.
    pairs = list(zip(_last_layers(suspect), _last_layers(base), strict=False))
    found = [_measured(kind, suspect, base, layers, embeddings) for layers in pairs for kind in KINDS]
    if all(matrix.correlation is None for matrix in found):
        return _not_applicable(next((str(matrix.reason) for matrix in found), "a model has no layer of known roles"))
    return MethodResult(
        method=NAME,
        id=ID,
        source=SOURCE,
        status="measured",
        values=_values(found),
        controls=_controls(found),
        tables=(_table(found),),
        notes=(note, *_notes(pairs)),
    )


def _not_applicable(reason: str) -> MethodResult:
    return MethodResult(method=NAME, id=ID, source=SOURCE, status="not_applicable", reason=reason)


def _tokens(suspect: ModelView, base: ModelView) -> tuple[Array, Array, str]:
    """Return both models' ids of the tokens to look at, and how they were chosen.

    Raises:
        UsageError: There are none, with the reason.
    """
    for who, view in (("suspect", suspect), ("base", base)):
        if not view.has(EMBEDDING):
            raise UsageError(f"the {who} has no token embedding")
    rows = [view.shape(EMBEDDING)[0] for view in (suspect, base)]
    vocabularies = [view.checkpoint.vocabulary for view in (suspect, base)]
    if vocabularies[0] is not None and vocabularies[1] is not None:
        # A tokenizer may list more tokens than the embedding has rows; those have no vector.
        here, there = shared_tokens(vocabularies[0][: rows[0]], vocabularies[1][: rows[1]])
        how = f"of {here.size:,} shared token strings"
    elif rows[0] == rows[1]:
        here = there = np.arange(rows[0])
        missing = [who for who, held in zip(("suspect", "base"), vocabularies, strict=True) if held is None]
        how = f"of {rows[0]:,} by id: no vocabulary in the {' and the '.join(missing)}"
    else:
        raise UsageError(f"embeddings of {rows[0]} and {rows[1]} rows, and no vocabulary to match the tokens by")
    if here.size < 2:
        raise UsageError(f"shared tokens: {here.size}, at least 2 are needed")
    count = min(TOKENS, here.size)
    note = f"tokens: the last {count:,} {how}; the paper takes the rarest of a frequency list"
    return here[-count:], there[-count:], note


def _last_layers(view: ModelView) -> list[int]:
    """Return the last two layers, the last one first."""
    return sorted({key.layer for key in view.parts if key.layer is not None}, reverse=True)[:LAYERS]


def _embedding(view: ModelView, ids_T: Array) -> Array:
    return _scaled(np.concatenate(list(row_blocks_of(view, PartKey(EMBEDDING), ids_T))))


def _measured(
    kind: str, suspect: ModelView, base: ModelView, layers: tuple[int, int], embeddings: tuple[Array, Array]
) -> _Matrix:
    sides: list[_Factors] = []
    for who, view, layer, embedding_TN in zip(("suspect", "base"), (suspect, base), layers, embeddings, strict=True):
        try:
            sides.append(KINDS[kind](view, layer, embedding_TN))
        except (NonFiniteError, UsageError) as error:
            return _Matrix(kind, layers, reason=f"layer {layer} of the {who}: {error}")
    sums_SS = moments(_blocks(*sides), 3)
    correlation = centred_cosine_of(sums_SS, 0, 1)
    if correlation is None:
        return _Matrix(kind, layers, reason="the same for all tokens in one of the models")
    return _Matrix(kind, layers, correlation, centred_cosine_of(sums_SS, 0, 2))


# -- matrices ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Factors:
    """A matrix over tokens as ``left_TF @ right_TF.T``."""

    left_TF: Array
    right_TF: Array


def _blocks(suspect: _Factors, base: _Factors) -> Iterator[tuple[Array, Array, Array]]:
    """Yield blocks of rows of the suspect's matrix, the base's, and the base's with its tokens shuffled."""
    tokens = suspect.left_TF.shape[0]
    order_T = np.random.default_rng(SEED).permutation(tokens)
    right_FT, shuffled_FT = base.right_TF.T, base.right_TF[order_T].T
    for first in range(0, tokens, step := max(1, _BLOCK // tokens)):
        rows = slice(first, first + step)
        yield (
            suspect.left_TF[rows] @ suspect.right_TF.T,
            base.left_TF[rows] @ right_FT,
            base.left_TF[order_T[rows]] @ shuffled_FT,
        )


def _query_key(view: ModelView, layer: int, embedding_TN: Array) -> _Factors:
    query_HN, key_KN = _arrays(view, layer, ("attn.q", "attn.k"))
    if query_HN.shape[0] != key_KN.shape[0]:
        heads, kv_heads = _head_counts(view, layer)
        head_dim = key_KN.shape[0] // kv_heads
        query_HN = grouped_query_sum(query_HN, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    return _Factors(_product(embedding_TN, query_HN.T), _product(embedding_TN, key_KN.T))


def _value_output(view: ModelView, layer: int, embedding_TN: Array) -> _Factors:
    value_KN, output_NH = _arrays(view, layer, ("attn.v", "attn.o"))
    if output_NH.shape[1] != value_KN.shape[0]:
        heads, kv_heads = _head_counts(view, layer)
        head_dim = value_KN.shape[0] // kv_heads
        output_NH = grouped_output_sum(output_NH, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    return _Factors(_product(embedding_TN, value_KN.T), _product(embedding_TN, output_NH))


def _feed_forward(view: ModelView, layer: int, embedding_TN: Array) -> _Factors:
    if not view.has("mlp.up", layer) and layer in view.layers("moe.up"):
        raise UsageError("a mixture of experts has no M_f")
    gated = ("mlp.gate",) if view.has("mlp.gate", layer) else ()
    up_UN, down_NU, *gate = _arrays(view, layer, ("mlp.up", "mlp.down", *gated))
    units_UN = _scaled(up_UN)
    for gate_UN in gate:
        units_UN *= _scaled(gate_UN)
    if units_UN.shape[1] <= embedding_TN.shape[0]:
        return _Factors(_product(embedding_TN, _product(units_UN.T, down_NU.T)), embedding_TN)
    # Wider than there are tokens: neither N x N nor T x U is held.
    _check_width(embedding_TN, units_UN.shape[1])
    down_NU, left_TN = _scaled(down_NU), np.zeros_like(embedding_TN)
    for first in range(0, units_UN.shape[0], _UNITS):
        units = slice(first, first + _UNITS)
        left_TN += (embedding_TN @ units_UN[units].T) @ down_NU[:, units].T
    return _Factors(_scaled(left_TN), embedding_TN)


KINDS: Mapping[str, Callable[[ModelView, int, Array], _Factors]] = {
    "M_a (q, k)": _query_key,
    "M_b (v, o)": _value_output,
    "M_f (MLP)": _feed_forward,
}
"""The factors of each kind of matrix. Each raises UsageError with what the layer lacks."""


def _arrays(view: ModelView, layer: int, roles: Sequence[str]) -> list[Array]:
    missing = [role for role in roles if not view.has(role, layer)]
    if missing:
        raise UsageError(f"no {', '.join(missing)}")
    return [view.array(role, layer) for role in roles]


def _head_counts(view: ModelView, layer: int) -> tuple[int, int]:
    size = view.heads_at(layer)
    if size is None:
        raise UsageError("shared key/value heads without head counts: add the model's config.json")
    return size.heads, size.kv_heads


def _product(left: Array, right: Array) -> Array:
    """Return the scaled product of two matrices in the dtype of the left one."""
    _check_width(left, right.shape[0])
    return _scaled(left @ _scaled(right).astype(left.dtype, copy=False))


def _check_width(embedding_TN: Array, width: int) -> None:
    if embedding_TN.shape[1] != width:
        raise UsageError(f"the embedding has {embedding_TN.shape[1]} coordinates and the layer {width}")


def _scaled(values: Array) -> Array:
    """Return a copy whose largest entry has size 1, so that no product of copies overflows; zeros stay."""
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    return values / values.dtype.type(largest if largest > 0 else 1.0)


# -- records -------------------------------------------------------------------------------------------------------


def _values(found: Sequence[_Matrix]) -> tuple[Value, ...]:
    held = [matrix.correlation for matrix in found if matrix.correlation is not None]
    missing = next((f"; {matrix.kind} missing: {matrix.reason}" for matrix in found if matrix.reason), "")
    return (
        Value(
            name="similarity",
            value=float(np.mean(held)),
            kind="similarity",
            identical=1.0,
            note=f"cosine over {len(held)} of {len(found)} matrices{missing}",
        ),
        *(_of_kind(kind, [matrix for matrix in found if matrix.kind == kind]) for kind in KINDS),
    )


def _of_kind(kind: str, matrices: Sequence[_Matrix]) -> Value:
    held = [matrix.correlation for matrix in matrices if matrix.correlation is not None]
    return Value(
        name=kind,
        value=float(np.mean(held)) if held else None,
        kind="similarity",
        identical=1.0,
        reason=None if held else matrices[0].reason,
        note=f"mean over {len(held)} layers" if held else None,
    )


def _controls(found: Sequence[_Matrix]) -> tuple[Value, ...]:
    held = [matrix.shuffled for matrix in found if matrix.shuffled is not None]
    note = "needs no token to correspond"
    return (Value(name="similarity, tokens shuffled", value=float(np.mean(held)), kind="similarity", note=note),)


def _table(found: Sequence[_Matrix]) -> Table:
    return Table(
        title="Correlation of the invariant terms, by matrix",
        columns=("matrix", "suspect layer", "base layer", "correlation", "tokens shuffled", "reason"),
        rows=tuple((one.kind, *one.layers, one.correlation, one.shuffled, one.reason) for one in found),
    )


def _notes(pairs: Sequence[tuple[int, int]]) -> list[str]:
    notes = [
        "unfolded gains: rotating a copy's residual stream takes M_f, and of M_a and M_b what gains that vary take"
    ]
    if any(here != there for here, there in pairs):
        notes.append("the models differ in depth: the last layers stand against the last")
    if len(pairs) < LAYERS:
        notes.append(f"{len(pairs)} layer instead of the last {LAYERS}: one of the models has no more")
    return notes


METHOD = PairwiseMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    compare=compare,
    ignores=frozenset(
        {
            "residual-permutation", "ffn-permutation", "ffn-rescaling", "kv-group-permutation",
            "query-head-permutation", "vo-gauge", "expert-permutation",
        }
    ),
    notices=frozenset({"residual-signs", "residual-rotation", "norm-gain-replacement"}),
)  # fmt: skip
