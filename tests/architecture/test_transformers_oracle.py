"""Family tables against the models themselves: the parts must be what the module computes with."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from oracle import CASES, Run, activation, run, saved

from kinprint.architecture import UNKNOWN, ModelView, PartKey, families, layout, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.errors import CheckpointError

CLOSE = 1e-5
"""Everything is float64 but transformers' q/k norms, which round to float32: 6e-8 of values below 10."""

every_family = pytest.mark.parametrize("name", CASES)


@cache
def recorded(name: str) -> tuple[Run, ModelView]:
    result = run(name)
    return result, view(result.checkpoint)


def path_of(model: ModelView, role: str, layer: int) -> str:
    return model.tensor_name(role, layer).removesuffix(".weight")


def linear(model: ModelView, role: str, layer: int, values: np.ndarray) -> np.ndarray:
    out = model.array(role, layer) @ values
    return out + model.array(f"{role}.bias", layer) if model.has(f"{role}.bias", layer) else out


def normed(model: ModelView, role: str, layer: int, values: np.ndarray, eps: float) -> np.ndarray:
    """Apply a q or k norm, by head or over all rows as the gain's length says."""
    if not model.has(role, layer):
        return values
    gain = model.gain(role, layer)
    blocks = values.reshape(-1, gain.size)
    return (blocks / np.sqrt((blocks**2).mean(axis=1, keepdims=True) + eps) * gain).reshape(-1)


def epsilon(result: Run) -> float:
    return float(getattr(result.module.config, "rms_norm_eps", 0.0))


@every_family
def test_is_recognised_as_itself_and_covered_whole(name: str) -> None:
    result, model = recorded(name)
    assert model.family.name == result.case.family
    assert model.unmapped == ()
    assert model.coverage == 1.0


@every_family
def test_is_recognised_by_no_other_family(name: str) -> None:
    result, model = recorded(name)
    for table in families():
        if table.name != model.family.name:
            with suppress(CheckpointError):  # the names fit, the shapes do not
                assert view(result.checkpoint, (table,)).family is UNKNOWN, table.name


@every_family
def test_family_does_not_depend_on_what_the_model_is_called(name: str) -> None:
    result, model = recorded(name)
    arrays = {key: result.checkpoint.read(key) for key in result.checkpoint.tensors}
    config = {**result.checkpoint.config, "_name_or_path": "somebody/other-7b", "architectures": ["OtherForCausalLM"]}
    renamed = view(MemoryCheckpoint(arrays, config=config, name="other"))
    assert renamed.family == model.family
    assert renamed.geometry == model.geometry


@every_family
def test_geometry_is_the_configs_and_nothing_is_guessed(name: str) -> None:
    result, model = recorded(name)
    config, geometry = result.module.config, model.geometry
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    assert geometry.heads == config.num_attention_heads
    assert geometry.kv_heads == (1 if getattr(config, "multi_query", False) else kv_heads)
    assert geometry.hidden == config.hidden_size
    assert geometry.layers == config.num_hidden_layers
    assert geometry.head_dim == getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert geometry.vocab == config.vocab_size
    assert geometry.experts == (4 if "moe.up" in model.roles else None)
    assert geometry.rotary_share == {"gpt_neox": 0.25, "glm4_moe": 0.5}.get(name, 1.0)
    assert geometry.inferred == ()


@every_family
def test_queries_keys_and_values_are_the_modules(name: str) -> None:
    result, model = recorded(name)
    assert len(result.attention) == 2
    for layer, (query, key, value) in enumerate(result.attention):
        inside = result.inputs[path_of(model, "attn.q", layer)]
        for role, norm, found in (("attn.q", "norm.q", query), ("attn.k", "norm.k", key), ("attn.v", "", value)):
            expected = linear(model, role, layer, inside)
            if norm:
                expected = normed(model, norm, layer, expected, epsilon(result))
            np.testing.assert_allclose(found.reshape(-1), expected, atol=CLOSE, rtol=0)


@every_family
def test_output_projection_takes_query_heads_in_order(name: str) -> None:
    result, model = recorded(name)
    group = model.geometry.group
    assert group is not None
    for layer, (_, _, value) in enumerate(result.attention):
        expected = linear(model, "attn.o", layer, np.repeat(value, group, axis=0).reshape(-1))
        np.testing.assert_allclose(result.outputs[path_of(model, "attn.o", layer)], expected, atol=CLOSE, rtol=0)


@every_family
def test_gate_up_and_down_are_the_modules(name: str) -> None:
    result, model = recorded(name)
    prefixes = [("mlp", layer) for layer in model.layers("mlp.up")]
    prefixes += [("moe.shared", layer) for layer in model.layers("moe.shared.up")]
    assert prefixes or "moe.up" in model.roles
    for kind, layer in prefixes:
        inside = result.inputs[path_of(model, f"{kind}.up", layer)]
        hidden = linear(model, f"{kind}.up", layer, inside)
        np.testing.assert_allclose(result.outputs[path_of(model, f"{kind}.up", layer)], hidden, atol=CLOSE, rtol=0)
        assert (model.family.ffn == "gated") == model.has(f"{kind}.gate", layer)
        if model.has(f"{kind}.gate", layer):
            hidden = activation(result.case.act, linear(model, f"{kind}.gate", layer, inside)) * hidden
        else:
            hidden = activation(result.case.act, hidden)
        expected = linear(model, f"{kind}.down", layer, hidden)
        np.testing.assert_allclose(result.outputs[path_of(model, f"{kind}.down", layer)], expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe"])
def test_each_expert_is_the_modules(name: str) -> None:
    import torch

    result, model = recorded(name)
    values = np.random.default_rng(5).standard_normal((1, 24))
    for layer in model.layers("moe.up"):
        assert model.experts("moe.up", layer) == [0, 1, 2, 3]
        module = result.module.get_submodule(model.tensor_name("moe.up", layer, 0).removesuffix(".gate_up_proj"))
        for expert in model.experts("moe.up", layer):
            with torch.no_grad():
                found = module(torch.from_numpy(values), torch.tensor([[expert]]), torch.ones(1, 1).double()).numpy()
            gate, up, down = (model.array(f"moe.{part}", layer, expert) for part in ("gate", "up", "down"))
            expected = (activation("silu", values @ gate.T) * (values @ up.T)) @ down.T
            np.testing.assert_allclose(found, expected, atol=CLOSE, rtol=0)


@every_family
def test_folded_matrices_act_on_what_the_norm_makes_before_its_gain(name: str) -> None:
    result, model = recorded(name)
    seen = 0
    for key, place in model.parts.items():
        part = place.part
        if not part.reads or key.layer is None or key.expert is not None or not model.has(part.reads, key.layer):
            continue
        inside = result.inputs[place.tensor.removesuffix(".weight")]
        shift = f"{part.reads}.bias"
        bias = model.array(shift, key.layer) if model.has(shift, key.layer) else np.zeros_like(inside)
        unit = (inside - bias) / model.gain(part.reads, key.layer)
        np.testing.assert_allclose((unit**2).mean(), 1.0, atol=1e-2)  # the norm's epsilon keeps it just below one
        folded = model.array(key.role, key.layer, fold=True) @ unit
        expected = model.array(key.role, key.layer) @ (inside - bias)
        if part.normed and model.has(part.normed, key.layer):
            # The scale of a normed block is free: both go through the norm.
            gain = model.gain(part.normed, key.layer)
            folded = (folded.reshape(-1, gain.size) / gain).reshape(-1)
            folded, expected = (normed(model, part.normed, key.layer, values, 0.0) for values in (folded, expected))
        np.testing.assert_allclose(folded, expected, atol=1e-8, rtol=0)  # divided by gains as small as 1e-2
        seen += 1
    assert (seen > 0) == (model.family.placement != "post")


@every_family
def test_parts_join_to_the_stored_tensors_exactly(name: str) -> None:
    result, model = recorded(name)
    held: dict[str, list[tuple[int, int]]] = {}
    for key, place in model.parts.items():
        held.setdefault(place.tensor, []).append((key.expert or 0 if place.rule.stacked else 0, place.index))
        stored = result.checkpoint.read(place.tensor)
        expert = key.expert if place.rule.stacked else None
        taken = layout.take(stored, place.rule, place.index, expert, model.geometry)
        np.testing.assert_array_equal(taken, model.stored(key.role, key.layer, key.expert))
        assert taken.shape == model.shape(key.role, key.layer, key.expert)
    rules = {place.tensor: place.rule for place in model.parts.values()}
    for tensor, places in held.items():
        stored, rule = result.checkpoint.read(tensor), rules[tensor]
        parts = [
            [layout.take(stored, rule, index, expert, model.geometry) for e, index in sorted(places) if e == expert]
            for expert in sorted({expert for expert, _ in places})
        ]
        np.testing.assert_array_equal(layout.join(parts, rule, model.geometry), stored)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_neox", "bert-mlm", "gemma", "glm4_moe"])
def test_what_save_pretrained_writes_has_the_same_parts(name: str, tmp_path: Path) -> None:
    result, model = recorded(name)
    on_disk = view(saved(result.module, tmp_path, result.checkpoint.config))
    assert on_disk.family.name == model.family.name
    assert on_disk.unmapped == ()
    assert {*model.parts} - {*on_disk.parts} <= {PartKey("unembed")}  # a tied one is written once
    for key in on_disk.parts:
        at = (key.role, key.layer, key.expert)
        np.testing.assert_array_equal(on_disk.stored(*at), model.stored(*at))


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_saved_experts_lie_in_one_tensor_each(name: str, tmp_path: Path) -> None:
    result, model = recorded(name)
    on_disk = view(saved(result.module, tmp_path, result.checkpoint.config))
    assert model.tensor_name("moe.up", 1, 0) == model.tensor_name("moe.gate", 1, 2)
    assert on_disk.tensor_name("moe.up", 1, 0) != on_disk.tensor_name("moe.up", 1, 2)


@pytest.mark.parametrize(
    ("name", "prefix"), [("gpt2", "transformer."), ("bert-mlm", "bert."), ("gpt_neox", "gpt_neox.")]
)
def test_the_prefix_of_the_trunk_may_be_missing(name: str, prefix: str) -> None:
    result, model = recorded(name)
    arrays = {key.removeprefix(prefix): result.checkpoint.read(key) for key in result.checkpoint.tensors}
    bare = view(MemoryCheckpoint(arrays, config=result.checkpoint.config))
    assert (bare.family.name, bare.prefix, bare.coverage) == (model.family.name, "", 1.0)
    assert set(bare.parts) == set(model.parts)


def test_old_bert_names_gamma_and_beta_are_gains_and_biases() -> None:
    result, model = recorded("bert-mlm")
    arrays = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): (
            result.checkpoint.read(key)
        )
        for key in result.checkpoint.tensors
    }
    old = view(MemoryCheckpoint(arrays, config=result.checkpoint.config))
    assert old.coverage == 1.0
    np.testing.assert_array_equal(old.array("norm.mlp_post", 1), model.array("norm.mlp_post", 1))
    np.testing.assert_array_equal(old.array("norm.embed.bias"), model.array("norm.embed.bias"))
