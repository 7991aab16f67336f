"""Spectra of stacks against those of single matrices, and what is out of the ordinary in a stack."""

from __future__ import annotations

from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg import effective_rank, spectrum, stacked
from kinprint.linalg.device import Device
from kinprint.linalg.stacked import product_singular_values_of, singular_values_of
from linalg.namespaces import DEVICES, place

Pairs = list[tuple[np.ndarray, np.ndarray]]


def device(name: str) -> Device:
    place(name)  # skips without torch
    return Device.of(name)


def assert_alike(found: list[np.ndarray], exact: list[np.ndarray]) -> None:
    """Right to the tolerance inside the effective rank; where values are NaN, so are the others."""
    assert len(found) == len(exact)
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == np.float64
        inside = int(effective_rank(theirs)) if np.isfinite(theirs).all() else theirs.size
        np.testing.assert_allclose(mine[:inside], theirs[:inside], rtol=spectrum.TOLERANCE)


@pytest.mark.parametrize("name", DEVICES)
def test_spectra_by_hand(name: str) -> None:
    weights = [np.diag([3.0, 4.0]), np.array([[0.0, 2.0, 0.0]]), np.diag([1.0, 6.0])]
    found = singular_values_of(weights, device(name))
    for values, exact in zip(found, ([4, 3], [2], [6, 1]), strict=True):
        np.testing.assert_allclose(values, exact, rtol=1e-12)
    pairs = [(np.array([[2.0, 0.0]]), np.array([[0.0, 3.0, 4.0]]))]
    np.testing.assert_allclose(product_singular_values_of(pairs, device(name)), [[10.0]], rtol=1e-12)


@pytest.mark.parametrize("name", DEVICES)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 4), shape=st.sampled_from([(6, 20, 24), (20, 9, 14)]))
@settings(deadline=None, max_examples=10)
def test_stacks_have_the_spectra_of_their_members(
    name: str, seed: int, spread: float, shape: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    inner, rows, columns = shape
    scale = np.exp(spread * rng.standard_normal(inner))[:, None]
    pairs = [
        ((rng.standard_normal((inner, rows)) * scale).astype("f4"), rng.standard_normal((inner, columns)).astype("f4"))
        for _ in range(3)
    ]
    assert_alike(product_singular_values_of(pairs, device(name)), product_singular_values_of(pairs, None))
    weights = [side for pair in pairs for side in pair]
    assert_alike(singular_values_of(weights, device(name)), singular_values_of(weights, None))


@pytest.mark.parametrize("name", DEVICES)
def test_ordinary_members_are_worked_out_in_one_stack_whatever_their_dtype(name: str) -> None:
    rng = np.random.default_rng(1)
    pairs: Pairs = [(rng.standard_normal((4, 12)), rng.standard_normal((4, 10))) for _ in range(6)]
    narrow: Pairs = [tuple(side.astype(ml_dtypes.bfloat16) for side in pair) for pair in pairs]
    exact = product_singular_values_of([*pairs, *narrow], None)
    with (
        patch.object(spectrum, "product_singular_values", side_effect=AssertionError),
        patch.object(spectrum, "singular_values", side_effect=AssertionError),
        patch.object(stacked, "_of_thin_stack", wraps=stacked._of_thin_stack) as work,
    ):
        assert_alike(product_singular_values_of([*pairs, *narrow], device(name)), exact)
        assert work.call_count == 2  # one stack a dtype
        with patch.object(stacked, "STACK_BYTES", 2 * 8 * (4 * 12 + 4 * 10)):
            assert_alike(product_singular_values_of(pairs, device(name)), exact[:6])
        assert work.call_count == 2 + 3  # two members at once


@pytest.mark.parametrize("name", DEVICES)
def test_one_bad_member_spoils_no_other(name: str) -> None:
    rng = np.random.default_rng(2)
    pairs: Pairs = [(rng.standard_normal((4, 12)), rng.standard_normal((4, 10))) for _ in range(7)]
    pairs[1][0][2, 3] = np.nan
    pairs[2][1][0, 0] = np.inf
    pairs[3][0][1] = 0.0  # a row that adds nothing
    pairs[4][1][:] = 0.0
    pairs[5] = np.tile(pairs[5][0][:2], (2, 1)), pairs[5][1]  # dependent rows
    found = product_singular_values_of(pairs, device(name))
    assert_alike(found, product_singular_values_of(pairs, None))
    assert [bool(np.isnan(values).all()) for values in found] == [False, True, True, False, False, False, False]
    weights = [pair[0] for pair in pairs]
    assert_alike(singular_values_of(weights, device(name)), singular_values_of(weights, None))


@pytest.mark.parametrize("name", DEVICES)
def test_what_a_gram_matrix_cannot_tell_is_worked_out_another_way(name: str) -> None:
    rng = np.random.default_rng(3)
    one, other = rng.standard_normal((2, 6, 40))
    left = np.vstack([one, one + 1e-6 * rng.standard_normal((6, 40))])
    right = np.vstack([other, -other + 1e-6 * rng.standard_normal((6, 40))])
    # The same product with the large part taken out by hand: differences are exact.
    exact = np.linalg.svd((one - left[6:]).T @ other + left[6:].T @ (other + right[6:]), compute_uv=False)[:12]
    plain = rng.standard_normal((12, 40)), rng.standard_normal((12, 40))
    with patch.object(spectrum, "product_singular_values", wraps=spectrum.product_singular_values) as alone:
        found = product_singular_values_of([plain, (left, right), plain], device(name))
    assert alone.call_count == 1
    np.testing.assert_allclose(found[1], exact, rtol=spectrum.TOLERANCE)
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("name", DEVICES)
def test_squares_beyond_float64_are_nan_and_no_crash(name: str) -> None:
    large = np.random.default_rng(4).standard_normal((2, 4, 6)) * np.array([1e200, 1.0])[:, None, None]
    with np.errstate(all="ignore"):
        found = singular_values_of(list(large), device(name))
        products = product_singular_values_of([(one, one) for one in large], device(name))
    for first, second in (found, products):
        assert not np.isfinite(first).all()
        assert np.isfinite(second).all()


@pytest.mark.parametrize("name", DEVICES)
def test_empty_lists_and_empty_matrices_have_no_values(name: str) -> None:
    assert singular_values_of([], device(name)) == []
    assert singular_values_of([np.ones((0, 3))], device(name))[0].size == 0
    assert product_singular_values_of([(np.ones((0, 3)), np.ones((0, 4)))], device(name))[0].size == 0
