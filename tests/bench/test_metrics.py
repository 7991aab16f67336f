"""Rates worked out by hand on a few pairs, and what they must not depend on."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from bench.made import column, pair, pairs
from kinprint.bench import metrics
from kinprint.bench.metrics import area, hard_rates, operating_points, rates
from kinprint.bench.records import Rates, Row
from kinprint.errors import MissingExtraError

ROUNDING = 1e-12
"""Rates are quotients of small whole numbers: they differ by the rounding of a few additions at most."""


def judged(rows: list[Row], *, resamples: int = 20, **changed: Any) -> Rates:
    return rates([column(**changed)], rows, seed=0, resamples=resamples)[0]


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_area_counts_the_ordered_pairs_of_pairs_and_half_of_the_ties() -> None:
    # 0.9 and 0.8 beat all three; 0.4 ties with one and beats 0.1 only: (3 + 3 + 1.5) / 9.
    found = judged(pairs([0.9, 0.8, 0.4], [0.5, 0.4, 0.1]))
    assert found.auc.value == pytest.approx(7.5 / 9, abs=ROUNDING)
    assert (found.derived, found.unrelated, found.measured) == (3, 3, 1.0)


def test_highest_f1_takes_the_threshold_midway_between_two_values() -> None:
    # From 0.8 on: 2 found, 1 missed, none accused: 4/5. From 0.4 on: 3 found, 2 accused: 6/8.
    found = judged(pairs([0.9, 0.8, 0.4], [0.5, 0.4, 0.1]))
    assert found.max_f1.value == pytest.approx(0.8, abs=ROUNDING)
    assert found.max_f1_threshold == pytest.approx(0.65, abs=ROUNDING)


def test_strictest_of_equally_good_thresholds_is_reported() -> None:
    # From 0.9 on: 2/(1+0+2). From 0.5 on: 4/(2+2+2). Both 2/3.
    found = judged(pairs([0.9, 0.5], [0.7, 0.6]))
    assert found.max_f1.value == pytest.approx(2 / 3, abs=ROUNDING)
    assert found.max_f1_threshold == pytest.approx(0.8, abs=ROUNDING)


def test_calling_every_pair_positive_is_the_floor_of_the_highest_f1() -> None:
    found = judged(pairs([0.1] * 3, [0.9, 0.8]))
    assert found.max_f1.value == pytest.approx(2 * 3 / (2 * 3 + 2), abs=ROUNDING)
    assert found.max_f1_threshold == 0.1
    assert found.auc.value == 0


def test_with_fewer_than_a_hundred_unrelated_pairs_none_of_them_may_be_accused() -> None:
    assert judged(pairs([0.9, 0.7, 0.5], [0.6] * 99)).tpr_at_1_fpr.value == pytest.approx(2 / 3, abs=ROUNDING)
    assert judged(pairs([0.9, 0.7, 0.5], [0.6, *[0.1] * 98])).tpr_at_1_fpr.value == pytest.approx(2 / 3, abs=ROUNDING)


def test_one_of_a_hundred_unrelated_pairs_may_be_accused() -> None:
    assert judged(pairs([0.9, 0.7, 0.5], [0.6, *[0.1] * 99])).tpr_at_1_fpr.value == 1.0
    assert judged(pairs([0.9, 0.7, 0.5], [0.6, 0.6, *[0.1] * 98])).tpr_at_1_fpr.value < 0.7


def test_partial_area_is_one_for_perfect_columns_and_a_half_for_constant_ones() -> None:
    assert judged(pairs([0.9, 0.8], [0.1, 0.2])).partial_auc.value == pytest.approx(1, abs=ROUNDING)
    assert judged(pairs([0.5, 0.5], [0.5, 0.5])).partial_auc.value == pytest.approx(0.5, abs=ROUNDING)


def test_mahalanobis_distance_is_the_difference_of_means_by_the_pooled_deviation() -> None:
    # Means 3 and 0, sums of squares 2 and 8, 4 degrees of freedom: 3 / sqrt(10 / 4).
    found = judged(pairs([2.0, 3.0, 4.0], [-2.0, 0.0, 2.0, None]))
    assert found.mahalanobis == pytest.approx(3 / np.sqrt(2.5), abs=ROUNDING)


@pytest.mark.parametrize(("derived", "unrelated"), [([1.0], [0.0]), ([0.1] * 3, [0.3] * 3), ([1.0, 2.0], [0.0])])
def test_no_mahalanobis_distance_without_spread(derived: list[float], unrelated: list[float | None]) -> None:
    assert judged(pairs(derived, unrelated)).mahalanobis is None


# -- out of sample -------------------------------------------------------------------------------------------------


def two_bases() -> list[Row]:
    """Each base has a threshold of its own, far from the other's; one threshold still separates all pairs."""
    return [
        *pairs([0.90, 0.80], [0.10, 0.05], base="a", suspect_root="a1"),
        *pairs([0.40, 0.35], [0.30, 0.25], base="b", suspect_root="b1"),
    ]


def test_threshold_that_is_perfect_in_sample_and_fails_on_another_base_is_seen() -> None:
    found = judged(two_bases())
    assert found.max_f1.value == 1.0
    assert found.max_f1_threshold == pytest.approx(0.325, abs=ROUNDING)
    # a is judged by b's threshold, 0.325: all right. b by a's, the middle of 0.8 and 0.1: both derived pairs missed.
    assert found.held_out_tpr == 0.5
    assert found.held_out_fpr == 0.0
    assert found.held_out_f1 == pytest.approx(2 * 2 / (2 + 0 + 4), abs=ROUNDING)


def test_innocent_pairs_of_a_base_are_accused_by_the_threshold_of_the_others() -> None:
    rows = [
        *pairs([0.50], [0.10], base="a", suspect_root="a1"),
        *pairs([0.95], [0.90, 0.60], base="b", suspect_root="b1"),
    ]
    found = judged(rows)
    # b by a's threshold 0.3: both innocent pairs accused. a by b's 0.925: missed.
    assert found.held_out_fpr == pytest.approx(2 / 3, abs=ROUNDING)
    assert found.held_out_tpr == 0.5
    assert found.held_out_f1 == pytest.approx(2 / (1 + 2 + 2), abs=ROUNDING)


def test_a_value_at_the_threshold_is_accused() -> None:
    rows = [*pairs([0.5], [0.1], base="a", suspect_root="a1"), *pairs([0.5], [0.9], base="b", suspect_root="b1")]
    # b's best threshold accuses everything it has: it is the lowest value, 0.5, and finds a's derived pair.
    assert judged(rows).held_out_tpr == 1.0


def test_pairs_that_share_a_root_with_the_base_do_not_choose_its_threshold() -> None:
    rows = [
        *pairs([0.50], [0.56], base="a", suspect_root="a1"),
        *pairs([0.90], [0.20], base="b", suspect_root="b1"),
        *pairs([0.90], [0.20], base="c", suspect_root="c1"),
    ]
    # Without it a's threshold is 0.55, which misses 0.50 and accuses 0.56; with it, it would be 0.75 and accuse none.
    # The leaking pair itself is accused by the threshold of a and c: from 0.50 on, F1 is 4/5.
    leaking = pair("unrelated", 0.60, base="b", suspect_root="a")
    found = judged([*rows, leaking])
    assert found.held_out_tpr == pytest.approx(2 / 3, abs=ROUNDING)
    assert found.held_out_fpr == pytest.approx(2 / 4, abs=ROUNDING)


def test_a_single_base_leaves_nothing_to_choose_a_threshold_from() -> None:
    found = judged(pairs([0.9, 0.8], [0.1, 0.2]))
    assert (found.held_out_f1, found.held_out_fpr, found.held_out_tpr) == (None, None, None)


def test_a_base_without_unrelated_pairs_elsewhere_leaves_no_held_out_rate() -> None:
    rows = [*pairs([0.9], [0.1], base="a"), *pairs([0.9], [], base="b")]
    assert judged(rows).held_out_f1 is None


def test_a_merged_base_is_judged_once_and_apart_from_both_of_its_roots() -> None:
    merged = pair("unrelated", 0.4, base="ab", base_roots=("a", "b"), roots=("a", "b", "z"))
    rows = [*two_bases(), *pairs([0.7], [0.5], base="c", suspect_root="c1"), merged]
    found = judged(rows)
    # a by b and c (from 0.35 on, 6/7): right. b by a and c (0.6): both missed. c by a, b and the merged model (from
    # 0.35 on, 8/9): its innocent pair accused. The merged one by c alone (0.6): spared; b's threshold would accuse it.
    assert found.unrelated == 6
    assert found.held_out_fpr == pytest.approx(1 / 6, abs=ROUNDING)
    assert found.held_out_tpr == pytest.approx(3 / 5, abs=ROUNDING)


# -- what counts, and how ------------------------------------------------------------------------------------------


def test_pairs_that_are_only_shown_change_nothing() -> None:
    shown = [pair("shown", value, base="c") for value in (0.99, 0.0, None)]
    assert judged([*two_bases(), *shown]) == judged(two_bases())


def test_a_derived_pair_without_a_value_counts_as_the_least_similar_of_all() -> None:
    without, lowest = pairs([0.9, None], [0.5, 0.1]), pairs([0.9, -5.0], [0.5, 0.1])
    found, expected = judged(without), judged(lowest)
    assert found.auc.value == expected.auc.value == 0.5
    assert found.measured == 0.75
    assert found.max_f1 == expected.max_f1


def test_an_unrelated_pair_without_a_value_is_no_acquittal() -> None:
    found, expected = judged(pairs([0.9, 0.2], [0.5, None, None])), judged(pairs([0.9, 0.2], [0.5]))
    assert found.auc == expected.auc
    assert found.max_f1 == expected.max_f1
    assert (found.unrelated, found.measured) == (1, 0.6)


def test_a_method_that_looks_at_no_unrelated_pair_has_no_rates() -> None:
    assert judged(pairs([0.9, 0.8], [None, None])).auc.value is None


def test_no_threshold_accuses_a_pair_without_a_value() -> None:
    found = judged(pairs([None, None, None], [0.5]))
    # Accusing all four would give 6/7; the only threshold there is accuses the unrelated pair.
    assert found.max_f1.value == 0
    assert found.tpr_at_1_fpr.value == 0


def test_a_column_without_any_value_has_no_rates() -> None:
    found = judged(pairs([None], [None]))
    assert found.auc.value is None
    assert found.max_f1_threshold is None
    assert found.measured == 0
    assert area(column(), pairs([None], [None])) is None
    assert operating_points(column(), pairs([None], [None])) is None


@pytest.mark.parametrize(("derived", "unrelated"), [([0.5], []), ([], [0.5]), ([], [])])
def test_one_class_alone_has_no_rates(derived: list[float], unrelated: list[float]) -> None:
    found = judged(pairs(derived, unrelated))
    assert found.auc.value is None
    assert found.max_f1.value is None
    assert (found.derived, found.unrelated) == (len(derived), len(unrelated))


def test_hard_rates_leave_out_the_easy_negatives() -> None:
    hard = pair("unrelated", 0.95, category="hard negatives")
    found = hard_rates([column()], [*pairs([0.9, 0.8], [0.1, 0.2]), hard], seed=0, resamples=20)[0]
    assert (found.derived, found.unrelated, found.auc.value) == (2, 1, 0.0)


def test_distances_give_the_rates_of_the_negated_similarities() -> None:
    values = {"derived": [0.9, 0.8, 0.4, None], "unrelated": [0.5, 0.4, 0.1]}
    alike = [pair(label, value, base=base) for base in ("a", "b") for label, held in values.items() for value in held]
    apart = [
        pair(row.case.label, None if (value := row.cells["m: s"].value) is None else -value, base=row.case.base)
        for row in alike
    ]
    found, expected = judged(apart, kind="distance"), judged(alike)
    assert found.max_f1_threshold == -(expected.max_f1_threshold or 0)
    assert found.model_copy(update={"max_f1_threshold": None}) == expected.model_copy(update={"max_f1_threshold": None})


@given(
    levels=st.lists(st.integers(-20, 20), min_size=8, max_size=8),
    missing=st.integers(0, 7),
    transform=st.sampled_from([np.exp, np.arctan, lambda x: 3 * x + 7, lambda x: x**3]),
)
@settings(deadline=None, max_examples=40)
def test_monotone_transforms_leave_every_rate_that_needs_no_unit_unchanged(
    levels: list[int], missing: int, transform: Any
) -> None:
    held: list[float | None] = [level / 8 for level in levels]
    held[missing] = None
    bent = [None if value is None else float(transform(value)) for value in held]
    first, second = (judged(pairs(values[:4], values[4:])) for values in (held, bent))
    for name in ("auc", "partial_auc", "tpr_at_1_fpr", "max_f1", "measured"):
        assert getattr(first, name) == getattr(second, name)


# -- intervals -----------------------------------------------------------------------------------------------------


def many(seed: int, *, bases: int = 6) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        pair(label, round(float(rng.normal(shift, 1)), 1), base=f"b{base}")
        for base in range(bases)
        for label, shift in (("derived", 1.0), ("unrelated", 0.0))
        for _ in range(5)
    ]


def test_points_and_resamples_agree_with_scikit_learn() -> None:
    rows = many(0)
    similarity_N, derived_N = metrics._similarities(column(), rows), metrics._derived(rows)
    weight_RN = metrics._resamples(rows, seed=1, resamples=10)
    assert weight_RN.shape == (11, len(rows))
    counts = metrics._counts(similarity_N, derived_N, weight_RN)
    levels = metrics._measured_levels(similarity_N)
    areas, partial = metrics._areas(*counts), metrics._partial_areas(*counts)
    best = metrics._f1(*counts)[:, :levels].max(axis=1)
    for index, weight_N in enumerate(weight_RN):
        drawn, truth = np.repeat(similarity_N, weight_N), np.repeat(derived_N, weight_N)
        # Additions of up to 60 quotients in another order.
        assert areas[index] == pytest.approx(roc_auc_score(truth, drawn), abs=ROUNDING)
        assert partial[index] == pytest.approx(roc_auc_score(truth, drawn, max_fpr=0.01), abs=ROUNDING)
        expected = max(f1_score(truth, drawn >= threshold) for threshold in np.unique(drawn))
        assert best[index] == pytest.approx(expected, abs=ROUNDING)


def test_intervals_hold_the_value_and_repeat_with_the_seed() -> None:
    first, again, other = (rates([column()], many(0), seed=seed, resamples=200)[0] for seed in (3, 3, 4))
    assert first == again
    assert first != other
    for name in ("auc", "partial_auc", "tpr_at_1_fpr", "max_f1"):
        held = getattr(first, name)
        assert held.low <= held.value <= held.high


def test_whole_bases_are_drawn_so_copies_of_a_pair_do_not_narrow_the_interval() -> None:
    once, often = many(0), [row for row in many(0) for _ in range(10)]
    assert judged(once, resamples=200).auc == judged(often, resamples=200).auc


def test_a_single_base_has_no_interval() -> None:
    assert judged(pairs([0.9, 0.8], [0.1, 0.2])).auc.low is None


def test_no_interval_where_most_resamples_lack_a_class() -> None:
    # One base holds the derived pair, the other the unrelated one: half of all resamples hold both, give or take.
    rows = [pair("derived", 0.9, base="y"), pair("unrelated", 0.1, base="z")]
    held = {rates([column()], rows, seed=seed, resamples=11)[0].auc.low for seed in range(10)}
    assert held == {None, 1.0}


# -- curves and extras ---------------------------------------------------------------------------------------------


def test_operating_points_end_where_every_measured_pair_is_accused() -> None:
    points = operating_points(column(), pairs([0.9, 0.4, None], [0.5, None]))
    assert points is not None
    np.testing.assert_allclose(points[0], [0, 0, 1, 1], atol=ROUNDING)
    np.testing.assert_allclose(points[1], [0, 1 / 3, 1 / 3, 2 / 3], atol=ROUNDING)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match=r"kinprint\[bench\]"):
        judged(pairs([0.9], [0.1]))
