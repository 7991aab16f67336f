"""The view of a model by role: folding by hand, blocks, faults."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import CONFIG, filled, llama, llama_shapes, moe_shapes, without

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import Array, MemoryCheckpoint
from kinprint.errors import NonFiniteError

LAYER = "model.layers.0."


def seen(arrays: dict[str, Array], **config: object) -> ModelView:
    return view(MemoryCheckpoint(arrays, config={**CONFIG, **config}))


def test_parts_are_the_tensors_as_float32() -> None:
    arrays = {name: array.astype(np.float16) for name, array in filled(llama_shapes()).items()}
    found = seen(arrays).array("attn.q", 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, arrays["model.layers.1.self_attn.q_proj.weight"])


def test_what_is_there_is_told_by_role_layer_and_expert() -> None:
    model = view(MemoryCheckpoint(filled(moe_shapes()), config=CONFIG))
    assert model.layers("moe.up") == [0, 1]
    assert model.layers("mlp.up") == []
    assert model.experts("moe.up", 1) == [0, 1, 2]
    assert model.experts("attn.q", 1) == []
    assert model.has("moe.down", 1, 2)
    assert not model.has("moe.down", 1, 3)
    assert model.tensor_name("moe.down", 1, 2) == "model.layers.1.mlp.experts.2.down_proj.weight"
    assert model.shape("moe.down", 1, 2) == (8, 6)
    assert "moe.router" in model.roles


# -- folding -------------------------------------------------------------------------------------------------------


def test_an_rms_gain_multiplies_columns() -> None:
    arrays = filled(llama_shapes())
    arrays[f"{LAYER}input_layernorm.weight"] = np.arange(1, 9, dtype=np.float32)
    found = seen(arrays).array("attn.v", 0, fold=True)
    np.testing.assert_allclose(found[:, 2], 3 * arrays[f"{LAYER}self_attn.v_proj.weight"][:, 2], rtol=1e-6)


def test_a_zero_centred_gain_counts_one_more() -> None:
    arrays = filled(llama_shapes())
    arrays[f"{LAYER}input_layernorm.weight"] = np.arange(8, dtype=np.float32)
    model = seen(arrays, model_type="gemma")
    np.testing.assert_array_equal(model.gain("norm.attn", 0), np.arange(1, 9))
    found = model.array("attn.v", 0, fold=True)
    np.testing.assert_allclose(found[:, 2], 3 * arrays[f"{LAYER}self_attn.v_proj.weight"][:, 2], rtol=1e-6)


def test_the_last_gain_folds_into_the_output_matrix_and_not_into_the_embedding() -> None:
    arrays = filled(llama_shapes())
    model = seen(arrays)
    expected = arrays["lm_head.weight"] * arrays["model.norm.weight"]
    np.testing.assert_allclose(model.array("unembed", fold=True), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.array("embed.token", fold=True), arrays["model.embed_tokens.weight"])


def test_a_layer_norm_also_centres_the_input_side() -> None:
    shapes = {
        "h.0.attn.c_attn.weight": (2, 6),
        "h.0.attn.c_proj.weight": (2, 2),
        "h.0.mlp.c_fc.weight": (2, 3),
        "h.0.mlp.c_proj.weight": (3, 2),
        "wte.weight": (4, 2),
        "wpe.weight": (5, 2),
        **{f"{norm}.{kind}": (2,) for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f") for kind in ("weight", "bias")},
    }
    arrays = filled(shapes)
    arrays["h.0.attn.c_attn.weight"] = np.array([[0, 0, 1, 2, 0, 0], [0, 0, 3, 5, 0, 0]], dtype=np.float32)
    arrays["h.0.ln_1.weight"] = np.array([2, 4], dtype=np.float32)
    model = view(MemoryCheckpoint(arrays, config={"n_head": 1}))
    # k's rows are [1, 3] and [2, 5]; times the gain [2, 12] and [4, 20]; less their means 7 and 12.
    np.testing.assert_array_equal(model.array("attn.k", 0, fold=True), [[-5, 5], [-8, 8]])
    np.testing.assert_array_equal(model.array("attn.k", 0), [[1, 3], [2, 5]])


def qk_normed() -> dict[str, Array]:
    arrays = filled({**llama_shapes(), **{f"{LAYER}self_attn.{side}_norm.weight": (4,) for side in "qk"}})
    arrays[f"{LAYER}input_layernorm.weight"] = np.full(8, 2, dtype=np.float32)
    return arrays


def test_a_head_norm_scales_rows_by_its_gain_and_each_head_to_unit_size() -> None:
    arrays = qk_normed()
    arrays[f"{LAYER}self_attn.k_norm.weight"] = np.array([1, 2, 3, 4], dtype=np.float32)
    key = np.zeros((8, 8), dtype=np.float32)
    key[:4, 0] = [1, 1, 1, 1]  # first head: Frobenius norm 2
    key[4:, 1] = [0, 3, 0, 4]  # second head: 5
    arrays[f"{LAYER}self_attn.k_proj.weight"] = key
    found = seen(arrays).array("attn.k", 0, fold=True)
    np.testing.assert_allclose(found[:4, 0], [0.5, 1.0, 1.5, 2.0], atol=1e-7)
    np.testing.assert_allclose(found[4:, 1], [0, 2 * 3 / 5, 0, 4 * 4 / 5], atol=1e-7)
    assert np.count_nonzero(found) == 6


def test_folding_ignores_a_gain_handed_to_the_matrix_and_any_scale_of_a_normed_head() -> None:
    arrays = qk_normed()
    plain = seen(arrays)
    other = dict(arrays)
    exchange = np.exp(np.random.default_rng(1).standard_normal(8)).astype(np.float32)
    other[f"{LAYER}input_layernorm.weight"] = arrays[f"{LAYER}input_layernorm.weight"] * exchange
    for side in "qkv":
        other[f"{LAYER}self_attn.{side}_proj.weight"] = arrays[f"{LAYER}self_attn.{side}_proj.weight"] / exchange
    other[f"{LAYER}self_attn.q_proj.weight"][4:8] *= 3
    changed = seen(other)
    for role in ("attn.q", "attn.k", "attn.v"):
        folded = changed.array(role, 0, fold=True)
        np.testing.assert_allclose(folded, plain.array(role, 0, fold=True), atol=2e-6)  # float32 of values below 10
        assert np.abs(changed.array(role, 0) - plain.array(role, 0)).max() > 0.1


def test_a_head_of_zeros_folds_to_zeros() -> None:
    arrays = qk_normed()
    arrays[f"{LAYER}self_attn.q_proj.weight"][:4] = 0
    assert not seen(arrays).array("attn.q", 0, fold=True)[:4].any()


def test_folding_leaves_the_stored_tensor_alone() -> None:
    arrays = qk_normed()
    before = {name: array.copy() for name, array in arrays.items()}
    model = seen(arrays)
    for key in model.parts:
        model.array(key.role, key.layer, key.expert, fold=True)
    for name, array in before.items():
        np.testing.assert_array_equal(model.checkpoint.read(name), array)


# -- blocks and faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_row_blocks_together_are_the_array(block_bytes: int) -> None:
    stacked = without(moe_shapes(), ".experts.")
    for layer in range(2):
        stacked[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = (3, 12, 8)
        stacked[f"model.layers.{layer}.mlp.experts.down_proj"] = (3, 8, 6)
    model = view(MemoryCheckpoint(filled(stacked), config=CONFIG))
    for key in model.parts:
        blocks = list(model.row_blocks(key.role, key.layer, key.expert, block_bytes=block_bytes))
        array = model.array(key.role, key.layer, key.expert)
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), array)
        assert [first for first, _ in blocks] == np.cumsum([0, *[len(block) for _, block in blocks]])[:-1].tolist()
        assert all(block.nbytes <= max(block_bytes, array[:1].nbytes) for _, block in blocks)


class Watched(MemoryCheckpoint):
    """Remembers how many bytes each read gave."""

    def read(self, name: str, rows: slice | None = None) -> Array:
        array = super().read(name, rows)
        self.seen = [*getattr(self, "seen", []), array.nbytes]
        return array


def test_one_expert_of_a_stack_reads_that_expert_alone() -> None:
    stacked = without(moe_shapes(), ".experts.")
    for layer in range(2):
        stacked[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = (3, 12, 8)
        stacked[f"model.layers.{layer}.mlp.experts.down_proj"] = (3, 8, 6)
    checkpoint = Watched(filled(stacked), config=CONFIG)
    view(checkpoint).array("moe.up", 1, 2)
    assert checkpoint.seen == [12 * 8 * 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named_with_its_tensor(bad: float) -> None:
    arrays = filled(llama_shapes())
    arrays[f"{LAYER}mlp.up_proj.weight"][3, 4] = bad
    model = seen(arrays)
    with pytest.raises(NonFiniteError, match=r"layers\.0\.mlp\.up_proj"):
        model.array("mlp.up", 0)
    with pytest.raises(NonFiniteError, match=r"layers\.0\.mlp\.up_proj"):
        list(model.row_blocks("mlp.up", 0))
    assert np.isfinite(model.array("mlp.up", 1)).all()


def test_a_gain_that_is_no_number_is_named_when_it_is_folded() -> None:
    arrays = filled(llama_shapes())
    arrays[f"{LAYER}post_attention_layernorm.weight"][0] = np.nan
    model = seen(arrays)
    assert np.isfinite(model.array("mlp.up", 0)).all()
    with pytest.raises(NonFiniteError, match=r"layers\.0\.post_attention_layernorm"):
        model.array("mlp.up", 0, fold=True)


def test_large_values_are_finite_although_their_sum_is_not() -> None:
    arrays = {name: array.astype(np.float64) for name, array in filled(llama_shapes()).items()}
    arrays[f"{LAYER}mlp.up_proj.weight"][:] = 1e308
    assert (seen(arrays).array("mlp.up", 0) == 1e308).all()


# -- coverage ------------------------------------------------------------------------------------------------------


def test_every_tensor_without_a_role_is_listed_and_counted() -> None:
    arrays = filled(llama_shapes())
    known = sum(array.size for array in arrays.values())
    arrays["nonsense.weight"] = np.zeros((10, 10), dtype=np.float32)
    arrays["model.layers.0.self_attn.nonsense"] = np.zeros(4, dtype=np.float32)
    model = seen(arrays)
    assert model.unmapped == ("nonsense.weight", "model.layers.0.self_attn.nonsense")
    assert model.parameters == known + 104
    assert model.coverage == pytest.approx(known / (known + 104), abs=1e-12)


def test_constants_are_ignored_with_a_reason_and_not_counted() -> None:
    arrays = filled(llama_shapes())
    known = sum(array.size for array in arrays.values())
    arrays[f"{LAYER}self_attn.rotary_emb.inv_freq"] = np.ones(2, dtype=np.float32)
    arrays["steps"] = np.array(3)
    model = seen(arrays)
    assert (model.unmapped, model.coverage, model.parameters) == ((), 1.0, known)
    assert model.ignored == {f"{LAYER}self_attn.rotary_emb.inv_freq": "rotary frequencies, computed from the config"}
    assert model.info().notes == ("ignored 1 tensor: rotary frequencies, computed from the config",)


def test_packed_weights_are_listed_and_lower_the_coverage() -> None:
    arrays = filled(llama_shapes())
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        arrays[name] = arrays[name].astype(np.uint8)
    model = seen(arrays)
    assert model.unmapped == ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight")
    assert "mlp.up" not in model.roles
    assert model.coverage < 1


def test_values_whose_scales_lie_apart_are_not_taken_for_the_weights() -> None:
    arrays = filled(llama_shapes())
    arrays[f"{LAYER}mlp.up_proj.weight_scale_inv"] = np.ones((1, 1), dtype=np.float32)
    model = seen(arrays)
    assert model.layers("mlp.up") == [1]
    assert model.unmapped == (f"{LAYER}mlp.up_proj.weight", f"{LAYER}mlp.up_proj.weight_scale_inv")
    assert model.notes == (f"not read because their scales lie apart: 1 tensor, the first {LAYER}mlp.up_proj.weight",)


def test_a_model_is_tied_when_it_has_no_output_matrix_of_its_own() -> None:
    assert not view(llama()).tied
    assert view(MemoryCheckpoint(filled(without(llama_shapes(), "lm_head")), config=CONFIG)).tied


def test_info_says_what_was_seen() -> None:
    info = view(llama()).info(content_digest="sha256:0")
    assert (info.family, info.format, info.coverage, info.content_digest) == ("llama", "memory", 1.0, "sha256:0")
    assert (info.geometry.layers, info.geometry.heads, info.geometry.kv_heads) == (2, 4, 2)
