"""Families made from names: what the lexicon knows, what it asks of the names beside, and what it leaves undeclared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from handmade import Headers

from kinprint.architecture import UNKNOWN, ModelView, PartKey, families, view
from kinprint.architecture.lexicon import gguf_words, lexicon, roles_by_name
from kinprint.architecture.naming import GENERIC
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

LINEAR: Mapping[str, tuple[int, ...]] = {
    "self_attn.q_proj.weight": (8, 8), "self_attn.k_proj.weight": (4, 8), "self_attn.v_proj.weight": (4, 8),
    "self_attn.out_proj.weight": (8, 8), "fc1.weight": (12, 8), "fc2.weight": (8, 12),
    "input_layernorm.weight": (8,), "post_attention_layernorm.weight": (8,),
}  # fmt: skip


def stack(inside: Mapping[str, tuple[int, ...]] = LINEAR, path: str = "net.trunk.layers", count: int = 2) -> Shapes:
    shapes: Shapes = {
        "net.trunk.embed_tokens.weight": (20, 8),
        "lm_head.weight": (20, 8),
        "net.trunk.norm.weight": (8,),
    }
    return shapes | {f"{path}.{layer}.{name}": shape for layer in range(count) for name, shape in inside.items()}


def seen(shapes: Shapes, **config: object) -> ModelView:
    return view(Headers(shapes, {"num_attention_heads": 2, **config}))


def filled(shapes: Shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["net.trunk.layers", "a.b.c.h", "blocks", "model.decoder.layers"])
def test_names_are_known_behind_any_path(path: str) -> None:
    model = seen(stack(path=path))
    assert (model.family.name, model.coverage, model.geometry.layers) == (GENERIC, 1.0, 2)
    assert model.tensor_name("mlp.up", 1) == f"{path}.1.fc1.weight"
    assert model.geometry.kv_heads == 1


def test_names_that_nobody_uses_make_no_family() -> None:
    assert seen({"net.layers.0.gadget.weight": (8, 8), "net.layers.1.gadget.weight": (8, 8)}).family is UNKNOWN


def test_a_name_that_the_lexicon_leaves_out_is_found_through_gguf() -> None:
    assert "encoder.layers.{layer}.attn.Wqkv" not in roles_by_name("layer")
    assert gguf_words()["transformer.h.#.ln_1"] == "attn_norm"
    shapes = stack({**LINEAR, "self_attn.attn_sub_norm.weight": (8,)})
    assert seen(shapes).unmapped == ()


def test_what_has_no_common_role_keeps_its_own_name() -> None:
    model = seen(stack({**LINEAR, "self_attn.indexer.wk.weight": (6, 8), "laurel.linear_left.weight": (3, 8)}))
    assert model.has("other.self_attn.indexer.wk", 1)
    assert model.has("other.laurel.linear_left", 0)
    assert model.coverage == 1.0


def test_every_role_of_the_lexicon_exists_and_no_name_plays_two() -> None:
    assert roles_by_name("layer")["self_attn.q_proj"] == "attn.q"
    assert roles_by_name("top")["wte"] == "embed.token"
    fused = {part["role"] for entry in lexicon().entry for part in entry.parts}
    assert set(lexicon().roles) <= {*lexicon().layer, *lexicon().top, *fused}


# -- what nobody declared ------------------------------------------------------------------------------------------


def test_of_a_model_type_that_nobody_described_nothing_is_exchangeable() -> None:
    assert seen(stack()).family.labels == {}
    assert seen(stack(), model_type="my_new_model").family.labels == {}
    known = seen(stack(), model_type="arcee")
    assert (known.family.name, known.family.exchangeable("ffn")) == ("arcee", None)


def test_fixed_slopes_and_waves_are_no_exchangeable_numbering() -> None:
    assert "ALiBi" in str(seen(stack(), model_type="mpt").family.exchangeable("kv"))
    assert "waves" in str(seen(stack(), model_type="ctrl").family.exchangeable("residual"))


def test_heads_and_experts_that_a_constant_tells_apart_are_not_exchangeable() -> None:
    """What is the same in every model would line up strangers: patterns, pairs, tables of tokens."""
    assert "pairs" in str(seen(stack(), model_type="diffllama").family.exchangeable("kv"))
    assert "blocks" in str(seen(stack(), model_type="big_bird").family.exchangeable("kv"))
    assert "table" in str(seen(stack(), model_type="deepseek_v4").family.exchangeable("expert"))
    assert "ALiBi" in str(seen(stack(), model_type="falcon", alibi=True).family.exchangeable("kv"))
    assert seen(stack(), model_type="falcon", alibi=False).family.exchangeable("kv") is None


def test_contradicting_shapes_are_an_error_where_the_type_is_known_and_no_roles_where_it_is_not() -> None:
    shapes = stack() | {"net.trunk.layers.1.fc2.weight": (8, 13)}
    with pytest.raises(CheckpointError, match=r"has 1[23] along ffn\.1"):
        seen(shapes, model_type="arcee")
    unread = seen(shapes)
    assert unread.inferred
    assert any("along ffn.1" in note for note in unread.notes)


def test_a_config_of_another_model_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="config says 5 layers, the checkpoint holds 2"):
        seen(stack(), model_type="arcee", num_hidden_layers=5)
    with pytest.raises(CheckpointError, match="config belongs to another model"):
        seen(stack(), model_type="arcee", num_attention_heads=3)


# -- norms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "dropped", "role", "placement"),
    [
        ((), (), "norm.mlp", "pre"),
        (("pre_feedforward_layernorm.weight",), (), "norm.attn_post", "sandwich"),
        (("post_feedforward_layernorm.weight",), ("input_layernorm.weight",), "norm.attn_post", "post"),
        (("post_self_attn_layernorm.weight", "post_mlp_layernorm.weight"), (), "norm.mlp", "sandwich"),
    ],
)
def test_what_the_second_norm_does_depends_on_those_beside_it(
    extra: tuple[str, ...], dropped: tuple[str, ...], role: str, placement: str
) -> None:
    inside = {name: shape for name, shape in LINEAR.items() if name not in dropped} | dict.fromkeys(extra, (8,))
    model = seen(stack(inside))
    assert model.tensor_name(role, 0).endswith("post_attention_layernorm.weight")
    assert model.family.placement == placement
    feeds = {place.part.role: place.part.reads for place in model.parts.values()}
    assert feeds["attn.q"] == ("" if placement == "post" else "norm.attn")


def test_one_norm_feeds_both_halves_of_a_parallel_block() -> None:
    model = seen(stack({name: shape for name, shape in LINEAR.items() if not name.startswith("post_")}))
    assert model.parts[PartKey("mlp.up", 0)].part.reads == "norm.attn"


def test_gains_stored_minus_one_and_norms_without_biases_come_from_the_type() -> None:
    assert seen(stack(), model_type="vaultgemma").family.gain == "zero-centred"
    assert seen(stack(), model_type="cohere").family.norm == "layer"
    assert seen(stack(LINEAR | {"input_layernorm.bias": (8,)})).family.norm == "layer"
    assert seen(stack()).family.norm == "rms"


# -- layers of several kinds ---------------------------------------------------------------------------------------


def test_layers_of_another_kind_read_the_same_name_in_another_way() -> None:
    linear = {**LINEAR, "self_attn.forget_gate.A_log": (2,), "self_attn.b_proj.weight": (2, 8)}
    shapes = stack(linear) | {f"net.trunk.layers.2.{name}": shape for name, shape in LINEAR.items()}
    model = seen(shapes)
    assert (model.layers("linear.q"), model.layers("attn.q")) == ([0, 1], [2])
    assert model.layers("linear.out") == [0, 1]


def test_state_space_and_convolution_blocks_have_roles_of_their_own() -> None:
    mamba = {
        "input_layernorm.weight": (8,), "mamba.in_proj.weight": (32, 8), "mamba.conv1d.weight": (16, 1, 4),
        "mamba.A_log": (16, 4), "mamba.D": (16,), "mamba.out_proj.weight": (8, 16),
        "conv.in_proj.weight": (24, 8), "conv.conv.weight": (8, 1, 3), "conv.out_proj.weight": (8, 8),
    }  # fmt: skip
    model = seen(stack(mamba))
    assert model.shape("ssm.conv", 0) == (16, 4)
    assert {"ssm.in", "ssm.A", "ssm.D", "ssm.out", "conv.in", "conv.kernel", "conv.out"} <= model.roles
    assert "attn.q" not in model.roles


def test_heads_of_sliding_layers_are_their_own() -> None:
    shapes = stack() | {f"net.trunk.layers.2.{name}": shape for name, shape in LINEAR.items()}
    shapes |= {
        "net.trunk.layers.2.self_attn.q_proj.weight": (12, 8),
        "net.trunk.layers.2.self_attn.k_proj.weight": (6, 8),
    }
    shapes |= {
        "net.trunk.layers.2.self_attn.v_proj.weight": (6, 8),
        "net.trunk.layers.2.self_attn.out_proj.weight": (8, 12),
    }
    model = seen(
        shapes, num_key_value_heads=1, head_dim=4, swa_num_attention_heads=4, swa_num_key_value_heads=2, swa_head_dim=3
    )
    first, last = model.heads_at(0), model.heads_at(2)
    assert first is not None
    assert last is not None
    assert (first.heads, first.kv_heads, first.head_dim) == (2, 1, 4)
    assert (last.heads, last.kv_heads, last.head_dim) == (4, 2, 3)


# -- fused ---------------------------------------------------------------------------------------------------------


def test_halves_of_a_fused_mlp_are_told_by_the_matrix_behind_it() -> None:
    plain = {**LINEAR, "mlp.dense_h_to_4h.weight": (12, 8), "mlp.dense_4h_to_h.weight": (8, 12)}
    del plain["fc1.weight"], plain["fc2.weight"]
    assert "mlp.gate" not in seen(stack(plain)).roles
    gated = seen(stack(plain | {"mlp.dense_h_to_4h.weight": (24, 8)}))
    assert gated.shape("mlp.gate", 0) == gated.shape("mlp.up", 0) == (12, 8)


def test_interleaved_transposed_experts_by_hand() -> None:
    """gpt-oss: [expert, in, 2 * out], gate and up in turns."""
    inside = {name: shape for name, shape in LINEAR.items() if not name.startswith("fc")}
    inside |= {"mlp.experts.gate_up_proj": (2, 8, 6), "mlp.experts.down_proj": (2, 3, 8), "mlp.router.weight": (2, 8)}
    arrays = filled(stack(inside))
    model = view(MemoryCheckpoint(arrays, config={"model_type": "gpt_oss", "num_attention_heads": 2}))
    stored = arrays["net.trunk.layers.1.mlp.experts.gate_up_proj"]
    np.testing.assert_array_equal(model.array("moe.gate", 1, 1), stored[1][:, ::2].T)
    np.testing.assert_array_equal(model.array("moe.up", 1, 1), stored[1][:, 1::2].T)
    down = arrays["net.trunk.layers.1.mlp.experts.down_proj"]
    np.testing.assert_array_equal(model.array("moe.down", 1, 0), down[0].T)


def latent() -> Shapes:
    """Two heads of 3 coordinates without and 2 with positions, values of 4; latent vectors of 5 and 6."""
    inside = {
        "self_attn.q_a_proj.weight": (5, 8),
        "self_attn.q_a_layernorm.weight": (5,),
        "self_attn.q_b_proj.weight": (10, 5),
        "self_attn.kv_a_proj_with_mqa.weight": (8, 8),
        "self_attn.kv_a_layernorm.weight": (6,),
        "self_attn.kv_b_proj.weight": (14, 6),
        "self_attn.o_proj.weight": (8, 8),
        "mlp.gate_proj.weight": (12, 8),
        "mlp.up_proj.weight": (12, 8),
        "mlp.down_proj.weight": (8, 12),
        "input_layernorm.weight": (8,),
        "post_attention_layernorm.weight": (8,),
    }
    return stack(inside)


LATENT = {"qk_nope_head_dim": 3, "qk_rope_head_dim": 2, "v_head_dim": 4, "num_attention_heads": 2}


def test_latent_attention_is_the_product_of_its_factors_by_hand() -> None:
    arrays = filled(latent())
    model = view(MemoryCheckpoint(arrays, config=LATENT))
    at = "net.trunk.layers.1.self_attn."
    assert (model.geometry.heads, model.geometry.head_dim, model.geometry.rope_dim, model.geometry.value_dim) == (
        2,
        3,
        2,
        4,
    )
    gain = arrays[f"{at}q_a_layernorm.weight"]
    rows = arrays[f"{at}q_b_proj.weight"].reshape(2, 5, 5)[:, :3].reshape(6, 5)
    np.testing.assert_allclose(model.array("attn.q", 1), (rows * gain) @ arrays[f"{at}q_a_proj.weight"], rtol=1e-5)
    gain = arrays[f"{at}kv_a_layernorm.weight"]
    latent_rows = arrays[f"{at}kv_a_proj_with_mqa.weight"][:6]
    values = arrays[f"{at}kv_b_proj.weight"].reshape(2, 7, 6)[:, 3:].reshape(8, 6)
    np.testing.assert_allclose(model.array("attn.v", 1), (values * gain) @ latent_rows, rtol=1e-5)
    np.testing.assert_array_equal(model.array("attn.k_rope", 1), arrays[f"{at}kv_a_proj_with_mqa.weight"][6:])
    assert model.shape("attn.k", 1) == (6, 8)
    assert model.layers("attn.q") == [0, 1]
    first, block = next(iter(model.row_blocks("attn.q", 1)))
    np.testing.assert_array_equal(block, model.array("attn.q", 1)[first:])


def test_folding_reaches_through_the_factors() -> None:
    model = view(MemoryCheckpoint(filled(latent()), config=LATENT))
    expected = model.array("attn.k", 0) * model.gain("norm.attn", 0)
    np.testing.assert_allclose(model.array("attn.k", 0, fold=True), expected, rtol=1e-4)


def test_latent_attention_without_a_config_keeps_what_needs_no_sizes() -> None:
    model = view(MemoryCheckpoint(filled(latent())))
    assert model.geometry.heads is None
    assert {"attn.q_a", "attn.o", "mlp.up"} <= model.roles
    assert "attn.q" not in model.roles


# -- beside the language model -------------------------------------------------------------------------------------


def test_an_encoder_beside_a_decoder_is_a_component() -> None:
    t5 = {
        "layer.0.SelfAttention.q.weight": (8, 8), "layer.0.SelfAttention.k.weight": (8, 8),
        "layer.0.SelfAttention.v.weight": (8, 8), "layer.0.SelfAttention.o.weight": (8, 8),
        "layer.0.layer_norm.weight": (8,),
    }  # fmt: skip
    cross = {f"layer.1.EncDecAttention.{name}.weight": (8, 8) for name in "qkvo"} | {"layer.1.layer_norm.weight": (8,)}

    def mlp(at: int) -> dict[str, tuple[int, ...]]:
        inside = {"DenseReluDense.wi": (12, 8), "DenseReluDense.wo": (8, 12), "layer_norm": (8,)}
        return {f"layer.{at}.{name}.weight": shape for name, shape in inside.items()}

    shapes: Shapes = {
        "shared.weight": (20, 8),
        "encoder.final_layer_norm.weight": (8,),
        "decoder.final_layer_norm.weight": (8,),
    }
    for layer in range(2):
        shapes |= {f"encoder.block.{layer}.{name}": shape for name, shape in (t5 | mlp(1)).items()}
        shapes |= {f"decoder.block.{layer}.{name}": shape for name, shape in (t5 | cross | mlp(2)).items()}
    model = seen(shapes)
    assert list(model.components) == ["encoder"]
    assert {"attn.q", "cross.k", "mlp.up", "norm.attn", "norm.cross"} <= model.roles
    assert {"attn.q", "mlp.up", "norm.attn"} <= model.components["encoder"].roles
    assert model.tensor_name("norm.mlp", 1) == "decoder.block.1.layer.2.layer_norm.weight"
    assert model.components["encoder"].tensor_name("norm.mlp", 1) == "encoder.block.1.layer.1.layer_norm.weight"
    assert model.unmapped == model.components["encoder"].unmapped == ()


def test_layers_that_look_ahead_are_no_part_of_the_depth() -> None:
    ahead = {**LINEAR, "eh_proj.weight": (8, 16), "enorm.weight": (8,), "hnorm.weight": (8,)}
    shapes = stack() | {f"net.trunk.layers.2.{name}": shape for name, shape in ahead.items()}
    model = seen(shapes, num_hidden_layers=2)
    assert model.geometry.layers == 2
    assert len(model.components["mtp"].checkpoint.tensors) == len(ahead)
    assert seen(shapes).components == {}  # nothing says how deep the model is


def test_of_two_stacks_the_smaller_is_a_component() -> None:
    shapes = stack() | {f"net.patcher.layers.0.{name}": shape for name, shape in LINEAR.items()}
    model = seen(shapes)
    assert list(model.components) == ["patcher"]
    assert model.geometry.layers == 2


def test_of_two_names_for_one_role_the_same_has_it_in_every_order() -> None:
    further = {"net.trunk.final_norm.weight": (8,), "net.trunk.layer_norm.weight": (8,), "net.trunk.ln_f.weight": (8,)}
    shapes = list((stack() | further).items())
    for order in (shapes, shapes[::-1]):
        model = seen(dict(order))
        assert model.tensor_name("norm.final") == "net.trunk.norm.weight"
        assert model.unmapped == ()


def test_tables_come_before_the_lexicon() -> None:
    names = {family.name for family in families()}
    assert "llama" in names
    assert not names & set(lexicon().known)


# -- other spellings -----------------------------------------------------------------------------------------------


def test_gguf_latent_attention_is_the_same_as_hugging_faces() -> None:
    """llama.cpp stores keys and values by head, [head, rank, size] and [head, size, rank]."""
    arrays = filled(latent())
    model = view(MemoryCheckpoint(arrays, config=LATENT))
    words = {
        "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
        "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    tensors = {"token_embd.weight": arrays["net.trunk.embed_tokens.weight"]}
    for layer in range(2):
        at = f"net.trunk.layers.{layer}."
        tensors |= {f"blk.{layer}.{word}.weight": arrays[f"{at}{name}.weight"] for name, word in words.items()}
        both = arrays[f"{at}self_attn.kv_b_proj.weight"].reshape(2, 7, 6)
        tensors[f"blk.{layer}.attn_k_b.weight"] = both[:, :3].transpose(0, 2, 1)
        tensors[f"blk.{layer}.attn_v_b.weight"] = both[:, 3:]
    sizes = {"attention.head_count": 2, "attention.key_length_mla": 5, "rope.dimension_count": 2}
    config = {"general.architecture": "deepseek2", **{f"deepseek2.{key}": value for key, value in sizes.items()}}
    config["deepseek2.attention.value_length_mla"] = 4
    found = view(MemoryCheckpoint(tensors, config=config))
    assert found.unmapped == ()
    for role in ("attn.q", "attn.k", "attn.v", "attn.o", "attn.q_rope", "attn.k_rope", "mlp.gate"):
        np.testing.assert_allclose(found.array(role, 1), model.array(role, 1), rtol=1e-6)


def test_gguf_stores_gains_as_they_act() -> None:
    shapes = {f"blk.{layer}.{name}.weight": (8, 8) for layer in (0, 1) for name in ("attn_q", "attn_k", "ffn_up")}
    shapes |= {f"blk.{layer}.attn_norm.weight": (8,) for layer in (0, 1)}
    assert view(Headers(shapes, {"general.architecture": "nemotron"})).family.gain == "plain"
    assert view(Headers(shapes, {"general.architecture": "command-r"})).family.norm == "layer"


def test_bare_torch_transformers_are_read() -> None:
    import torch

    torch.manual_seed(0)
    settings = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "num_encoder_layers": 2, "num_decoder_layers": 2}
    module = torch.nn.Transformer(**settings, batch_first=True)
    model = view(MemoryCheckpoint({name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}))
    assert model.unmapped == ()
    assert {"attn.q", "attn.o", "cross.q", "cross.o", "mlp.up", "norm.cross_post"} <= model.roles
    assert {"attn.v", "mlp.down", "norm.mlp_post"} <= model.components["encoder"].roles
    stored = module.state_dict()["decoder.layers.1.multihead_attn.in_proj_weight"].numpy()
    np.testing.assert_array_equal(model.array("cross.v", 1), stored[16:])
    stored = module.state_dict()["decoder.layers.1.self_attn.in_proj_weight"].numpy()
    np.testing.assert_array_equal(model.array("attn.k", 1), stored[8:16])


def test_fairseq_encoders_are_read() -> None:
    weighted = {"weight": (8, 8), "bias": (8,)}
    names = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj")
    inside = {f"{name}.{kind}": shape for name in names for kind, shape in weighted.items()}
    inside |= {f"{name}.{kind}": (8,) for name in ("self_attn_layer_norm", "final_layer_norm") for kind in weighted}
    inside |= {"fc1.weight": (12, 8), "fc1.bias": (12,), "fc2.weight": (8, 12), "fc2.bias": (8,)}
    path = "decoder.sentence_encoder."
    shapes: Shapes = {f"{path}embed_tokens.weight": (20, 8), f"{path}embed_positions.weight": (12, 8)}
    shapes |= {f"{path}layers.{layer}.{name}": shape for layer in (0, 1) for name, shape in inside.items()}
    shapes |= {"decoder.lm_head.dense.weight": (8, 8), "decoder.lm_head.layer_norm.weight": (8,)}
    model = seen(shapes)
    assert (model.unmapped, model.geometry.layers) == ((), 2)
    assert {"attn.q", "attn.o", "mlp.up", "mlp.down", "embed.position", "head.transform"} <= model.roles


@pytest.mark.parametrize(
    ("inside", "rows"),
    [
        (  # Meta's own Llama
            {
                "attention.wq": (8, 8), "attention.wk": (4, 8), "attention.wv": (4, 8), "attention.wo": (8, 8),
                "feed_forward.w1": (12, 8), "feed_forward.w3": (12, 8), "feed_forward.w2": (8, 12),
                "attention_norm": (8,), "ffn_norm": (8,),
            },
            {"attn.k": 4, "mlp.gate": 12, "mlp.up": 12},
        ),
        (  # InternLM 2
            {
                "attention.wqkv": (16, 8), "attention.wo": (8, 8), "feed_forward.w1": (12, 8),
                "feed_forward.w3": (12, 8), "feed_forward.w2": (8, 12), "attention_norm": (8,), "ffn_norm": (8,),
            },
            {"attn.q": 8, "attn.k": 4, "attn.v": 4},
        ),
        (  # Qwen 1
            {
                "attn.c_attn": (24, 8), "attn.c_proj": (8, 8), "mlp.w1": (12, 8), "mlp.w2": (12, 8),
                "mlp.c_proj": (8, 12), "ln_1": (8,), "ln_2": (8,),
            },
            {"attn.v": 8, "mlp.gate": 12, "mlp.down": 8},
        ),
        (  # Megatron core
            {
                "self_attention.linear_qkv": (16, 8), "self_attention.linear_proj": (8, 8), "mlp.linear_fc1": (24, 8),
                "mlp.linear_fc2": (8, 12), "input_layernorm": (8,), "pre_mlp_layernorm": (8,),
            },
            {"attn.q": 8, "attn.k": 4, "mlp.gate": 12},
        ),
        (  # Baichuan
            {
                "self_attn.W_pack": (24, 8), "self_attn.o_proj": (8, 8), "mlp.gate_proj": (12, 8),
                "mlp.up_proj": (12, 8), "mlp.down_proj": (8, 12), "input_layernorm": (8,),
                "post_attention_layernorm": (8,),
            },
            {"attn.q": 8, "attn.k": 8, "mlp.up": 12},
        ),
        (  # ChatGLM
            {
                "self_attention.query_key_value": (16, 8), "self_attention.dense": (8, 8),
                "mlp.dense_h_to_4h": (24, 8), "mlp.dense_4h_to_h": (8, 12), "input_layernorm": (8,),
                "post_attention_layernorm": (8,),
            },
            {"attn.q": 8, "attn.k": 4, "mlp.gate": 12},
        ),
        (  # OLMo's own
            {
                "att_proj": (24, 8), "attn_out": (8, 8), "ff_proj": (24, 8), "ff_out": (8, 12), "attn_norm": (8,),
                "ff_norm": (8,),
            },
            {"attn.k": 8, "mlp.gate": 12, "mlp.down": 8},
        ),
        (  # Phi's own
            {"mixer.Wqkv": (24, 8), "mixer.out_proj": (8, 8), "mlp.fc1": (12, 8), "mlp.fc2": (8, 12), "ln": (8,)},
            {"attn.v": 8, "attn.o": 8, "mlp.up": 12},
        ),
    ],
)  # fmt: skip
def test_names_of_models_with_code_of_their_own(inside: dict[str, tuple[int, ...]], rows: dict[str, int]) -> None:
    model = seen(stack({f"{name}.weight": shape for name, shape in inside.items()}))
    assert model.coverage == 1.0
    assert {role: model.shape(role, 1)[0] for role in rows} == rows
    assert model.geometry.heads == 2
