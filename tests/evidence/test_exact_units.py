"""Units in stored order: what the test sees, what defeats it, when it cannot run, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evidence.models import LOG10_ALPHA, Sizes, changed, disguised, noisy, pair, random, relabelled
from kinprint.alignment.basis import Basis, BasisKind
from kinprint.alignment.trunk import Units
from kinprint.evidence import exact_units
from kinprint.evidence.exact_units import score_sum, statement, unit_scores
from kinprint.evidence.pair import Pair
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers, with_units
from kinprint.transform.upcycling import upcycled
from kinprint.types import Evidence

SMALL = Sizes(layers=2, hidden=16, heads=2, kv_heads=2, head_dim=4, ffn=20, vocab=32)
EYE = Basis("stored", np.eye(2), np.eye(2))


def measured(found: Pair, kind: BasisKind = "stored") -> Evidence:
    basis = found.basis(kind)
    assert isinstance(basis, Basis)
    return exact_units.test(found, basis, kind, LOG10_ALPHA)


def near_floor(found: Evidence) -> bool:
    assert found.log10_p is not None
    assert found.log10_floor is not None
    return found.log10_p < 0.9 * found.log10_floor


def rows(*pairs: tuple[float, float]) -> Any:
    return np.array(pairs, dtype=np.float32)


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "mixtral", "gpt2", "gpt_neox", "bert"])
def test_a_noisy_copy_is_near_the_floor(form: str) -> None:
    base = random(form, 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.2), base))
    assert near_floor(found)
    assert found.beyond
    assert found.carries
    assert found.rung == 1
    assert found.log10_floor == pytest.approx(-18.386, abs=1e-3)  # 20!
    assert found.size is not None
    assert 0.9 < found.size < 1


@pytest.mark.parametrize("kind", ["tokens", "units"])
def test_a_rotation_of_the_stream_defeats_the_stored_basis_only(kind: BasisKind) -> None:
    base = random("llama", 0, sizes=SMALL)
    names = ["residual-rotation", "norm-gain-replacement", "ffn-rescaling", "vo-gauge", "qk-gauge"]
    found = pair(noisy(disguised(base, 1, names), 0.05), base)
    assert near_floor(measured(found, kind))
    assert not measured(found).beyond
    assert "a rotated residual stream" in measured(found).defeats
    assert "a rotated residual stream" not in measured(found, kind).defeats


def test_experts_made_of_one_mlp_keep_its_order_of_units() -> None:
    base = random("llama", 0, sizes=SMALL)
    mixture = upcycled(base, experts=3, active=1, noise=0.2, rng=np.random.default_rng(0))
    for found in (pair(mixture, base), pair(base, mixture)):
        assert near_floor(measured(found))


# -- what defeats it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "tokens", "units"])
def test_a_copy_whose_units_were_renumbered_passes_unnoticed(kind: BasisKind) -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(disguised(base, 1, ["ffn-permutation"]), base), kind)
    assert found.log10_p is not None
    assert found.log10_p > -2
    assert not found.beyond
    assert "units in another order" in found.defeats


def test_only_a_p_value_below_its_share_of_alpha_is_beyond() -> None:
    found = pair(noisy(random("llama", 0, sizes=SMALL), 0.1), random("llama", 0, sizes=SMALL))
    basis = found.basis("stored")
    assert isinstance(basis, Basis)
    assert not exact_units.test(found, basis, "stored", -20.0).beyond


# -- by hand -------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    mine = Units(rows((1, 0), (0, 2)), rows((3, 0), (0, 1)), rows((1, 0), (0, 1)))
    theirs = Units(rows((0, 1), (3, 4)), rows((1, 0), (0, 5)), rows((-1, 0), (0, 1)))
    # cos(gate) + cos(up) cos(down): 0 + 1 * -1, .6 + 0; 1 + 0, .8 + 1 * 1.
    np.testing.assert_allclose(unit_scores(mine, theirs, EYE), [[-1, 0.6], [1, 1.8]], rtol=1e-6)


def test_scores_without_a_gate_by_hand() -> None:
    mine = Units(None, rows((3, 0), (0, 1)), rows((1, 0), (0, 1)))
    theirs = Units(None, rows((1, 0), (3, 4)), rows((-1, 0), (0, 1)))
    np.testing.assert_allclose(unit_scores(mine, theirs, EYE), [[0, 0.6], [0, 1.8]], rtol=1e-6)


def test_the_p_value_of_three_units_is_one_in_six() -> None:
    base = random("llama", 0, sizes=SMALL, ffn=3)
    found = measured(pair(base, base))
    assert found.log10_floor == pytest.approx(np.log10(1 / 6))
    assert found.log10_p == pytest.approx(np.log10(1 / 6))
    assert found.size == pytest.approx(1, abs=1e-6)


def test_all_facing_layers_enter_one_statistic_with_one_permutation() -> None:
    base = random("llama", 0, sizes=SMALL)
    found = pair(base, base)
    total, used, skipped = score_sum(found, Basis("stored", np.eye(16), np.eye(16)))
    assert (used, skipped) == (2, [])
    assert total is not None
    np.testing.assert_allclose(np.diagonal(total), 4.0, rtol=1e-5)  # 1 + 1 in both layers


def test_many_units_are_tested_by_a_fixed_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinprint.evidence.exact_units.LABELS", 12)
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.1), base))
    assert found.notes[0] == "12 labels in 2 facing MLPs"
    assert near_floor(found)


# -- when it cannot run --------------------------------------------------------------------------------------------


def test_a_group_that_is_not_exchangeable_is_refused_with_the_family_s_reason() -> None:
    view = random("llama", 0, sizes=SMALL).view()
    sorted_units = relabelled(view, ffn="a tool has sorted the units of each MLP by size")
    for sides in ((sorted_units, view), (view, sorted_units)):
        found = measured(Pair.of(*sides))
        assert (found.status, found.reason) == ("not_applicable", "a tool has sorted the units of each MLP by size")
        assert found.log10_p is None
        assert not found.carries
        assert found.null


def test_layers_of_other_sizes_are_left_out_and_named() -> None:
    def cut(state: ModelState) -> ModelState:
        return with_units(state, {f"ffn.{layer}": list(range(18)) for layer in range(2)})

    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(cut(base), base))
    assert found.status == "not_applicable"
    assert found.reason == ("no facing layers have MLPs with the same number of units; left out: layer 0, layer 1")


def test_with_a_gate_and_without_nothing_faces() -> None:
    found = measured(pair(random("llama", 0, sizes=SMALL, hidden=8), random("gpt2", 0, sizes=SMALL)))
    assert found.status == "not_applicable"
    assert found.reason is not None
    assert found.reason.startswith("no facing layers have MLPs with the same number of units")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_units_that_are_all_alike_say_nothing(value: float) -> None:
    base = random("llama", 0, sizes=SMALL)
    same = base
    for role in ("mlp.gate", "mlp.up", "mlp.down", "norm.mlp"):
        same = changed(same, role, value)
    found = measured(pair(same, base))
    assert found.status == "not_applicable"
    assert found.reason == "every relabelling gives the same statistic: nothing distinguishes the labels"


def test_one_unit_is_too_few() -> None:
    base = random("llama", 0, sizes=SMALL, ffn=1)
    assert measured(pair(base, base)).status == "not_applicable"


def test_a_layer_that_holds_nan_is_left_out_and_named_and_the_rest_is_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    suspect = pair(changed(noisy(base, 0.1), "mlp.down", np.nan, 1), base)
    found = measured(suspect)
    assert near_floor(found)
    assert found.notes[0] == "20 labels in 1 facing MLPs"
    assert suspect.suspect.problems == ("tensor 'model.language_model.layers.1.mlp.down_proj.weight' holds NaN or Inf",)


def test_models_without_a_readable_mlp_cannot_be_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(changed(base, "mlp.up", np.nan), base))
    assert found.reason == "no facing layers have MLPs with the same number of units"


def test_a_depth_cut_copy_is_tested_where_its_layers_come_from() -> None:
    base = random("llama", 0, sizes=SMALL, layers=4)
    assert near_floor(measured(pair(noisy(with_layers(base, [0, 2, 3]), 0.1), base)))


def test_each_basis_has_an_id_of_its_own() -> None:
    assert len({statement(kind).id for kind in ("stored", "tokens", "units")}) == 3
