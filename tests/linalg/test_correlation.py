"""Correlations of short sequences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg import distance_correlation, resample, zscore

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_distance_correlation_ignores_scale_shift_sign_and_joint_order(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal(9), rng.standard_normal(9)
    plain = distance_correlation(left, right)
    order = rng.permutation(9)
    assert distance_correlation(-scale * left[order] + shift, right[order]) == pytest.approx(plain, abs=1e-6)
    assert 0.0 <= plain <= 1.0
    assert distance_correlation(left, left) == pytest.approx(1.0)


def test_distance_correlation_notices_dependence_that_pearson_misses() -> None:
    left = np.linspace(-1, 1, 41)
    assert abs(float(np.corrcoef(left, left**2)[0, 1])) < 1e-12
    assert distance_correlation(left, left**2) > 0.4


def test_distance_correlation_by_hand() -> None:
    # distances of (0, 1, 3): 0 1 3 / 1 0 2 / 3 2 0; row means 4/3, 1, 5/3; mean 4/3
    # centred: -4/3 0 4/3 / 0 -2/3 2/3 / ... ; distances of (0, 1, 1): 0 1 1 / 1 0 0 / 1 0 0
    left, right = np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, 1.0])
    a = np.array([[-4, 0, 4], [0, -2, 2], [4, 2, -6]]) / 3
    b = np.array([[-8, 4, 4], [4, -2, -2], [4, -2, -2]]) / 9
    expected = np.sqrt((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    assert distance_correlation(left, right) == pytest.approx(float(expected))


def test_distance_correlation_of_a_constant_is_undefined() -> None:
    assert np.isnan(distance_correlation(np.ones(4), np.arange(4.0)))


def test_zscore_has_mean_zero_and_deviation_one_and_marks_constants() -> None:
    scored = zscore(np.array([1.0, 2.0, 6.0]))
    assert scored.mean() == pytest.approx(0.0, abs=1e-12)
    assert scored.std() == pytest.approx(1.0)
    assert np.isnan(zscore(np.full(3, 2.0))).all()


def test_resampling_keeps_the_ends_and_straight_lines() -> None:
    line = np.array([1.0, 3.0, 5.0])
    np.testing.assert_allclose(resample(line, 9), np.linspace(1, 5, 9))
    assert resample(np.array([2.0, 7.0, 4.0]), 3).tolist() == [2.0, 7.0, 4.0]
