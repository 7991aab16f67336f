"""What kinds of layers a model has, in sentences for the notes of methods that judge attention alone.

A state-space block, linear attention and a short convolution mix tokens too, but have no W_q^T W_k: their layers are
left out and said. Latent attention has one, as a product of low-rank factors.
"""

from __future__ import annotations

from kinprint.architecture import ModelView

ATTENTION_ROLES = ("attn.q", "attn.k", "attn.v", "attn.o")

_MIXERS = {"ssm.": "a state-space block", "linear.": "linear attention", "conv.": "a short convolution"}
"""What stands in the place of attention, by the start of its roles."""

_ALONE = "an MLP alone"
_MLP = ("mlp.", "moe.")
_POSITIONS = ("attn.q_rope", "attn.k_rope")


def attention_notes(model: ModelView) -> list[str]:
    """Return which layers have no attention and what they have instead, and which projections are products.

    Empty for a model whose layers all have attention with projections of their own.
    """
    attention = {layer for role in ATTENTION_ROLES for layer in model.layers(role)}
    kinds = {kind: _layers(model, start) for start, kind in _MIXERS.items()}
    mixing = attention.union(*kinds.values())
    plain = {layer for start in _MLP for layer in _layers(model, start)} - mixing
    if mixing:
        kinds[_ALONE] = plain
    total = len(mixing | plain)
    notes: list[str] = []
    for kind, layers in kinds.items():
        without, beside = sorted(layers - attention), sorted(layers & attention)
        if without:
            said = f"hold {kind} in place of attention: left out of attention ({len(without)} of {total} layers)"
            notes.append(f"layers {', '.join(map(str, without))} {said}")
        if beside:
            notes.append(f"{kind} beside attention in {len(beside)} of {total} layers: attention alone is judged")
    return notes + _product_notes(model)


def _layers(model: ModelView, start: str) -> set[int]:
    return {layer for role in model.roles if role.startswith(start) for layer in model.layers(role)}


def _product_notes(model: ModelView) -> list[str]:
    held = {key.role for key in model.products}
    roles = [role for role in ATTENTION_ROLES if role in held]
    if not roles:
        return []
    parts = "; of attn.q and attn.k the part without positions" if model.roles & set(_POSITIONS) else ""
    return [f"{', '.join(roles)} are products of low-rank factors{parts}"]
