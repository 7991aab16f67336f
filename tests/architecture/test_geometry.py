"""Sizes: the config where there is one, shapes otherwise, never in contradiction."""

from __future__ import annotations

from typing import Any

import pytest
from handmade import CONFIG, filled, llama, llama_shapes, moe_shapes

from kinprint.architecture import view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.errors import CheckpointError


def test_heads_come_from_the_config() -> None:
    geometry = view(llama()).geometry
    assert (geometry.heads, geometry.kv_heads, geometry.head_dim, geometry.group) == (4, 2, 4, 2)
    assert (geometry.hidden, geometry.ffn, geometry.vocab, geometry.layers) == (8, 12, 10, 2)
    assert geometry.inferred == ()


def test_heads_without_a_config_are_guessed_and_said_to_be() -> None:
    geometry = view(llama({})).geometry
    assert (geometry.heads, geometry.kv_heads, geometry.head_dim) == (2, 1, 8)
    assert geometry.inferred == ("head_dim = 8 is a guess from the shapes: no config gives the heads",)


@pytest.mark.parametrize(
    ("hidden", "query", "key", "head_dim"), [(576, 576, 192, 64), (4096, 4096, 1024, 128), (2560, 2560, 640, 128)]
)
def test_a_guess_is_the_commonest_head_that_divides_both(hidden: int, query: int, key: int, head_dim: int) -> None:
    from kinprint.architecture.geometry import _guess_head_dim

    assert _guess_head_dim(query, key, hidden) == head_dim


def test_the_length_of_a_head_norm_gives_the_heads_without_a_config() -> None:
    geometry = view(MemoryCheckpoint(filled(moe_shapes()))).geometry
    assert (geometry.heads, geometry.kv_heads, geometry.head_dim, geometry.experts, geometry.ffn) == (4, 2, 4, 3, 6)
    assert geometry.inferred == ("head_dim = 4 from the length of the q and k norms: no config gives the heads",)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("hidden_size", 9, "hidden = 9"),
        ("vocab_size", 11, "vocab = 11"),
        ("intermediate_size", 13, "ffn = 13"),
        ("num_attention_heads", 3, "3 query heads"),
        ("num_attention_heads", 32, "32 query heads"),
        ("num_key_value_heads", 4, "4 key/value heads"),
        ("num_hidden_layers", 3, "config says 3 layers, the checkpoint holds 2"),
        ("head_dim", 8, "4 query heads of 8"),
        ("num_attention_heads", "four", "'four'"),
        ("num_attention_heads", True, "'True'"),
        ("num_attention_heads", 0, "'0'"),
        ("num_attention_heads", -4, "'-4'"),
        ("num_attention_heads", 4.5, "'4.5'"),
        ("num_attention_heads", float("nan"), "'nan'"),
        ("num_attention_heads", 10**30, "not a positive number"),
        ("num_attention_heads", {}, "not a positive number"),
    ],
)
def test_a_config_that_contradicts_the_shapes_is_an_error_of_one_line(key: str, value: Any, says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        view(llama({**CONFIG, key: value}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_query_heads_that_cannot_share_key_heads_are_an_error() -> None:
    shapes = llama_shapes()
    for layer in range(2):
        shapes[f"model.layers.{layer}.self_attn.k_proj.weight"] = (12, 8)
        shapes[f"model.layers.{layer}.self_attn.v_proj.weight"] = (12, 8)
    with pytest.raises(CheckpointError, match="4 query heads cannot share 3 key/value heads"):
        view(MemoryCheckpoint(filled(shapes), config={"num_attention_heads": 4}))


def test_the_language_models_own_table_goes_before_the_top_level() -> None:
    config = {"model_type": "some_vlm", "hidden_size": 1152, "text_config": {**CONFIG, "hidden_size": 8}}
    assert view(llama(config)).geometry.heads == 4


def test_layers_beyond_the_configs_are_kept_and_said() -> None:
    geometry = view(llama(layers=3)).geometry
    assert geometry.layers == 3
    assert geometry.inferred == (
        "layers = 3 from the tensors, the config says 2: the last 1 may be there to predict further tokens",
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        {"rope_parameters": None, "partial_rotary_factor": 0.5},
    ],
)
def test_the_rotary_share_is_found_where_any_version_writes_it(extra: dict[str, Any]) -> None:
    assert view(llama({**CONFIG, **extra})).geometry.rotary_share == 0.5
    assert view(llama()).geometry.rotary_share == 1.0


def test_sizes_given_per_layer_count_as_not_given() -> None:
    assert view(llama({**CONFIG, "intermediate_size": [12, 14]})).geometry.ffn == 12


def test_layers_of_different_width_leave_that_size_open() -> None:
    shapes = llama_shapes()
    shapes |= {
        "model.layers.1.mlp.gate_proj.weight": (7, 8),
        "model.layers.1.mlp.up_proj.weight": (7, 8),
        "model.layers.1.mlp.down_proj.weight": (8, 7),
        "model.layers.1.self_attn.q_proj.weight": (8, 8),
        "model.layers.1.self_attn.o_proj.weight": (8, 8),
    }
    geometry = view(MemoryCheckpoint(filled(shapes), config=CONFIG)).geometry
    assert (geometry.ffn, geometry.heads, geometry.head_dim) == (None, None, None)
    assert geometry.inferred == ("heads unknown: layers differ in their query rows (8 to 16)",)


def test_no_experts_in_the_config_is_no_contradiction() -> None:
    assert view(llama({**CONFIG, "num_experts": 0})).geometry.experts is None
