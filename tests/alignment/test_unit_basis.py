"""A basis from MLP units alone: what it ignores, that it finds what was turned, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.models import FORMS as MODELS
from evidence.models import changed, disguised, random
from kinprint.alignment.basis import Basis, Refusal
from kinprint.alignment.trunk import Trunk, Units, pooled
from kinprint.alignment.unit_basis import UnitTables, layer_properties, match_by_properties, unit_basis, unit_properties
from kinprint.architecture import PartKey
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers

Array = np.ndarray[Any, np.dtype[Any]]
EMBEDDING = PartKey("embed.token")


def trunk(state: ModelState) -> Trunk:
    return Trunk(state.view(np.float64))


def fitted(suspect: Trunk, base: Trunk) -> Basis:
    basis = unit_basis(suspect, base)
    assert isinstance(basis, Basis), basis.reason
    return basis


def properties(model: Trunk, number: int) -> Array:
    units = pooled(model.layer(number))
    assert units is not None
    return unit_properties(units, model.forms(number))


# -- what it ignores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", MODELS)
def test_a_copy_in_disguise_is_brought_back_without_its_embeddings(form: str) -> None:
    state = random(form, 0)
    disguise = disguised(state, 4)
    basis = fitted(trunk(changed(disguise, "embed.token", 0.0)), trunk(state))
    assert basis.kind == "units"
    assert basis.fitted_on == "gate rows of matched MLP units in 3 layers"
    mine, theirs = disguise.parts[EMBEDDING] @ basis.suspect_AK, state.parts[EMBEDDING] @ basis.base_BK
    if state.family.norm == "layer":  # the mean of the stream reaches no unit
        direction = np.ones(theirs.shape[1]) @ basis.base_BK / np.sqrt(theirs.shape[1])
        mine, theirs = (side - np.outer(side @ direction, direction) for side in (mine, theirs))
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("form", MODELS)
def test_properties_of_units_and_layers_are_unchanged_by_everything_that_keeps_the_function(form: str) -> None:
    state = random(form, 1)
    before, after = trunk(state), trunk(disguised(state, 2))
    for number in before.layers:
        old, new = (np.sort(properties(model, number), axis=0) for model in (before, after))
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * np.abs(old).max(axis=0).max())
        old, new = (layer_properties(model.forms(number)) for model in (before, after))
        np.testing.assert_allclose(new, old, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=4, derandomize=True)
def test_strangers_have_one_basis_whatever_the_order_of_units_and_heads(seed: int) -> None:
    suspect, base = random("llama", seed), random("llama", seed + 1)
    order = ["ffn-permutation", "kv-group-permutation", "query-head-permutation"]
    before = fitted(trunk(suspect), trunk(base))
    after = fitted(trunk(disguised(suspect, seed, order)), trunk(disguised(base, seed + 1, order)))
    np.testing.assert_allclose(after.suspect_AK, before.suspect_AK, atol=1e-4)
    np.testing.assert_allclose(after.base_BK, before.base_BK, atol=1e-4)


def test_layers_to_start_from_are_found_where_the_depth_was_cut_and_reordered() -> None:
    state = random("llama", 0, layers=9)
    cut = disguised(with_layers(state, [8, 2, 5, 0, 6]))
    basis = fitted(trunk(cut), trunk(state))
    np.testing.assert_allclose(cut.parts[EMBEDDING] @ basis.suspect_AK, state.parts[EMBEDDING], atol=1e-4)


# -- what it notices -----------------------------------------------------------------------------------------------


def test_units_of_a_copy_are_matched_by_properties_and_those_of_another_layer_are_not() -> None:
    state = random("llama", 0)
    here, there = trunk(disguised(state)), trunk(state)
    found = [np.linalg.norm(mine, axis=1) for mine in match_by_properties(UnitTables(here, there), 1, 1)]
    np.testing.assert_allclose(found, 1.0, rtol=1e-5)
    basis = fitted(here, there)

    def agreement(left: int, right: int) -> float:
        mine, theirs = match_by_properties(UnitTables(here, there), left, right)
        return float(((mine @ basis.suspect_AK) * (theirs @ basis.base_BK)).sum(axis=1).mean())

    assert agreement(1, 1) > 0.999
    assert abs(agreement(1, 2)) < 0.2


def test_a_unit_that_was_changed_has_other_properties() -> None:
    state = random("llama", 0)
    key = PartKey("mlp.down", 0)
    moved = state.parts[key].copy()
    moved[:, 3] = moved[::-1, 3]
    old, new = (properties(trunk(model), 0) for model in (state, state.updated({key: moved})))
    apart = np.abs(new - old)[:, 1] > 1e-3  # up . down
    assert np.flatnonzero(apart).tolist() == [3]


# -- by hand -------------------------------------------------------------------------------------------------------


def test_properties_by_hand() -> None:
    gate, up, down = (np.array([row], dtype=np.float32) for row in ([3, 4], [0, 2], [5, 0]))
    vo = np.array([[1, 2], [0, 3]], dtype=np.float32)
    found = unit_properties(Units(gate, up, down), {"vo": vo})[0]
    by_hand = [
        0.8 * 0.6,  # gate . up times gate . down
        0.0,  # up . down
        5.0,  # the gate's length
        10.0,  # up's times down's
        0.6 * (0.6 + 1.6) + 0.8 * 2.4,  # gate . M gate
        0.0,  # up . M down
        2.0,  # down . M up
    ]
    np.testing.assert_allclose(found[:7], by_hand, rtol=1e-6, atol=1e-6)


def test_a_sign_exchanged_between_up_and_down_changes_no_property() -> None:
    rng = np.random.default_rng(0)
    gate, up, down = (rng.standard_normal((5, 4)).astype(np.float32) for _ in range(3))
    forms: dict[Any, Array] = {"vo": rng.standard_normal((4, 4)).astype(np.float32)}
    before = unit_properties(Units(gate, up, down), forms)
    np.testing.assert_allclose(unit_properties(Units(gate, -2 * up, -down / 2), forms), before, rtol=1e-5, atol=1e-5)
    assert not np.allclose(unit_properties(Units(gate, -up, down), forms), before, atol=0.01)


def test_layer_properties_by_hand() -> None:
    found = layer_properties({"vo": np.array([[0, 3], [4, 0]], dtype=np.float32)})
    # log of the size 5, trace 0, M with itself 1, M with its transpose (3 * 4 + 4 * 3) / 25.
    np.testing.assert_allclose(found, [np.log(5), 0, 1, 0.96])


# -- what cannot be matched ----------------------------------------------------------------------------------------


def test_too_few_units_are_refused() -> None:
    found = unit_basis(trunk(random("llama", 0, ffn=15)), trunk(random("llama", 0)))
    assert found == Refusal("one of the models has no layer with 16 MLP units and attention")


def test_a_layer_without_an_mlp_is_passed_over() -> None:
    state = random("llama", 0)
    suspect = disguised(state)
    basis = fitted(trunk(changed(suspect, "mlp.up", np.nan, 0)), trunk(changed(state, "mlp.down", np.nan, 2)))
    mine, theirs = suspect.parts[EMBEDDING] @ basis.suspect_AK, state.parts[EMBEDDING] @ basis.base_BK
    # Not 1: the suspect's last layer has no partner left, and the nearest other one has a small weight in the fit.
    assert (mine * theirs).sum() / np.linalg.norm(mine) / np.linalg.norm(theirs) > 0.95


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("role", ["mlp.gate", "mlp.up", "mlp.down", "attn.v", "attn.q", "norm.mlp"])
def test_tensors_that_say_nothing_do_not_break_the_fit(role: str, value: float) -> None:
    state = random("llama", 0)
    basis = fitted(trunk(changed(state, role, value)), trunk(state))
    for side in (basis.suspect_AK, basis.base_BK):
        np.testing.assert_allclose(side.T @ side, np.eye(24), atol=1e-9)
