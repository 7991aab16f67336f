"""What GhostSpec-mse ignores and notices, and an answer worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.methods.ghostspec_mse import METHODS
from kinprint.spectra import ATTENTION, IDENTICAL
from kinprint.transform import PRESERVING
from methods import tiny
from methods.tiny import numbers, run

seeds = st.integers(0, 2**32 - 1)
FOLDED, UNFOLDED = METHODS


def stored(qk: list[list[float]], vo: list[list[float]]) -> Fingerprint:
    layers = np.arange(len(qk), dtype=np.int64)
    return Fingerprint(ATTENTION[True].id, {"layers": layers, "qk": np.array(qk, float), "vo": np.array(vo, float)})


@pytest.mark.parametrize("name", sorted(FOLDED.ignores - {"expert-permutation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    found = numbers(run(FOLDED, tiny.moved(tensors, [name], seed), tiny.model(tensors)))
    # weights are rounded to float32 after the change: distances of some 1e-13
    assert found["distance"] == pytest.approx(0.0, abs=1e-9)
    assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-6)


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_unchanged_by_all_of_them_together(seed: int) -> None:
    tensors = tiny.llama(seed, bias=True)
    everything = [name for name in PRESERVING if name != "expert-permutation"]
    found = numbers(run(FOLDED, tiny.moved(tensors, everything, seed), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-6)


def test_every_function_preserving_change_is_declared_to_be_ignored() -> None:
    assert FOLDED.ignores == set(PRESERVING)
    assert not FOLDED.notices


@pytest.mark.parametrize("name", sorted(UNFOLDED.ignores - {"expert-permutation"}))
def test_the_papers_form_is_unchanged_by(name: str) -> None:
    tensors = tiny.llama(3)
    found = numbers(run(UNFOLDED, tiny.moved(tensors, [name], 1), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(IDENTICAL, abs=1e-6)


@pytest.mark.parametrize("name", sorted(UNFOLDED.notices))
def test_the_papers_form_is_changed_by(name: str) -> None:
    tensors = tiny.llama(3)
    found = numbers(run(UNFOLDED, tiny.moved(tensors, [name], 1), tiny.model(tensors)))
    assert found["distance"] > 1e-4


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_child_is_nearer_than_a_stranger(seed: int) -> None:
    tensors = tiny.llama(seed)
    child = numbers(run(FOLDED, tiny.model(tiny.changed(tensors, seed, 0.01)), tiny.model(tensors)))
    stranger = numbers(run(FOLDED, tiny.model(tiny.llama(seed + 1)), tiny.model(tensors)))
    assert 0 < child["distance"] < stranger["distance"]
    assert child["similarity"] > stranger["similarity"]


def test_by_hand() -> None:
    # qk keeps three values, (1, 1/2, 0) and (1, 1/4, 0); vo is the same: D = (1/16 / 3) / 2
    a, b = [[4.0, 3.0, 2.0, 1.0]], [[8.0, 5.0, 4.0, 3.0]]
    found = numbers(FOLDED.compare(stored(a, a), stored(b, a)))
    assert found["distance"] == pytest.approx(1 / 96, abs=1e-15)
    assert found["similarity"] == pytest.approx(1 / (1 + np.exp(3.7097 * (1 / 96 - 0.00925) / 0.00925)), abs=1e-12)
    assert found["similarity"] == pytest.approx(0.3851, abs=5e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_and_itself_score_as_the_paper_prints(method: FingerprintMethod) -> None:
    model = tiny.model(tiny.llama(4))
    result = run(method, model, model)
    assert round(numbers(result)["similarity"], 4) == 0.9761
    assert result.values[0].identical == IDENTICAL
    assert numbers(result)["distance"] == 0.0


def test_controls_are_worse_than_the_value_for_a_child() -> None:
    tensors = tiny.llama(7, layers=8)
    found = numbers(run(FOLDED, tiny.model(tiny.changed(tensors, 1, 0.01)), tiny.model(tensors)))
    assert found["distance, mismatched layers"] > 5 * found["distance"]
    assert found["distance, best shifted map"] > 5 * found["distance"]
    assert found["similarity, layers reversed"] < found["similarity"]


def test_a_depth_pruned_child_gets_its_layer_map() -> None:
    tensors = tiny.llama(7, layers=6)
    pruned = {
        name.replace(f"layers.{old}.", f"layers.{new}."): tensors[name]
        for new, old in enumerate((0, 1, 2, 4, 5))
        for name in tensors
        if f"layers.{old}." in name or "layers." not in name
    }
    result = run(FOLDED, tiny.model(pruned), tiny.model(tensors))
    assert [row[:2] for row in result.tables[0].rows] == [(0, 0), (1, 1), (2, 2), (3, 4), (4, 5)]
    assert numbers(result)["similarity"] == pytest.approx(IDENTICAL, abs=1e-12)
    assert any("5 against 6 layers" in note for note in result.notes)


def test_a_layer_with_nan_is_left_out_and_named() -> None:
    tensors = tiny.llama(7)
    damaged = {name: array.copy() for name, array in tensors.items()}
    damaged["model.layers.1.self_attn.o_proj.weight"][0, 0] = np.nan
    result = run(FOLDED, tiny.model(damaged), tiny.model(tensors))
    assert result.status == "measured"
    assert [row[0] for row in result.tables[0].rows] == [0, 2, 3]
    assert any("model.layers.1.self_attn.o_proj.weight" in note for note in result.notes)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_family_is_not_applicable_with_the_reason(method: FingerprintMethod) -> None:
    unknown = tiny.model({"w": np.ones((4, 4), np.float32)})
    result = run(method, unknown, tiny.model(tiny.llama(1)))
    assert result.status == "not_applicable"
    assert result.reason == "suspect: family unknown: no tensor has the role attn.q, attn.k, attn.v, attn.o"
    assert not result.values


def test_the_ids_hold_every_constant() -> None:
    assert FOLDED.id == "ghostspec-mse/v1[fold=true,k_tau=3.7097,rho=0.000925,tau=0.00925]"
    assert UNFOLDED.id == "ghostspec-mse/v1[fold=false,k_tau=3.7097,rho=0.000925,tau=0.00925]"
    assert FOLDED.extractor.id == "spectra/v1[fold=true,products=qk+vo]"
    model = tiny.model(tiny.llama(1))
    for method in METHODS:
        assert method.extractor.extract(model).id == method.extractor.id
        result = run(method, model, model)
        assert (result.method, result.id) == (method.name, method.id)
