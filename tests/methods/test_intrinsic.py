"""What the correlation of standard deviations ignores and notices, and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.fingerprints import Fingerprint
from kinprint.methods.intrinsic import EXTRACTOR, METHOD, Moments, compare, correlate, deviations
from kinprint.types import MethodResult
from methods import tiny

seeds = st.integers(0, 2**32 - 1)
Q, K, V, O = "attn.q", "attn.k", "attn.v", "attn.o"  # noqa: E741 - the papers' letters


def stored(layers: Sequence[int] | None = None, **sequences: Sequence[float]) -> Fingerprint:
    """A fingerprint with the given sequences under q, k, v and o, by default the same under all four."""
    by_role = {f"attn.{letter}": np.array(values, np.float64) for letter, values in sequences.items()}
    depth = len(next(iter(by_role.values())))
    return Fingerprint(EXTRACTOR.id, {"layers": np.array(layers or range(depth), np.int64), **by_role})


def same(values: Sequence[float], layers: Sequence[int] | None = None) -> Fingerprint:
    return stored(layers, q=values, k=values, v=values, o=values)


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in (*result.values, *result.controls)}


def reasons(result: MethodResult) -> Mapping[str, str | None]:
    return {value.name: value.reason for value in result.values}


def measured(one: ModelView, other: ModelView) -> Mapping[str, float | None]:
    result = compare(deviations(one), deviations(other))
    return {value.name: value.value for value in result.values}


# -- what it ignores and notices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("name", sorted(METHOD.ignores))
def test_unchanged_by(name: str, mixture: bool) -> None:
    if name == "expert-permutation" and not mixture:
        return
    tensors = tiny.mixture(5) if mixture else tiny.llama(5, bias=True)
    model = tiny.model(tensors)
    before, after = measured(model, model), measured(tiny.moved(tensors, [name], 1), model)
    assert len(before) >= 12
    for label, value in before.items():
        assert value == pytest.approx(1.0, abs=1e-12), label
        assert after[label] == pytest.approx(1.0, abs=1e-9), label  # the same entries, summed in another order


@pytest.mark.parametrize("name", sorted(METHOD.notices))
def test_changed_by(name: str) -> None:
    tensors = tiny.llama(5)
    found = measured(tiny.moved(tensors, [name], 1), tiny.model(tensors))
    assert min(value for value in found.values() if value is not None) < 0.999


@given(seed=seeds)
@settings(deadline=None, max_examples=4)
def test_a_noisy_child_is_near_one_and_a_stranger_is_not(seed: int) -> None:
    tensors = tiny.llama(seed, layers=8)
    base, child = tiny.model(tensors), tiny.model(tiny.changed(tensors, seed, 0.01))
    near = measured(child, base)["similarity"]
    stranger = measured(tiny.model(tiny.llama(seed + 1, layers=8)), base)["similarity"]
    assert near is not None
    assert stranger is not None
    assert near > 0.995
    assert stranger < near


# -- by hand -------------------------------------------------------------------------------------------------------


def test_pearson_by_hand() -> None:
    assert correlate(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]), paired=True)[0] == pytest.approx(0.5)
    assert correlate(np.array([1.0, 2.0, 3.0]), np.array([9.0, 7.0, 5.0]), paired=True)[0] == pytest.approx(-1.0)


@pytest.mark.parametrize("swap", [False, True])
def test_the_shorter_sequence_is_interpolated_onto_the_longer(swap: bool) -> None:
    # (0, 2, 4) becomes (0, 1, 2, 3, 4); against (0, 1, 2, 3, 5): 12 / sqrt(10 * 14.8)
    a, b = np.array([0.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    found = correlate(*((b, a) if swap else (a, b)), paired=False)[0]
    assert found == pytest.approx(12 / np.sqrt(148), abs=1e-12)


def test_the_similarity_is_the_mean_over_q_k_v_o() -> None:
    base = same([1.0, 2.0, 3.0])
    suspect = stored(q=[1, 2, 3], k=[3, 2, 1], v=[1, 3, 2], o=[2, 4, 6])
    found = numbers(compare(suspect, base))
    assert [found[f"{role} pearson"] for role in (Q, K, V, O)] == pytest.approx([1.0, -1.0, 0.5, 1.0])
    assert found["similarity"] == pytest.approx(1.5 / 4)


def test_controls_by_hand() -> None:
    found = numbers(compare(same([1.0, 2.0, 3.0]), same([1.0, 3.0, 2.0])))
    assert found["similarity, layers reversed"] == pytest.approx(-0.5)
    assert found["depth trend, suspect"] == pytest.approx(1.0)
    assert found["depth trend, base"] == pytest.approx(0.5)
    # of the six orders of 1, 2, 3 the correlations are +-1, +-1/2, +-1/2: mean 0, and 1 has probability 1/3
    assert found["similarity, layers shuffled: mean"] == pytest.approx(0.0, abs=0.2)  # 4 sd of the mean of 200 draws
    assert found["similarity, layers shuffled: q95 of |r|"] == pytest.approx(1.0)


def test_the_deviation_is_the_unbiased_one_of_all_entries() -> None:
    tensors = tiny.llama(1)
    tensors["model.layers.2.self_attn.q_proj.weight"] = np.tile(np.float32([[1, 3]]), (16, 8))
    found = deviations(tiny.model(tensors)).arrays["attn.q"]
    assert found[2] == pytest.approx(np.sqrt(256 / 255), abs=1e-12)  # 256 entries, each 1 away from the mean


def test_experts_are_pooled_by_concatenation_and_by_mean() -> None:
    tensors = tiny.mixture(1, layers=3, experts=2)
    for expert, low in ((0, 1), (1, 5)):
        tensors[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"] = np.tile(np.float32([[low, low + 2]]), (12, 8))
    found = deviations(tiny.model(tensors)).arrays
    # 1, 3, 5, 7 in equal parts: squared deviations 9, 1, 1, 9 over 384 entries; each expert alone: 1 over 192
    assert found["mlp.up"][0] == pytest.approx(np.sqrt(384 * 5 / 383), abs=1e-12)
    assert found["mlp.up (mean of experts)"][0] == pytest.approx(np.sqrt(192 / 191), abs=1e-12)


def test_a_mixture_is_compared_with_a_dense_model_in_both_ways() -> None:
    found = numbers(compare(deviations(tiny.model(tiny.mixture(1))), deviations(tiny.model(tiny.llama(2)))))
    assert found["mlp.up pearson"] is not None
    assert found["mlp.up (mean of experts) pearson"] is not None
    dense = numbers(compare(deviations(tiny.model(tiny.llama(1))), deviations(tiny.model(tiny.llama(2)))))
    assert "mlp.up (mean of experts) pearson" not in dense


@given(seed=seeds, cut=st.integers(1, 29), offset=st.sampled_from([0.0, 1e4]))
@settings(deadline=None, max_examples=25)
def test_moments_of_parts_merge_to_those_of_the_whole(seed: int, cut: int, offset: float) -> None:
    values = (np.random.default_rng(seed).standard_normal((30, 3)) + offset).astype(np.float32)
    merged = Moments().merged(Moments.of(values[:cut])).merged(Moments.of(values[cut:]))
    # two passes in float64: an offset of 10^4 costs no digits that a sum of squares would lose
    assert merged.deviation == pytest.approx(values.astype(np.float64).std(ddof=1), rel=1e-10)


def test_a_matrix_of_several_blocks_is_measured_whole() -> None:
    tensors = tiny.llama(1, layers=3, ffn=80_000)  # 5 MB, more than one block
    found = deviations(tiny.model(tensors)).arrays["mlp.down"]
    whole = tensors["model.layers.1.mlp.down_proj.weight"].astype(np.float64).std(ddof=1)
    assert found[1] == pytest.approx(whole, rel=1e-12)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_fewer_than_three_layers_are_not_applicable() -> None:
    result = compare(deviations(tiny.model(tiny.llama(1, layers=2))), deviations(tiny.model(tiny.llama(2))))
    assert result.status == "not_applicable"
    assert result.reason == "suspect: 2 usable layers, at least 3 are needed"


def test_a_sequence_that_is_constant_has_no_correlation_and_says_so() -> None:
    tensors = tiny.llama(1)
    for layer in range(4):
        tensors[f"model.layers.{layer}.input_layernorm.weight"][:] = 1.0
    result = compare(deviations(tiny.model(tiny.llama(2))), deviations(tiny.model(tensors)))
    assert numbers(result)["norm.attn pearson"] is None
    assert reasons(result)["norm.attn pearson"] == "base: the same in every layer"
    assert numbers(result)["similarity"] is not None


def test_a_role_that_one_side_lacks_is_said() -> None:
    one, other = tiny.model(tiny.llama(1, bias=True)), tiny.model(tiny.llama(2))
    result = compare(deviations(one), deviations(other))
    assert numbers(result)["attn.q.bias pearson"] is None
    assert reasons(result)["attn.q.bias pearson"] == "base has no usable attn.q.bias"


def test_a_layer_with_nan_is_left_out_of_both_models_and_named() -> None:
    tensors = tiny.llama(1, layers=6)
    damaged = {name: array.copy() for name, array in tensors.items()}
    damaged["model.layers.1.self_attn.v_proj.weight"][0, 0] = np.inf
    result = compare(deviations(tiny.model(damaged)), deviations(tiny.model(tensors)))
    assert numbers(result)["attn.v pearson"] == pytest.approx(1.0, abs=1e-12)
    assert any("model.layers.1.self_attn.v_proj.weight" in note for note in result.notes)
    rows = {row[0]: row for row in result.tables[0].rows}
    assert rows["attn.v"][1:3] == (5, 6)
    assert result.tables[1].rows[1][5:7] == (None, pytest.approx(result.tables[1].rows[1][6]))


def test_an_unknown_family_is_not_applicable_with_the_reason() -> None:
    unknown = deviations(tiny.model({"w": np.ones((4, 4), np.float32)}))
    result = compare(deviations(tiny.model(tiny.llama(1))), unknown)
    assert result.status == "not_applicable"
    assert result.reason == "base: family unknown: no layer has a role that this method reads"


def test_different_depth_is_noted() -> None:
    result = compare(deviations(tiny.model(tiny.llama(1, layers=6))), deviations(tiny.model(tiny.llama(1, layers=4))))
    assert any("interpolated" in note for note in result.notes)
    assert "no null distribution" in result.notes[0]
    assert len(result.tables[1].rows) == 6
