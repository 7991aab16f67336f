"""Standard deviations of latent attention, hybrids and mixtures, and the roles that they add to tensor-cosine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.methods import tensor_cosine
from kinprint.methods.intrinsic import MIXERS_NOTE, Moments, compare, deviations
from kinprint.types import MethodResult
from methods import tiny

seeds = st.integers(0, 2**32 - 1)


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in (*result.values, *result.controls)}


def hybrid(name: str) -> ModelView:
    pytest.importorskip("transformers")
    return tiny.built(name)


@given(seed=seeds, shift=st.sampled_from([0.0, 2.0]))
@settings(deadline=None, max_examples=15)
def test_moments_of_a_product_are_those_of_its_entries(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((9, 3)) + shift, rng.standard_normal((3, 11)) + shift
    found, whole = Moments.of_product(left, right), Moments.of(left @ right)
    assert (found.count, found.mean) == (99, pytest.approx(whole.mean, rel=1e-12, abs=1e-12))
    assert found.deviation == pytest.approx(whole.deviation, rel=1e-9)  # the mean's square is subtracted in float64


def test_q_k_and_v_of_latent_attention_are_the_products_without_positions() -> None:
    tensors = tiny.latent(2)
    found = deviations(tiny.model(tensors, **tiny.LATENT))
    held = {
        name.removeprefix("model.layers.1.self_attn.").removesuffix(".weight"): array.astype(np.float64)
        for name, array in tensors.items()
    }
    query = (held["q_b_proj"] * held["q_a_layernorm"]) @ held["q_a_proj"]
    query = query.reshape(4, 7, 16)[:, :5]  # four heads of five rows, and two that carry positions
    both = (held["kv_b_proj"] * held["kv_a_layernorm"]) @ held["kv_a_proj_with_mqa"][:6]
    both = both.reshape(4, 8, 16)
    for role, product in (("attn.q", query), ("attn.k", both[:, :5]), ("attn.v", both[:, 5:])):
        assert found.arrays[role][1] == pytest.approx(product.std(ddof=1), rel=1e-6)  # gains are multiplied in float32
    assert found.arrays["attn.o"][1] == pytest.approx(held["o_proj"].std(ddof=1), rel=1e-9)
    assert found.problems == (
        "attn.q, attn.k, attn.v are products of low-rank factors; of attn.q and attn.k the part without positions",
    )


def test_a_noisy_child_with_latent_attention_is_near_one() -> None:
    tensors = tiny.latent(3, layers=8)
    base, child = (deviations(tiny.model(one, **tiny.LATENT)) for one in (tensors, tiny.changed(tensors, 1, 0.01)))
    result = compare(child, base)
    assert float(numbers(result)["similarity"] or 0) > 0.99
    assert any(note.startswith("suspect: attn.q, attn.k, attn.v are products") for note in result.notes)


def test_layers_without_attention_leave_gaps_that_are_said_and_the_others_keep_their_numbers() -> None:
    found = deviations(hybrid("Qwen3NextForCausalLM"))
    np.testing.assert_array_equal(found.arrays["layers"], [0, 1, 2, 3])
    np.testing.assert_array_equal(np.isfinite(found.arrays["attn.q"]), [False, True, False, True])
    np.testing.assert_array_equal(np.isfinite(found.arrays["linear.in"]), [True, False, True, False])
    assert "layers 0, 2 hold linear attention in place of attention" in found.problems[0]


def test_only_layers_with_attention_change_places_in_the_controls() -> None:
    # Attention in every second of eight layers, in another order: reversed, 1 2 4 3 becomes 3 4 2 1.
    base = deviations(tiny.model(tiny.llama(1, layers=8)))
    gaps = np.full(8, np.nan)
    gaps[1::2] = [1.0, 2.0, 4.0, 3.0]
    roles = ("attn.q", "attn.k", "attn.v", "attn.o")
    sparse = type(base)(base.id, {"layers": np.arange(8), **dict.fromkeys(roles, gaps)})
    found = numbers(compare(sparse, sparse))
    expected = float(np.corrcoef([1, 2, 4, 3], [3, 4, 2, 1])[0, 1])
    assert found["similarity"] == pytest.approx(1.0)
    assert found["similarity, layers reversed"] == pytest.approx(expected, abs=1e-12)
    assert found["similarity, layers shuffled: mean"] == pytest.approx(0.0, abs=0.15)  # all 200 orders count


def test_state_space_projections_have_sequences_of_their_own_beside_the_similarity() -> None:
    model = hybrid("MambaForCausalLM")
    tensors = tiny.tensors_of(model)
    for layer in range(4):
        tensors[f"backbone.layers.{layer}.mixer.in_proj.weight"] *= 1 + layer % 3
        tensors[f"backbone.layers.{layer}.mixer.out_proj.weight"] *= 4 - layer
    base = tiny.like(model, tensors)
    child = tiny.like(model, tiny.changed(tensors, 1, 0.01))
    result = compare(deviations(child), deviations(base))
    found = numbers(result)
    assert result.status == "measured"
    assert found["similarity"] is None
    for role in ("ssm.in", "ssm.out"):
        assert float(found[f"{role} pearson"] or 0) > 0.99
    assert MIXERS_NOTE in result.notes
    whole = tensors["backbone.layers.2.mixer.out_proj.weight"].astype(np.float64).std(ddof=1)
    assert deviations(base).arrays["ssm.out"][2] == pytest.approx(whole, rel=1e-9)


def test_dense_models_have_no_such_sequences() -> None:
    result = compare(deviations(tiny.model(tiny.llama(1))), deviations(tiny.model(tiny.llama(2))))
    assert not [name for name in numbers(result) if name.startswith(("ssm.", "linear.", "conv."))]
    assert MIXERS_NOTE not in result.notes
    assert len(result.tables) == 2


def test_every_experts_deviation_is_kept_and_their_range_is_shown() -> None:
    tensors = tiny.mixture(1, layers=3, experts=3)
    found = deviations(tiny.model(tensors))
    each = [
        tensors[f"model.layers.2.mlp.experts.{expert}.up_proj.weight"].astype(np.float64).std(ddof=1)
        for expert in range(3)
    ]
    np.testing.assert_allclose(found.arrays["mlp.up (each expert)"][2], each, rtol=1e-9)
    table = compare(found, found).tables[-1]
    row = next(row for row in table.rows if row[:3] == ("base", "mlp.up", 2))
    assert row[3:] == (3, pytest.approx(min(each)), pytest.approx(np.mean(each)), pytest.approx(max(each)))


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("MambaForCausalLM", {"ssm.in", "ssm.conv", "ssm.x", "ssm.dt", "ssm.A", "ssm.D", "ssm.out"}),
        ("Qwen3NextForCausalLM", {"linear.in", "linear.conv", "linear.A", "linear.norm", "linear.out", "attn.q"}),
        ("Lfm2MoeForCausalLM", {"conv.in", "conv.kernel", "conv.out", "attn.k", "moe.up"}),
    ],
)
def test_tensor_cosine_compares_other_mixers_by_role(name: str, roles: set[str]) -> None:
    model = hybrid(name)
    result = tensor_cosine.compare(tiny.like(model, tiny.changed(tiny.tensors_of(model), 1, 0.1)), model)
    cosines = {str(row[0]): row[2] for row in result.tables[0].rows}
    assert roles <= set(cosines)
    assert all(float(cosines[role] or 0) > 0.98 for role in roles)
