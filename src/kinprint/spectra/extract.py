"""Singular values of what each layer computes, as fingerprints.

Axes: N = layers, K = singular values, D = residual width, H = rows of a projection.

Attention: M_qk = W_q^T W_k and M_vo = W_o W_v, both D x D, with shared key/value heads expanded by head blocks. MLP:
the up and the down matrix, each by itself. Singular values of a product do not see the basis of the residual stream,
nor what can be moved between its two factors; those of up and down do see the latter. With ``fold`` the gain of the
norm that feeds a matrix is multiplied into it first, because gains can be exchanged with the next matrix without
changing the model; the paper does not do this. Biases and rotary positions do not enter.

Source: GhostSpec, arXiv 2511.06390. Shared key/value heads are not in the paper's text: the whole-layer product sums
the query heads of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError, UsageError
from kinprint.fingerprints import Extractor, Fingerprint
from kinprint.linalg import product_singular_values, singular_values
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum

VERSION = 1  # raise whenever any stored number can change

ATTENTION_ROLES = ("attn.q", "attn.k", "attn.v", "attn.o")
MLP_ROLES = ("mlp.up", "mlp.down", "moe.shared.up", "moe.shared.down", "moe.up", "moe.down")

Layer = Callable[[ModelView, int, bool], Mapping[str, Array]]
"""Spectra of one layer by name, norms folded or not. Raises UsageError with what the layer lacks."""


def attention_spectra(model: ModelView, *, fold: bool) -> Fingerprint:
    """Return the spectra of M_qk and M_vo of every layer.

    Args:
        model: The model.
        fold: Multiply norm gains into q, k and v first.

    Returns:
        ``layers`` [N]; ``qk`` and ``vo`` float64 [N, K], largest first, padded with zeros, which is what the D x D
        product's other singular values are. A layer that lacks a role, or holds NaN or Inf, is absent, and
        ``problems`` says why.
    """
    return _all_layers(model, ATTENTION[fold].id, ("qk", "vo"), ATTENTION_ROLES, partial(_attention, fold=fold))


def mlp_spectra(model: ModelView, *, fold: bool) -> Fingerprint:
    """Return the spectra of the up and the down matrix of every layer's MLP.

    In a mixture the shared expert, which every token passes, stands for the MLP; routed experts have no spectrum here.

    Args:
        model: The model.
        fold: Multiply the norm's gain into up first.

    Returns:
        ``layers`` [N]; ``up`` and ``down`` float64 [N, K], as in :func:`attention_spectra`.
    """
    return _all_layers(model, MLP[fold].id, ("up", "down"), MLP_ROLES, partial(_mlp, fold=fold))


def _all_layers(
    model: ModelView,
    spectra_id: str,
    products: Sequence[str],
    roles: Sequence[str],
    spectra: Callable[[ModelView, int], Mapping[str, Array]],
) -> Fingerprint:
    """Collect every layer's spectra; a layer that cannot be used becomes a line of ``problems``."""
    candidates = sorted({layer for role in roles for layer in model.layers(role)})
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
        arrays[product] = _padded([layer[product] for layer in found.values()])
    return Fingerprint(spectra_id, arrays, tuple(problems))


def _attention(model: ModelView, layer: int, *, fold: bool) -> Mapping[str, Array]:
    _require(model, layer, ATTENTION_ROLES)
    query_HD = model.array("attn.q", layer, fold=fold)
    key_KD = model.array("attn.k", layer, fold=fold)
    if query_HD.shape[0] != key_KD.shape[0]:
        heads, kv_heads = _head_counts(model)
        query_HD = grouped_query_sum(query_HD, heads=heads, kv_heads=kv_heads, head_dim=key_KD.shape[0] // kv_heads)
    qk = product_singular_values(query_HD, key_KD)
    del query_HD, key_KD
    value_KD = model.array("attn.v", layer, fold=fold)
    output_DH = model.array("attn.o", layer, fold=fold)
    if output_DH.shape[1] != value_KD.shape[0]:
        heads, kv_heads = _head_counts(model)
        output_DH = grouped_output_sum(
            output_DH, heads=heads, kv_heads=kv_heads, head_dim=value_KD.shape[0] // kv_heads
        )
    return {"qk": qk, "vo": product_singular_values(output_DH.T, value_KD)}


def _mlp(model: ModelView, layer: int, *, fold: bool) -> Mapping[str, Array]:
    place = "mlp" if model.has("mlp.up", layer) or model.has("mlp.down", layer) else "moe.shared"
    if place == "moe.shared" and not model.has("moe.shared.up", layer):
        raise UsageError("only routed experts, whose spectra the paper does not define")
    _require(model, layer, (f"{place}.up", f"{place}.down"))
    up = singular_values(model.array(f"{place}.up", layer, fold=fold))
    return {"up": up, "down": singular_values(model.array(f"{place}.down", layer, fold=fold))}


def _require(model: ModelView, layer: int, roles: Sequence[str]) -> None:
    missing = [role for role in roles if not model.has(role, layer)]
    if missing:
        raise UsageError(f"no {', '.join(missing)}")


def _head_counts(model: ModelView) -> tuple[int, int]:
    heads, kv_heads = model.geometry.heads, model.geometry.kv_heads
    if heads is None or kv_heads is None:
        raise UsageError("shared key/value heads without head counts: add the model's config.json")
    return heads, kv_heads


def _checked(spectra: Mapping[str, Array]) -> Mapping[str, Array]:
    for product, values_K in spectra.items():
        if not np.isfinite(values_K).all():
            raise UsageError(f"the singular values of {product} exceed what float64 holds")
    return spectra


def _padded(rows: Sequence[Array]) -> Array:
    longest = max((row.size for row in rows), default=0)
    padded_NK = np.zeros((len(rows), longest))
    for row, values in zip(padded_NK, rows, strict=True):
        row[: values.size] = values
    return padded_NK


def _extractors(products: str, extract: Callable[..., Fingerprint]) -> Mapping[bool, Extractor]:
    return {
        fold: Extractor(method_id("spectra", VERSION, fold=fold, products=products), partial(extract, fold=fold))
        for fold in (True, False)
    }


ATTENTION: Mapping[bool, Extractor] = _extractors("qk+vo", attention_spectra)
"""Attention spectra by ``fold``."""

MLP: Mapping[bool, Extractor] = _extractors("up+down", mlp_spectra)
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
