"""Statistics of vectors of gains: known answers and the laws they follow."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg.gains import (
    coefficient_of_variation,
    cosine_table,
    effect_size,
    equal_share,
    expected_cosine,
    shuffled_cosines,
)

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_the_centred_table_is_pearsons_correlation(seed: int) -> None:
    rows = 5 + np.random.default_rng(seed).standard_normal((6, 30))
    table = cosine_table(rows[:2], rows[2:], centred=True)
    np.testing.assert_allclose(table, np.corrcoef(rows)[:2, 2:], atol=1e-12)


def test_a_constant_row_has_no_centred_direction_and_a_plain_one() -> None:
    rows = np.array([[0.1] * 7, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]])
    centred = cosine_table(rows, rows, centred=True)
    assert np.isnan(centred[0]).all()
    assert centred[1, 1] == pytest.approx(1.0, abs=1e-15)
    assert np.isfinite(cosine_table(rows, rows)).all()


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_the_expected_cosine_is_the_mean_over_all_permutations(seed: int) -> None:
    from itertools import permutations

    rng = np.random.default_rng(seed)
    left, right = rng.uniform(0.1, 2, 5), rng.uniform(0.1, 2, 5)
    every = np.array(list(permutations(range(5))))
    expected = expected_cosine(coefficient_of_variation(left), coefficient_of_variation(right))
    assert shuffled_cosines(left, right, every).mean() == pytest.approx(expected, abs=1e-12)
    assert shuffled_cosines(left, right, every, centred=True).mean() == pytest.approx(0.0, abs=1e-12)


def test_a_shuffle_moves_the_left_vector() -> None:
    left, right = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    orders = np.array([[0, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(shuffled_cosines(left, right, orders), [0.0, 1.0])


def test_an_effect_without_spread_has_no_size() -> None:
    assert effect_size(np.array([1.0, 1.0]), np.array([0.0, 0.0])) is None


def test_a_vector_about_zero_varies_without_bound() -> None:
    assert coefficient_of_variation(np.array([-1.0, 1.0])) == np.inf
    assert coefficient_of_variation(np.array([-1.0, -3.0])) == 0.5


def test_equality_is_judged_in_the_coarser_dtype_whichever_side_it_is_on() -> None:
    fine = np.array([1.0, 1 + 2**-10, 1.5], np.float32)
    coarse = np.array([1.0, 1.0, 1.25], ml_dtypes.bfloat16)
    assert equal_share(fine, coarse) == equal_share(coarse, fine) == 2 / 3
    # float16 keeps 10 bits of mantissa and bfloat16 7, though both have 16 in all.
    assert equal_share(fine.astype(np.float16), coarse) == 2 / 3
    assert equal_share(fine, fine.astype(np.float16)) == 1.0
    assert equal_share(fine, np.array([1.0, 1.0, 1.5], np.float32)) == 2 / 3
