"""Tiny models of Llama form with random weights, gains and biases, built from arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
