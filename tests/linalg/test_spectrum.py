"""Spectra from small cores are the spectra of the matrices themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg import (
    effective_rank,
    minmax,
    product_singular_values,
    singular_values,
    spectrum,
    spectrum_distance,
)
from kinprint.linalg.spectrum import kept_rank

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 24)

BAR = 1e-6  # relative error promised on every value inside the effective rank


def orthogonal(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def with_spectrum(rng: np.random.Generator, rows: int, columns: int, log_spread: float) -> np.ndarray:
    """A matrix whose singular values are log-normal: learned spectra decay over orders of magnitude."""
    size = min(rows, columns)
    values = np.exp(log_spread * rng.standard_normal(size))
    return (orthogonal(rng, rows)[:, :size] * values) @ orthogonal(rng, columns)[:, :size].T


def assert_inside_rank(found: np.ndarray, true: np.ndarray) -> None:
    kept = max(1, int(effective_rank(true)))
    np.testing.assert_allclose(found[:kept], true[:kept], rtol=BAR)


@given(seed=seeds, rows=sides, columns=sides, spread=st.floats(0, 8))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_one_matrix_has_the_values_of_a_dense_decomposition(seed: int, rows: int, columns: int, spread: float) -> None:
    weight = with_spectrum(np.random.default_rng(seed), rows, columns, spread)
    assert_inside_rank(singular_values(weight), np.linalg.svd(weight, compute_uv=False))


@given(seed=seeds, inner=sides, rows=sides, columns=sides, spread=st.floats(0, 8))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_a_product_has_the_values_of_the_formed_product(
    seed: int, inner: int, rows: int, columns: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    left, right = with_spectrum(rng, inner, rows, spread), with_spectrum(rng, inner, columns, spread)
    true = np.linalg.svd(left.T @ right, compute_uv=False)[:inner]
    assert_inside_rank(product_singular_values(left, right), true)


def test_factors_that_nearly_cancel_keep_their_digits() -> None:
    """The product is a million times smaller than its factors: squaring would lose it, and must notice."""
    rng = np.random.default_rng(5)
    basis = orthogonal(rng, 40)
    left = 1e6 * basis[:4] + rng.standard_normal((4, 40))
    right = 1e6 * basis[4:8] + rng.standard_normal((4, 40))
    assert_inside_rank(
        product_singular_values(left.T[:40].T, right), np.linalg.svd(left.T @ right, compute_uv=False)[:4]
    )


@given(seed=seeds)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_a_rank_deficient_factor_is_no_obstacle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((6, 30))
    left[5] = left[4]  # the Gram matrix is singular, and Cholesky refuses it or gives noise
    right = rng.standard_normal((6, 30))
    true = np.linalg.svd(left.T @ right, compute_uv=False)[:6]
    assert_inside_rank(product_singular_values(left, right), true)


@pytest.mark.parametrize("rows", [3, spectrum._LARGE_ORDER + 77])
def test_a_gram_matrix_is_whole_and_symmetric_however_it_was_summed(rows: int) -> None:
    weight = np.random.default_rng(0).standard_normal((rows, spectrum.BLOCK_BYTES // (8 * rows) + 5), np.float32)
    weight = weight[:, :4000]
    found = spectrum._gram(weight)
    wide = weight.astype(np.float64)
    np.testing.assert_allclose(found, wide @ wide.T, rtol=0, atol=1e-12 * wide.shape[1])
    assert (found == found.T).all()


def test_zero_matrices_have_zero_spectra() -> None:
    assert singular_values(np.zeros((3, 5))).tolist() == [0.0, 0.0, 0.0]
    assert product_singular_values(np.zeros((2, 5)), np.ones((2, 4))).tolist() == [0.0, 0.0]
    assert effective_rank(np.zeros(4)) == 0.0


@given(seed=seeds, inner=sides, side=sides)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_a_product_ignores_rotations_of_both_sides_and_of_the_inside(seed: int, inner: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((inner, side)), rng.standard_normal((inner, side))
    turn, mix = orthogonal(rng, side), np.eye(inner) + 0.1 * orthogonal(rng, inner)
    moved = product_singular_values(np.linalg.inv(mix).T @ left @ turn, mix @ right @ orthogonal(rng, side))
    plain = product_singular_values(left, right)
    np.testing.assert_allclose(moved, plain, atol=1e-6 * float(plain[0]))


def test_a_product_notices_a_stretched_direction() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((4, 9)), rng.standard_normal((4, 9))
    stretched = product_singular_values(left * np.array([10.0, *[1.0] * 8]), right)
    assert np.abs(stretched - product_singular_values(left, right)).max() > 1.0


def test_effective_rank_by_hand() -> None:
    assert effective_rank(np.array([7.0, 7.0, 7.0, 7.0])) == pytest.approx(4.0)
    # shares 3/4 and 1/4: exp(-(3/4 ln 3/4 + 1/4 ln 1/4)) = 4 / 3^(3/4)
    assert effective_rank(np.array([3.0, 1.0])) == pytest.approx(4 / 3**0.75)
    assert effective_rank(1e-30 * np.array([3.0, 1.0])) == pytest.approx(4 / 3**0.75)


def test_minmax_and_distance_by_hand() -> None:
    assert minmax(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    # effective ranks just below 4: three values each; (1, 1/2, 0) against (1, 1/4, 0): (1/4)^2 / 3
    flat = np.array([1.02, 1.01, 1.0, 1.0])
    bent = np.array([1.04, 1.01, 1.0, 1.0])
    assert spectrum_distance(flat, bent, kept_rank(effective_rank(flat), effective_rank(bent), 4)) == pytest.approx(
        (1 / 4) ** 2 / 3, rel=1e-9
    )


def test_a_distance_keeps_two_values_at_least() -> None:
    assert kept_rank(1.0, 5.0, 9) == 2
    assert kept_rank(7.9, 5.2, 9) == 5
    assert kept_rank(7.9, 9.0, 3) == 3


@given(seed=seeds, scale=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_a_distance_ignores_scale_and_is_symmetric(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = (np.sort(rng.exponential(size=12))[::-1] for _ in range(2))
    assert spectrum_distance(left, left * scale, 7) == pytest.approx(0.0, abs=1e-20)
    assert spectrum_distance(left, right, 7) == pytest.approx(spectrum_distance(right, left * scale, 7), rel=1e-6)
