"""A dense model made a mixture of experts, each a copy of its MLP.

Source: Komatsuzaki et al., Sparse Upcycling (arXiv 2212.05055), section 3: experts are copies of the dense MLP,
everything else is copied, and the router is drawn anew. With weights that are normalised over the chosen experts, the
mixture computes what the dense model did until noise or training tells the experts apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kinprint.architecture import Family, PartKey, Rule
from kinprint.architecture.family import families
from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.transform.damaging import disturbed
from kinprint.transform.state import ModelState

ROUTER_STD = 0.02
"""Standard deviation of a new router (the paper's appendix, and the usual one of matrices)."""

_PROJECTIONS = ("gate", "up", "down")

_DENSE_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` that compute what the mixtures below compute around their MLPs."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One architecture of mixtures in transformers, and how its config is written."""

    family: str
    architecture: str
    experts: str
    units: tuple[str, ...] = ("moe_intermediate_size",)
    more: Mapping[str, object] | None = None


_WITHOUT_DENSE_LAYERS: Mapping[str, object] = {
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
_MIXTRAL = _Form("mixtral", "MixtralForCausalLM", "num_local_experts", ())
_QWEN2 = _Form(
    "qwen2_moe",
    "Qwen2MoeForCausalLM",
    "num_experts",
    ("moe_intermediate_size", "shared_expert_intermediate_size"),
    _WITHOUT_DENSE_LAYERS,
)
_QWEN3 = _Form("qwen3_moe", "Qwen3MoeForCausalLM", "num_experts", more=_WITHOUT_DENSE_LAYERS)


def upcycled(model: ModelState, *, experts: int, active: int, noise: float, rng: np.random.Generator) -> ModelState:
    """Return a mixture made of a dense model of Llama's form.

    Llama and Mistral become Mixtral, Qwen2 becomes Qwen2-MoE and Qwen3 becomes Qwen3-MoE. Qwen2-MoE has a shared
    expert besides, behind a gate: it is a copy of the MLP too, a gate of zeros weighs it with 1/2, and the other
    experts' down projections are halved.

    Args:
        model: The dense model.
        experts: Experts in each layer.
        active: Experts that each token is sent to.
        noise: Standard deviation of the noise on each expert's matrices, as a share of their own; 0 for none.
        rng: Where the router and the noise come from.

    Raises:
        UsageError: The model is none that these mixtures can hold.
    """
    if (reason := obstacle(model)) is not None:
        raise UsageError(f"cannot make a mixture of this model: {reason}")
    if not 1 <= active <= experts:
        raise UsageError(f"cannot send a token to {active} of {experts} experts: choose from 1 to {experts}")
    form = _form(model)
    family = next(family for family in families() if family.name == form.family and not family.archs)
    parts = {key: array for key, array in model.parts.items() if not key.role.startswith("mlp.")}
    for layer in sorted({key.layer for key in model.parts if key.role == "mlp.up" and key.layer is not None}):
        parts |= _mixture(model, form, layer, experts, noise, rng)
    rules = {**_rules(family), **model.rules}
    return replace(
        model,
        family=family,
        parts=parts,
        rules={key.role: rules[key.role] for key in parts},
        geometry=replace(model.geometry, experts=experts),
        config=_config(model, form, experts, active),
    )


def obstacle(model: ModelState) -> str | None:
    """Return why a model cannot be made a mixture, None where it can."""
    roles = {key.role for key in model.parts}
    kind = model.config.get("model_type")
    if "moe.router" in roles:
        return "it has experts already"
    if model.family.name != "llama" or kind not in _DENSE_TYPES:
        return f"only {', '.join(_DENSE_TYPES)} have a form with experts here, this is {kind or model.family.name}"
    if any(f"mlp.{projection}.bias" in roles for projection in _PROJECTIONS) or "attn.o.bias" in roles:
        return "no form with experts has its biases in the MLP or on the output of attention"
    return "some of its layers see a window only" if model.config.get("use_sliding_window") else None


def _form(model: ModelState) -> _Form:
    roles = {key.role for key in model.parts}
    if "norm.q" in roles:
        return _QWEN3
    return _QWEN2 if "attn.q.bias" in roles else _MIXTRAL


def _mixture(
    model: ModelState, form: _Form, layer: int, experts: int, noise: float, rng: np.random.Generator
) -> dict[PartKey, Array]:
    dense = {projection: model.parts[PartKey(f"mlp.{projection}", layer)] for projection in _PROJECTIONS}
    hidden = dense["up"].shape[1]
    made: dict[PartKey, Array] = {PartKey("moe.router", layer): ROUTER_STD * rng.standard_normal((experts, hidden))}
    shared = form is _QWEN2
    for expert in range(experts):
        for projection, matrix in dense.items():
            copy = matrix / 2 if shared and projection == "down" else matrix
            made[PartKey(f"moe.{projection}", layer, expert)] = disturbed(copy, noise, rng) if noise else copy
    if shared:
        made |= {PartKey(f"moe.shared.{projection}", layer): matrix for projection, matrix in dense.items()}
        made[PartKey("moe.shared.router", layer)] = np.zeros((1, hidden))
    return made


def _rules(family: Family) -> dict[str, Rule]:
    """Return the rule of each role, with one tensor per expert where the family has both spellings."""
    return {part.role: rule for rule in family.tensor if not rule.stacked for part in rule.parts}


def _config(model: ModelState, form: _Form, experts: int, active: int) -> dict[str, object]:
    """Return the dense config with what the mixture adds, and with what transformers would take another default for."""
    config, geometry = dict(model.config), model.geometry
    if form is not _QWEN2:
        config.pop("layer_types", None)
    config.setdefault("rms_norm_eps", 1e-6)
    if config.get("rope_parameters") is None:
        config.setdefault("rope_theta", 10000.0)
    return {
        **config,
        "architectures": [form.architecture],
        "model_type": form.family,
        "num_attention_heads": geometry.heads,
        "num_key_value_heads": geometry.kv_heads,
        "head_dim": geometry.head_dim,
        form.experts: experts,
        "num_experts_per_tok": active,
        "router_aux_loss_coef": 0.01,  # Fedus et al., Switch Transformers (arXiv 2101.03961), equation 4
        **dict.fromkeys(form.units, geometry.ffn),
        **(form.more or {}),
    }
