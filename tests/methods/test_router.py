"""What the comparison of routers ignores and notices, and answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.fingerprints import Fingerprint
from kinprint.methods.router import EXTRACTOR, METHOD, SHUFFLES, compare, grams
from kinprint.spectra.gram import cosines, likeness, matched
from kinprint.transform import PRESERVING
from methods import tiny
from methods.tiny import numbers, run

seeds = st.integers(0, 2**32 - 1)


def stored(*routers: np.ndarray) -> Fingerprint:
    """A fingerprint of routers given by their rows."""
    named = {f"gram.{layer}": rows_ED @ rows_ED.T for layer, rows_ED in enumerate(routers)}
    return Fingerprint(EXTRACTOR.id, {"layers": np.arange(len(routers)), **named})


def drawn(seed: int, *, layers: int = 3, experts: int = 12, width: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((experts, width)) for _ in range(layers)]


def mixture(seed: int, **sizes: int) -> ModelView:
    return tiny.model(tiny.mixture(seed, **sizes))


# -- what it ignores and notices -----------------------------------------------------------------------------------


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_unchanged_by_all_that_it_ignores_together(seed: int) -> None:
    tensors = tiny.mixture(seed % 1000, experts=8)
    found = numbers(run(METHOD, tiny.moved(tensors, sorted(METHOD.ignores), seed), tiny.model(tensors)))
    assert found["similarity"] == pytest.approx(1.0, abs=1e-6)  # rounded to float32 after the change


def test_it_ignores_every_change_that_keeps_the_function() -> None:
    assert METHOD.ignores == set(PRESERVING)
    assert not METHOD.notices


@given(seed=seeds)
@settings(deadline=None, max_examples=10)
def test_a_common_shift_and_a_scale_of_each_row_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    routers = drawn(seed)
    moved = [rows[rng.permutation(12)] + 3 * rng.standard_normal(32) for rows in routers]
    centred = [rows - rows.mean(axis=0) for rows in routers]
    scaled = [rows - rows.mean(axis=0) for rows in moved]
    assert numbers(compare(stored(*moved), stored(*routers)))["similarity"] == pytest.approx(1.0, abs=1e-9)
    gram = scaled[0] @ scaled[0].T
    size = rng.uniform(0.5, 2.0, 12)
    # Scaled after centring: the cosines of the same directions.
    np.testing.assert_allclose(
        cosines(gram * np.outer(size, size), centred=False), cosines(gram, centred=False), atol=1e-12
    )
    assert likeness(*(cosines(rows @ rows.T, centred=True) for rows in (centred[0], routers[0]))) == pytest.approx(1.0)


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_noisy_child_in_another_order_is_found_and_a_stranger_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    routers = drawn(seed, experts=24, width=64)
    child = [rows[rng.permutation(24)] + 0.05 * rng.standard_normal(rows.shape) for rows in routers]
    near = numbers(compare(stored(*child), stored(*routers)))
    far = numbers(compare(stored(*drawn(seed + 1, experts=24, width=64)), stored(*routers)))
    assert near["similarity"] > 0.98
    assert far["similarity"] < 0.5
    for name in ("entries shuffled and matched: mean", "experts shuffled: mean"):
        assert near[f"similarity, {name}"] < 0.3
    assert near["similarity, mismatched layers"] < 0.5


def test_training_of_one_layers_router_is_noticed_there() -> None:
    tensors = tiny.mixture(1, experts=8)
    other = dict(tensors)
    other["model.layers.2.mlp.gate.weight"] = tiny.mixture(2, experts=8)["model.layers.2.mlp.gate.weight"]
    rows = run(METHOD, tiny.model(other), tiny.model(tensors)).tables[0].rows
    assert [row[4] for row in rows] == pytest.approx([1.0, 1.0, rows[2][4], 1.0], abs=1e-6)
    assert float(rows[2][4] or 0) < 0.9


def test_experts_that_were_removed_are_found_among_the_others() -> None:
    rng = np.random.default_rng(3)
    routers = drawn(3, experts=16)
    kept = [rows[rng.permutation(16)[:8]] for rows in routers]
    for suspect, base in ((kept, routers), (routers, kept)):
        result = compare(stored(*suspect), stored(*base))
        assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-9)
        counts = f"{len(suspect[0])} against {len(base[0])} experts"
        assert any(note.startswith(counts) and "favours" in note for note in result.notes)


def test_a_model_with_fewer_layers_finds_its_own() -> None:
    routers = drawn(4, layers=6)
    result = compare(stored(*routers[2:5]), stored(*routers))
    assert [row[:2] for row in result.tables[0].rows] == [(0, 2), (1, 3), (2, 4)]
    assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-9)
    assert any(note.startswith("3 against 6 layers with a router") for note in result.notes)


# -- by hand -------------------------------------------------------------------------------------------------------


def test_cosines_by_hand() -> None:
    # About the mean (1, 0) the rows are (1, 0), (-1, 1), (-1, -1) and (1, 0).
    rows = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [2.0, 0.0]])
    root = -(0.5**0.5)
    expected = [[0, root, root, 1], [root, 0, 0, root], [root, 0, 0, root], [1, root, root, 0]]
    np.testing.assert_allclose(cosines(rows @ rows.T, centred=True), expected, atol=1e-12)


def test_a_row_that_is_the_mean_has_no_direction() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(cosines(rows @ rows.T, centred=True), [[0, -1, 0], [-1, 0, 0], [0, 0, 0]])


def test_likeness_by_hand() -> None:
    def symmetric(first: float, second: float, third: float) -> np.ndarray:
        return np.array([[0, first, second], [first, 0, third], [second, third, 0]], dtype=np.float64)

    # (1, 2, 3) and (1, 3, 2) about their means: (-1, 0, 1) and (-1, 1, 0)
    assert likeness(symmetric(1, 2, 3), symmetric(1, 3, 2)) == pytest.approx(0.5)
    assert np.isnan(likeness(symmetric(1, 2, 3), symmetric(2, 2, 2)))


def test_matching_by_hand() -> None:
    # Six different entries: row i of one is row order[i] of the other.
    left = np.array([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]], dtype=np.float64) / 10
    order = np.array([2, 0, 3, 1])
    right = np.empty((4, 4))
    right[np.ix_(order, order)] = left
    np.testing.assert_array_equal(matched(left, right), order)


def test_the_similarity_is_the_mean_over_layers_and_the_gain_is_folded() -> None:
    tensors = tiny.mixture(5, experts=4)
    found = grams(tiny.model(tensors))
    rows = tensors["model.layers.3.mlp.gate.weight"].astype(float)
    rows *= tensors["model.layers.3.post_attention_layernorm.weight"]
    # folding multiplies in float32
    np.testing.assert_allclose(found.arrays["gram.3"], rows @ rows.T, rtol=1e-5, atol=1e-5)
    result = compare(found, grams(mixture(6, experts=4)))
    shown = [float(row[4] or 0) for row in result.tables[0].rows]
    assert numbers(result)["similarity"] == pytest.approx(np.mean(shown), abs=1e-12)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_a_dense_model_is_not_applicable() -> None:
    dense = tiny.model(tiny.llama(1))
    for suspect, base, who in ((dense, mixture(1, experts=4), "suspect"), (mixture(1, experts=4), dense, "base")):
        result = run(METHOD, suspect, base)
        assert result.status == "not_applicable"
        assert result.reason == f"{who}: family llama: no layer has a router"


def test_three_experts_are_too_few() -> None:
    result = run(METHOD, mixture(1, experts=3), mixture(1, experts=8))
    assert result.reason == "suspect: fewer than 4 experts"


def test_a_router_with_nan_is_left_out_and_named() -> None:
    tensors = tiny.mixture(7, experts=8)
    damaged = {name: array.copy() for name, array in tensors.items()}
    damaged["model.layers.3.mlp.gate.weight"][0, 0] = np.nan
    result = run(METHOD, tiny.model(damaged), tiny.model(tensors))
    assert any("model.layers.3.mlp.gate.weight" in note for note in result.notes)
    assert [row[:2] for row in result.tables[0].rows] == [(0, 0), (1, 1), (2, 2)]


def test_experts_that_are_all_alike_are_not_applicable() -> None:
    result = compare(stored(np.eye(6)), stored(*drawn(1, layers=1, experts=6)))
    assert result.status == "not_applicable"
    assert "equally far apart" in str(result.reason)


def test_a_single_layer_has_no_mismatched_one_and_says_so() -> None:
    one = stored(*drawn(1, layers=1))
    result = compare(one, one)
    control = {value.name: value for value in result.controls}["similarity, mismatched layers"]
    assert control.value is None
    assert control.reason
    assert f"shuffles={SHUFFLES}" in METHOD.id
