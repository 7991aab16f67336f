"""GGUF tables against the names that the gguf package gives to the same models' tensors."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from oracle import run

from kinprint.architecture import ModelView, PartKey, view
from kinprint.checkpoint import Array, MemoryCheckpoint

ARCHS = {
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "olmo2": "olmo2",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "bert": "bert",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}

CHANGED: dict[str, dict[str, Any]] = {
    "gpt_neox": {"hidden_size": 32},  # heads of 8, of which a quarter turns: a whole number
    "qwen2_moe": {"mlp_only_layers": []},  # GGUF knows no mixture of dense and sparse layers
    "qwen3_moe": {"mlp_only_layers": []},
}


def converted(model: ModelView, arch: str) -> MemoryCheckpoint:
    """Name and lay out parts as the converter does: [out, in], q/k/v in blocks, experts stacked, gains whole."""
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    names = gguf.get_tensor_name_map(number, model.geometry.layers or 0)
    pieces: dict[str, list[Array]] = {}
    stacked: set[str] = set()
    for key, place in sorted(model.parts.items(), key=lambda item: (item[0].expert or 0, item[1].index)):
        hf_name = place.tensor
        if key.expert is not None:
            hf_name = f"model.layers.{key.layer}.mlp.experts.{key.role.split('.')[-1]}_proj.weight"
        name = names.get_name(hf_name.removeprefix("bert."), (".weight", ".bias"))
        if name is None:
            assert key.role.startswith("head."), hf_name
            continue
        if key.expert is not None:
            stacked.add(name)
        is_gain = key.role.startswith("norm.") and not key.role.endswith(".bias")
        part = model.gain(key.role, key.layer) if is_gain else model.stored(key.role, key.layer, key.expert)
        pieces.setdefault(name, []).append(part)
    arrays = {name: np.stack(parts) if name in stacked else np.concatenate(parts) for name, parts in pieces.items()}
    return MemoryCheckpoint(arrays, config=settings(model, arch))


def settings(model: ModelView, arch: str) -> dict[str, Any]:
    geometry = model.geometry
    sizes: dict[str, Any] = {
        "block_count": geometry.layers,
        "embedding_length": geometry.hidden,
        "attention.head_count": geometry.heads,
        "attention.head_count_kv": geometry.kv_heads,
        "attention.key_length": geometry.head_dim,
        "rope.dimension_count": round((geometry.head_dim or 0) * geometry.rotary_share) or None,
        "expert_count": geometry.experts,
    }
    return {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in sizes.items() if value}}


@pytest.mark.parametrize("name", ARCHS)
def test_parts_geometry_and_folding_are_those_of_the_original(name: str) -> None:
    original = view(run(name, **CHANGED.get(name, {})).checkpoint)
    found = view(converted(original, ARCHS[name]))
    assert found.family.name == original.family.name.replace("gemma", "llama" if name == "gemma" else "gemma")
    assert (found.unmapped, found.coverage) == ((), 1.0)
    assert found.geometry == original.geometry
    for field in ("norm", "placement", "ffn", "positions"):
        assert getattr(found.family, field) == getattr(original.family, field)
    assert found.family.gain == "plain"
    expected = {key for key in original.parts if not key.role.startswith("head.")}
    assert set(found.parts) == expected
    for key in expected:
        at = (key.role, key.layer, key.expert)
        folded = found.array(*at, fold=True)
        if key.role.startswith("norm.") and not key.role.endswith(".bias"):
            np.testing.assert_array_equal(folded, original.gain(key.role, key.layer))
        else:
            np.testing.assert_allclose(folded, original.array(*at, fold=True), atol=1e-12)


def test_a_mixture_of_2023_holds_one_tensor_per_expert() -> None:
    original = view(run("mixtral").checkpoint)
    stacked = converted(original, "llama")
    arrays: dict[str, Array] = {}
    for name in stacked.tensors:
        array = stacked.read(name)
        if "_exps" in name:
            arrays |= {name.replace("_exps", f".{expert}"): array[expert] for expert in range(len(array))}
        else:
            arrays[name] = array
    found = view(MemoryCheckpoint(arrays, config=stacked.config))
    assert (found.family.name, found.coverage) == ("mixtral", 1.0)
    np.testing.assert_array_equal(found.array("moe.down", 1, 3), original.array("moe.down", 1, 3))


def test_rotary_factors_are_ignored_with_a_reason() -> None:
    checkpoint = converted(view(run("mistral").checkpoint), "llama")
    arrays = {name: checkpoint.read(name) for name in checkpoint.tensors}
    found = view(MemoryCheckpoint({**arrays, "rope_freqs.weight": np.ones(4)}, config=checkpoint.config))
    assert (found.unmapped, set(found.ignored)) == ((), {"rope_freqs.weight"})


def test_heads_of_a_classifier_are_mapped() -> None:
    checkpoint = converted(view(run("bert").checkpoint), "bert")
    arrays = {name: checkpoint.read(name) for name in checkpoint.tensors}
    arrays |= {"cls.weight": np.ones((3, 24)), "cls.bias": np.ones(3)}
    found = view(MemoryCheckpoint(arrays, config=checkpoint.config))
    assert found.coverage == 1.0
    assert PartKey("head.pooler") in found.parts
