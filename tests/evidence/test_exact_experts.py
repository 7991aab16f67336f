"""Experts in stored order: what the test sees, what defeats it, when it cannot run, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.models import LOG10_ALPHA, Sizes, changed, disguised, noisy, pair, random, relabelled
from kinprint.alignment.basis import Basis, BasisKind, in_common
from kinprint.architecture import PartKey
from kinprint.evidence import exact_experts
from kinprint.evidence.exact_experts import expert_scores
from kinprint.evidence.pair import Facing, Pair
from kinprint.transform.cutting import with_layers
from kinprint.transform.upcycling import upcycled
from kinprint.types import Evidence

SMALL = Sizes(layers=2, hidden=16, heads=2, kv_heads=2, head_dim=4, ffn=16, experts=6, vocab=32)
FLOOR = -2 * np.log10(720)  # 6! in two layers


def measured(found: Pair, kind: BasisKind = "stored") -> Evidence:
    basis = found.basis(kind)
    assert isinstance(basis, Basis)
    return exact_experts.test(found, basis, kind, LOG10_ALPHA)


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "tokens", "units"])
def test_a_noisy_copy_is_at_the_floor(kind: BasisKind) -> None:
    base = random("mixtral", 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.2), base), kind)
    assert found.log10_p is not None
    assert found.log10_p < 0.95 * FLOOR
    assert found.log10_floor == pytest.approx(FLOOR)
    assert found.notes == ("12 experts in 2 layers",)
    assert found.size is not None
    assert 0.9 < found.size < 1


@pytest.mark.parametrize("kind", ["tokens", "units"])
def test_units_and_coordinates_in_another_order_do_not_defeat_it_in_a_fitted_basis(kind: BasisKind) -> None:
    base = random("mixtral", 0, sizes=SMALL)
    names = ["residual-rotation", "norm-gain-replacement", "ffn-permutation", "ffn-rescaling", "kv-group-permutation"]
    found = pair(disguised(base, 1, names), base)
    assert measured(found, kind).log10_p == pytest.approx(FLOOR, abs=1e-3)
    assert measured(found, kind).size == pytest.approx(1, abs=1e-4)
    stored = measured(found)
    assert stored.log10_p is not None
    assert stored.log10_p > -2


# -- what defeats it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "tokens", "units"])
def test_a_copy_whose_experts_were_renumbered_passes_unnoticed(kind: BasisKind) -> None:
    base = random("mixtral", 0, sizes=SMALL)
    found = measured(pair(disguised(base, 1, ["expert-permutation"]), base), kind)
    assert found.log10_p is not None
    assert found.log10_p > -2
    assert "experts in another order" in found.defeats


def test_copies_of_one_mlp_with_their_own_routers_are_not_told_by_number() -> None:
    base = random("llama", 0, sizes=SMALL)
    two = [upcycled(base, experts=6, active=2, noise=0.1, rng=np.random.default_rng(seed)) for seed in (0, 1)]
    found = measured(pair(*two))
    assert found.log10_p is not None
    assert found.log10_p > -2


# -- by hand -------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    base = random("mixtral", 0, sizes=SMALL, experts=2, layers=1)
    eye, found = (
        Basis("stored", np.eye(16), np.eye(16)),
        pair(base, random("mixtral", 1, sizes=SMALL, experts=2, layers=1)),
    )
    scores = expert_scores(found, Facing(0, 0), eye)
    assert scores is not None
    mine, theirs = found.layers(Facing(0, 0))
    forms = [[one.down_FD.T @ one.up_FD for one in layer.experts] for layer in (mine, theirs)]
    routers = [trunk.view.array("moe.router", 0, fold=True) for trunk in (found.suspect, found.base)]
    for i in range(2):
        for j in range(2):
            a, b = forms[0][i].astype(np.float64), forms[1][j].astype(np.float64)
            form = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
            router = (in_common(routers[0][[i]], np.eye(16)) * in_common(routers[1][[j]], np.eye(16))).sum()
            assert scores[i, j] == pytest.approx(form + router, abs=1e-5)


def test_wide_forms_are_compared_in_drawn_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinprint.evidence.exact_experts.DIRECTIONS", 6)
    base = random("mixtral", 0, sizes=SMALL)
    assert measured(pair(noisy(base, 0.05), base)).log10_p == pytest.approx(FLOOR, abs=1e-3)


def test_models_that_both_repeat_their_layers_have_one_permutation() -> None:
    base = with_layers(random("mixtral", 0, sizes=SMALL), [0, 1, 0, 1])
    assert measured(pair(base, base)).log10_floor == pytest.approx(np.log10(1 / 720))


# -- when it cannot run --------------------------------------------------------------------------------------------


def test_a_dense_model_has_no_experts() -> None:
    dense, mixture = random("llama", 0, sizes=SMALL), random("mixtral", 0, sizes=SMALL)
    for two in ((dense, mixture), (mixture, dense), (dense, dense)):
        found = measured(pair(*two))
        assert (found.status, found.reason) == ("not_applicable", "one of the models has no routed experts")


def test_a_group_that_is_not_exchangeable_is_refused_with_the_family_s_reason() -> None:
    state = random("qwen2_moe", 0, sizes=SMALL)
    found = measured(pair(state, state))
    assert found.status == "not_applicable"
    assert found.reason is not None
    assert found.reason.startswith("experts cut from one copy of a dense MLP share no unit")
    view = random("mixtral", 0, sizes=SMALL).view()
    for sides in ((relabelled(view, expert="a fixed hash routes tokens"), view),):
        assert measured(Pair.of(*sides)).reason == "a fixed hash routes tokens"
        assert measured(Pair.of(*reversed(sides))).reason == "a fixed hash routes tokens"


@pytest.mark.parametrize("experts", [(1, 1), (6, 4)])
def test_one_expert_or_other_numbers_of_experts_cannot_be_tested(experts: tuple[int, int]) -> None:
    found = measured(pair(*(random("mixtral", 0, sizes=SMALL, experts=count) for count in experts)))
    assert found.status == "not_applicable"
    assert found.reason == "no facing layers have the same number of experts, two at least"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_experts_and_routers_that_are_all_alike_say_nothing(value: float) -> None:
    base = random("mixtral", 0, sizes=SMALL)
    same = base
    for role in ("moe.gate", "moe.up", "moe.down", "moe.router", "norm.mlp"):
        same = changed(same, role, value)
    found = measured(pair(same, base))
    if found.status == "measured":  # equal rows can differ in their last bits, which no label explains
        assert found.log10_p is not None
        assert found.log10_p > -2
    else:
        assert found.reason == "every relabelling gives the same statistic: nothing distinguishes the labels"


def test_a_router_that_holds_nan_is_left_out_and_the_experts_are_tested() -> None:
    base = random("mixtral", 0, sizes=SMALL)
    found = measured(pair(changed(base, "moe.router", np.nan), base))
    assert found.log10_p == pytest.approx(FLOOR, abs=1e-3)
    assert found.size == pytest.approx(0.5, abs=1e-4)  # one of the two cosines is missing


def test_a_layer_with_an_expert_that_holds_nan_is_left_out_and_named_and_the_rest_is_tested() -> None:
    base = random("mixtral", 0, sizes=SMALL)
    key = PartKey("moe.up", 1, 4)
    suspect = pair(base.updated({key: np.full_like(base.parts[key], np.nan)}), base)
    found = measured(suspect)
    assert found.log10_floor == pytest.approx(np.log10(1 / 720))
    assert found.notes == ("6 experts in 1 layers",)
    assert len(suspect.suspect.problems) == 1
    assert "layers.1." in suspect.suspect.problems[0]
