"""What GhostSpec on MLP spectra ignores and notices, and an answer worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.methods.ghostspec_mlp import METHODS
from kinprint.spectra import IDENTICAL, MLP, similarity
from kinprint.transform import PRESERVING
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


def test_a_mixture_of_routed_experts_alone_is_not_applicable() -> None:
    result = run(FOLDED, tiny.model(tiny.mixture(1, shared=False)), tiny.model(tiny.llama(1)))
    assert result.status == "not_applicable"
    assert "only routed experts" in str(result.reason)


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
    assert FOLDED.id == "ghostspec-mlp/v1[fold=true,k_tau=3.7097,rho=0.000925,tau=0.00925]"
    assert UNFOLDED.extractor.id == "spectra/v1[fold=false,products=up+down]"
