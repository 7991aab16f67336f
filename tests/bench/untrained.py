"""A zoo of untrained models: independent by construction, and written in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinprint.zoo.manifest import Manifest, ModelEntry, manifest_bytes
from kinprint.zoo.model import Model, put

MODELS = 10
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 40,
    "vocab_size": 24,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32,
}
SHAPES = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (8, 16),
    "self_attn.v_proj": (8, 16),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (40, 16),
    "mlp.up_proj": (40, 16),
    "mlp.down_proj": (16, 40),
}


def untrained(seed: int, **changed: Any) -> Model:
    """Return a random decoder of Llama form, with settings of its config changed."""
    rng, config = np.random.default_rng(seed), CONFIG | changed
    tokens = (config["vocab_size"], 16)
    weights = {name: rng.standard_normal(tokens) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    weights["model.norm.weight"] = 1 + 0.1 * rng.standard_normal(16)
    for layer in range(2):
        for name, shape in SHAPES.items():
            weights[f"model.layers.{layer}.{name}.weight"] = rng.standard_normal(shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = 1 + 0.1 * rng.standard_normal(16)
    return Model(config, {name: array.astype(np.float32) for name, array in weights.items()}, {})


def entry(name: str, digest: str = "sha256:0", **changed: object) -> ModelEntry:
    """Return a manifest's entry."""
    facts = {
        "name": name,
        "summary": "made for tests",
        "kind": "trained",
        "parent": None,
        "roots": (name,),
        "settings": {},
        "recipe_digest": "",
        "texts": {},
        "family": "llama",
        "parameters": 0,
        "losses": None,
        "same_function": None,
        "weights_file": "model.safetensors",
        "weights_bytes": 0,
        "weights_sha256": "",
        "content_digest": digest,
        "seconds": 0.0,
        "versions": {},
    }
    return ModelEntry.model_validate(facts | changed)


def manifest(*entries: ModelEntry, suite: str = "made") -> Manifest:
    """Return a manifest."""
    return Manifest(suite=suite, summary="for tests", hours=0, texts=(), models=entries)


def write_zoo(folder: Path) -> Path:
    """Write ten models and a child of the first, with a manifest; return the folder."""
    entries: list[ModelEntry] = []
    for seed in range(MODELS):
        model, name = untrained(seed), f"m{seed}"
        model.write(folder / name)
        entries.append(entry(name, model.content_digest, settings={"seed_init": seed}))
    untrained(0).write(folder / "child")
    entries.append(entry("child", untrained(0).content_digest, kind="derived", parent="m0", roots=("m0",)))
    put(folder / "zoo.json", manifest_bytes(manifest(*entries)))
    return folder
