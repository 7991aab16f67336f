"""Singular values of what each layer computes, as fingerprints.

Axes: N = layers, K = singular values, D = residual width, H = rows of a projection, R = rank of its factors, E =
experts.

Attention: M_qk = W_q^T W_k and M_vo = W_o W_v, both D x D, with shared key/value heads expanded by head blocks. MLP:
the up and the down matrix, each by itself. Singular values of a product do not see the basis of the residual stream,
nor what can be moved between its two factors; those of up and down do see the latter. With ``fold`` the gain of the
norm that feeds a matrix is multiplied into it first, because gains can be exchanged with the next matrix without
changing the model; the paper does not do this. Biases and rotary positions do not enter.

Latent attention holds W_q, W_k and W_v as products of low-rank factors with a norm between them. The spectra are those
of the products, gain of that norm included, worked out from R x R cores; the rows that carry positions are another
tensor and do not enter. Layers without attention (state-space, linear attention, short convolution) have no attention
spectra. Routed experts have MLP spectra by an extension of ours: see :mod:`kinprint.spectra.experts`.

With a device the products of several layers are worked out together there (:mod:`kinprint.linalg.stacked`), to the same
tolerance; so the device is no setting of a fingerprint. Without one everything is numpy, layer by layer.

Source: GhostSpec, arXiv 2511.06390. Shared key/value heads are not in the paper's text: the whole-layer product sums
the query heads of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from weakref import WeakKeyDictionary

import numpy as np

from kinprint.architecture import ModelView, PartKey, Place
from kinprint.canonical import method_id
from kinprint.checkpoint import Array, Checkpoint
from kinprint.errors import NonFiniteError, UsageError
from kinprint.fingerprints import Extractor, Fingerprint
from kinprint.linalg import product_singular_values
from kinprint.linalg.device import Device
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.stacked import singular_values_of
from kinprint.spectra.ahead import Ahead, Factors, LayerFactors
from kinprint.spectra.experts import MATRICES, SAMPLED, expert_spectra, padded, pooled
from kinprint.spectra.kinds import ATTENTION_ROLES, attention_notes
from kinprint.spectra.shown import matrix_spectra

VERSION = 1  # raise whenever any stored number can change

_BLOCK_BYTES = 1 << 25
"""Bytes of a matrix that are float64 at once."""

MLP_ROLES = ("mlp.up", "mlp.down", "moe.shared.up", "moe.shared.down", "moe.up", "moe.down")


def attention_spectra(model: ModelView, *, fold: bool, device: Device | None = None) -> Fingerprint:
    """Return the spectra of M_qk and M_vo of every layer.

    Args:
        model: The model.
        fold: Multiply norm gains into q, k and v first.
        device: Where; numpy where none is given.

    Returns:
        ``layers`` [N]; ``qk`` and ``vo`` float64 [N, K], largest first, padded with zeros, which is what the D x D
        product's other singular values are. A layer that lacks a role, or holds NaN or Inf, is absent, and
        ``problems`` says why; it also says which layers have no attention, and which projections are products. Beside
        them what :func:`kinprint.spectra.shown.matrix_spectra` gives, which no similarity uses.
    """
    factors = partial(_attention, fold=fold)
    layers = (
        partial(_at_once, factors)
        if device is None
        else Ahead(model, factors, _candidates(model, ATTENTION_ROLES), device)
    )
    arrays, problems = _all_layers(model, ("qk", "vo"), ATTENTION_ROLES, layers)
    shown, left_out = matrix_spectra(model, fold=fold)
    return Fingerprint(ATTENTION[fold].id, {**arrays, **shown}, (*problems, *left_out, *attention_notes(model)))


def mlp_spectra(model: ModelView, *, fold: bool, device: Device | None = None) -> Fingerprint:
    """Return the spectra of the up and the down matrix of every layer's MLP.

    In a mixture the shared expert, which every token passes, stands for the MLP; where there is none, the routed
    experts do, pooled.

    Args:
        model: The model.
        fold: Multiply the norm's gain into up first.
        device: Where; numpy where none is given.

    Returns:
        ``layers`` [N]; ``up`` and ``down`` float64 [N, K], as in :func:`attention_spectra`. A model with routed experts
        has besides ``experts.layers`` [N]; ``experts.up`` and ``experts.down`` [N, K], pooled over the experts of a
        layer, the MLP itself in a dense layer; ``experts.each.up`` and ``experts.each.down`` [N, E, K], zeros where a
        layer has fewer experts.
    """
    routed = cache(partial(expert_spectra, model, "moe", fold=fold, device=device))
    dense = partial(_mlp, routed=routed, fold=fold, device=device)
    arrays, problems = _all_layers(model, MATRICES, MLP_ROLES, dense)
    if model.layers("moe.up"):
        each: dict[int, Mapping[str, Array]] = {}

        def expert_layer(view: ModelView, layer: int) -> Mapping[str, Array]:
            each[layer] = _each_expert(view, layer, routed=routed, dense=dense)
            return {matrix: pooled(rows_EK) for matrix, rows_EK in each[layer].items()}

        found, lost = _all_layers(model, MATRICES, ("mlp.up", "moe.up"), expert_layer)
        arrays |= {f"experts.{name}": array for name, array in found.items()}
        kept = [each[int(layer)] for layer in found["layers"]]
        arrays |= {f"experts.each.{matrix}": _stacked([rows[matrix] for rows in kept]) for matrix in MATRICES}
        problems += [problem for problem in lost if problem not in problems] + _expert_notes(model)
    return Fingerprint(MLP[fold].id, arrays, tuple(problems))


def _all_layers(
    model: ModelView,
    products: Sequence[str],
    roles: Sequence[str],
    spectra: Callable[[ModelView, int], Mapping[str, Array]],
) -> tuple[dict[str, Array], list[str]]:
    """Collect every layer's spectra; a layer that cannot be used becomes a line of the problems."""
    candidates = _candidates(model, roles)
    found: dict[int, Mapping[str, Array]] = {}
    left_out: dict[str, list[int]] = {}
    for layer in candidates:
        try:
            with np.errstate(all="ignore"):  # _checked finds what overflowed
                found[layer] = _checked(spectra(model, layer))
        except (NonFiniteError, UsageError, np.linalg.LinAlgError) as error:
            left_out.setdefault(str(error), []).append(layer)
    problems = [f"layers {', '.join(map(str, layers))} left out: {reason}" for reason, layers in left_out.items()]
    if not candidates:
        problems.append(f"family {model.family.name}: no tensor has the role {', '.join(roles[:4])}")
    arrays: dict[str, Array] = {"layers": np.array(list(found), dtype=np.int64)}
    for product in products:
        arrays[product] = padded([layer[product] for layer in found.values()])
    return arrays, problems


def _candidates(model: ModelView, roles: Sequence[str]) -> list[int]:
    return sorted({layer for role in roles for layer in model.layers(role)})


# -- attention -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Projection:
    """``left right``, [H, D]; a projection that is one matrix has no left factor."""

    left_HR: Array | None
    right_RD: Array

    @classmethod
    def of(cls, model: ModelView, role: str, layer: int, *, fold: bool) -> _Projection:
        product = model.products.get(PartKey(role, layer))
        if product is None:
            return cls(None, model.array(role, layer, fold=fold))
        # The gain between the factors is part of the product, folded or not.
        left_HR = model.array(product.left, layer) * model.gain(product.norm, layer)
        return cls(left_HR, model.array(product.right, layer, fold=fold))

    @property
    def rows(self) -> int:
        return int((self.right_RD if self.left_HR is None else self.left_HR).shape[0])

    @property
    def inner(self) -> int:
        return int(self.right_RD.shape[0])

    def seen_from(self, other_HR: Array) -> Array:
        """Return ``other^T left right``, [R, D], in float64: it becomes the factor of a product itself."""
        if self.left_HR is None:
            return _times(other_HR.T, self.right_RD)
        return _times(_times(other_HR.T, self.left_HR), self.right_RD)


def _times(left: Array, right: Array) -> Array:
    """Return a matrix product in float64, without a float64 copy of the right matrix."""
    left = left.astype(np.float64, copy=False)
    width = max(1, _BLOCK_BYTES // (8 * max(1, right.shape[0])))
    made = np.empty((left.shape[0], right.shape[1]))
    for first in range(0, right.shape[1], width):
        columns = slice(first, first + width)
        made[:, columns] = left @ right[:, columns].astype(np.float64)
    return made


def _factors(first: _Projection, second: _Projection) -> Factors:
    """Return the factors of ``first^T second``, those of the lower rank where there are any."""
    if first.rows != second.rows:
        raise UsageError(f"factors of {first.rows} and {second.rows} rows: no head counts say how they share heads")
    if second.left_HR is not None and (first.left_HR is None or second.inner <= first.inner):
        return first.seen_from(second.left_HR), second.right_RD
    if first.left_HR is not None:
        return first.right_RD, second.seen_from(first.left_HR)
    return first.right_RD, second.right_RD


def _attention(model: ModelView, layer: int, *, fold: bool) -> Iterator[tuple[str, Factors]]:
    """Yield the factors of each product of a layer; the next ones are read when the former are done with."""
    _require(model, layer, ATTENTION_ROLES)
    query, key = (_Projection.of(model, role, layer, fold=fold) for role in ("attn.q", "attn.k"))
    if query.rows != key.rows and query.left_HR is None:
        heads, kv_heads = _head_counts(model, layer)
        size = key.rows // kv_heads
        query = _Projection(None, grouped_query_sum(query.right_RD, heads=heads, kv_heads=kv_heads, head_dim=size))
    yield "qk", _factors(query, key)
    del query, key
    value = _Projection.of(model, "attn.v", layer, fold=fold)
    output_DH = model.array("attn.o", layer, fold=fold)
    if output_DH.shape[1] != value.rows:
        heads, kv_heads = _head_counts(model, layer)
        output_DH = grouped_output_sum(output_DH, heads=heads, kv_heads=kv_heads, head_dim=value.rows // kv_heads)
    yield "vo", _factors(_Projection(None, output_DH.T), value)


def _at_once(factors: LayerFactors, model: ModelView, layer: int) -> Mapping[str, Array]:
    return {product: product_singular_values(*pair) for product, pair in factors(model, layer)}


# -- the MLP -------------------------------------------------------------------------------------------------------


_Experts = Callable[[int], Mapping[str, Array]]
_Dense = Callable[[ModelView, int], Mapping[str, Array]]


def _mlp(model: ModelView, layer: int, *, routed: _Experts, fold: bool, device: Device | None) -> Mapping[str, Array]:
    place = "mlp" if model.has("mlp.up", layer) or model.has("mlp.down", layer) else "moe.shared"
    if place == "moe.shared" and not model.has("moe.shared.up", layer):
        numbered = bool(model.experts("moe.shared.up", layer))
        experts = expert_spectra(model, "moe.shared", layer, fold=fold, device=device) if numbered else routed(layer)
        return {matrix: pooled(rows_EK) for matrix, rows_EK in experts.items()}
    _require(model, layer, (f"{place}.up", f"{place}.down"))
    # One by one: what is stacked must be in memory at once, and these are a model's largest matrices.
    return {matrix: _of_matrix(model, f"{place}.{matrix}", layer, fold=fold, device=device) for matrix in MATRICES}


_PLAIN: WeakKeyDictionary[Checkpoint, dict[tuple[Place, int, Device | None], Array]] = WeakKeyDictionary()
"""Spectra of the matrices that no gain is folded into, of models that are open: with ``fold`` and without they are the
same, and of a large model each takes seconds."""


def _of_matrix(model: ModelView, role: str, layer: int, *, fold: bool, device: Device | None) -> Array:
    if model.folds(role, layer):
        return singular_values_of([model.array(role, layer, fold=fold)], device)[0]
    known = _PLAIN.setdefault(model.checkpoint, {})
    where = model.parts[PartKey(role, layer)], layer, device
    if where not in known:
        known[where] = singular_values_of([model.array(role, layer)], device)[0]
    return known[where]


def _each_expert(model: ModelView, layer: int, *, routed: _Experts, dense: _Dense) -> Mapping[str, Array]:
    """Return the spectra of a layer's sampled experts, [E, K]; a dense layer has one."""
    if layer in model.layers("moe.up"):
        return _checked(routed(layer))
    return {matrix: values_K[None] for matrix, values_K in dense(model, layer).items()}


def _expert_notes(model: ModelView) -> list[str]:
    most = max(len(model.experts("moe.up", layer)) for layer in model.layers("moe.up"))
    which = f"{SAMPLED} of {most} routed experts a layer, evenly spaced in the order of their router rows' lengths"
    notes = [which] if most > SAMPLED else []
    alone = [
        layer for layer in model.layers("moe.up") if not (model.has("mlp.up", layer) or "moe.shared.up" in model.roles)
    ]
    if alone:
        notes.append(f"routed experts, pooled, stand for the MLP in {len(alone)} layers without a shared expert")
    return notes


def _stacked(layers: Sequence[Array]) -> Array:
    """Return [N, E, K] from [E, K] of each layer, zeros where a layer has fewer."""
    experts, longest = (max((rows_EK.shape[axis] for rows_EK in layers), default=0) for axis in (0, 1))
    stacked_NEK = np.zeros((len(layers), experts, longest))
    for block, rows_EK in zip(stacked_NEK, layers, strict=True):
        block[: rows_EK.shape[0], : rows_EK.shape[1]] = rows_EK
    return stacked_NEK


# -- what all need -------------------------------------------------------------------------------------------------


def _require(model: ModelView, layer: int, roles: Sequence[str]) -> None:
    missing = [role for role in roles if not model.has(role, layer)]
    if missing:
        raise UsageError(f"no {', '.join(missing)}")


def _head_counts(model: ModelView, layer: int) -> tuple[int, int]:
    size = model.heads_at(layer)
    if size is None:
        raise UsageError("shared key/value heads without head counts: add the model's config.json")
    return size.heads, size.kv_heads


def _checked(spectra: Mapping[str, Array]) -> Mapping[str, Array]:
    for product, values_K in spectra.items():
        if not np.isfinite(values_K).all():
            raise UsageError(f"the singular values of {product} exceed what float64 holds")
    return spectra


def _extractors(extract: Callable[..., Fingerprint], **settings: str | int) -> Mapping[bool, Extractor]:
    return {
        fold: Extractor(
            method_id("spectra", VERSION, fold=fold, **settings), partial(extract, fold=fold), on_device=True
        )
        for fold in (True, False)
    }


ATTENTION: Mapping[bool, Extractor] = _extractors(attention_spectra, products="qk+vo")
"""Attention spectra by ``fold``."""

MLP: Mapping[bool, Extractor] = _extractors(mlp_spectra, products="up+down", experts=SAMPLED)
"""MLP spectra by ``fold``."""

# -- what spectra do not see, in the names of kinprint.transform ---------------------------------------------------

_BASES = frozenset({"residual-permutation", "residual-signs"})
_MLP_ONLY = frozenset({"ffn-permutation", "ffn-rescaling", "expert-permutation"})
_HEADS = frozenset({"kv-group-permutation", "query-head-permutation", "vo-gauge"})
_GAINS = frozenset({"residual-rotation", "norm-gain-replacement"})
"""A rotation of the stream goes with gains of one, so it moves gains into the matrices first."""

ATTENTION_IGNORES: Mapping[bool, frozenset[str]] = {
    # Unfolded, the scale that a q or k norm hides is seen.
    True: _BASES | _MLP_ONLY | _HEADS | _GAINS | {"qk-gauge"},
    False: _BASES | _MLP_ONLY | _HEADS,
}
"""Transformations that leave attention spectra as they were, by ``fold``."""

ATTENTION_NOTICES: Mapping[bool, frozenset[str]] = {True: frozenset(), False: _GAINS}

MLP_IGNORES: Mapping[bool, frozenset[str]] = {
    True: (_BASES | _MLP_ONLY | _HEADS | _GAINS | {"qk-gauge"}) - {"ffn-rescaling"},
    False: (_BASES | _MLP_ONLY | _HEADS | {"qk-gauge"}) - {"ffn-rescaling"},
}
"""Transformations that leave the spectra of up and down as they were, by ``fold``."""

MLP_NOTICES: Mapping[bool, frozenset[str]] = {
    True: frozenset({"ffn-rescaling"}),
    False: _GAINS | {"ffn-rescaling"},
}
