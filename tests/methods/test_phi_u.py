"""What the order of the MLP's units ignores and notices, and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView
from kinprint.linalg.matching import CHEAP_UNITS, FLOOR, SAMPLED_LAYERS
from kinprint.methods import phi_u
from kinprint.methods.phi_u import METHOD, compare
from methods import tiny
from methods.tiny import numbers

seeds = st.integers(0, 2**32 - 1)


def with_units(orders: Sequence[Sequence[int]]) -> ModelView:
    """A model whose layer i has up rows that are axes of its residual stream, in the given order."""
    units = len(orders[0])
    tensors = tiny.llama(0, layers=len(orders), hidden=units, ffn=units, dtype=np.float64)
    for layer, order in enumerate(orders):
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = np.eye(units)[list(order)]
    return tiny.model(tensors)


def up(layer: int) -> str:
    return f"model.layers.{layer}.mlp.up_proj.weight"


# -- what it ignores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.ignores))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    child, base = tiny.llama(seed), tiny.model(tiny.llama(seed + 1))
    assert numbers(compare(tiny.moved(child, [name], seed), base)) == numbers(compare(tiny.model(child), base))


def test_unchanged_when_units_are_scaled_without_a_sign() -> None:
    tensors = tiny.llama(0)
    scales = np.exp(np.random.default_rng(0).standard_normal((24, 1))).astype(np.float32)
    scaled = {name: scales * a if name.endswith("up_proj.weight") else a for name, a in tensors.items()}
    assert numbers(compare(tiny.model(scaled), tiny.model(tensors)))["similarity"] == 1.0


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.notices))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_a_copy_loses_its_order_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    assert numbers(compare(tiny.moved(tensors, [name], seed), tiny.model(tensors)))["similarity"] < 0.9


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=5)
def test_a_child_is_in_order_and_a_stranger_is_not(seed: int) -> None:
    tensors = tiny.llama(seed, hidden=64, ffn=96)
    child = numbers(compare(tiny.model(tiny.changed(tensors, seed, 0.5)), tiny.model(tensors)))
    stranger = numbers(compare(tiny.model(tiny.llama(seed + 1, hidden=64, ffn=96)), tiny.model(tensors)))
    assert child["similarity"] == 1.0
    assert child["log10 p"] < -1200  # four layers at the floor of 10^-307.7 each
    assert abs(stranger["similarity"]) < 0.3
    assert stranger["log10 p"] > -5
    assert abs(child["similarity, mismatched layers"]) < 0.4


def test_p_values_of_strangers_are_uniform() -> None:
    models = [tiny.model(tiny.llama(seed, layers=1, ffn=48)) for seed in range(40)]
    found = np.sort([10 ** numbers(compare(*pair))["log10 p"] for pair in zip(models[::2], models[1::2], strict=True)])
    # Kolmogorov-Smirnov: a largest gap of .36 has probability .01 at twenty draws.
    assert np.abs(found - np.arange(0.5, 20) / 20).max() < 0.36


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    result = compare(with_units([[1, 0, 2, 3], [0, 1, 2, 3]]), with_units([[0, 1, 2, 3], [0, 3, 2, 1]]))
    # Layer 0: one neighbouring pair exchanged, 1 - 6 * 2 / 60 = .8. Layer 1: 1 and 3 exchanged, 1 - 6 * 8 / 60 = .2.
    # Two degrees of freedom: p = 1 - |r|, .2 and .8. Fisher of two: P (1 - ln P) with the product P = .16.
    assert [row[2:5] for row in result.tables[0].rows] == [
        pytest.approx((0.8, 0.2, 0.5), abs=1e-12),
        pytest.approx((0.2, 0.8, 0.5), abs=1e-12),
    ]
    found = numbers(result)
    assert found["similarity"] == pytest.approx(0.5, abs=1e-12)
    assert 10 ** found["log10 p"] == pytest.approx(0.16 * (1 - np.log(0.16)), abs=1e-12)


def test_a_reversed_order_has_the_p_value_of_a_kept_one() -> None:
    result = compare(with_units([[3, 2, 1, 0]]), with_units([[0, 1, 2, 3]]))
    assert numbers(result)["similarity"] == -1.0
    assert result.tables[0].rows[0][3] == FLOOR  # two-sided, as published
    assert result.values[1].note == "Fisher over 1 layers, each p at least 2.2e-308"


# -- what cannot be compared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suspect", "reason"),
    [
        (tiny.llama(0, ffn=23), "mlp.up of layer 0 is [23, 16] against [24, 16]: the test needs one shape"),
        (tiny.llama(0, hidden=32), "mlp.up of layer 0 is [24, 32] against [24, 16]: the test needs one shape"),
        (tiny.llama(0, layers=3), "3 layers with an MLP against 4: the test needs one architecture"),
        (tiny.mixture(0), "the suspect has no mlp.up: the test is defined on dense MLPs"),
    ],
)
def test_another_architecture_is_a_finding(suspect: Mapping[str, np.ndarray], reason: str) -> None:
    result = compare(tiny.model(suspect), tiny.model(tiny.llama(0)))
    assert (result.status, result.reason) == ("not_applicable", reason)


def test_two_units_are_too_few() -> None:
    model = tiny.model(tiny.llama(0, ffn=2))
    assert compare(model, model).reason == "layer 0 has 2 units, at least 3 are needed"


def test_a_layer_with_a_nan_is_named_and_left_out() -> None:
    broken = tiny.llama(0)
    broken[up(1)][0, 0] = np.nan
    result = compare(tiny.model(broken), tiny.model(tiny.llama(0)))
    assert [row[0] for row in result.tables[0].rows] == [0, 2, 3]
    assert result.notes[-1] == f"layer 1 left out: tensor {up(1)!r} holds NaN or Inf"
    for layer in range(4):
        broken[up(layer)][0, 0] = np.nan
    assert compare(tiny.model(broken), tiny.model(tiny.llama(0))).status == "not_applicable"


def test_wide_models_are_sampled_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinprint.linalg.matching.CHEAP_UNITS", 20)
    model = tiny.model(tiny.llama(0, layers=12))
    result = compare(model, model)
    assert len(result.tables[0].rows) == SAMPLED_LAYERS
    assert result.notes[1] == f"8 of 12 layers, drawn with seed 0: they are wider than {CHEAP_UNITS} units"
    for setting in (f"all_layers_to={CHEAP_UNITS}", f"layers_beyond={SAMPLED_LAYERS}", f"seed={phi_u.SEED}"):
        assert setting in result.id
