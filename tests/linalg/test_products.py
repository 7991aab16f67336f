"""Cosines, bases and forms: the same numbers in every namespace, and no error beyond the bounds."""

from __future__ import annotations

from typing import get_args
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg import products
from kinprint.linalg.products import (
    Precision,
    cosine_bound,
    cross_product,
    facing_cosines,
    group_cosines,
    in_common,
    procrustes,
    row_cosines,
    tall_qr,
    truncated_procrustes,
    truncated_procrustes_of_rows,
    turned,
    unit_rows,
)
from linalg.namespaces import DEVICES, NAMESPACES, place

seeds = st.integers(0, 2**32 - 1)
U = 2.0**-8
"""Unit roundoff of bfloat16, which has eight significant bits."""


def rows_of(seed: int, kind: str, count: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.standard_normal((count, columns)).astype(np.float32)
    if kind == "heavy-tailed":
        return np.clip(rng.standard_cauchy((count, columns)) ** 3, -1e30, 1e30).astype(np.float32)
    # All entries next to the middle between two numbers of bfloat16, after division by the length too.
    powers = 2.0 ** rng.integers(-6, 1, (count, columns)) * rng.choice([-1.0, 1.0], (count, columns))
    return (powers * (1 + U * (1 + rng.choice([-0.01, 0.01], (count, columns))))).astype(np.float32)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    units = [side.astype(np.float64) / np.abs(side).max(axis=1, keepdims=True) for side in (left, right)]
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in units)
    return left @ right.T


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


# -- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e38])
def test_rows_of_any_size_come_to_unit_length_and_zeros_stay(name: str, scale: float) -> None:
    here = place(name)
    rows = np.array([[3.0, 0.0], [0.0, 0.0], [-3.0, 3.0]], np.float64) * scale
    expected = np.array([[1.0, 0.0], [0.0, 0.0], [-(0.5**0.5), 0.5**0.5]])
    np.testing.assert_allclose(here.get(unit_rows(here.put(rows.astype(np.float32)))), expected, atol=2.0**-22)


@pytest.mark.parametrize("name", NAMESPACES)
def test_rows_in_their_own_basis_are_not_touched(name: str) -> None:
    here = place(name)
    rows = here.put(np.array([[1.0, 2.0], [3.0, 5.0]], np.float32))
    assert turned(rows, here.put(np.eye(2))) is rows
    np.testing.assert_array_equal(here.get(turned(rows, here.put(np.array([[0.0], [1.0]])))), [[2.0], [5.0]])
    np.testing.assert_array_equal(here.get(in_common(rows, here.put(np.array([[0.0], [-1.0]])))), [[-1.0], [-1.0]])


@pytest.mark.parametrize("name", NAMESPACES)
def test_facing_rows_are_compared_and_no_others(name: str) -> None:
    here = place(name)
    left, right = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, -9.0], [1.0, 0.0]])
    found = here.get(facing_cosines(here.put(left), here.put(right)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.6, -1.0, 0.0], atol=2.0**-22)


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("precision", get_args(Precision))
@given(seed=seeds, kinds=st.tuples(*[st.sampled_from(["normal", "heavy-tailed", "adversarial"])] * 2))
@settings(deadline=None, max_examples=15)
def test_no_cosine_is_off_by_more_than_its_bound(
    name: str, precision: Precision, seed: int, kinds: tuple[str, str]
) -> None:
    here, columns = place(name), 96
    left, right = rows_of(seed, kinds[0], 7, columns), rows_of(seed + 1, kinds[1], 5, columns)
    left[0] = right[0]
    right[1] = left[1] + 0.05 * left[2]
    found = here.get(row_cosines(here.put(left), here.put(right), precision=precision))
    exact = cosines(left, right)
    for value, cosine in zip(found.ravel(), exact.ravel(), strict=True):
        assert abs(value - cosine) <= cosine_bound(precision, columns, cosine)


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("precision", get_args(Precision))
def test_zero_rows_have_cosine_zero_and_layers_are_worked_through_together(name: str, precision: Precision) -> None:
    here, rng = place(name), np.random.default_rng(0)
    left, right = rng.standard_normal((3, 4, 16)), rng.standard_normal((3, 5, 16))
    left[1, 2], right[2, 0] = 0.0, 0.0
    whole = here.get(row_cosines(here.put(left), here.put(right), precision=precision))
    for layer in range(3):
        apart = here.get(row_cosines(here.put(left[layer]), here.put(right[layer]), precision=precision))
        np.testing.assert_allclose(whole[layer], apart, atol=1e-6)  # sums in another order
    assert not whole[1, 2].any()
    assert not whole[2, :, 0].any()
    assert whole.dtype == (np.float64 if precision == "exact" else np.float32)


@pytest.mark.parametrize("name", DEVICES)
def test_the_bound_of_bfloat16_is_no_larger_than_it_has_to_be(name: str) -> None:
    """Half of it is reached by rows of two numbers, so no smaller unit roundoff would do."""
    here, rng = place(name), np.random.default_rng(0)
    left, right = (rng.standard_normal((300, 2)).astype(np.float32) for _ in range(2))
    errors = np.abs(here.get(row_cosines(here.put(left), here.put(right), precision="mixed")) - cosines(left, right))
    assert errors.max() > 0.5 * cosine_bound("mixed", 2)


@pytest.mark.parametrize("name", DEVICES)
def test_roundings_of_long_rows_all_but_cancel(name: str) -> None:
    """Errors of either sign: u sqrt(2 / D) is above their root mean square, far below the bound."""
    here = place(name)
    left, right = (rows_of(seed, "normal", 64, 2048) for seed in (1, 2))
    errors = here.get(row_cosines(here.put(left), here.put(right), precision="mixed")) - cosines(left, right)
    typical = float(np.sqrt((errors**2).mean()))
    assert typical < U * np.sqrt(2 / 2048)
    assert typical < 0.02 * cosine_bound("mixed", 2048)
    assert typical > 0.1 * U * np.sqrt(2 / 2048)  # it was rounded


def test_a_row_and_its_copy_keep_cosine_one_in_bfloat16() -> None:
    rows = rows_of(3, "adversarial", 9, 512)
    found = row_cosines(rows, rows, precision="mixed").diagonal()
    np.testing.assert_allclose(found, 1.0, atol=cosine_bound("mixed", 512, 1.0))
    assert cosine_bound("mixed", 512, 1.0) < 2e-4


def test_forms_have_no_bound_in_bfloat16() -> None:
    """Why they are not offered in it: the terms of this form all but undo each other, and rounding is what is left."""
    rng = np.random.default_rng(4)
    half, rest = rng.standard_normal((2, 1, 8, 32))
    left, right = np.concatenate([half, half + 3e-3 * rest], axis=1), rng.standard_normal((1, 8, 32))
    right = np.concatenate([right, -right], axis=1)
    narrow = [(side * (2**16 + 1)) - (side * (2**16 + 1) - side) for side in (left.astype("f4"), right.astype("f4"))]
    assert group_cosines(left, right, *narrow)[0, 0] < 0.9
    single = [side.astype("f4") for side in (left, right)]
    assert group_cosines(left, right, *single)[0, 0] > 0.999


# -- forms ---------------------------------------------------------------------------------------------------------


def form_cosines(left: np.ndarray, right: np.ndarray, other_left: np.ndarray, other_right: np.ndarray) -> np.ndarray:
    forms = [
        (a.astype(np.float64).swapaxes(-1, -2) @ b).reshape(len(a), -1)
        for a, b in ((left, right), (other_left, other_right))
    ]
    return cosines(*forms)


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("elements", [1, 400, 1 << 24])
def test_group_cosines_are_those_of_the_forms(name: str, elements: int) -> None:
    here, rng = place(name), np.random.default_rng(5)
    sides = [rng.standard_normal((2, *shape)) for shape in ((3, 4, 20), (3, 4, 12), (5, 6, 20), (5, 6, 12))]
    with patch.object(products, "_BLOCK_ELEMENTS", elements):
        whole = here.get(group_cosines(*(here.put(side.astype(np.float32)) for side in sides)))
    assert whole.shape == (2, 3, 5)
    for layer in range(2):
        # single products of 20 numbers: 1e-6
        np.testing.assert_allclose(whole[layer], form_cosines(*(side[layer] for side in sides)), atol=3e-6)
    exact = here.get(group_cosines(*(here.put(side) for side in sides)))
    np.testing.assert_allclose(exact[1], form_cosines(*(side[1] for side in sides)), atol=1e-12)


@pytest.mark.parametrize("name", NAMESPACES)
def test_one_layer_faces_many(name: str) -> None:
    here, rng = place(name), np.random.default_rng(6)
    mine, theirs = rng.standard_normal((2, 1, 2, 3, 8)), rng.standard_normal((2, 4, 2, 3, 8))
    theirs[:, 2] = mine[:, 0, ::-1]
    found = here.get(group_cosines(*(here.put(side) for side in (*mine, *theirs))))
    assert found.shape == (4, 2, 2)
    np.testing.assert_allclose([found[2, 0, 1], found[2, 1, 0]], 1.0, atol=1e-12)
    assert np.abs(np.delete(found, 2, axis=0)).max() < 0.9


@pytest.mark.parametrize("name", NAMESPACES)
def test_turns_gauges_and_scales_leave_group_cosines_alone_and_another_group_does_not(name: str) -> None:
    here, rng = place(name), np.random.default_rng(7)
    left, right = rng.standard_normal((2, 3, 4, 16))
    turn, gauge = orthonormal(rng, 16, 16), rng.standard_normal((4, 4))
    moved = (2.5 * np.linalg.inv(gauge).T @ left @ turn, gauge @ right @ turn)
    before = here.get(group_cosines(*(here.put(side) for side in (left, right, left, right))))
    after = here.get(group_cosines(*(here.put(side) for side in (*moved, *moved))))
    np.testing.assert_allclose(after, before, atol=1e-10)
    np.testing.assert_allclose(before.diagonal(), 1.0, atol=1e-12)
    assert np.abs(before[~np.eye(3, dtype=bool)]).max() < 0.9


@pytest.mark.parametrize("name", NAMESPACES)
def test_forms_that_are_zero_or_undo_themselves_have_cosine_zero(name: str) -> None:
    here, rng = place(name), np.random.default_rng(8)
    left, right = rng.standard_normal((2, 3, 2, 16)).astype(np.float32)
    left[0] = 0.0
    left[1, 1], right[1, 1] = left[1, 0], -right[1, 0]
    found = here.get(group_cosines(*(here.put(side) for side in (left, right, left, right))))
    assert not found[:2].any()
    assert not found[:, :2].any()
    assert found[2, 2] == pytest.approx(1.0, abs=1e-6)


# -- bases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("elements", [1, 60, 1 << 24])
def test_blocks_give_the_cross_product_of_the_whole(name: str, elements: int) -> None:
    here, rng = place(name), np.random.default_rng(9)
    left, right = rng.standard_normal((23, 6)).astype(np.float32), rng.standard_normal((23, 4)).astype(np.float32)
    with patch.object(products, "_BLOCK_ELEMENTS", elements):
        found = here.get(cross_product(here.put(left), here.put(right)))
    np.testing.assert_allclose(found, left.T.astype(np.float64) @ right.astype(np.float64), atol=1e-12)
    assert not here.get(cross_product(here.put(left[:0]), here.put(right[:0]))).any()


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (9, 6)])
def test_a_turn_is_found_and_the_narrower_side_is_kept(name: str, shape: tuple[int, int]) -> None:
    here, rng = place(name), np.random.default_rng(10)
    common = min(shape)
    rows = rng.standard_normal((40, common))
    sides = [rows @ orthonormal(rng, width, common).T for width in shape]
    found = [here.get(side) for side in procrustes(here.put(sides[0].T @ sides[1]))]
    np.testing.assert_array_equal(found[0 if shape[0] < shape[1] else 1], np.eye(common))
    np.testing.assert_allclose(sides[0] @ found[0], sides[1] @ found[1], atol=1e-12)


def decaying(seed: int, rows: int, columns: int, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A matrix with known singular vectors and values k^-power."""
    rng = np.random.default_rng(seed)
    sides = orthonormal(rng, rows, min(rows, columns)), orthonormal(rng, columns, min(rows, columns))
    return (sides[0] * np.arange(1, min(rows, columns) + 1.0) ** -power) @ sides[1].T, *sides


def sine(found: np.ndarray, exact: np.ndarray) -> float:
    """The sine of the largest angle between two subspaces of which the second may be smaller."""
    found = np.linalg.qr(found.astype(np.float64))[0]
    return float(np.linalg.norm(exact - found @ (found.T @ exact), 2))


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize(("rows", "columns"), [(150, 150), (120, 170), (170, 120)])
def test_truncated_bases_hold_the_leading_directions_of_spectra_that_fall_off(
    name: str, rows: int, columns: int
) -> None:
    here = place(name)
    cross, left, right = decaying(11, rows, columns, 1.0)
    found = [here.get(side) for side in truncated_procrustes(here.put(cross), 24, 0)]
    for side, exact in zip(found, (left, right), strict=True):
        np.testing.assert_allclose(side.T @ side, np.eye(24), atol=1e-5)
        # (s_57 / s_k)^4, times what random directions cost
        assert sine(side, exact[:, :4]) < 1e-3
        assert sine(side, exact[:, :12]) < 2e-2
    # values of the product in the bases are the singular values, falling, and partners face each other
    middle = found[0].T @ cross @ found[1]
    np.testing.assert_allclose(middle.diagonal()[:12], 1 / np.arange(1, 13), rtol=1e-3)
    np.testing.assert_allclose(middle, np.diag(middle.diagonal()), atol=1e-5)
    # what is left is not much more than the first value beyond, 1 / 25
    assert np.linalg.norm(cross - found[0] @ (found[0].T @ cross), 2) < 1.5 / 25


def test_the_seed_draws_the_directions_and_a_wide_enough_basis_does_not_depend_on_it() -> None:
    cross = decaying(12, 90, 90, 0.3)[0]
    first, again, other = (truncated_procrustes(cross, 20, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert sine(first, other.astype(np.float64)) > 0.1
    whole = [truncated_procrustes(cross, 90, seed) for seed in (0, 1)]
    turns = [side @ partner.T for side, partner in whole]
    np.testing.assert_allclose(turns[0], turns[1], atol=1e-4)
    np.testing.assert_allclose(turns[0], procrustes(cross)[0], atol=1e-4)


@pytest.mark.parametrize("name", DEVICES)
@given(seed=seeds, power=st.floats(0, 1))
@settings(deadline=None, max_examples=8)
def test_matched_rows_face_each_other_in_truncated_bases(name: str, seed: int, power: float) -> None:
    """X^T (X R): the rows agree once they are turned, whether their spectrum falls off or not."""
    here, rng = place(name), np.random.default_rng(seed)
    rows = rng.standard_normal((400, 128)) * np.arange(1, 129.0) ** -power @ orthonormal(rng, 128, 128)
    other = rows @ orthonormal(rng, 128, 128)
    mine, theirs = (here.get(side) for side in truncated_procrustes(here.put(rows.T @ other), 48, seed))
    agreement = row_cosines(rows @ mine, other @ theirs)
    assert agreement.diagonal().min() > 0.9
    assert np.median(agreement.diagonal()) > 0.99
    strangers = agreement[~np.eye(len(agreement), dtype=bool)]
    assert np.median(np.abs(strangers)) < 0.5


@pytest.mark.parametrize("name", NAMESPACES)
def test_where_most_directions_are_wanted_they_are_exact_whatever_the_seed(name: str) -> None:
    here = place(name)
    cross, left, right = decaying(16, 60, 70, 1.0)
    for seed in (0, 1):
        found = [here.get(side) for side in truncated_procrustes(here.put(cross), 24, seed)]
        for side, exact in zip(found, (left, right), strict=True):
            assert sine(side, exact[:, :24]) < 1e-4  # neighbours are 1 / 24^2 apart, and float32 has 6e-8


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("rank", [0, 3])
def test_truncated_bases_are_orthonormal_where_nothing_is_left_to_find(name: str, rank: int) -> None:
    here, rng = place(name), np.random.default_rng(13)
    cross = rng.standard_normal((90, rank)) @ rng.standard_normal((rank, 80)) * 1e-42
    mine, theirs = (here.get(side) for side in truncated_procrustes(here.put(cross), 16, 0))
    for side in (mine, theirs):
        np.testing.assert_allclose(side.T @ side, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(mine @ (mine.T @ cross), cross, atol=1e-5 * max(1e-300, np.abs(cross).max()))


@pytest.mark.parametrize("name", DEVICES)
def test_directions_far_below_the_largest_do_not_stop_the_factorisation(name: str) -> None:
    here = place(name)
    cross, left, _ = decaying(14, 120, 120, 6.0)  # the last singular value is 3e-13 of the first
    mine, theirs = (here.get(side) for side in truncated_procrustes(here.put(cross), 40, 0))
    for side in (mine, theirs):
        np.testing.assert_allclose(side.T @ side, np.eye(40), atol=1e-5)
    assert sine(mine, left[:, :5]) < 1e-2


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e12])
def test_a_product_that_is_not_multiplied_out_has_the_same_leading_directions(name: str, scale: float) -> None:
    here, rng = place(name), np.random.default_rng(15)
    left = rng.standard_normal((60, 150)) * np.arange(1, 61.0)[:, None] ** -1
    right = rng.standard_normal((60, 120)) * scale
    whole = [here.get(side) for side in truncated_procrustes(here.put(left.T @ right), 16, 3)]
    rows = [here.put(side.astype(np.float32)) for side in (left, right)]
    found = [here.get(side) for side in truncated_procrustes_of_rows(*rows, directions=16, seed=3)]
    for side, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(side.T @ side, np.eye(16), atol=1e-5)
        assert sine(side, other[:, :8].astype(np.float64)) < 1e-3


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("power", [0.0, 1.0, 4.0, 12.0])
def test_tall_columns_become_orthonormal_whatever_their_spectrum(name: str, power: float) -> None:
    here = place(name)
    columns = decaying(16, 90, 12, power)[0].astype(np.float32)
    found, rest = (here.get(side) for side in tall_qr(here.put(columns)))
    np.testing.assert_allclose(found.T @ found, np.eye(12), atol=5e-6)
    np.testing.assert_allclose(found @ rest, columns, atol=2e-6)


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("rank", [0, 1])
def test_reflections_make_columns_orthonormal_that_no_factor_does(name: str, rank: int) -> None:
    here = place(name)
    columns = np.outer(np.arange(8.0), [1.0, 2.0, -1.0]).astype(np.float32) * rank
    with patch.object(products, "_MOST_FACTORS", 1):
        found, rest = (here.get(side) for side in tall_qr(here.put(columns)))
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found @ rest, columns, atol=1e-5)
    whole = here.get(tall_qr(here.put(columns))[0])
    np.testing.assert_allclose(whole.T @ whole, np.eye(3), atol=5e-6)


def test_more_columns_than_rows_span_everything() -> None:
    columns = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]], np.float32)
    found, rest = tall_qr(columns)
    np.testing.assert_array_equal(found, np.eye(2))
    np.testing.assert_array_equal(rest, columns)
