"""Uniformity of p-values of pairs: numbers worked out by hand, what is independent of what, what is found."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import norm

from kinprint.bench.calibration import statistics
from kinprint.bench.calibration.statistics import Pairs


def every_pair(models: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(models), 2))


# -- which pairs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("models", "rounds"), [(2, 1), (7, 7), (8, 7), (33, 33)])
def test_a_tournament_has_every_pair_once_in_rounds_of_disjoint_pairs(models: int, rounds: int) -> None:
    pairs = every_pair(models)
    played = statistics.rounds(pairs)
    assert Counter(place for held in played for place in held) == Counter(range(len(pairs)))
    assert [len(held) for held in played] == [models // 2] * rounds
    for held in played:
        ends = [model for place in held for model in pairs[place]]
        assert len(ends) == len(set(ends))


def test_models_that_are_never_compared_play_side_by_side_and_absent_pairs_are_left_out() -> None:
    square = [(0, 1), (1, 2), (2, 3), (3, 0)]
    pairs = [*square, *((a + 4, b + 4) for a, b in every_pair(4))]
    played = statistics.rounds(pairs)
    assert sorted(place for held in played for place in held) == list(range(10))
    assert len(played) == 3
    assert max(len(held) for held in played) == 4
    for held in played:
        ends = [model for place in held for model in pairs[place]]
        assert len(ends) == len(set(ends))


def test_a_forest_has_no_cycle_and_one_pair_less_than_models_in_each_tree() -> None:
    pairs = [*every_pair(6), *((a + 6, b + 6) for a, b in every_pair(4))]
    kept = [pairs[place] for place in statistics.forest(pairs)]
    incidence = np.zeros((len(kept), 10))
    for row, (first, second) in enumerate(kept):
        incidence[row, first], incidence[row, second] = 1, -1
    assert np.linalg.matrix_rank(incidence) == len(kept) == 5 + 3
    assert statistics.forest(pairs) == statistics.forest(pairs) != statistics.forest(pairs, seed=1)


def p_values_of_every_numbering(models: int, pairs: Pairs) -> list[tuple[int, ...]]:
    """For each way to number the three labels of each model: how many relabellings reach each pair's diagonal sum."""
    rng, orders = np.random.default_rng(0), list(itertools.permutations(range(3)))
    scores = [rng.standard_normal((3, 3)) for _ in pairs]
    found: list[tuple[int, ...]] = []
    for numbering in itertools.product(orders, repeat=models):
        ranks: list[int] = []
        for score, (first, second) in zip(scores, pairs, strict=True):
            own = score[np.ix_(numbering[first], numbering[second])]
            sums = np.array([own[range(3), order].sum() for order in orders])
            ranks.append(int((sums >= np.trace(own) - 1e-12).sum()))
        found.append(tuple(ranks))
    return found


@pytest.mark.parametrize("pairs", [[(0, 1), (0, 2)], [(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)]])
def test_p_values_of_pairs_without_a_cycle_are_independent_draws_though_they_share_models(pairs: Pairs) -> None:
    models = len(pairs) + 1
    seen = Counter(p_values_of_every_numbering(models, pairs))
    # All combinations of six steps each, equally often: uniform and independent, exactly.
    assert len(seen) == 6 ** len(pairs)
    assert set(seen.values()) == {6}


def test_p_values_of_a_triangle_are_not_independent_draws() -> None:
    triples = p_values_of_every_numbering(3, [(0, 1), (1, 2), (0, 2)])
    assert len(set(triples)) <= 36  # of 216
    for left_out in range(3):
        others = Counter(tuple(np.delete(triple, left_out).tolist()) for triple in triples)
        assert set(others.values()) == {6}


# -- independent draws -------------------------------------------------------------------------------------------------


def test_kolmogorov_of_one_draw_is_its_distance_from_the_ends() -> None:
    assert statistics.kolmogorov(np.array([0.5])) == pytest.approx((0.5, 1.0))
    # D = .9, as of any draw below .1 or above .9.
    assert statistics.kolmogorov(np.array([0.1])) == pytest.approx((0.9, 0.2))


def test_anderson_of_one_draw_is_worked_out_by_hand() -> None:
    # A^2 = -1 - log p - log(1 - p), so at least 2 log 2 - 1; at 1 or more where p (1 - p) <= e^-2: p is .161 or less.
    assert statistics.anderson(np.array([0.5]))[0] == pytest.approx(2 * math.log(2) - 1)
    low = (1 - math.sqrt(1 - 4 * math.exp(-2))) / 2
    value, p = statistics.anderson(np.array([low]))
    assert value == pytest.approx(1.0)
    assert p == pytest.approx(2 * low, abs=0.01)  # the published correction is for more draws than one


@pytest.mark.parametrize(("quantile", "p"), [(1.9330, 0.10), (2.4924, 0.05), (3.8781, 0.01)])
def test_andersons_published_percentage_points_are_found(quantile: float, p: float) -> None:
    assert statistics._anderson_tail(quantile, 10**6) == pytest.approx(p, abs=2e-5)


def test_andersons_far_tail_joins_the_fitted_one_and_has_no_end() -> None:
    assert statistics._anderson_tail(8.0001, 10**6) == pytest.approx(statistics._anderson_tail(7.9999, 10**6), rel=0.05)
    assert 0 < statistics._anderson_tail(200.0, 30) < 1e-80


def test_andersons_p_values_of_uniform_draws_are_uniform() -> None:
    draws = np.random.default_rng(0).random((2000, 11))
    p = np.array([statistics.anderson(row)[1] for row in draws])
    assert statistics.kolmogorov(p)[1] > 0.05


def test_dispersion_of_two_draws_is_worked_out_by_hand() -> None:
    p = np.array([norm.sf(1.0), norm.sf(-1.0)])
    # Chi-square with 2 degrees of freedom is beyond 2 with probability e^-1.
    assert statistics.dispersion(p) == pytest.approx((1.0, 2 * math.exp(-1)))


def test_rounds_are_combined_by_twice_their_mean_and_never_beyond_one() -> None:
    p = np.array([0.1, 0.2, 0.9, 0.8])

    def first(held: np.ndarray) -> tuple[float, float]:
        return 0.0, float(held[0])

    assert statistics.over_rounds(p, [[0, 2], [1, 3]], first) == pytest.approx(0.3)
    assert statistics.over_rounds(p, [[2, 0], [3, 1]], first) == 1.0


# -- pairs that share models -------------------------------------------------------------------------------------------


def drawn(models: int, spread: float, seed: int = 0) -> tuple[np.ndarray, list[tuple[int, int]]]:
    pairs = every_pair(models)
    return norm.sf(spread * np.random.default_rng(seed).standard_normal(len(pairs))), pairs


def test_a_spread_of_one_is_not_found_and_one_and_a_third_or_two_thirds_is() -> None:
    assert statistics.jackknifed_dispersion(*drawn(33, 1.0)) > 0.05
    assert statistics.jackknifed_dispersion(*drawn(33, 1.3)) < 1e-4
    assert statistics.jackknifed_dispersion(*drawn(33, 0.7)) < 1e-4


def test_the_jackknife_does_not_depend_on_names_or_order() -> None:
    p, pairs = drawn(9, 1.0)
    order = np.random.default_rng(1).permutation(len(pairs))
    renamed = [(17 - pairs[at][1], 17 - pairs[at][0]) for at in order]
    assert statistics.jackknifed_dispersion(p[order], renamed) == pytest.approx(
        statistics.jackknifed_dispersion(p, pairs)
    )


def test_the_jackknife_of_a_triangle_is_worked_out_by_hand() -> None:
    # Squares 4, 1, 1 of pairs 01, 02, 12: mean 2. Without 0, 1, 2 the pairs 12, 02, 01 remain: 1, 1, 4.
    # Variance 2/3 (1 + 1 + 4) = 4, error 2: log 2 / (2 / 2) = .693 by Student's t with 2 degrees of freedom.
    p = norm.sf([2.0, 1.0, -1.0])
    t = math.log(2)
    expected = 1 - t / math.sqrt(2 + t * t)
    assert statistics.jackknifed_dispersion(p, [(0, 1), (0, 2), (1, 2)]) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [[(0, 1)], [(0, 1), (0, 2), (0, 3)]])
def test_where_no_model_can_be_left_out_nothing_is_found(pairs: Pairs) -> None:
    assert statistics.jackknifed_dispersion(np.full(len(pairs), 1e-9), pairs) == 1.0
    assert statistics.found_from(pairs, 0.01) is None


def test_what_ties_the_pairs_of_a_model_together_makes_the_jackknife_no_surer() -> None:
    # Correlations of random vectors: any two independent, all of them far from it.
    rng, pairs = np.random.default_rng(0), np.array(every_pair(12))
    rejected = 0
    for _ in range(300):
        vectors = rng.standard_normal((12, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        # In four dimensions (1 + r) / 2 has the law Beta(3/2, 3/2); its tail is known.
        angle = np.arccos((vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1))
        p = (angle - np.sin(angle) * np.cos(angle)) / math.pi
        rejected += statistics.jackknifed_dispersion(p, every_pair(12)) < 0.05
    assert rejected < 300 * 0.05


# -- power -------------------------------------------------------------------------------------------------------------


def test_the_spread_that_is_said_to_be_found_is_found_eight_times_in_ten() -> None:
    spread = statistics.found_from(every_pair(20), 0.001)
    assert spread is not None
    found = [statistics.jackknifed_dispersion(*drawn(20, spread, seed)) < 0.001 for seed in range(200)]
    assert 0.7 < np.mean(found) < 0.9


def test_the_spread_that_rounds_find_is_found_eight_times_in_ten() -> None:
    pairs = every_pair(12)
    played = statistics.rounds(pairs)
    spread = statistics.found_from_rounds([len(held) for held in played], 0.01)
    assert spread is not None
    found = [
        statistics.over_rounds(drawn(12, spread, seed)[0], played, statistics.dispersion) < 0.01 for seed in range(100)
    ]
    assert 0.65 < np.mean(found) < 0.95


def test_more_models_find_smaller_spreads_and_all_pairs_find_what_rounds_do_not() -> None:
    few, many = (statistics.found_from(every_pair(models), 1e-4) for models in (12, 33))
    rounds = statistics.found_from_rounds([16] * 33, 1e-4)
    assert few is not None
    assert many is not None
    assert rounds is not None
    assert 1.2 < many < 1.4 < few
    assert rounds > 2
