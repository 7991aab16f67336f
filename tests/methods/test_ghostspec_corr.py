"""What GhostSpec-corr ignores and notices, and an answer worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.methods import ghostspec_mse
from kinprint.methods.ghostspec_corr import METHODS
from kinprint.spectra import ATTENTION
from kinprint.transform import PRESERVING
from methods import tiny
from methods.tiny import numbers, run

seeds = st.integers(0, 2**32 - 1)
FOLDED, UNFOLDED = METHODS


def stored(qk: list[float], vo: list[float]) -> Fingerprint:
    """Spectra (8, 8 m, 0+) of three kept values, whose second one is m once they are scaled to [0, 1]."""

    def spectra(middles: list[float]) -> np.ndarray:
        return np.array([[12.0, 4 + 8 * middle, 4.0, 2.0] for middle in middles])

    layers = np.arange(len(qk), dtype=np.int64)
    return Fingerprint(ATTENTION[True].id, {"layers": layers, "qk": spectra(qk), "vo": spectra(vo)})


@pytest.mark.parametrize("name", sorted(FOLDED.ignores - {"expert-permutation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    found = numbers(run(FOLDED, tiny.moved(tensors, [name], seed), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(1.0, abs=1e-6)  # weights are rounded to float32 after the change


@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by_all_of_them_together(seed: int) -> None:
    tensors = tiny.llama(seed)
    everything = [name for name in PRESERVING if name != "expert-permutation"]
    found = numbers(run(FOLDED, tiny.moved(tensors, everything, seed), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(UNFOLDED.notices))
def test_the_papers_form_is_changed_by(name: str) -> None:
    tensors = tiny.llama(3)
    found = numbers(run(UNFOLDED, tiny.moved(tensors, [name], 1), tiny.model(tensors)))
    assert found["similarity"] < 0.999


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_child_is_nearer_than_a_stranger(seed: int) -> None:
    tensors = tiny.llama(seed, layers=6)
    child = numbers(run(FOLDED, tiny.model(tiny.changed(tensors, seed, 0.003)), tiny.model(tensors)))
    stranger = numbers(run(FOLDED, tiny.model(tiny.llama(seed + 1, layers=6)), tiny.model(tensors)))
    assert stranger["similarity"] < child["similarity"] < 1.0


def test_by_hand() -> None:
    # Levels are (1 + m + 0) / 3, so in units of the step x = (0, 0, 1, 0, 0, 0) and y = (0, 0, 0, 0, 0, 1): one point
    # apart in each. Distances are 1 where exactly one of i, j is that point p; row means are 1/6, and 5/6 at p; the
    # grand mean is 10/36. Centred: A_pp = -50/36, A_pi = 10/36, A_ij = -2/36, and 36^2 sum A^2 = 2500 + 1000 + 100.
    # With B about another point q, 36^2 sum AB = 2 (-50)(-2) + 2 (10)(10) + 4 * 4 (10)(-2) + 4 * 4 (-2)(-2) = 144.
    step, rest = 0.75, 0.25
    found = numbers(FOLDED.compare(stored([rest, rest, step], [rest] * 3), stored([rest] * 3, [rest, rest, step])))
    assert found["similarity"] == pytest.approx(np.sqrt(144 / 3600), abs=1e-7)
    shuffled = found["similarity, layers shuffled: mean"]
    assert 0.2 <= shuffled <= 1.0


def test_the_levels_are_means_of_the_scaled_spectra() -> None:
    result = FOLDED.compare(stored([0.25, 0.5, 0.75], [0.5] * 3), stored([0.75, 0.5, 0.25], [0.25] * 3))
    table = result.tables[0]
    assert table.columns[2:] == ("qk level, suspect", "qk level, base", "vo level, suspect", "vo level, base")
    assert table.rows[0][2:] == pytest.approx([1.25 / 3, 1.75 / 3, 1.5 / 3, 1.25 / 3], abs=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_and_itself_score_one(method: FingerprintMethod) -> None:
    model = tiny.model(tiny.llama(4))
    result = run(method, model, model)
    assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-12)
    assert result.values[0].identical == 1.0


def test_shuffled_controls_lie_below_the_value_for_a_child_and_are_reproducible() -> None:
    tensors = tiny.llama(7, layers=10)
    child, base = tiny.model(tiny.changed(tensors, 1, 0.003)), tiny.model(tensors)
    found = numbers(run(FOLDED, child, base))
    assert found["similarity"] > found["similarity, layers shuffled: mean"] > 0
    assert found["similarity"] > found["similarity, all levels shuffled: mean"] > 0
    assert numbers(run(FOLDED, child, base)) == found


def test_the_shuffled_layers_keep_what_the_two_products_levels_give() -> None:
    # qk low and vo high in both models, nothing else: shuffling layers keeps it, shuffling everything does not
    rng = np.random.default_rng(0)
    low, high = (0.2 + 0.01 * rng.random((2, 8))).tolist(), (0.8 + 0.01 * rng.random((2, 8))).tolist()
    found = numbers(FOLDED.compare(stored(low[0], high[0]), stored(low[1], high[1])))
    assert found["similarity"] > 0.99
    assert found["similarity, layers shuffled: mean"] > 0.99
    assert found["similarity, all levels shuffled: mean"] < 0.5


def test_fewer_than_three_pairs_of_layers_are_not_applicable() -> None:
    result = run(FOLDED, tiny.model(tiny.llama(1, layers=2)), tiny.model(tiny.llama(2)))
    assert (result.status, result.reason) == ("not_applicable", "2 pairs of layers: at least 3 are needed")


def test_levels_that_never_change_are_not_applicable() -> None:
    result = FOLDED.compare(stored([0.5] * 3, [0.5] * 3), stored([0.25, 0.5, 0.75], [0.5] * 3))
    assert result.status == "not_applicable"
    assert result.reason == "the level is the same in every layer of one model"


def test_different_depth_is_mapped() -> None:
    tensors = tiny.llama(7, layers=6)
    cut = {name: array for name, array in tensors.items() if "layers.5." not in name and "layers.4." not in name}
    found = run(FOLDED, tiny.model(cut), tiny.model(tensors))
    assert [row[:2] for row in found.tables[0].rows] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert numbers(found)["similarity"] == pytest.approx(1.0, abs=1e-12)


def test_a_layer_with_nan_is_left_out_and_named() -> None:
    tensors = tiny.llama(7)
    tensors["model.layers.1.self_attn.o_proj.weight"][0, 0] = np.nan
    result = run(FOLDED, tiny.model(tensors), tiny.model(tiny.llama(8)))
    assert any("model.layers.1.self_attn.o_proj.weight" in note for note in result.notes)


def test_an_unknown_family_is_not_applicable_with_the_reason() -> None:
    result = run(FOLDED, tiny.model(tiny.llama(1)), tiny.model({"w": np.ones((4, 4), np.float32)}))
    assert result.status == "not_applicable"
    assert "base: family unknown" in str(result.reason)


def test_it_shares_its_spectra_with_ghostspec_mse() -> None:
    for corr, mse in zip(METHODS, ghostspec_mse.METHODS, strict=True):
        assert corr.extractor is mse.extractor
    assert FOLDED.id == "ghostspec-corr/v1[fold=true,rho=0.000925,seed=0,shuffles=64]"
