"""What the agreement of gate and up matchings ignores and notices, and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.linalg.matching import FLOOR, SAMPLED_LAYERS
from kinprint.methods.phi_match import METHOD, compare
from methods import tiny
from methods.tiny import numbers

seeds = st.integers(0, 2**32 - 1)


def with_units(gate: Sequence[int], up: Sequence[int], *, hidden: int = 6) -> ModelView:
    """A model of one layer whose gate and up rows are axes of its residual stream, in the given orders."""
    tensors = tiny.llama(0, layers=1, hidden=hidden, ffn=len(gate), dtype=np.float64)
    tensors["model.layers.0.mlp.gate_proj.weight"] = np.eye(hidden)[list(gate)]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.eye(hidden)[list(up)]
    return tiny.model(tensors)


def narrowed(tensors: Mapping[str, np.ndarray], units: int) -> dict[str, np.ndarray]:
    """The model with only so many units, drawn at random, in each MLP."""
    rng = np.random.default_rng(0)
    cut = dict(tensors)
    for layer in range(4):
        kept = rng.choice(24, size=units, replace=False)
        for name, axis in (("gate", 0), ("up", 0), ("down", 1)):
            key = f"model.layers.{layer}.mlp.{name}_proj.weight"
            cut[key] = np.take(tensors[key], kept, axis=axis)
    return cut


# -- what it ignores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.ignores))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    child, base = tiny.changed(tiny.llama(seed), seed, 1.0), tiny.model(tiny.llama(seed))
    before, after = compare(tiny.model(child), base), compare(tiny.moved(child, [name], seed), base)
    assert numbers(after) == numbers(before)


@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_a_copy_of_reordered_units_is_a_copy_on_either_side(seed: int) -> None:
    tensors = tiny.llama(seed)
    shuffled = tiny.moved(tensors, ["ffn-permutation"], seed)
    assert numbers(compare(shuffled, tiny.model(tensors)))["similarity"] == 1.0
    assert numbers(compare(tiny.model(tensors), shuffled))["similarity"] == 1.0


def test_unchanged_when_units_are_cut_from_either_side() -> None:
    tensors = tiny.llama(0)
    narrow, whole = tiny.model(narrowed(tensors, 15)), tiny.model(tensors)
    for pair in ((narrow, whole), (whole, narrow)):
        result = compare(*pair)
        assert numbers(result)["similarity"] == 1.0
        assert [row[1] for row in result.tables[0].rows] == [15] * 4
        assert "different numbers of units: only those of the narrower side are counted" in result.notes


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.notices))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_a_copy_loses_its_agreement_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    assert numbers(compare(tiny.moved(tensors, [name], seed), tiny.model(tensors)))["similarity"] < 0.9


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=5)
def test_a_child_agrees_and_strangers_and_rotated_copies_do_not(seed: int) -> None:
    tensors = tiny.llama(seed, hidden=64, ffn=96)
    base = tiny.model(tensors)
    child = numbers(compare(tiny.model(tiny.changed(tensors, seed, 0.5)), base))
    assert child["similarity"] == 1.0
    assert child["log10 p"] < -1200  # four layers at the floor of 10^-307.7 each
    assert abs(child["similarity, mismatched layers"]) < 0.4
    for other in (
        tiny.model(tiny.llama(seed + 1, hidden=64, ffn=96)),
        tiny.moved(tensors, ["residual-rotation"], seed),
    ):
        found = numbers(compare(other, base))
        assert abs(found["similarity"]) < 0.3
        assert found["log10 p"] > -5


def test_strangers_of_different_numbers_of_units_are_at_zero() -> None:
    # With the padding of the narrower side counted in, they would be at .4.
    one, other = (tiny.model(tiny.llama(seed, layers=20, ffn=units)) for seed, units in ((1, 24), (2, 48)))
    assert abs(numbers(compare(one, other))["similarity"]) < 0.15


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    result = compare(with_units([0, 1, 2, 3], [0, 1, 2, 3]), with_units([1, 0, 2, 3], [0, 1, 2, 3]))
    # Gate matches 1 0 2 3, up matches 0 1 2 3: 1 - 6 * 2 / 60 = .8, and p = 1 - |r| with two degrees of freedom.
    assert result.tables[0].rows[0] == pytest.approx((0, 4, 0.8, 0.2, 0.5), abs=1e-12)
    assert numbers(result)["similarity"] == pytest.approx(0.8, abs=1e-12)
    assert 10 ** numbers(result)["log10 p"] == pytest.approx(0.2, abs=1e-12)


def test_units_that_one_side_lacks_by_hand() -> None:
    # Gate: axes 0 1 2 stand at places 5 1 3 of the base; up: at 4 1 2. Both have the order 2 0 1, hence 1.
    suspect, base = with_units([0, 1, 2], [0, 1, 2]), with_units([3, 1, 4, 2, 5, 0], [3, 1, 2, 4, 0, 5])
    result = compare(suspect, base)
    assert result.tables[0].rows[0] == pytest.approx((0, 3, 1.0, FLOOR, 1 / 3), abs=1e-12)


def test_layers_are_compared_by_index_over_the_shallower_model() -> None:
    deep = tiny.llama(0, layers=6)
    shallow = {name: a for name, a in deep.items() if not any(f"layers.{i}." in name for i in (4, 5))}
    result = compare(tiny.model(deep), tiny.model(shallow))
    assert numbers(result)["similarity"] == 1.0
    assert [row[0] for row in result.tables[0].rows] == [0, 1, 2, 3]
    assert "6 layers against 4: compared by index over the 4 in both" in result.notes


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_other_widths_of_the_residual_stream_are_a_finding() -> None:
    result = compare(tiny.model(tiny.llama(0, hidden=32)), tiny.model(tiny.llama(0)))
    assert result.status == "not_applicable"
    assert result.reason == "the residual widths differ: 32 against 16, so rows have no common coordinates"


def test_a_mixture_has_no_gate_of_its_own() -> None:
    result = compare(tiny.model(tiny.llama(0)), tiny.model(tiny.mixture(0)))
    assert (result.status, result.reason) == ("not_applicable", "the base has no dense MLP with a gate")


def test_two_units_are_too_few() -> None:
    result = compare(tiny.model(tiny.llama(0, ffn=2)), tiny.model(tiny.llama(0)))
    assert result.reason == "layer 0 has 2 units, at least 3 are needed"


def test_a_layer_with_a_nan_is_named_and_left_out() -> None:
    broken = tiny.llama(0)
    gates = [f"model.layers.{layer}.mlp.gate_proj.weight" for layer in range(4)]
    broken[gates[1]][0, 0] = np.nan
    result = compare(tiny.model(broken), tiny.model(tiny.llama(0)))
    assert [row[0] for row in result.tables[0].rows] == [0, 2, 3]
    assert result.notes[-1] == f"layer 1 left out: tensor {gates[1]!r} holds NaN or Inf"
    for gate in gates:
        broken[gate][0, 0] = np.nan
    result = compare(tiny.model(broken), tiny.model(tiny.llama(0)))
    assert result.reason == f"layer 0 left out: tensor {gates[0]!r} holds NaN or Inf"


def test_wide_models_are_sampled_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinprint.linalg.matching.CHEAP_UNITS", 20)
    model = tiny.model(tiny.llama(0, layers=12))
    result = compare(model, model)
    assert len(result.tables[0].rows) == SAMPLED_LAYERS
    assert any(note.startswith("8 of 12 layers, drawn with seed 0") for note in result.notes)


def test_every_result_says_what_its_p_value_is_not() -> None:
    model = tiny.model(tiny.llama(0))
    notes = " ".join(compare(model, model).notes)
    assert "no verdict" in notes
    assert "a rotated copy scores as a stranger" in notes
