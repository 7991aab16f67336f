"""Spectra of heads: what they survive, what strangers have, and answers by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from evidence.models import Sizes, allowed, disguised, noisy, pair, random
from kinprint.alignment.trunk import Attention
from kinprint.evidence.head_spectra import Heads, head_spectra, matched_correlation
from kinprint.evidence.head_spectra import test as measured
from kinprint.types import Evidence


def size(found: Evidence) -> float:
    assert found.status == "measured", found.reason
    assert found.size is not None
    return found.size


def heads(logs: Sequence[Sequence[float]]) -> Heads:
    """Groups with these logarithms of QK values, and VO values that do not differ."""
    count = len(logs)
    ranks = np.full(count, 2.0)
    return Heads({"qk": np.exp(np.array(logs)), "vo": np.ones((count, 2))}, {"qk": ranks, "vo": ranks})


# -- what it survives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "gpt2", "gpt_neox", "mixtral"])
def test_unchanged_by_everything_that_keeps_the_function(form: str) -> None:
    base = random(form)
    assert len(allowed(base)) > 4
    assert size(measured(pair(disguised(base), base))) == pytest.approx(1.0, abs=1e-4)  # factors are float32


def test_new_embeddings_change_nothing() -> None:
    base = random()
    fresh = {key: random(seed=9).parts[key] for key in base.parts if key.role in ("embed.token", "unembed")}
    assert len(fresh) == 2
    found = measured(pair(disguised(base).updated(fresh), base))
    assert size(found) == pytest.approx(1.0, abs=1e-4)


# -- what it notices -----------------------------------------------------------------------------------------------


def test_strangers_have_no_more_than_layers_that_do_not_face_each_other() -> None:
    sizes = Sizes(layers=4, heads=8, kv_heads=8, hidden=48)
    base = random(seed=0, sizes=sizes)
    strangers = [size(measured(pair(random(seed=seed, sizes=sizes), base))) for seed in (1, 2, 3)]
    assert max(np.abs(strangers)) < 0.3
    assert size(measured(pair(noisy(base, 0.1), base))) > 0.8


def test_the_size_says_how_it_came_about() -> None:
    found = measured(pair(random(seed=1, layers=4), random(seed=2, layers=4)))
    correlations = [row[2] for row in found.tables[0].rows]
    chance = found.controls[0].value
    assert chance is not None
    mean = float(np.mean(np.array(correlations, dtype=np.float64)))
    assert size(found) == pytest.approx((mean - chance) / (1 - chance), abs=1e-12)
    assert found.notes[0].startswith(f"mean correlation {mean:.3f}")


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_groups_are_matched_about_the_mean_of_their_layer_by_hand() -> None:
    mine = heads([[1, 0], [-1, 0]])
    # The same groups in the other order, all louder and one value louder still: nothing of that is left about the mean.
    assert matched_correlation(mine, heads([[4, 9], [6, 9]])) == pytest.approx(1.0, abs=1e-12)
    # (1, 0, -1, 0) and (1, 1, -1, -1): 2 / (sqrt(2) 2).
    assert matched_correlation(mine, heads([[1, 1], [-1, -1]])) == pytest.approx(np.sqrt(0.5), abs=1e-12)
    assert matched_correlation(mine, heads([[0, 1], [0, -1]])) == pytest.approx(0.0, abs=1e-12)


def test_the_smaller_side_is_matched_whole() -> None:
    assert matched_correlation(heads([[1, 0], [-1, 0]]), heads([[-1, 0], [0, 0], [1, 0]])) == pytest.approx(1.0)


def test_groups_that_do_not_differ_correlate_with_nothing() -> None:
    assert np.isnan(matched_correlation(heads([[1, 0], [1, 0]]), heads([[1, 0], [-1, 0]])))


def test_singular_values_of_groups_by_hand_and_cut_groups_left_out() -> None:
    eye = np.eye(2, 4, dtype=np.float32)
    blocks = np.concatenate([eye, 2 * eye, 0 * eye])
    attention = Attention(q_HD=3 * blocks, k_KD=blocks, v_KD=blocks, o_HD=blocks, heads=3, kv_heads=3)
    found = head_spectra(attention)
    np.testing.assert_allclose(found.spectra["qk"], [[3, 3], [12, 12]], atol=1e-12)
    np.testing.assert_allclose(found.spectra["vo"], [[1, 1], [4, 4]], atol=1e-12)
    assert found.count == 2


def test_it_never_carries_and_has_no_p_value() -> None:
    found = measured(pair(random(), random()))
    assert (found.carries, found.beyond, found.log10_p, found.rung) == (False, False, None, 3)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_one_group_has_no_mean_to_stand_about() -> None:
    found = measured(pair(random(kv_heads=1), random()))
    assert found.reason == "no facing layers have two key/value groups each that could be compared"


def test_without_other_layers_chance_is_unknown() -> None:
    found = measured(pair(random(layers=1), random(layers=1)))
    assert found.reason == "there is only one pair of layers, and so nothing to tell chance by"
