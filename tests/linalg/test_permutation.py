"""Tails of permutation statistics: against every permutation, against the null, and by hand."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.errors import NonFiniteError, UsageError
from kinprint.linalg import permutation
from kinprint.linalg.permutation import (
    exact_by_enumeration,
    log_bound,
    log_pairings,
    moments_of,
    monte_carlo,
    permutation_test,
)

Array = np.ndarray[Any, np.dtype[Any]]
seeds = st.integers(0, 2**32 - 1)


def unit_rows(rng: np.random.Generator, labels: int, width: int) -> Array:
    rows = rng.standard_normal((labels, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(rng: np.random.Generator, labels: int, width: int, cosine: float) -> Array:
    """Return cosines of unit vectors of two models, of which those of the same label have about a given cosine."""
    left = unit_rows(rng, labels, width)
    right = cosine * left + math.sqrt(1 - cosine**2) * unit_rows(rng, labels, width)
    return left @ (right / np.linalg.norm(right, axis=1, keepdims=True)).T


def any_scores(rng: np.random.Generator, labels: int) -> Array:
    """Return scores of one of the kinds that strain a bound: heavy tails, near-identity, blocks of ties, outliers."""
    noise = rng.standard_normal((labels, labels))
    kind = rng.integers(5)
    if kind == 0:
        return noise * 10.0 ** rng.integers(-3, 3)
    if kind == 1:
        return rng.standard_t(1.2, (labels, labels))
    if kind == 2:
        return np.eye(labels) + rng.choice([0.0, 0.01, 0.3]) * noise
    if kind == 3:
        block = np.sort(rng.integers(0, 3, labels))
        return (block[:, None] == block[None, :]).astype(np.float64)
    return np.eye(labels)[rng.permutation(labels)] + 3 * np.outer(rng.random(labels), rng.random(labels))


def log_exact(groups: list[Array]) -> float:
    count, size = exact_by_enumeration(groups)
    return math.log(count / size)


# -- what the bound is for: never below the truth --------------------------------------------------------------------


@pytest.mark.parametrize("enumerated", [1, 3, 8])
def test_the_bound_is_never_below_the_exact_p(enumerated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the inequality for all groups, for the larger ones, and for none."""
    monkeypatch.setattr(permutation, "_ENUMERATED_LABELS", enumerated)
    rng, tight = np.random.default_rng(enumerated), 0
    for _ in range(250):
        sizes = [(7,), (6, 3), (5, 4, 2), (4, 4, 3), (2, 2, 2, 2, 2), (3, 3, 3)][rng.integers(6)]
        groups = [any_scores(rng, labels) for labels in sizes]
        bound, exact = log_bound(groups), log_exact(groups)
        assert exact - 1e-9 <= bound <= 0
        tight += bound < exact + 1e-6
    assert tight > 10  # a bound that is always far above would pass with a wrong constant


@pytest.mark.parametrize("labels", range(2, 8))
def test_the_permanent_of_any_matrix_is_below_the_product_of_power_means(labels: int) -> None:
    """Inequality (1) itself, apart from the code that uses it, and that no smaller power would do."""
    rng = np.random.default_rng(labels)
    orders = np.array(list(permutations(range(labels))))
    power = labels * math.log(labels) / math.lgamma(labels + 1)

    def slack(logs: Array, power: float) -> float:
        sums, tops = logs[np.arange(labels), orders].sum(axis=1), logs.max(axis=1, keepdims=True)
        mean = float(sums.max() + np.log(np.exp(sums - sums.max()).mean()))
        return float((tops[:, 0] + np.log(np.exp(power * (logs - tops)).mean(axis=1)) / power).sum()) - mean

    for _ in range(60):
        assert slack(any_scores(rng, labels) * rng.choice([0.1, 1.0, 30.0]), power) >= -1e-9
    assert slack(100 * np.eye(labels), power) == pytest.approx(0.0, abs=1e-9)
    assert slack(100 * np.eye(labels), 0.99 * power) < -0.005


def test_one_label_among_others_keeps_the_share_of_entropy_that_the_proof_needs() -> None:
    """Step 1 of the proof: D of a uniform value other than X against D of X, on laws of every concentration."""
    rng = np.random.default_rng(5)
    for labels in (2, 3, 4, 7, 30):
        share = 1 - math.log(labels - 1) / math.log(labels)
        for concentration in (0.02, 0.3, 3.0, 1e3):
            law = np.maximum(rng.dirichlet(np.full(labels, concentration), 500), 1e-300)
            other = np.maximum((1 - law) / (labels - 1), 1e-300)
            of_law, of_other = ((p * np.log(labels * p)).sum(axis=1) for p in (law, other))
            assert (of_other <= share * of_law + 1e-12).all()


# -- what it ignores -------------------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(deadline=None, max_examples=30, derandomize=True)
def test_constants_in_rows_and_columns_change_no_p(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [any_scores(rng, 5), any_scores(rng, 4)]
    large = [planted(rng, 40, 12, 0.5)]
    moved = [s + rng.standard_normal(len(s))[:, None] + rng.standard_normal(len(s)) for s in groups + large]
    assert exact_by_enumeration(moved[:2]) == exact_by_enumeration(groups)
    assert log_bound(moved[2:]) == pytest.approx(log_bound(large), rel=1e-6)
    assert monte_carlo(moved[2:], 50, 3) == monte_carlo(large, 50, 3)


@given(seed=seeds)
@settings(deadline=None, max_examples=20, derandomize=True)
def test_one_relabelling_of_both_models_changes_no_p(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, order = planted(rng, 30, 12, 0.5), rng.permutation(30)
    assert log_bound([scores[order][:, order]]) == pytest.approx(log_bound([scores]), rel=1e-9)
    small, order = any_scores(rng, 6), rng.permutation(6)
    assert exact_by_enumeration([small[order][:, order]]) == exact_by_enumeration([small])


def test_the_scale_of_the_scores_and_the_order_of_groups_change_no_bound() -> None:
    rng = np.random.default_rng(4)
    groups = [planted(rng, 30, 12, 0.5), planted(rng, 5, 12, 0.5)]
    plain = log_bound(groups)
    assert log_bound([1e-4 * scores for scores in groups[::-1]]) == pytest.approx(plain, rel=1e-9)


def test_p_of_unrelated_models_is_uniform() -> None:
    rng = np.random.default_rng(11)
    results = [permutation_test([rng.standard_normal((12, 12))], draws=99, seed=seed) for seed in range(500)]
    p = np.array([10**result.log10_p for result in results if result is not None])
    assert p.size == 500
    for level in (0.01, 0.05, 0.2, 0.5, 0.9):
        # Four standard deviations of a binomial count, either way: p is neither too small nor uselessly large.
        assert abs((p <= level + 1e-12).mean() - level) < 4 * math.sqrt(level * (1 - level) / 500)


def test_p_of_unrelated_unit_vectors_is_not_small_too_often() -> None:
    rng = np.random.default_rng(12)
    small = 0
    for seed in range(300):
        groups = [planted(rng, 10, 6, 0.0), planted(rng, 9, 6, 0.0)]
        result = permutation_test(groups, draws=39, seed=seed)
        assert result is not None
        small += result.log10_p <= math.log10(0.05)
    assert abs(small - 15) < 4 * math.sqrt(300 * 0.05 * 0.95)


# -- what it notices -------------------------------------------------------------------------------------------------


def test_a_planted_cosine_is_found_far_below_the_resolution_of_monte_carlo() -> None:
    result = permutation_test([planted(np.random.default_rng(0), 352, 96, 0.3)], draws=199)
    assert result is not None
    assert (result.bound_used, result.count) == ("permanent", 0)
    # A normal tail at the same z, divided by the power of the inequality, is what can be hoped for.
    hoped = -(result.z**2) / 2 / math.log(10) / (352 * math.log(352) / math.lgamma(353))
    assert result.log10_p == pytest.approx(hoped, rel=0.02)
    assert result.log10_p < -500


def test_a_cosine_of_a_few_hundredths_is_found_over_groups() -> None:
    rng = np.random.default_rng(1)
    groups = [planted(rng, 200, 48, 0.05) for _ in range(8)]
    together = permutation_test(groups, draws=199)
    assert together is not None
    assert together.log10_p < -10
    assert all(log_bound([scores]) / math.log(10) > together.log10_p / 2 for scores in groups)


def test_equal_models_reach_the_floor_and_no_more() -> None:
    rng = np.random.default_rng(2)
    result = permutation_test([planted(rng, 60, 24, 1.0), planted(rng, 8, 24, 1.0)])
    assert result is not None
    assert result.log10_floor == pytest.approx(-(math.lgamma(61) + math.lgamma(9)) / math.log(10))
    assert result.log10_p == pytest.approx(result.log10_floor, rel=1e-9)
    assert result.log10_p >= result.log10_floor


def test_columns_that_are_all_large_hide_no_match() -> None:
    """The best pairing of these is the diagonal, though no row and no column is largest there until both are scaled."""
    rng = np.random.default_rng(3)
    scores = 3 * np.eye(20) + 10 * rng.random(20)[:, None] + 10 * rng.random(20)
    scores += 0.1 * rng.standard_normal((20, 20))
    assert log_bound([scores]) == pytest.approx(-math.lgamma(21), rel=1e-3)


def test_a_pairing_that_is_worse_than_most_has_a_bound_of_one() -> None:
    assert log_bound([-np.eye(20)]) == 0.0
    result = permutation_test([-np.eye(20)], draws=99)
    assert result is not None
    assert (result.bound_used, result.log10_p) == ("monte-carlo", 0.0)


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_two_and_three_labels_by_hand() -> None:
    # Sums of [[1, 2, 0], [0, 3, 1], [2, 2, 2]]: 6, 4 (swap 2, 3), 4 (swap 1, 2), 5 (swap 1, 3), 5 and 2 (cycles).
    three = np.array([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    assert exact_by_enumeration([three]) == (1, 6)
    assert exact_by_enumeration([three[:, [2, 1, 0]]]) == (3, 6)  # its diagonal is 0 + 3 + 2 = 5
    # With [[1, 0], [0, 0]] beside it, whose sums are 1 and 0: 5 + 1 is reached by 5 + 1 (twice), 6 + 1 and 6 + 0.
    two = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert exact_by_enumeration([three[:, [2, 1, 0]], two]) == (4, 12)
    result = permutation_test([two])
    assert result is not None
    assert (result.observed, result.mean, result.sd, result.z) == (1.0, 0.5, 0.5, 1.0)
    assert (result.bound_used, result.draws, result.count) == ("enumeration", 2, 1)
    assert 10**result.log10_p == pytest.approx(0.5)


def test_the_bound_of_two_labels_by_hand() -> None:
    """Sums are 2 and 0, T = 2: exp(-2 l) (exp(2 l) + 1) / 2 falls to 1/2; three such groups to 1/8."""
    assert log_bound([np.eye(2)]) == pytest.approx(-math.log(2))
    assert log_bound([np.eye(2)] * 3) == pytest.approx(-math.log(8))


def test_the_bound_of_a_binomial_tail_is_chernoffs() -> None:
    """Of 20 coins 15 show heads: exp(-20 KL(3/4, 1/2)), Chernoff's bound with the exact generating function."""
    heads, tails = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert log_bound([heads] * 15 + [tails] * 5) == pytest.approx(-20 * divergence, rel=1e-3)


@given(seed=seeds, labels=st.integers(1, 6))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_moments_are_those_over_all_permutations(seed: int, labels: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((labels, labels))
    sums = [sum(scores[i, j] for i, j in enumerate(order)) for order in permutations(range(labels))]
    assert moments_of(scores) == pytest.approx((np.mean(sums), np.var(sums)), abs=1e-12)


def test_monte_carlo_agrees_with_enumeration_and_counts_ties() -> None:
    rng = np.random.default_rng(6)
    groups = [rng.standard_normal((4, 4)) + 0.3 * np.eye(4), rng.standard_normal((3, 3))]
    exact = math.exp(log_exact(groups))
    count, draws = monte_carlo(groups, 20_000, 0)
    assert abs(count / draws - exact) < 4 * math.sqrt(exact * (1 - exact) / draws)
    # 0.1 + 0.2 + 0.3 depends on the order of the terms; every pairing of these ties with the observed one.
    tied = np.repeat(np.array([[0.1, 0.2, 0.3, 0.7]]), 4, axis=0)
    assert monte_carlo([tied, 1e3 * tied], 100, 0) == (100, 100)
    assert exact_by_enumeration([tied, 1e3 * tied]) == (576, 576)


def test_a_draw_that_reached_the_sum_sets_p_whatever_the_bound_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of Monte Carlo's p and a bound of the exact p is not valid; the rule in the docstring is."""
    groups = [np.random.default_rng(1).standard_normal((12, 12))]
    count, _ = monte_carlo(groups, 9, 2)
    assert 0 < count < 9

    def tiny_bound(*_: Any) -> float:
        return -50.0

    with monkeypatch.context() as patched:
        patched.setattr(permutation, "_log_bound", tiny_bound)
        result = permutation_test(groups, draws=9, seed=2)
        assert result is not None
        assert (result.bound_used, result.count, result.draws) == ("monte-carlo", count, 9)
        assert 10**result.log10_p == pytest.approx((1 + count) / 10)
    # No draw reached it: the smaller of the two, here Monte Carlo's 1/4 beside a bound that says less.
    result = permutation_test([np.eye(12) * np.linspace(-0.9, 1.0, 12)], draws=3, seed=0)
    assert result is not None
    assert (result.bound_used, result.count, result.log10_p) == ("monte-carlo", 0, pytest.approx(-math.log10(4)))


def test_more_draws_than_pairings_say_no_more_than_the_pairings() -> None:
    result = permutation_test([np.eye(8)], draws=60_000, seed=6)
    assert result is not None
    assert (1 + result.count) / 60_001 < 1 / 40_320
    assert 10**result.log10_p == pytest.approx(1 / 40_320)


def test_monte_carlo_is_the_same_for_the_same_seed_and_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [np.random.default_rng(7).standard_normal((30, 30))]
    first = monte_carlo(groups, 400, 5)
    assert first != monte_carlo(groups, 400, 6)
    monkeypatch.setattr(permutation, "_BLOCK", 100)
    assert monte_carlo(groups, 400, 5) == first


def test_blocks_of_rows_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = planted(np.random.default_rng(8), 50, 12, 0.4)
    whole = log_bound([scores])
    monkeypatch.setattr(permutation, "_BLOCK", 700)
    assert log_bound([scores]) == pytest.approx(whole, rel=1e-12)


def test_two_layers_of_four_heads_get_an_exact_p() -> None:
    result = permutation_test([np.eye(4), np.eye(4)])
    assert result is not None
    assert (result.bound_used, result.draws, result.count) == ("enumeration", 576, 1)
    assert result.log10_p == pytest.approx(-math.log10(576))
    assert log_pairings([np.eye(4), np.eye(4)]) == pytest.approx(math.log(576))


def test_single_precision_scores_give_the_same_answer() -> None:
    scores = planted(np.random.default_rng(9), 64, 24, 0.4)
    single, double = (permutation_test([scores.astype(dtype)], draws=99) for dtype in (np.float32, np.float64))
    assert single is not None
    assert double is not None
    assert single.log10_p == pytest.approx(double.log10_p, rel=1e-5)


# -- what has no answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [np.ones((0, 0))],
        [np.ones((1, 1))],
        [np.full((5, 5), 0.1)],
        [np.add.outer(np.arange(4) / 7, np.arange(4) / 3)],
    ],
)
def test_pairings_that_all_give_the_same_sum_have_no_p(groups: list[Array]) -> None:
    assert permutation_test(groups) is None
    assert log_bound(groups) == 0.0


def test_a_group_of_one_label_changes_no_p() -> None:
    rng = np.random.default_rng(10)
    groups = [planted(rng, 20, 12, 0.5), planted(rng, 5, 12, 0.5)]
    assert log_bound([*groups, np.ones((1, 1))]) == pytest.approx(log_bound(groups), rel=1e-9)


def test_scores_that_are_not_numbers_or_not_square_are_refused() -> None:
    for bad in (np.nan, np.inf):
        scores = np.eye(3)
        scores[0, 2] = bad
        for refuse in (permutation_test, log_bound, exact_by_enumeration):
            with pytest.raises(NonFiniteError, match="scores of group 1"):
                refuse([np.eye(3), scores])
    with pytest.raises(UsageError, match=r"group 0 are \[2, 3\]"):
        permutation_test([np.ones((2, 3))])
    with pytest.raises(UsageError, match="at least 1 draw"):
        permutation_test([np.eye(9)], draws=0)
    with pytest.raises(UsageError, match="50,000"):
        exact_by_enumeration([np.eye(9)])
