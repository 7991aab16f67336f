"""Key/value groups in stored order: what the test sees, what defeats it, when it cannot run, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.models import LOG10_ALPHA, Sizes, changed, disguised, noisy, pair, random, relabelled
from kinprint.alignment.basis import Basis, BasisKind
from kinprint.evidence import exact_groups
from kinprint.evidence.exact_groups import score_tables
from kinprint.evidence.pair import Pair
from kinprint.evidence.sizes import group_cosines
from kinprint.transform.cutting import with_groups, with_layers
from kinprint.types import Evidence

SMALL = Sizes(layers=3, hidden=20, heads=10, kv_heads=5, head_dim=4, ffn=18, vocab=32)
FLOOR = -3 * np.log10(120)  # 5! in three layers


def measured(found: Pair, kind: BasisKind = "stored") -> Evidence:
    basis = found.basis(kind)
    assert isinstance(basis, Basis)
    return exact_groups.test(found, basis, kind, LOG10_ALPHA)


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "mixtral", "gpt2", "gpt_neox", "bert"])
def test_a_noisy_copy_is_at_the_floor(form: str) -> None:
    base = random(form, 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.2), base))
    assert found.log10_p is not None
    assert found.log10_floor is not None
    assert found.log10_p < 0.9 * found.log10_floor
    assert found.beyond
    assert found.size is not None
    assert 0.8 < found.size < 1


@pytest.mark.parametrize("kind", ["tokens", "units"])
def test_gauges_and_a_rotation_of_the_stream_defeat_the_stored_basis_only(kind: BasisKind) -> None:
    base = random("llama", 0, sizes=SMALL)
    names = ["residual-rotation", "norm-gain-replacement", "vo-gauge", "qk-gauge", "query-head-permutation"]
    found = pair(disguised(base, 1, names), base)
    assert measured(found, kind).log10_p == pytest.approx(FLOOR, abs=1e-3)
    assert measured(found, kind).size == pytest.approx(1, abs=1e-4)
    assert not measured(found).beyond


# -- what defeats it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "tokens", "units"])
def test_a_copy_whose_heads_were_renumbered_passes_unnoticed(kind: BasisKind) -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(disguised(base, 1, ["kv-group-permutation"]), base), kind)
    assert found.log10_p is not None
    assert found.log10_p > -2
    assert "heads in another order" in found.defeats


# -- by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "floor"), [(1, 1 / 120), (2, 1 / 14400)])
def test_each_layer_has_a_permutation_of_its_own(layers: int, floor: float) -> None:
    base = random("llama", 0, sizes=SMALL, layers=layers)
    found = measured(pair(base, base))
    assert found.log10_floor == pytest.approx(np.log10(floor))
    assert found.log10_p == pytest.approx(np.log10(floor))
    assert found.notes == (f"{5 * layers} labels in {layers} groups",)


@pytest.mark.parametrize("side", [0, 1])
def test_layers_that_start_as_copies_have_one_permutation_together(side: int) -> None:
    views = [random("llama", 0, sizes=SMALL).view() for _ in range(2)]
    views[side] = relabelled(views[side], kv="exchangeable together")
    found = measured(Pair.of(views[0], views[1]))
    assert found.log10_floor == pytest.approx(np.log10(1 / 120))
    assert found.log10_p == pytest.approx(np.log10(1 / 120))
    assert found.notes == ("5 labels in 1 groups",)


def test_models_that_both_repeat_their_layers_have_one_permutation_too() -> None:
    base = with_layers(random("llama", 0, sizes=SMALL), [0, 1, 2, 0, 1, 2])
    found = measured(pair(base, base))
    assert found.log10_floor == pytest.approx(np.log10(1 / 120))


def test_the_statistic_is_the_sum_of_both_cosines() -> None:
    base, other = (random("llama", seed, sizes=SMALL) for seed in (0, 1))
    found = pair(other, base)
    basis = Basis("stored", np.eye(20), np.eye(20))
    for facing, table in score_tables(found, basis):
        mine, theirs = (layer.attention for layer in found.layers(facing))
        assert mine is not None
        assert theirs is not None
        expected = sum(group_cosines(mine, theirs, basis, form) for form in ("qk", "vo"))
        np.testing.assert_allclose(table, expected)
    trace = sum(float(np.trace(table)) for _, table in score_tables(found, basis))
    assert measured(found).size == pytest.approx(trace / 2 / 15)


# -- when it cannot run --------------------------------------------------------------------------------------------


def test_a_group_that_is_not_exchangeable_is_refused_with_the_family_s_reason() -> None:
    view = random("llama", 0, sizes=SMALL).view()
    slopes = relabelled(view, kv="each head has a slope of its own (ALiBi)")
    for sides in ((slopes, view), (view, slopes)):
        found = measured(Pair.of(*sides))
        assert (found.status, found.reason) == ("not_applicable", "each head has a slope of its own (ALiBi)")


@pytest.mark.parametrize("heads", [(1, 1), (5, 3)])
def test_one_group_or_other_numbers_of_groups_cannot_be_tested(heads: tuple[int, int]) -> None:
    base = random("llama", 0, sizes=SMALL)
    kept = [
        with_groups(base, {layer: list(range(count)) for layer in range(3)}) if count < 5 else base for count in heads
    ]
    found = measured(pair(*kept))
    assert found.status == "not_applicable"
    assert found.reason == "no facing layers have the same number of key/value groups, two at least"


@pytest.mark.parametrize("role", ["attn.q", "attn.k", "attn.v", "attn.o", "norm.attn"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tensors_that_are_constant_are_tested_or_refused_but_never_break(role: str, value: float) -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(changed(base, role, value), base))
    if (role, value) == ("norm.attn", 0.0):
        assert found.reason == "every relabelling gives the same statistic: nothing distinguishes the labels"
    else:
        assert found.log10_p is not None


def test_a_layer_that_holds_nan_is_left_out_and_named_and_the_rest_is_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    suspect = pair(changed(base, "attn.k", np.nan, 1), base)
    found = measured(suspect)
    assert found.log10_p == pytest.approx(np.log10(1 / 14400))
    assert found.notes == ("10 labels in 2 groups",)
    assert suspect.suspect.problems == (
        "tensor 'model.language_model.layers.1.self_attn.k_proj.weight' holds NaN or Inf",
    )
