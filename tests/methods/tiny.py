"""Tiny models of Llama form with random weights, gains and biases, built from arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.fingerprints import FingerprintMethod
from kinprint.transform import ModelState, preserve
from kinprint.types import MethodResult


def llama(
    seed: int = 0,
    *,
    layers: int = 4,
    hidden: int = 16,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 4,
    ffn: int = 24,
    bias: bool = False,
    dtype: Any = np.float32,
) -> dict[str, np.ndarray]:
    """Return the tensors of a random model; each layer has a scale of its own."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {
        "model.embed_tokens.weight": rng.standard_normal((8, hidden)),
        "model.norm.weight": np.exp(0.3 * rng.standard_normal(hidden)),
    }
    query, key = heads * head_dim, kv_heads * head_dim
    matrices = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, shape in matrices.items():
            tensors[f"{prefix}{name}.weight"] = np.exp(0.3 * rng.standard_normal()) * rng.standard_normal(shape)
        for name, rows in (("q", query), ("k", key), ("v", key)):
            if bias:
                tensors[f"{prefix}self_attn.{name}_proj.bias"] = rng.standard_normal(rows)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = np.exp(0.3 * rng.standard_normal(hidden))
    return {name: array.astype(dtype) for name, array in tensors.items()}


def mixture(seed: int = 0, *, layers: int = 4, experts: int = 3, shared: bool = True) -> dict[str, np.ndarray]:
    """Return the tensors of a random mixture in Qwen2-MoE's layout."""
    rng = np.random.default_rng(seed + 1000)
    tensors = {name: array for name, array in llama(seed, layers=layers, bias=True).items() if ".mlp." not in name}
    blocks = [f"experts.{expert}" for expert in range(experts)] + ["shared_expert"] * shared
    for layer in range(layers):
        prefix = f"model.layers.{layer}.mlp."
        tensors[f"{prefix}gate.weight"] = rng.standard_normal((experts, 16)).astype(np.float32)
        if shared:
            tensors[f"{prefix}shared_expert_gate.weight"] = rng.standard_normal((1, 16)).astype(np.float32)
        for block in blocks:
            scale = np.exp(0.3 * rng.standard_normal())
            for name, shape in (("gate_proj", (12, 16)), ("up_proj", (12, 16)), ("down_proj", (16, 12))):
                tensors[f"{prefix}{block}.{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return tensors


def model(tensors: Mapping[str, np.ndarray], *, name: str = "tiny", **config: object) -> ModelView:
    """Return a view of tensors; the head size comes from the config unless another is given."""
    return view(MemoryCheckpoint(tensors, config={"head_dim": 4, **config}, name=name))


def moved(tensors: Mapping[str, np.ndarray], names: Iterable[str], seed: int) -> ModelView:
    """Return the model after function-preserving changes; it gets an output matrix, or it could not be rotated."""
    hidden = tensors["model.norm.weight"].size
    output = np.random.default_rng(seed).standard_normal((8, hidden)).astype(np.float32)
    state = ModelState.from_view(model({**tensors, "lm_head.weight": output}))
    return preserve(state, names, np.random.default_rng(seed)).view()


def changed(tensors: Mapping[str, np.ndarray], seed: int, scale: float) -> dict[str, np.ndarray]:
    """Return the tensors with Gaussian noise added, ``scale`` times each tensor's own standard deviation."""
    rng = np.random.default_rng(seed)
    return {
        key: (array + scale * array.std() * rng.standard_normal(array.shape)).astype(array.dtype)
        for key, array in tensors.items()
    }


def run(method: FingerprintMethod, suspect: ModelView, base: ModelView) -> MethodResult:
    """Return what a method gives a pair."""
    return method.compare(method.extractor.extract(suspect), method.extractor.extract(base))


def numbers(result: MethodResult) -> Mapping[str, float]:
    """Return every number of a result, values and controls, by name."""
    found = {value.name: value.value for value in (*result.values, *result.controls)}
    return {name: value for name, value in found.items() if value is not None}


@cache
def built(name: str) -> ModelView:
    """Return a class of transformers, tiny and with random parameters: its tensors alone, with its config."""
    from architecture import causal

    module, config = causal.build(name)
    arrays = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    return view(MemoryCheckpoint(arrays, config=config.to_dict(), name=name))


def tensors_of(built_model: ModelView) -> dict[str, np.ndarray]:
    """Return a copy of every tensor of a model."""
    return {name: np.array(built_model.checkpoint.read(name)) for name in built_model.checkpoint.tensors}


def like(built_model: ModelView, tensors: Mapping[str, np.ndarray]) -> ModelView:
    """Return other tensors under a model's names and config."""
    return view(MemoryCheckpoint(tensors, config=built_model.checkpoint.config))


def latent(seed: int = 0, *, layers: int = 4) -> dict[str, np.ndarray]:
    """Return the tensors of a random model with latent attention in DeepSeek-V3's layout: see ``LATENT``."""
    rng = np.random.default_rng(seed + 2000)
    tensors = {name: array for name, array in llama(seed, layers=layers).items() if ".self_attn." not in name}
    heads, nope, rope, value = 4, 5, 2, 3
    matrices = {
        "q_a_proj": (7, 16),
        "q_b_proj": (heads * (nope + rope), 7),
        "kv_a_proj_with_mqa": (6 + rope, 16),
        "kv_b_proj": (heads * (nope + value), 6),
        "o_proj": (16, heads * value),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}.self_attn."
        for name, shape in matrices.items():
            scale = np.exp(0.3 * rng.standard_normal())
            tensors[f"{prefix}{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
        for name, length in (("q_a_layernorm", 7), ("kv_a_layernorm", 6)):
            tensors[f"{prefix}{name}.weight"] = np.exp(0.3 * rng.standard_normal(length)).astype(np.float32)
    return tensors


LATENT: dict[str, object] = {
    "model_type": "deepseek_v3", "num_attention_heads": 4, "head_dim": 2, "q_lora_rank": 7, "kv_lora_rank": 6,
    "qk_nope_head_dim": 5, "qk_rope_head_dim": 2, "v_head_dim": 3,
}  # fmt: skip
"""The config of :func:`latent`: values are smaller than keys."""
