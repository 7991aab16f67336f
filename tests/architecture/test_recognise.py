"""Which family a checkpoint is of, and what is no model at all."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from handmade import CONFIG, Headers, Shapes, llama, llama_shapes, moe_shapes, without

from kinprint.architecture import UNKNOWN, view, view_like
from kinprint.architecture.naming import GENERIC
from kinprint.checkpoint import Array, MemoryCheckpoint
from kinprint.errors import CheckpointError


def fault(shapes: Shapes, config: dict[str, object] | None = None) -> str:
    """Return the one line that a checkpoint is refused with."""
    with pytest.raises(CheckpointError) as caught:
        view(Headers(shapes, CONFIG if config is None else config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_headers_are_read() -> None:
    assert view(Headers(llama_shapes(), CONFIG)).family.name == "llama"


def test_names_of_no_table_are_an_unknown_family_and_all_unmapped() -> None:
    arrays: dict[str, Array] = {
        "stack.layers.0.gadget.weight": np.ones((6, 2), dtype=np.float32),
        "stack.layers.0.widget.weight": np.ones(2, dtype=np.float32),
        "steps": np.array(1),
    }
    model = view(MemoryCheckpoint(arrays))
    assert model.family is UNKNOWN
    assert model.unmapped == tuple(arrays)[:2]
    assert (model.coverage, model.parameters, model.roles, model.tied) == (0.0, 14, frozenset(), False)
    assert model.info().family == "unknown"


def test_an_empty_checkpoint_is_of_unknown_family() -> None:
    model = view(MemoryCheckpoint({}))
    assert (model.family, model.coverage, model.parameters) == (UNKNOWN, 0.0, 0)


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.0.input_layernorm.bias",
        "model.layers.0.linear_attn.A_log",
        "model.layers.0.pre_feedforward_layernorm.weight",
        "model.layers.0.self_attn.gate_proj.weight",
    ],
)
def test_with_a_tensor_of_another_architecture_llama_names_are_read_and_nothing_is_declared_of_them(extra: str) -> None:
    model = view(Headers({**llama_shapes(), extra: (8,)}, CONFIG))
    assert model.family.name == GENERIC
    assert {"attn.q", "mlp.down"} <= model.roles
    assert model.family.exchangeable("ffn") is not None


def test_gemmas_meaning_of_llamas_names_is_told_by_the_config_alone() -> None:
    gemma = view(llama({**CONFIG, "model_type": "gemma"}))
    assert (gemma.family.name, gemma.family.gain, gemma.notes) == ("gemma", "zero-centred", ())
    inside = view(llama({"model_type": "paligemma", "text_config": {**CONFIG, "model_type": "gemma"}}))
    assert inside.family.name == "gemma"
    plain = view(llama())
    assert (plain.family.name, plain.family.gain, plain.notes) == ("llama", "plain", ())


def test_without_a_config_the_choice_between_llama_and_gemma_is_said() -> None:
    model = view(llama({}))
    assert model.family.name == "llama"
    assert model.notes == (
        "no config tells llama from gemma, whose tensors have the same names and another meaning: read as llama",
    )


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model.model."])
def test_the_language_model_is_found_behind_any_prefix(prefix: str) -> None:
    shapes = {name.replace("model.", prefix, 1): shape for name, shape in llama_shapes().items()}
    shapes["vision_tower.layers.0.self_attn.q_proj.weight"] = (5, 5)
    model = view(Headers(shapes, CONFIG))
    assert (model.family.name, model.prefix) == ("llama", prefix)
    assert model.unmapped == ()
    assert tuple(model.components["vision"].checkpoint.tensors) == ("vision_tower.layers.0.self_attn.q_proj.weight",)


def test_gguf_tables_are_only_for_gguf_and_others_only_for_others() -> None:
    assert view(Headers(llama_shapes(), {**CONFIG, "general.architecture": "llama"})).family.name == GENERIC
    shapes = {"blk.0.attn_norm.weight": (8,), "blk.0.attn_q.weight": (8, 8), "token_embd.weight": (9, 8)}
    assert view(Headers(shapes, {})).family.name == GENERIC


def test_a_part_told_twice_names_both_tensors() -> None:
    shapes = {**llama_shapes(), "language_model.lm_head.weight": (10, 8)}
    said = fault(shapes)
    assert "'lm_head.weight'" in said
    assert "'language_model.lm_head.weight'" in said
    assert "unembed" in said


def test_one_layer_spelled_with_two_numbers_names_both_tensors() -> None:
    shapes = {**llama_shapes(), "model.layers.01.mlp.up_proj.weight": (12, 8)}
    assert "layers.01." in fault(shapes)


def test_a_missing_layer_is_named() -> None:
    assert fault(without(llama_shapes(4), "layers.2."), {}) == "there is a layer 3 and no layer 2: a shard is missing"
    assert "no layer 0" in fault(without(llama_shapes(2), "layers.0."), {})


def test_a_missing_part_of_a_layer_is_said() -> None:
    model = view(Headers(without(llama_shapes(3), "layers.1.self_attn.v_proj"), {}))
    assert "attn.v is missing in 1 of 3 layers, first in layer 1" in model.notes


def test_ragged_shapes_name_both_tensors_and_the_axis() -> None:
    said = fault({**llama_shapes(), "model.layers.1.mlp.down_proj.weight": (8, 11)})
    assert "'model.layers.1.mlp.down_proj.weight' has 11 along ffn.1" in said
    assert "has 12" in said
    said = fault({**llama_shapes(), "model.layers.1.input_layernorm.weight": (7,)}, {"num_attention_heads": 4})
    assert "along residual" in said


@pytest.mark.parametrize("shape", [(), (8,), (2, 12, 8), (0, 8), (12, 0)])
def test_a_shape_that_no_matrix_has_is_named(shape: tuple[int, ...]) -> None:
    said = fault({**llama_shapes(), "model.layers.0.mlp.up_proj.weight": shape})
    assert f"'model.layers.0.mlp.up_proj.weight' has shape {list(shape)}" in said


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("layers.1.mlp.experts.2.", "layer 1 has no moe.down of expert 2, though there are 3 experts"),
        ("layers.0.mlp.experts.1.up_proj", "layer 0 has no moe.up of expert 1, though there are 3 experts"),
        ("layers.1.mlp.experts.", "layer 1 has no moe.down of expert 0"),
    ],
)
def test_a_missing_expert_is_named(lost: str, says: str) -> None:
    assert says in fault(without(moe_shapes(), lost))


def test_an_expert_missing_everywhere_contradicts_the_router() -> None:
    said = fault(without(moe_shapes(), ".experts.2."))
    assert "'model.layers.0.mlp.gate.weight' chooses among 3 experts, layer 0 has 2" in said


def test_experts_fewer_than_the_config_says_are_an_error() -> None:
    assert "config says experts = 8, the tensors have 3" in fault(moe_shapes(), {**CONFIG, "num_experts": 8})


@pytest.mark.parametrize("said", [{}, {"n_group": 1}, {"n_group": None}, {"n_group": 0}])
def test_experts_that_are_routed_together_are_exchangeable(said: dict[str, object]) -> None:
    assert view(Headers(moe_shapes(), {**CONFIG, **said})).family.exchangeable("expert") is None


def test_experts_that_the_config_routes_in_groups_are_not_exchangeable() -> None:
    family = view(Headers(moe_shapes(experts=4), {**CONFIG, "n_group": 2})).family
    assert "2 groups" in str(family.exchangeable("expert"))
    assert [family.exchangeable(group) for group in ("residual", "ffn", "kv")] == [None, None, None]


def test_a_stack_of_absurdly_many_experts_is_refused_at_once() -> None:
    shapes = without(moe_shapes(), ".experts.") | {"model.layers.0.mlp.experts.gate_up_proj": (10**9, 12, 8)}
    assert "no model has 1000000000 experts" in fault(shapes)


def test_dense_and_sparse_layers_may_be_mixed() -> None:
    shapes = without(moe_shapes(3), "layers.0.mlp") | {
        name: shape for name, shape in llama_shapes(1).items() if ".mlp." in name
    }
    model = view(Headers(shapes, {**CONFIG, "intermediate_size": 12, "moe_intermediate_size": 6}))
    assert (model.layers("mlp.up"), model.layers("moe.up"), model.coverage) == ([0], [1, 2], 1.0)
    assert (model.geometry.ffn, model.geometry.experts) == (12, 3)


def neox_shapes() -> Shapes:
    at = "gpt_neox.layers.0."
    shapes: Shapes = {
        f"{at}attention.query_key_value.weight": (24, 8),
        f"{at}attention.dense.weight": (8, 8),
        f"{at}mlp.dense_h_to_4h.weight": (12, 8),
        f"{at}mlp.dense_4h_to_h.weight": (8, 12),
        "gpt_neox.embed_in.weight": (10, 8),
        "embed_out.weight": (10, 8),
    }
    for norm in (f"{at}input_layernorm", f"{at}post_attention_layernorm", "gpt_neox.final_layer_norm"):
        shapes |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    return shapes


def test_interleaved_attention_without_a_config_is_left_unmapped_rather_than_cut_by_a_guess() -> None:
    model = view(Headers(neox_shapes(), {}))
    assert model.unmapped == ("gpt_neox.layers.0.attention.query_key_value.weight",)
    assert model.geometry.inferred == (
        "heads unknown: q, k and v are interleaved by head and no config says how many there are",
    )
    assert "attn.q" in view(Headers(neox_shapes(), {"num_attention_heads": 2})).roles


def test_a_fused_projection_of_impossible_length_is_refused() -> None:
    shapes = {**neox_shapes(), "gpt_neox.layers.0.attention.query_key_value.weight": (7, 8)}
    assert "7 rows cannot hold 8 query rows" in fault(shapes, {"num_attention_heads": 2})


def test_masks_and_frequencies_of_old_checkpoints_are_ignored_with_their_reason() -> None:
    shapes = {
        **neox_shapes(),
        "gpt_neox.layers.0.attention.bias": (1, 1, 16, 16),
        "gpt_neox.layers.0.attention.masked_bias": (),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": (1,),
    }
    model = view(Headers(shapes, {"num_attention_heads": 2}))
    assert (model.unmapped, len(model.ignored)) == ((), 3)
    gpt2: Shapes = {
        "h.0.attn.c_attn.weight": (8, 24),
        "h.0.attn.c_proj.weight": (8, 8),
        "h.0.mlp.c_fc.weight": (8, 32),
        "h.0.mlp.c_proj.weight": (32, 8),
        "wte.weight": (10, 8),
        "wpe.weight": (16, 8),
        "h.0.attn.bias": (1, 1, 16, 16),
        "h.0.attn.masked_bias": (),
        **{f"{norm}.{kind}": (8,) for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f") for kind in ("weight", "bias")},
    }
    model = view(Headers(gpt2, {"n_head": 2}, dtype="F32"))
    assert (model.family.name, model.unmapped) == ("gpt2", ())
    assert set(model.ignored) == {"h.0.attn.bias", "h.0.attn.masked_bias"}


def test_the_time_to_see_a_mixture_grows_with_its_tensors_and_not_with_their_square() -> None:
    def seconds(layers: int) -> float:
        checkpoint = Headers(moe_shapes(layers, experts=64), {**CONFIG, "num_hidden_layers": layers})
        started = time.process_time()
        model = view(checkpoint)
        assert [model.experts("moe.up", layer) for layer in model.layers("moe.up")] == [list(range(64))] * layers
        assert model.coverage == 1.0
        return time.process_time() - started

    seconds(1)
    assert seconds(18) < 15 * seconds(3)  # 6 times the tensors; a square would be 36 times


def test_a_model_like_another_has_its_roles_over_its_own_tensors() -> None:
    shapes = {**llama_shapes(), "vision_model.layers.0.fc1.weight": (4, 4)}
    first, other = Headers(shapes, CONFIG), Headers(shapes, CONFIG)
    known = view(first)
    alike = view_like(known, other)
    assert alike is not None
    assert alike.checkpoint is other
    assert {key: place.tensor for key, place in alike.parts.items()} == {
        key: place.tensor for key, place in view(other).parts.items()
    }
    assert list(alike.components) == ["vision"]
    part, expected = alike.components["vision"].checkpoint, view(other).components["vision"].checkpoint
    assert (list(part.tensors), part.name, part.config) == (list(expected.tensors), expected.name, expected.config)


@pytest.mark.parametrize("what", ["config", "a shape", "a dtype", "a name", "the order"])
def test_a_model_that_differs_from_another_is_recognised_by_itself(what: str) -> None:
    shapes, known = llama_shapes(), view(Headers(llama_shapes(), CONFIG))
    name, shape = next(iter(shapes.items()))
    if what == "a shape":
        shapes[name] = (shape[0] + 1, *shape[1:])
    elif what == "a name":
        shapes = {other + ("x" if other == name else ""): length for other, length in shapes.items()}
    elif what == "the order":
        shapes = dict(reversed(shapes.items()))
    other = Headers(shapes, {**CONFIG, "rope_theta": 1.0} if what == "config" else CONFIG)
    if what == "a dtype":
        other.tensors = {one: replace(info, dtype="F16") for one, info in other.tensors.items()}
    assert view_like(known, other) is None
