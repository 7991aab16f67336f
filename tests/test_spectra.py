"""Spectra of layers, and the map of layers that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.fingerprints import Fingerprint
from kinprint.linalg.device import Device
from kinprint.spectra import IDENTICAL, TAU, Match, ahead, attention_spectra, match, mlp_spectra, similarity
from kinprint.spectra.experts import sampled
from kinprint.spectra.match import MINIMUM_RANK, map_table, match_notes, mismatch_controls, rank_table
from linalg.namespaces import DEVICES, place
from methods import tiny

seeds = st.integers(0, 2**32 - 1)

# Two matrices by two heads of one coordinate that share one key and one value.
SMALL = {
    "model.embed_tokens.weight": np.ones((3, 2), np.float32),
    "model.layers.0.input_layernorm.weight": np.array([2.0, 1.0], np.float32),
    "model.layers.0.self_attn.q_proj.weight": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
    "model.layers.0.self_attn.k_proj.weight": np.array([[1.0, 1.0]], np.float32),
    "model.layers.0.self_attn.v_proj.weight": np.array([[3.0, 4.0]], np.float32),
    "model.layers.0.self_attn.o_proj.weight": np.array([[1.0, 1.0], [0.0, 0.0]], np.float32),
    "model.layers.0.post_attention_layernorm.weight": np.array([1.0, 3.0], np.float32),
    "model.layers.0.mlp.gate_proj.weight": np.ones((2, 2), np.float32),
    "model.layers.0.mlp.up_proj.weight": np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),
    "model.layers.0.mlp.down_proj.weight": np.array([[5.0, 0.0], [0.0, 4.0]], np.float32),
}


def stored(layers: Sequence[int] | None = None, **spectra: object) -> Fingerprint:
    arrays = {name: np.array(rows, dtype=np.float64) for name, rows in spectra.items()}
    count = len(next(iter(arrays.values())))
    return Fingerprint("spectra/v1", {"layers": np.array(layers or range(count), dtype=np.int64), **arrays})


def matched(suspect: Fingerprint, base: Fingerprint, products: Sequence[str] = ("qk",)) -> Match:
    found = match(suspect, base, products)
    assert isinstance(found, Match), found
    return found


def test_products_of_shared_heads_by_hand() -> None:
    found = attention_spectra(tiny.model(SMALL, head_dim=1), fold=False)
    np.testing.assert_array_equal(found.arrays["layers"], [0])
    # (q1 + q2)^T k = [1 1; 1 1] and (o1 + o2) v = [6 8; 0 0]; float64 arithmetic on small integers
    np.testing.assert_allclose(found.arrays["qk"], [[2.0]], atol=1e-12)
    np.testing.assert_allclose(found.arrays["vo"], [[10.0]], atol=1e-12)


def test_folded_gains_by_hand() -> None:
    attention = attention_spectra(tiny.model(SMALL, head_dim=1), fold=True)
    # q and k become [2 1], v becomes [6 4]
    np.testing.assert_allclose(attention.arrays["qk"], [[5.0]], atol=1e-12)
    np.testing.assert_allclose(attention.arrays["vo"], [[2 * np.sqrt(52)]], atol=1e-12)
    mlp = mlp_spectra(tiny.model(SMALL, head_dim=1), fold=True)
    np.testing.assert_allclose(mlp.arrays["up"], [[6.0, 1.0]], atol=1e-12)
    np.testing.assert_allclose(mlp.arrays["down"], [[5.0, 4.0]], atol=1e-12)
    plain = mlp_spectra(tiny.model(SMALL, head_dim=1), fold=False)
    np.testing.assert_allclose(plain.arrays["up"], [[2.0, 1.0]], atol=1e-12)


@given(seed=seeds, groups=st.sampled_from([1, 2, 4]), fold=st.booleans())
@settings(deadline=None, max_examples=15)
def test_spectra_are_those_of_the_dense_products_with_keys_repeated_by_head(seed: int, groups: int, fold: bool) -> None:
    tensors = tiny.llama(seed, layers=1, kv_heads=groups)
    found = attention_spectra(tiny.model(tensors), fold=fold)
    q, k, v, o = (tensors[f"model.layers.0.self_attn.{x}_proj.weight"].astype(np.float64) for x in "qkvo")
    gain = tensors["model.layers.0.input_layernorm.weight"].astype(np.float64) if fold else 1.0

    def expanded(matrix: np.ndarray) -> np.ndarray:
        return np.repeat(matrix.reshape(groups, 4, 16), 4 // groups, axis=0).reshape(16, 16)

    for name, dense in (("qk", (q * gain).T @ expanded(k * gain)), ("vo", o @ expanded(v * gain))):
        values = np.linalg.svd(dense, compute_uv=False)
        stored_values = np.zeros(16)
        stored_values[: found.arrays[name].shape[1]] = found.arrays[name][0]
        # folding multiplies in float32, which moves values by some 1e-7 of the largest
        np.testing.assert_allclose(stored_values, values, atol=1e-6 * values[0])


def test_a_layer_that_holds_nan_is_left_out_and_its_tensor_named() -> None:
    tensors = tiny.llama(1)
    tensors["model.layers.2.self_attn.k_proj.weight"][0, 0] = np.nan
    found = attention_spectra(tiny.model(tensors), fold=True)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1, 3])
    assert found.arrays["qk"].shape[0] == found.arrays["vo"].shape[0] == 3
    assert len(found.problems) == 1
    assert "layers 2" in found.problems[0]
    assert "model.layers.2.self_attn.k_proj.weight" in found.problems[0]
    np.testing.assert_array_equal(mlp_spectra(tiny.model(tensors), fold=True).arrays["layers"], [0, 1, 2, 3])


def test_a_layer_that_lacks_a_role_is_left_out_and_the_role_named() -> None:
    tensors = tiny.llama(1)
    del tensors["model.layers.1.self_attn.v_proj.weight"]
    found = attention_spectra(tiny.model(tensors), fold=True)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 2, 3])
    assert found.problems == ("layers 1 left out: no attn.v",)


def test_numbers_beyond_float64_are_a_problem_and_no_crash() -> None:
    tensors = tiny.llama(1, layers=2, dtype=np.float64)
    tensors["model.layers.0.self_attn.q_proj.weight"] *= 1e200
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1e200
    for found in (attention_spectra(tiny.model(tensors), fold=True), mlp_spectra(tiny.model(tensors), fold=True)):
        np.testing.assert_array_equal(found.arrays["layers"], [1])
        assert "layers 0" in found.problems[0]


def test_an_unknown_family_has_no_layers_and_says_why() -> None:
    model = tiny.model({"w": np.ones((4, 4), np.float32)})
    for extract in (attention_spectra, mlp_spectra):
        found = extract(model, fold=True)
        assert found.arrays["layers"].size == 0
        assert "unknown" in found.problems[0]
        assert "role" in found.problems[0]


def test_the_shared_expert_stands_for_the_mlp_of_a_mixture() -> None:
    tensors = tiny.mixture(3, layers=2)
    found = mlp_spectra(tiny.model(tensors), fold=False)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1])
    up = tensors["model.layers.1.mlp.shared_expert.up_proj.weight"].astype(np.float64)
    # squared in float64: 1e-9 of the largest value
    np.testing.assert_allclose(found.arrays["up"][1], np.linalg.svd(up, compute_uv=False), atol=1e-7)


def test_routed_experts_stand_for_the_mlp_of_a_mixture_without_shared_expert() -> None:
    tensors = tiny.mixture(3, layers=2, shared=False)
    found = mlp_spectra(tiny.model(tensors), fold=False)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1])
    np.testing.assert_array_equal(found.arrays["up"], found.arrays["experts.up"])
    assert found.problems == ("routed experts, pooled, stand for the MLP in 2 layers without a shared expert",)
    each = [
        np.linalg.svd(tensors[f"model.layers.1.mlp.experts.{e}.up_proj.weight"].astype(float), compute_uv=False)
        for e in range(3)
    ]
    # squared in float64: 1e-9 of the largest value
    np.testing.assert_allclose(found.arrays["experts.each.up"][1], each, atol=1e-7)
    mean = np.mean([values / np.sqrt((values**2).sum()) for values in each], axis=0)
    np.testing.assert_allclose(found.arrays["up"][1], mean, atol=1e-9)


def test_a_dense_model_has_no_arrays_of_experts() -> None:
    assert set(mlp_spectra(tiny.model(tiny.llama(1)), fold=True).arrays) == {"layers", "up", "down"}


def test_of_many_experts_eight_are_read_whichever_numbers_they_have() -> None:
    tensors = tiny.mixture(4, layers=1, experts=20, shared=False)
    model = tiny.model(tensors)
    rows = tensors["model.layers.0.mlp.gate.weight"].astype(float)
    rows *= tensors["model.layers.0.post_attention_layernorm.weight"]
    ranked = np.argsort(-np.linalg.norm(rows - rows.mean(axis=0), axis=1))
    # places 0, 19/7, 38/7, ... of twenty, rounded
    assert sampled(model, "moe", 0, fold=True) == sorted(ranked[[0, 3, 5, 8, 11, 14, 16, 19]].tolist())
    found = mlp_spectra(model, fold=True)
    assert found.arrays["experts.each.down"].shape == (1, 8, 12)
    assert "8 of 20 routed experts a layer" in found.problems[0]
    moved = mlp_spectra(tiny.moved(tensors, ["expert-permutation"], 1), fold=True)
    np.testing.assert_allclose(moved.arrays["experts.up"], found.arrays["experts.up"], atol=1e-7)


def test_an_expert_with_nan_leaves_the_shared_expert_usable() -> None:
    tensors = tiny.mixture(3, layers=3)
    tensors["model.layers.1.mlp.experts.2.down_proj.weight"][0, 0] = np.nan
    found = mlp_spectra(tiny.model(tensors), fold=True)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1, 2])
    np.testing.assert_array_equal(found.arrays["experts.layers"], [0, 2])
    assert any("layers 1 left out" in problem and "experts.2.down_proj" in problem for problem in found.problems)


# -- on a device ---------------------------------------------------------------------------------------------------


def assert_same(found: Fingerprint, exact: Fingerprint) -> None:
    """Alike to what float64 sums in another order leave; what was left out, and why, to the letter."""
    assert (found.id, found.problems) == (exact.id, exact.problems)
    assert list(found.arrays) == list(exact.arrays)
    for name, array in exact.arrays.items():
        assert found.arrays[name].shape == array.shape
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("held", [1, 5000])
def test_a_device_changes_no_spectrum_however_many_layers_are_read_ahead(name: str, held: int) -> None:
    place(name)
    models = [tiny.model(tiny.llama(seed, layers=5, kv_heads=kv)) for seed, kv in ((1, 4), (2, 2), (3, 1))]
    models += [tiny.model(tiny.latent(3), **tiny.LATENT), tiny.model(tiny.mixture(3, layers=2))]
    models += [tiny.model(tiny.mixture(4, layers=2, experts=20, shared=False))]
    with patch.object(ahead, "HELD_BYTES", held):
        for model in models:
            for extract in (attention_spectra, mlp_spectra):
                assert_same(extract(model, fold=True, device=Device.of(name)), extract(model, fold=True))


@pytest.mark.parametrize("name", DEVICES)
def test_layers_that_cannot_be_used_are_the_same_on_a_device(name: str) -> None:
    place(name)
    tensors = tiny.llama(1, layers=6)
    tensors["model.layers.1.self_attn.k_proj.weight"][0, 0] = np.nan
    del tensors["model.layers.4.self_attn.v_proj.weight"]
    model = tiny.model(tensors)
    found = attention_spectra(model, fold=True, device=Device.of(name))
    np.testing.assert_array_equal(found.arrays["layers"], [0, 2, 3, 5])
    assert_same(found, attention_spectra(model, fold=True))


@pytest.mark.parametrize("name", DEVICES)
def test_numbers_beyond_float64_leave_out_their_own_layer_on_a_device(name: str) -> None:
    place(name)
    tensors = tiny.llama(1, layers=3, dtype=np.float64)
    tensors["model.layers.1.self_attn.q_proj.weight"] *= 1e200
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1e200
    for extract in (attention_spectra, mlp_spectra):
        found = extract(tiny.model(tensors), fold=True, device=Device.of(name))
        np.testing.assert_array_equal(found.arrays["layers"], [0, 2])
        assert "layers 1 left out" in found.problems[0]


def test_layers_of_one_shape_are_worked_out_together_on_a_device() -> None:
    with patch.object(ahead, "product_singular_values_of", wraps=ahead.product_singular_values_of) as work:
        attention_spectra(tiny.model(tiny.llama(1, layers=5)), fold=True, device=Device.of("cpu"))
    assert [len(call.args[0]) for call in work.call_args_list] == [10]


# -- architectures whose attention is another ----------------------------------------------------------------------


def explicit(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], layer: int, *, fold: bool
) -> list[np.ndarray]:
    """W_q^T W_k and W_o W_v of latent attention, heads cut by hand, in float64."""
    at = f"model.layers.{layer}."
    held = {name.removeprefix(at).removesuffix(".weight"): array for name, array in tensors.items()}
    held = {name: array.astype(np.float64) for name, array in held.items()}
    heads, nope, rope, value = (
        config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    gain = held["input_layernorm"] if fold else 1.0
    rank = held["self_attn.kv_b_proj"].shape[1]
    query = held["self_attn.q_b_proj"] @ np.diag(held["self_attn.q_a_layernorm"]) @ (held["self_attn.q_a_proj"] * gain)
    down = np.diag(held["self_attn.kv_a_layernorm"]) @ (held["self_attn.kv_a_proj_with_mqa"][:rank] * gain)
    both = (held["self_attn.kv_b_proj"] @ down).reshape(heads, nope + value, -1)
    query = query.reshape(heads, nope + rope, -1)[:, :nope]
    output = held["self_attn.o_proj"].reshape(-1, heads, value)
    qk = sum(query[head].T @ both[head, :nope] for head in range(heads))
    vo = sum(output[:, head] @ both[head, nope:] for head in range(heads))
    return [np.linalg.svd(product, compute_uv=False) for product in (qk, vo)]


def check_explicit(model: ModelView, tensors: Mapping[str, np.ndarray], *, fold: bool) -> None:
    found = attention_spectra(model, fold=fold)
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1, 2, 3])
    for layer in range(4):
        for name, values in zip(
            ("qk", "vo"), explicit(tensors, model.checkpoint.config, layer, fold=fold), strict=True
        ):
            padded = np.zeros(values.size)
            padded[: found.arrays[name].shape[1]] = found.arrays[name][layer]
            np.testing.assert_allclose(padded, values, atol=1e-6 * values[0])  # gains are multiplied in float32
    assert any(
        "attn.q, attn.k, attn.v are products of low-rank factors; of attn.q and attn.k the part without positions"
        in said
        for said in found.problems
    )


@pytest.mark.parametrize("fold", [True, False])
def test_latent_attention_has_the_spectra_of_the_products_of_its_factors(fold: bool) -> None:
    pytest.importorskip("transformers")
    model = tiny.built("DeepseekV3ForCausalLM")
    config = model.checkpoint.config
    assert config["v_head_dim"] != config["qk_nope_head_dim"]
    check_explicit(model, tiny.tensors_of(model), fold=fold)


@pytest.mark.parametrize("fold", [True, False])
def test_latent_attention_in_plain_arrays(fold: bool) -> None:
    tensors = tiny.latent(3)
    check_explicit(tiny.model(tensors, **tiny.LATENT), tensors, fold=fold)


def test_full_rank_queries_beside_latent_keys() -> None:
    # As in DeepSeek-V2-Lite: the product with its factors multiplied out gives the same spectra.
    tensors = tiny.latent(5)
    lite = dict(tensors)
    for layer in range(4):
        at = f"model.layers.{layer}.self_attn."
        left, gain, right = (lite.pop(f"{at}{name}.weight") for name in ("q_b_proj", "q_a_layernorm", "q_a_proj"))
        lite[f"{at}q_proj.weight"] = (left * gain) @ right
    config = {key: value for key, value in tiny.LATENT.items() if key != "q_lora_rank"}
    whole = attention_spectra(tiny.model(tensors, **tiny.LATENT), fold=True)
    found = attention_spectra(tiny.model(lite, **config), fold=True)
    np.testing.assert_allclose(found.arrays["qk"], whole.arrays["qk"], atol=1e-5)
    assert found.problems == (
        "attn.k, attn.v are products of low-rank factors; of attn.q and attn.k the part without positions",
    )


def test_turning_the_latent_coordinates_changes_no_spectrum_and_their_scale_does() -> None:
    tensors = tiny.latent(6)
    model = tiny.model(tensors, **tiny.LATENT)
    turned = {name: array.astype(np.float64) for name, array in tensors.items()}
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    for layer in range(4):
        at = f"model.layers.{layer}.self_attn."
        gain = turned[f"{at}kv_a_layernorm.weight"]
        turned[f"{at}kv_b_proj.weight"] = turned[f"{at}kv_b_proj.weight"] * gain @ rotation.T
        turned[f"{at}kv_a_layernorm.weight"] = np.ones(6)
        turned[f"{at}kv_a_proj_with_mqa.weight"][:6] = rotation @ turned[f"{at}kv_a_proj_with_mqa.weight"][:6]
    before = attention_spectra(model, fold=True)
    after = attention_spectra(tiny.model(turned, **tiny.LATENT), fold=True)
    for name in ("qk", "vo"):
        np.testing.assert_allclose(after.arrays[name], before.arrays[name], atol=1e-5)
    tensors["model.layers.2.self_attn.kv_a_layernorm.weight"][0] *= 3
    changed = attention_spectra(tiny.model(tensors, **tiny.LATENT), fold=True)
    assert np.abs(changed.arrays["qk"][2] - before.arrays["qk"][2]).max() > 0.1
    np.testing.assert_array_equal(changed.arrays["qk"][1], before.arrays["qk"][1])


@pytest.mark.parametrize(
    ("name", "layers", "said"),
    [
        ("Qwen3NextForCausalLM", [1, 3], "layers 0, 2 hold linear attention in place of attention"),
        ("JambaForCausalLM", [1, 3], "layers 0, 2 hold a state-space block in place of attention"),
        ("Lfm2MoeForCausalLM", [1, 3], "layers 0, 2 hold a short convolution in place of attention"),
    ],
)
def test_layers_without_attention_are_left_out_and_said(name: str, layers: list[int], said: str) -> None:
    pytest.importorskip("transformers")
    found = attention_spectra(tiny.built(name), fold=True)
    np.testing.assert_array_equal(found.arrays["layers"], layers)
    assert any(problem == f"{said}: left out of attention (2 of 4 layers)" for problem in found.problems)


def test_a_block_beside_attention_is_said_and_a_model_without_attention_has_no_spectra() -> None:
    pytest.importorskip("transformers")
    beside = attention_spectra(tiny.built("FalconH1ForCausalLM"), fold=True)
    np.testing.assert_array_equal(beside.arrays["layers"], [0, 1, 2, 3])
    assert beside.problems == ("a state-space block beside attention in 4 of 4 layers: attention alone is judged",)
    none = attention_spectra(tiny.built("MambaForCausalLM"), fold=True)
    assert none.arrays["layers"].size == 0
    assert none.problems[0].startswith("family mamba: no tensor has the role attn.q")
    assert "(4 of 4 layers)" in none.problems[1]


# -- the match -----------------------------------------------------------------------------------------------------


def test_similarity_is_the_papers_for_identical_models_and_falls_through_one_half_at_tau() -> None:
    assert round(similarity(0.0), 4) == 0.9761
    assert similarity(0.0) == IDENTICAL
    assert similarity(TAU) == 0.5
    # the constraint k tau = 3.7097 alone: similarity .0581 lies at d / tau = 1.751 in the paper's table
    assert similarity(1.751 * TAU) == pytest.approx(0.0581, abs=5e-5)
    assert similarity(1.0) == pytest.approx(0.0, abs=1e-12)


def test_one_cell_by_hand() -> None:
    # effective ranks 3.60 and 3.74: three values each, scaled to (1, 1/2, 0) and (1, 1/4, 0)
    found = matched(stored(qk=[[4, 3, 2, 1]]), stored(qk=[[8, 5, 4, 3]]))
    assert found.kept["qk"].tolist() == [[3]]
    assert found.layer_map.distance == pytest.approx(0.0625 / 3, abs=1e-15)
    assert [level.tolist() for level in found.levels("qk")] == [[0.5], [1.25 / 3]]


def test_products_are_averaged() -> None:
    suspect, base = [[4, 3, 2, 1]], [[8, 5, 4, 3]]
    found = matched(stored(qk=suspect, vo=suspect), stored(qk=base, vo=suspect), ("qk", "vo"))
    assert found.layer_map.distance == pytest.approx(0.0625 / 6, abs=1e-15)


def test_spectra_of_different_length_are_compared_where_both_have_values() -> None:
    found = matched(stored(qk=[[4, 3, 2, 1, 0, 0]]), stored(qk=[[4, 3, 2, 1]]))
    assert found.layer_map.distance == 0.0


def test_a_layer_of_too_low_rank_is_left_out_and_said() -> None:
    suspect = stored([3, 4], qk=[[9, 1e-9, 1e-9, 1e-9], [4, 3, 2, 1]])
    found = matched(suspect, suspect)
    assert found.suspect.layers == (4,)
    assert found.suspect.unusable == (3,)
    notes = match_notes(suspect, suspect, [found], fold=True)
    assert notes[0] == f"suspect: layers 3 left out: effective rank of qk below {MINIMUM_RANK}"


def test_models_without_usable_layers_give_the_reason() -> None:
    flat = stored(qk=[[9, 1e-9, 1e-9, 1e-9]])
    usable = stored(qk=[[4, 3, 2, 1]])
    assert match(flat, usable, ("qk",)) == f"suspect: every effective rank is below {MINIMUM_RANK}"
    empty = Fingerprint("spectra/v1", {"layers": np.zeros(0, np.int64), "qk": np.zeros((0, 0))}, ("nothing there",))
    assert match(usable, empty, ("qk",)) == "base: nothing there"


def test_an_all_zero_layer_is_left_out() -> None:
    found = matched(stored(qk=[[0, 0, 0, 0], [4, 3, 2, 1]]), stored(qk=[[4, 3, 2, 1]]))
    assert found.suspect.layers == (1,)


@given(seed=seeds)
@settings(deadline=None, max_examples=15)
def test_a_depth_pruned_model_finds_its_layers_whichever_side_it_is_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = -np.sort(-rng.random((7, 12)), axis=1)
    kept = np.sort(rng.choice(7, size=4, replace=False))
    pruned, full = stored(qk=whole[kept] * 3.0), stored(qk=whole)
    # at rho = 0 the true map is the only one with distance 0; penalties may prefer others, so adjacent layers only
    first = int(rng.integers(0, 4))
    block = stored(qk=whole[first : first + 4] * 3.0)
    found = matched(block, full)
    assert found.layer_map.pairs == tuple((i, first + i) for i in range(4))
    assert found.layer_map.distance < 1e-20  # scale is discarded up to rounding
    turned = matched(full, block)
    assert turned.layer_map.pairs == tuple((first + i, i) for i in range(4))
    assert matched(pruned, full).layer_map.distance == pytest.approx(
        matched(full, pruned).layer_map.distance, abs=1e-15
    )


def test_controls_by_hand() -> None:
    a, b = [4, 3, 2, 1], [8, 5, 4, 3]
    gap = 0.0625 / 3  # the distance of a and b
    found = matched(stored(qk=[a, a, b]), stored(qk=[a, a, b]))
    mean, shifted, turned = mismatch_controls(found)
    assert found.layer_map.distance == 0.0
    assert mean.value == pytest.approx(4 * gap / 6, abs=1e-15)  # of six pairs off the diagonal, four are a with b
    assert shifted.value == pytest.approx(gap / 2, abs=1e-15)  # (a, a), (a, b)
    assert shifted.note is not None
    assert "-1" in shifted.note
    assert turned.value == pytest.approx(similarity(2 * gap / 3), abs=1e-12)


def test_a_single_layer_has_no_controls_and_says_so() -> None:
    found = matched(stored(qk=[[4, 3, 2, 1]]), stored(qk=[[4, 3, 2, 1]]))
    for control in mismatch_controls(found):
        assert control.value is None
        assert control.reason == "a single layer has no mismatched partner"


def test_tables_name_the_models_own_layers() -> None:
    found = matched(stored([5], qk=[[4, 3, 2, 1]]), stored([8, 9], qk=[[8, 5, 4, 3], [4, 3, 2, 1]]))
    table = map_table(found, "map")
    assert table.columns == ("suspect layer", "base layer", "distance", "qk distance", "qk values kept")
    assert table.rows == ((5, 9, 0.0, 0.0, 3),)
    ranks = rank_table(found)
    assert [row[:2] for row in ranks.rows] == [("suspect", 5), ("base", 8), ("base", 9)]
    # exp of the entropy of (.4, .3, .2, .1)
    assert ranks.rows[0][2] == pytest.approx(np.exp(1.2798542258), abs=1e-9)


def test_unequal_depth_and_unfolded_gains_are_said() -> None:
    one, two = stored(qk=[[4, 3, 2, 1]]), stored(qk=[[4, 3, 2, 1]] * 2)
    notes = match_notes(one, two, [matched(one, two)], fold=False)
    assert "norm gains are not folded in" in notes[0]
    assert notes[1].startswith("1 against 2 layers")
    assert match_notes(one, one, [matched(one, one)], fold=True) == []
