"""Matching of units and the tests on it, against scipy and by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg.matching import (
    CHEAP_UNITS,
    FLOOR,
    SAMPLED_LAYERS,
    affordable,
    correlation_p,
    fisher_log10,
    match_rows,
    spearman,
)

seeds = st.integers(0, 2**32 - 1)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right)]
    return unit[0] @ unit[1].T


@given(seed=seeds, extra=st.integers(0, 2))
@settings(deadline=None, max_examples=10)
def test_the_match_is_the_best_of_all_that_there_are(seed: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((4, 3)), rng.standard_normal((4 + extra, 3))
    table, rows = cosines(left, right), np.arange(4)
    best = max(table[rows, list(order)].sum() for order in permutations(range(4 + extra), 4))
    assert table[rows, match_rows(left, right)].sum() == pytest.approx(best, abs=1e-12)


@given(seed=seeds)
@settings(deadline=None, max_examples=10)
def test_padding_with_zero_rows_changes_no_match(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((8, 4)), rng.standard_normal((12, 4))
    padded = np.concatenate([left, np.zeros((4, 4))])
    assert match_rows(padded, right)[:8].tolist() == match_rows(left, right).tolist()


def test_the_size_of_a_row_does_not_matter_and_its_sign_does() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 4))
    scales = np.array([1e-300, 1e300, 1.0, 3.0, 1e-5, 1e5])[:, None]
    assert match_rows(rows * scales, rows).tolist() == [0, 1, 2, 3, 4, 5]
    assert match_rows(-rows, rows).tolist() != [0, 1, 2, 3, 4, 5]


def test_the_rank_correlation_by_hand() -> None:
    # Ranks 0 2 1 3 against 0 1 2 3: differences 0 1 1 0, and 1 - 6 * 2 / (4 * 15) = .8.
    assert spearman(np.array([5, 70, 8, 900]), np.array([0, 1, 2, 3])) == pytest.approx(0.8, abs=1e-15)
    assert spearman(np.arange(5), np.arange(5)[::-1]) == -1.0


@pytest.mark.parametrize(("correlation", "count"), [(0.0, 10), (0.3, 20), (-0.3, 20), (0.9, 50), (0.5, 1000)])
def test_the_p_value_is_that_of_students_t(correlation: float, count: int) -> None:
    from scipy.stats import t

    statistic = correlation * np.sqrt((count - 2) / (1 - correlation**2))
    assert correlation_p(correlation, count) == pytest.approx(2 * t.sf(abs(statistic), count - 2), rel=1e-9)


@pytest.mark.parametrize("correlation", [1.0, -1.0, 0.999])
def test_a_p_value_is_never_zero(correlation: float) -> None:
    assert correlation_p(correlation, 2000) == FLOOR


@pytest.mark.parametrize("p_values", [[0.5], [0.3, 0.01], [1.0, 1.0], [0.9, 0.2, 1e-8, 0.5], [1e-12] * 8])
def test_the_combined_p_value_is_that_of_chi_squared(p_values: list[float]) -> None:
    from scipy.stats import combine_pvalues

    expected = combine_pvalues(p_values, method="fisher").pvalue
    assert fisher_log10(np.array(p_values)) == pytest.approx(np.log10(expected), abs=1e-9)


def test_the_combined_p_value_is_finite_where_float64_would_say_zero() -> None:
    # Two blocks at the floor: s = 2 * 707.4..., p = exp(-s) (1 + s).
    half = -2 * np.log(FLOOR)
    assert fisher_log10(np.array([FLOOR, FLOOR])) == pytest.approx((np.log1p(half) - half) / np.log(10), abs=1e-9)
    assert fisher_log10(np.array([FLOOR, FLOOR])) == pytest.approx(-612.16, abs=0.01)


def test_wide_layers_are_sampled_in_order_and_by_the_seed_alone() -> None:
    wide = affordable(range(32), CHEAP_UNITS + 1, seed=0)
    assert len(wide) == len(set(wide)) == SAMPLED_LAYERS
    assert wide == sorted(wide) == affordable(range(32), 11008, seed=0)
    assert wide != affordable(range(32), CHEAP_UNITS + 1, seed=1)
    assert affordable(range(32), CHEAP_UNITS, seed=0) == list(range(32))
    assert affordable([5, 7], 11008, seed=0) == [5, 7]
