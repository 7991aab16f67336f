"""Sums over streamed blocks against numpy on whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg.moments import centred_cosine_of, cosine_of, moments


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), block=st.integers(1, 41), shift=st.floats(-3, 3))
@settings(deadline=None, max_examples=40)
def test_cosines_do_not_depend_on_the_blocks(seed: int, rows: int, block: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = (shift + rng.standard_normal((rows, 3)) for _ in range(2))
    sums = moments(((one[i : i + block], other[i : i + block]) for i in range(0, rows, block)), 2)
    a, b = one.ravel(), other.ravel()
    assert cosine_of(sums) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)
    assert centred_cosine_of(sums) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-10)


def test_blocks_longer_than_one_conversion_are_summed_whole() -> None:
    ones = np.ones((5, 20_000), np.float32)  # 100,000 elements: three conversions and a rest
    sums = moments([(ones, 2 * ones)], 2)
    np.testing.assert_array_equal(sums, [[1e5, 2e5, 1e5], [2e5, 4e5, 2e5], [1e5, 2e5, 1e5]])


def test_sums_are_taken_in_double_precision() -> None:
    """In float32, 2^24 + 1 is 2^24: a million ones would vanish beside it."""
    values = np.ones(1_000_001, np.float32)
    values[0] = 2**24
    assert moments([(values,)], 1)[0, 1] == 2**24 + 1_000_000


def test_a_transposed_block_is_read_in_the_order_of_its_indices() -> None:
    stored = np.arange(6.0).reshape(2, 3)
    assert cosine_of(moments([(stored.T, np.ascontiguousarray(stored.T))], 2)) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("constant", [0.1, 1.0, 1e6, -3e-5])
def test_a_constant_tensor_has_no_centred_direction(constant: float) -> None:
    varied = np.random.default_rng(0).standard_normal(100_000)
    sums = moments([(np.full(100_000, constant), varied)], 2)
    assert centred_cosine_of(sums) is None
    assert cosine_of(sums) is not None


def test_one_bfloat16_step_in_a_constant_tensor_is_seen() -> None:
    almost = np.ones(1_000_000)
    almost[7] += 2**-8
    assert centred_cosine_of(moments([(almost, almost)], 2)) == pytest.approx(1.0, abs=1e-9)


def test_zero_and_empty_tensors_have_no_direction() -> None:
    assert cosine_of(moments([(np.zeros(3), np.ones(3))], 2)) is None
    assert cosine_of(moments([], 2)) is None
    assert centred_cosine_of(moments([], 2)) is None


def test_squares_that_would_underflow_in_a_product_do_not() -> None:
    tiny = np.full(4, 1e-90)
    assert cosine_of(moments([(tiny, tiny)], 2)) == pytest.approx(1.0, abs=1e-15)
