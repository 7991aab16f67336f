"""What GhostSpec on MLP spectra ignores and notices, and an answer worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.linalg.device import CPU, Device
from kinprint.linalg.stacked import singular_values_of
from kinprint.methods.ghostspec_mlp import METHODS
from kinprint.spectra import IDENTICAL, MLP, extract, similarity
from kinprint.transform import PRESERVING, ModelState
from kinprint.transform.upcycling import upcycled as make_mixture
from methods import tiny
from methods.tiny import numbers, run

seeds = st.integers(0, 2**32 - 1)
FOLDED, UNFOLDED = METHODS


@pytest.mark.parametrize("name", sorted(FOLDED.ignores - {"expert-permutation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    found = numbers(run(FOLDED, tiny.moved(tensors, [name], seed), tiny.model(tensors)))
    for label in ("similarity", "up: similarity", "down: similarity"):
        assert found[label] == pytest.approx(IDENTICAL, abs=1e-6), label  # rounded to float32 after the change


def test_unchanged_by_all_that_it_ignores_together_in_a_mixture_with_a_shared_expert() -> None:
    tensors = tiny.mixture(2)
    found = numbers(run(FOLDED, tiny.moved(tensors, sorted(FOLDED.ignores), 1), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-6)


@pytest.mark.parametrize(("method", "name"), [(m, name) for m in METHODS for name in sorted(m.notices)])
def test_changed_by(method: FingerprintMethod, name: str) -> None:
    tensors = tiny.llama(3)
    found = numbers(run(method, tiny.moved(tensors, [name], 1), tiny.model(tensors)))
    assert max(found["up: distance"], found["down: distance"]) > 1e-4


def test_it_declares_every_change_and_owns_up_to_the_one_it_sees() -> None:
    assert FOLDED.ignores | FOLDED.notices == set(PRESERVING)
    assert FOLDED.notices == {"ffn-rescaling"}


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_child_is_nearer_than_a_stranger(seed: int) -> None:
    tensors = tiny.llama(seed)
    child = numbers(run(FOLDED, tiny.model(tiny.changed(tensors, seed, 0.01)), tiny.model(tensors)))
    stranger = numbers(run(FOLDED, tiny.model(tiny.llama(seed + 1)), tiny.model(tensors)))
    assert child["similarity"] > stranger["similarity"]


def test_by_hand() -> None:
    def stored(up: list[float], down: list[float]) -> Fingerprint:
        return Fingerprint(MLP[True].id, {"layers": np.array([0]), "up": np.array([up]), "down": np.array([down])})

    a, b = [4.0, 3.0, 2.0, 1.0], [8.0, 5.0, 4.0, 3.0]
    found = numbers(FOLDED.compare(stored(a, a), stored(b, a)))
    # three values are kept, (1, 1/2, 0) and (1, 1/4, 0)
    assert found["up: distance"] == pytest.approx(1 / 48, abs=1e-15)
    assert found["down: distance"] == 0.0
    assert found["up: similarity"] == pytest.approx(1 / (1 + np.exp(3.7097 * (1 / 48 / 0.00925 - 1))), abs=1e-12)
    assert found["similarity"] == pytest.approx((similarity(1 / 48) + IDENTICAL) / 2, abs=1e-12)


def test_controls_are_given_for_both_matrices() -> None:
    tensors = tiny.llama(7, layers=8)
    found = numbers(run(FOLDED, tiny.model(tiny.changed(tensors, 1, 0.005)), tiny.model(tensors)))
    for matrix in ("up", "down"):
        assert found[f"{matrix}: distance, mismatched layers"] > 2 * found[f"{matrix}: distance"]
        assert found[f"{matrix}: similarity, layers reversed"] < found[f"{matrix}: similarity"]


# -- routed experts ------------------------------------------------------------------------------------------------

EXPERTS = ("experts pooled: similarity", "experts pooled: distance", "experts one to one: distance")


def upcycled(tensors: Mapping[str, np.ndarray], *, experts: int, noise: float) -> ModelView:
    """A Llama-form model as Mixtral, its MLP in every expert."""
    config = {
        "model_type": "llama",
        "head_dim": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
    }
    state = ModelState.from_view(tiny.model(tensors, **config))
    return make_mixture(state, experts=experts, active=1, noise=noise, rng=np.random.default_rng(3)).view()


@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_experts_in_another_order_and_other_gains_change_nothing(seed: int) -> None:
    tensors = tiny.mixture(seed % 1000, experts=5, shared=False)
    names = sorted(FOLDED.ignores)
    found = numbers(run(FOLDED, tiny.moved(tensors, names, seed), tiny.model(tensors)))
    assert found[EXPERTS[0]] == pytest.approx(IDENTICAL, abs=1e-6)  # rounded to float32 after the change
    assert found[EXPERTS[2]] == pytest.approx(0.0, abs=1e-6)


def test_a_mixture_made_from_a_dense_model_has_its_spectra_whatever_the_number_of_experts() -> None:
    tensors = tiny.llama(4)
    for experts in (2, 6):
        result = run(FOLDED, upcycled(tensors, experts=experts, noise=0.0), tiny.model(tensors))
        found = numbers(result)
        assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-6)
        assert found[EXPERTS[0]] == pytest.approx(IDENTICAL, abs=1e-6)
        assert found[EXPERTS[2]] == pytest.approx(0.0, abs=1e-6)
        assert any("the base is dense: its MLP stands against the suspect's experts" in note for note in result.notes)


def test_a_noisy_mixture_is_nearer_to_its_dense_parent_than_to_a_stranger() -> None:
    tensors = tiny.llama(4)
    child = upcycled(tensors, experts=6, noise=0.02)
    parent = numbers(run(FOLDED, child, tiny.model(tensors)))
    stranger = numbers(run(FOLDED, child, tiny.model(tiny.llama(5))))
    assert parent["similarity"] > stranger["similarity"]
    assert 0 < parent[EXPERTS[1]] < stranger[EXPERTS[1]] / 4
    assert 0 < parent[EXPERTS[2]] < stranger[EXPERTS[2]] / 4
    assert parent[EXPERTS[2]] < parent["experts one to one: distance, mismatched layers"] / 4


def test_experts_are_noticed_where_the_shared_expert_is_the_same() -> None:
    tensors = tiny.mixture(2)
    other = tensors | {name: array for name, array in tiny.mixture(9).items() if ".experts." in name}
    found = numbers(run(FOLDED, tiny.model(other), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-12)
    assert found[EXPERTS[1]] > 1e-4
    assert found[EXPERTS[2]] > 1e-4


def test_experts_by_hand() -> None:
    a, b = [4.0, 3.0, 2.0, 1.0], [8.0, 5.0, 4.0, 3.0]

    def stored(*experts: list[float]) -> Fingerprint:
        rows = np.array([experts])
        lengths = np.sqrt((rows**2).sum(axis=2, keepdims=True))
        pooled = (rows / lengths).mean(axis=1)
        plain = {"layers": np.array([0]), "up": np.array([a]), "down": np.array([a])}
        routed = {"layers": np.array([0]), "up": pooled, "down": pooled, "each.up": rows, "each.down": rows}
        return Fingerprint(MLP[True].id, plain | {f"experts.{name}": array for name, array in routed.items()})

    # Each expert finds its own; with a alone on one side, a is found among two; a against b alone is 1/48 away.
    assert numbers(FOLDED.compare(stored(a, b), stored(b, a)))[EXPERTS[2]] == 0.0
    assert numbers(FOLDED.compare(stored(a), stored(b, a)))[EXPERTS[2]] == 0.0
    assert numbers(FOLDED.compare(stored(a), stored(b)))[EXPERTS[2]] == pytest.approx(1 / 48, abs=1e-15)
    assert numbers(FOLDED.compare(stored(a), stored(b)))[EXPERTS[1]] == pytest.approx(1 / 48, abs=1e-15)
    # Two of a against a and b: one is 0 away, the other 1/48.
    assert numbers(FOLDED.compare(stored(a, a), stored(a, b)))[EXPERTS[2]] == pytest.approx(1 / 96, abs=1e-15)
    # Pooled over a and b: (a + b s) with s the ratio of their lengths, kept three, then scaled to [0, 1].
    ratio = np.sqrt(30 / 114)
    mean = [x + y * ratio for x, y in zip(a, b, strict=True)]
    middle = (mean[1] - mean[2]) / (mean[0] - mean[2])
    found = numbers(FOLDED.compare(stored(a), stored(a, b)))
    assert found[EXPERTS[1]] == pytest.approx((0.5 - middle) ** 2 / 3, abs=1e-12)


def test_dense_models_have_no_numbers_of_experts() -> None:
    result = run(FOLDED, tiny.model(tiny.llama(1)), tiny.model(tiny.llama(2)))
    assert not [name for name in numbers(result) if name.startswith("experts")]
    assert not any("routed" in note for note in result.notes)


def test_experts_without_a_usable_layer_have_a_reason() -> None:
    tensors = tiny.mixture(3)
    damaged = {name: array.copy() for name, array in tensors.items()}
    for layer in range(4):
        damaged[f"model.layers.{layer}.mlp.experts.0.up_proj.weight"][0, 0] = np.nan
    result = run(FOLDED, tiny.model(damaged), tiny.model(tensors))
    assert result.status == "measured"
    reasons = {value.name: value.reason for value in result.values}
    assert all("suspect" in str(reasons[name]) for name in EXPERTS)


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_matrix_that_no_gain_is_folded_into_is_decomposed_once(
    order: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = tiny.llama(5)
    alone = {fold: MLP[fold].run(tiny.model(tensors), CPU) for fold in order}
    shapes: list[tuple[int, ...]] = []

    def counted(weights: Iterable[np.ndarray], device: Device | None) -> list[np.ndarray]:
        given = list(weights)
        shapes.extend(weight.shape for weight in given)
        return singular_values_of(given, device)

    monkeypatch.setattr(extract, "singular_values_of", counted)
    model = tiny.model(tensors)
    both = {fold: MLP[fold].run(model, CPU) for fold in order}
    up, down = (model.shape(role, 0) for role in ("mlp.up", "mlp.down"))
    layers = len(model.layers("mlp.up"))
    assert (shapes.count(up), shapes.count(down)) == (2 * layers, layers)
    for fold in order:
        for matrix in ("up", "down"):
            np.testing.assert_array_equal(both[fold].arrays[matrix], alone[fold].arrays[matrix])


def test_an_unknown_family_is_not_applicable_with_the_reason() -> None:
    result = run(FOLDED, tiny.model(tiny.llama(1)), tiny.model({"w": np.ones((4, 4), np.float32)}))
    assert result.status == "not_applicable"
    assert "base: family unknown" in str(result.reason)


def test_a_layer_with_nan_is_left_out_and_named() -> None:
    tensors = tiny.llama(7)
    damaged = {name: array.copy() for name, array in tensors.items()}
    damaged["model.layers.3.mlp.down_proj.weight"][0, 0] = np.nan
    result = run(FOLDED, tiny.model(damaged), tiny.model(tensors))
    assert any("model.layers.3.mlp.down_proj.weight" in note for note in result.notes)
    assert [row[:2] for row in result.tables[0].rows] == [(0, 0), (1, 1), (2, 2)]
    assert numbers(result)["similarity"] == pytest.approx(IDENTICAL, abs=1e-12)


def test_the_papers_form_says_that_it_does_not_fold() -> None:
    model = tiny.model(tiny.llama(1))
    assert any("norm gains are not folded in" in note for note in run(UNFOLDED, model, model).notes)
    assert not any("not folded" in note for note in run(FOLDED, model, model).notes)
    assert FOLDED.id == "ghostspec-mlp/v2[experts=pooled,fold=true,k_tau=3.7097,rho=0.000925,tau=0.00925]"
    assert UNFOLDED.extractor.id == "spectra/v1[experts=8,fold=false,products=up+down]"
