"""Spectra made to spoil a Gram matrix, where rounding adds up: 1e-6 inside the effective rank, whatever it takes.

Every matrix here is built from singular values that are known, or compared with a float64 decomposition of the product.
"""

from __future__ import annotations

from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg import effective_rank, product_singular_values, singular_values, spectrum

seeds = st.integers(0, 2**32 - 1)


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of length 1, at right angles."""
    return np.linalg.qr(rng.standard_normal((columns, rows)))[0].T


def error_inside_rank(found: np.ndarray, exact: np.ndarray) -> float:
    inside = max(1, int(effective_rank(exact) + 1e-6))
    return float(np.max(np.abs(found[:inside] / exact[:inside] - 1)))


@given(seed=seeds, spread=st.floats(0, 6))
@settings(deadline=None, max_examples=12, derandomize=True)
def test_thin_log_normal_factors_in_float32_are_right_inside_the_effective_rank(seed: int, spread: float) -> None:
    """Spread 6 at 48 values is a condition of about 1e11 for each factor."""
    rng = np.random.default_rng(seed)
    left, right = (
        ((orthonormal(rng, 48, 48) * np.exp(spread * rng.standard_normal(48))) @ orthonormal(rng, 48, 160)).astype("f4")
        for _ in range(2)
    )
    exact = np.linalg.svd(left.astype(np.float64).T @ right.astype(np.float64), compute_uv=False)[:48]
    assert error_inside_rank(product_singular_values(left, right), exact) < 1e-6


@pytest.mark.parametrize("floor", [1e-2, 1e-4, 1e-5, 1e-7])
def test_a_spike_over_a_flat_floor_is_right_inside_the_effective_rank(floor: float) -> None:
    rng = np.random.default_rng(3)
    values = np.array([1.0, *[floor] * 255])
    weight = orthonormal(rng, 256, 256).T * values @ orthonormal(rng, 256, 300)
    assert error_inside_rank(singular_values(weight), values) < 1e-6
    # At 1e-7 the floor drowns in the rounding of squares, and yet makes 4e-4 of the effective rank.
    assert effective_rank(singular_values(weight)) == pytest.approx(effective_rank(values), abs=1e-5)


def test_a_product_a_million_times_smaller_than_its_factors_keeps_its_digits() -> None:
    """Pairs of rows cancel, so every value lies at 1e-6 of the bound: squares have lost most of their digits there."""
    rng = np.random.default_rng(5)
    one, other = rng.standard_normal((2, 6, 40))
    left = np.vstack([one, one + 1e-6 * rng.standard_normal((6, 40))])
    right = np.vstack([other, -other + 1e-6 * rng.standard_normal((6, 40))])
    # The same product with the large part taken out by hand: (l1 - l2)^T r1 + l2^T (r1 + r2), differences exact.
    exact = np.linalg.svd((one - left[6:]).T @ other + left[6:].T @ (other + right[6:]), compute_uv=False)[:12]
    np.testing.assert_allclose(product_singular_values(left, right), exact, rtol=1e-6)


def test_single_precision_gram_matrices_would_miss_the_bar() -> None:
    """What the float64 is for: the same way in float32 is wrong by more than 1e-6 on a learned-like spectrum."""
    rng = np.random.default_rng(4)
    values = np.sort(np.exp(1.5 * rng.standard_normal(200)))[::-1]
    weight = (orthonormal(rng, 200, 200).T * values @ orthonormal(rng, 200, 260)).astype(np.float32)
    exact = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    single = np.sqrt(np.maximum(np.linalg.eigvalsh(weight @ weight.T)[::-1], 0))
    assert error_inside_rank(single, exact) > 1e-6
    assert error_inside_rank(singular_values(weight), exact) < 1e-12


@given(seed=seeds, spread=st.floats(0, 20))
@settings(deadline=None, max_examples=12, derandomize=True)
def test_scales_moved_between_the_factors_change_nothing(seed: int, spread: float) -> None:
    """The gauge of queries and keys: exact powers of two, so that only the algorithm could round."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((16, 40)), rng.standard_normal((16, 40))
    scale = np.exp2(np.round(spread * rng.standard_normal(16)))[:, None]
    plain = product_singular_values(left, right)
    np.testing.assert_allclose(product_singular_values(left * scale, right / scale), plain, rtol=1e-10)


def test_rows_that_are_zero_in_one_factor_add_nothing() -> None:
    rng = np.random.default_rng(6)
    left, right = rng.standard_normal((5, 12)), rng.standard_normal((5, 9))
    left[1], right[3] = 0, 0
    kept = [0, 2, 4]
    found = product_singular_values(left, right)
    np.testing.assert_allclose(found[:3], product_singular_values(left[kept], right[kept]), rtol=1e-12)
    assert found[3:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("repeats", [2, 4])
def test_repeated_heads_leave_exact_zeros_and_their_rank(repeats: int) -> None:
    """Four equal key heads, as upcycling leaves them; zeros in place of rounding noise keep the effective rank."""
    rng = np.random.default_rng(7)
    key = rng.standard_normal((8, 64))
    query = rng.standard_normal((8 * repeats, 64))
    found = product_singular_values(query, np.tile(key, (repeats, 1)))
    exact = product_singular_values(query.reshape(repeats, 8, 64).sum(axis=0), key)
    np.testing.assert_allclose(found[:8], exact, rtol=1e-9)
    assert found[8:].tolist() == [0.0] * (8 * repeats - 8)


def test_spectra_that_a_gram_matrix_tells_are_not_decomposed_again() -> None:
    """The speed of the method: a dense decomposition here is a bug even if the values are right."""
    rng = np.random.default_rng(8)
    left, right = rng.standard_normal((24, 60)), rng.standard_normal((24, 60))
    with (
        patch.object(spectrum.np.linalg, "svd", side_effect=AssertionError),
        patch.object(spectrum.np.linalg, "qr", side_effect=AssertionError),
    ):
        product_singular_values(left, right)
        product_singular_values(np.tile(left, (2, 1)), np.tile(right, (2, 1)))
        scale = np.logspace(-6, 6, 24)[:, None]
        product_singular_values(left * scale, right / scale)
        product_singular_values(left[:, :20], right[:, :20])
        singular_values(left)


def test_blocks_give_the_gram_matrix_of_the_whole() -> None:
    weight = np.random.default_rng(9).standard_normal((3, 50)).astype(np.float32)
    whole = singular_values(weight)
    with patch.object(spectrum, "BLOCK_BYTES", 8 * 3 * 7):  # seven columns at once: seven blocks and a rest
        np.testing.assert_allclose(singular_values(weight), whole, rtol=1e-12)


def test_narrow_and_extreme_inputs_are_squared_in_double_precision() -> None:
    weight = np.diag([3.0, 4.0])
    assert singular_values(weight.astype(ml_dtypes.bfloat16)).tolist() == [4.0, 3.0]
    for scale in (1e-37, 1e37):  # the range of float32; float32 squares would be 0 or infinite
        tall, wide = (scale * np.vstack([weight, weight])).astype("f4"), (scale * weight).astype("f4")
        np.testing.assert_allclose(singular_values(wide) / scale, [4, 3], rtol=1e-6)
        np.testing.assert_allclose(product_singular_values(tall, tall) / scale**2, [32, 18], rtol=1e-6)
        np.testing.assert_allclose(product_singular_values(wide[:1], wide[:1]) / scale**2, [9], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_make_the_spectrum_nan(bad: float) -> None:
    weight = np.ones((3, 4))
    weight[1, 2] = bad
    assert np.isnan(singular_values(weight)).all()
    assert np.isnan(product_singular_values(np.ones((3, 5)), weight)).tolist() == [True] * 3
    assert np.isnan(effective_rank(singular_values(weight)))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty_matrices_have_no_values(shape: tuple[int, int]) -> None:
    assert singular_values(np.ones(shape)).size == 0
    assert product_singular_values(np.ones(shape), np.ones((shape[0], 3))).size == 0
