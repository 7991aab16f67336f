"""Large models are read in part: what is read, when more is, and what a sample leaves unseen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evidence.models import Sizes, disguised, noisy, random
from kinprint.architecture import ModelView, view
from kinprint.architecture.family import UNKNOWN
from kinprint.checkpoint import open_checkpoint, write_safetensors
from kinprint.transform import ModelState
from kinprint.types import Verdict
from kinprint.verdict import Limits, decide
from kinprint.verdict.reading import layer_bytes, least_seen, look_bytes, total_bytes

SIZES = Sizes(layers=10, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=160, vocab=128)
SAMPLED = Limits(small=0)


def stored(state: ModelState, folder: Path) -> ModelView:
    checkpoint = state.checkpoint(np.float32)
    tensors = {name: checkpoint.read(name) for name in checkpoint.tensors}
    write_safetensors(folder, tensors, config=checkpoint.config)
    return view(open_checkpoint(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def base_state() -> ModelState:
    return random("llama", 0, sizes=SIZES)


@pytest.fixture(scope="module")
def base(folder: Path, base_state: ModelState) -> ModelView:
    return stored(base_state, folder / "base")


def fresh(model: ModelView) -> ModelView:
    return view(open_checkpoint(model.checkpoint.location))


def judged(suspect: ModelView, base: ModelView, limits: Limits = SAMPLED) -> Verdict:
    return decide(fresh(suspect), fresh(base), limits=limits)


def test_a_plain_child_is_decided_by_a_few_rows(folder: Path, base_state: ModelState, base: ModelView) -> None:
    child = stored(noisy(base_state, 0.2), folder / "child")
    verdict = judged(child, base)
    assert verdict.conclusion == "derived"
    assert verdict.decided_by == "a sample of units in stored order"
    assert verdict.reading is not None
    assert verdict.reading.sampled
    for side, model in ((verdict.reading.suspect, child), (verdict.reading.base, base)):
        assert len(side.layers_read) == 4
        assert side.bytes_total == total_bytes(model.checkpoint)
        assert look_bytes(model) == 4 * 2 * 128 * 32 * 4
        assert side.bytes_read < look_bytes(model) + 40_000  # headers, settings and norm gains
    assert any("4 of 10 layers" in reason for reason in verdict.reasons)


def test_a_scrambled_child_takes_whole_layers(folder: Path, base_state: ModelState, base: ModelView) -> None:
    suspect = stored(disguised(noisy(base_state, 0.1)), folder / "scrambled")
    verdict = judged(suspect, base)
    assert verdict.conclusion == "derived"
    assert verdict.reading is not None
    assert 4 <= len(verdict.reading.suspect.layers_read) < 10
    assert verdict.layer_map is not None
    assert len(verdict.layer_map.layers) == 4


def test_a_stranger_is_cleared_with_what_the_sample_could_miss(folder: Path, base: ModelView) -> None:
    verdict = judged(stored(random("llama", 5, sizes=SIZES), folder / "stranger"), base)
    assert verdict.conclusion == "independent"
    assert verdict.reading is not None
    assert verdict.power is not None
    count = len(verdict.reading.suspect.layers_read)
    assert verdict.power.not_excluded[0].startswith(f"copies of fewer than {least_seen(count, 10)} of the 10 layers")


def test_a_third_model_is_read_in_as_many_layers(folder: Path, base_state: ModelState, base: ModelView) -> None:
    suspect = stored(disguised(noisy(base_state, 0.1)), folder / "measured")
    third = stored(random("llama", 7, sizes=SIZES), folder / "third")
    third = fresh(third)
    verdict = decide(fresh(suspect), fresh(base), controls=[third], limits=SAMPLED)
    assert verdict.conclusion == "derived"
    assert verdict.reading is not None
    most = max(side.bytes_read for side in (verdict.reading.suspect, verdict.reading.base))
    assert third.checkpoint.bytes_read <= most < total_bytes(third.checkpoint)
    sizes = [size for one in verdict.third_models for size in one.sizes.values()]
    assert len(sizes) == 4
    assert all(size is not None and abs(size) < 0.2 for size in sizes)


def test_full_reads_everything_and_says_nothing_of_a_sample(base: ModelView, folder: Path) -> None:
    verdict = judged(stored(random("llama", 6, sizes=SIZES), folder / "other"), base, Limits(full=True))
    assert verdict.reading is not None
    assert not verdict.reading.sampled
    assert verdict.reading.base.bytes_read >= total_bytes(base.checkpoint)
    assert verdict.power is not None
    assert "layers were read" not in verdict.power.not_excluded[0]


def test_the_same_model_is_identical_although_a_sample_came_first(base: ModelView) -> None:
    verdict = judged(base, base)
    assert verdict.conclusion == "identical"
    assert verdict.reading is not None
    assert not verdict.reading.sampled


def test_under_a_budget_the_same_model_is_derived_and_told_how_to_know_more(base: ModelView) -> None:
    verdict = judged(base, base, Limits(small=0, budget=total_bytes(base.checkpoint) // 2))
    assert verdict.conclusion == "derived"
    assert any("--full" in reason for reason in verdict.reasons)


def test_a_budget_bounds_what_is_read(folder: Path, base_state: ModelState, base: ModelView) -> None:
    suspect = stored(disguised(noisy(base_state, 0.1), seed=3), folder / "budget")
    one = layer_bytes(base.only([0]))
    budget = 2 * one + look_bytes(base)
    verdict = judged(suspect, base, Limits(small=0, budget=budget))
    assert verdict.reading is not None
    assert len(verdict.reading.suspect.layers_read) < 8
    assert verdict.reading.suspect.bytes_read < budget + 60_000
    assert any("left no room" in reason for reason in verdict.reasons)


def test_a_budget_below_the_first_look_reads_nothing_and_compares_nothing(base: ModelView) -> None:
    verdict = judged(base, base, Limits(small=0, budget=1000))
    assert verdict.conclusion == "not_comparable"
    assert "beyond the budget" in verdict.headline


def test_models_without_roles_are_not_read_beyond_a_budget(base: ModelView) -> None:
    unknown = replace(base, family=UNKNOWN, parts={})
    verdict = decide(unknown, unknown, limits=Limits(small=0, budget=1000))
    assert verdict.conclusion == "not_comparable"
    assert "without roles" in verdict.headline
    assert decide(unknown, unknown).conclusion == "identical"


def test_layers_bound_how_many_are_read(folder: Path, base: ModelView) -> None:
    verdict = judged(stored(random("llama", 8, sizes=SIZES), folder / "few"), base, Limits(small=0, layers=2))
    assert verdict.layer_map is not None
    assert len(verdict.layer_map.layers) == 2


def test_another_depth_is_searched_in_all_layers_of_the_base(
    folder: Path, base_state: ModelState, base: ModelView
) -> None:
    from kinprint.transform.cutting import with_layers

    short = disguised(noisy(with_layers(base_state, [0, 1, 2, 4, 5, 6, 8, 9]), 0.05), seed=4)
    verdict = judged(stored(short, folder / "short"), base)
    assert verdict.conclusion == "derived"
    assert verdict.layer_map is not None
    partners = {one.suspect: one.base for one in verdict.layer_map.layers}
    assert all(partners[here] == [0, 1, 2, 4, 5, 6, 8, 9][here] for here in partners)


def test_growing_spends_no_more_than_alpha() -> None:
    from kinprint.verdict.plan import STAGES, share

    spent = len(STAGES[0]) * share(1) + sum(
        len(STAGES[stage - 1]) * share(stage, step) for stage in (2, 3) for step in range(50)
    )
    assert spent == pytest.approx(1.0)


def test_a_sample_misses_by_the_hypergeometric_law() -> None:
    # By hand: of 4 layers 2 are read. One copied layer is missed in 3 of 6 draws, two in 1 of 6, three never.
    assert least_seen(2, 4) == 3
    copied = least_seen(6, 46)
    chance = [math.comb(46 - k, 6) / math.comb(46, 6) for k in (copied - 1, copied)]
    assert chance[0] > 0.01 >= chance[1]


def test_a_sharded_wide_model_counts_the_rows_that_are_read() -> None:
    wide = random("llama", 0, sizes=Sizes(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=200, vocab=64))
    assert look_bytes(wide.view(np.float16)) == 4 * 2 * 128 * 32 * 2
