"""The first look: what a few rows show, what defeats it, what holes do, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evidence.models import (
    LOG10_ALPHA,
    Sizes,
    assert_uniform,
    changed,
    disguised,
    noisy,
    p_of,
    random,
    relabelled,
)
from kinprint.architecture import PartKey
from kinprint.evidence import exact_sample
from kinprint.evidence.sampling import Sampling
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers
from kinprint.types import Evidence

SMALL = Sizes(layers=6, hidden=16, heads=2, kv_heads=2, head_dim=4, ffn=20, vocab=32)


def look(suspect: ModelState, base: ModelState) -> exact_sample.Look:
    return exact_sample.look(Sampling(suspect.view(np.float32), base.view(np.float32)), LOG10_ALPHA)


def measured(suspect: ModelState, base: ModelState) -> Evidence:
    return look(suspect, base).evidence


@pytest.mark.parametrize("form", ["llama", "qwen3", "mixtral", "qwen2_moe", "gpt2", "gpt_neox", "bert"])
def test_a_noisy_copy_is_near_the_floor(form: str) -> None:
    base = random(form, 0, sizes=SMALL)
    found = measured(noisy(base, 0.2), base)
    assert found.beyond
    assert found.carries
    assert found.log10_p is not None
    assert found.log10_floor == pytest.approx(-18.386, abs=1e-3)  # 20!
    assert found.log10_p < 0.9 * found.log10_floor
    assert found.size is not None
    assert 0.9 < found.size < 1


def test_what_it_does_not_look_at_changes_nothing() -> None:
    base, suspect = random("llama", 0, sizes=SMALL), noisy(random("llama", 0, sizes=SMALL), 0.3)
    other = disguised(suspect, names=["kv-group-permutation", "vo-gauge", "qk-gauge", "norm-gain-replacement"])
    assert p_of(measured(other, base)) == pytest.approx(p_of(measured(suspect, base)), rel=1e-3)


def test_units_in_another_order_defeat_it() -> None:
    base = random("llama", 0, sizes=SMALL)
    assert not measured(disguised(base, names=["ffn-permutation"]), base).beyond


def test_independent_models_have_uniform_p_values() -> None:
    base = random("llama", 0, sizes=SMALL)
    assert_uniform([p_of(measured(random("llama", seed, sizes=SMALL), base)) for seed in range(1, 61)])


def test_layers_of_zeros_are_passed_over_and_never_agree() -> None:
    empty = [PartKey(role, layer) for layer in (0, 2, 3, 5) for role in ("mlp.gate", "mlp.up", "attn.k")]
    hollow = [
        model.updated({key: np.zeros_like(model.parts[key]) for key in empty})
        for model in (random("llama", 0, sizes=SMALL), random("llama", 1, sizes=SMALL))
    ]
    found = look(*hollow)
    assert {here for here, _ in found.layers} == {1, 4}
    assert not found.evidence.beyond
    assert not found.same
    copied = look(noisy(hollow[0], 0.2), hollow[0])
    assert copied.evidence.beyond


def test_models_of_zeros_only_say_nothing() -> None:
    nothing = random("llama", 0, sizes=SMALL)
    for role in ("mlp.gate", "mlp.up", "attn.k"):
        nothing = changed(nothing, role, 0.0)
    found = look(nothing, nothing)
    assert found.evidence.status == "not_applicable"
    assert not found.same


def test_the_same_values_are_told_from_a_copy() -> None:
    base = random("llama", 0, sizes=SMALL)
    assert look(base, base).same
    half = base.view(np.float32), base.view(np.float16)
    assert exact_sample.look(Sampling(*half), LOG10_ALPHA).same
    assert not look(noisy(base, 0.01), base).same


def test_layers_that_were_dropped_are_followed_by_their_norms() -> None:
    base = random("llama", 0, sizes=SMALL)
    kept = [0, 1, 3, 4, 5]
    short = with_layers(base, kept)
    found = look(noisy(short, 0.1), base)
    assert found.evidence.beyond
    assert all(kept[here] == there for here, there in found.layers)


def test_layers_that_changed_places_are_followed_too() -> None:
    base = random("llama", 0, sizes=SMALL)
    moved = with_layers(base, [1, 2, 3, 4, 5, 5])
    found = look(noisy(moved, 0.1), base)
    assert found.evidence.beyond
    assert all(there == min(here + 1, 5) for here, there in found.layers)


def test_a_family_that_declares_nothing_is_not_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    views = [relabelled(base.view(np.float32), ffn="units are sorted") for _ in range(2)]
    found = exact_sample.test(views[0], views[1], LOG10_ALPHA)
    assert found.status == "not_applicable"
    assert found.reason == "units are sorted"


def test_models_of_another_width_are_not_tested() -> None:
    other = random("llama", 1, sizes=SMALL, hidden=24)
    assert measured(random("llama", 0, sizes=SMALL), other).status == "not_applicable"


def test_by_hand_three_units_that_are_orthogonal_have_one_of_six_orders() -> None:
    sizes = Sizes(layers=1, hidden=8, heads=2, kv_heads=2, head_dim=4, ffn=3, vocab=16)
    base = random("llama", 0, sizes=sizes)
    rows = np.eye(3, 8)
    gains = {key: np.ones_like(array) for key, array in base.parts.items() if key.role.startswith("norm.")}
    base = base.updated({**gains, PartKey("mlp.gate", 0): rows, PartKey("mlp.up", 0): 2 * rows})
    found = measured(base, base)
    assert found.log10_p == pytest.approx(math.log10(1 / 6))
    assert found.size == pytest.approx(1.0)
    turned = base.updated({PartKey("mlp.gate", 0): rows[[1, 2, 0]], PartKey("mlp.up", 0): rows[[1, 2, 0]]})
    # Two of the six orders move no unit onto itself, and three more move two: none of them lowers the sum below 0.
    assert measured(turned, base).log10_p == pytest.approx(0.0)
