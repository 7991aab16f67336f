"""Loud directions are made no louder than the rest, for both models alike."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from kinprint.alignment.basis import Basis, in_common
from kinprint.alignment.trunk import Layer, Units
from kinprint.alignment.whitening import RIDGE, whitened

EYE = Basis("stored", np.eye(2), np.eye(2))


def layer(rows: np.ndarray, written: np.ndarray | None = None) -> Layer:
    rows = rows.astype(np.float32)
    return Layer(None, (Units(None, rows, rows if written is None else written.astype(np.float32)),))


def random(seed: int, *, loud: float, width: int = 24, rows: int = 200) -> np.ndarray:
    scales = np.ones(width)
    scales[0] = loud
    return np.random.default_rng(seed).standard_normal((rows, width)) * scales


def test_rows_of_one_direction_by_hand() -> None:
    # All energy in the first of two directions: shares 2 and 0 of the mean.
    read, write = whitened([layer(np.array([[3.0, 0.0]]))], [layer(np.array([[5.0, 0.0]]))], EYE)
    expected = np.diag([1 / np.sqrt(2 + RIDGE), 1 / np.sqrt(RIDGE)])
    for side in (read.suspect_AK, read.base_BK, write.suspect_AK, write.base_BK):
        np.testing.assert_allclose(side, expected, rtol=1e-6)


def test_strangers_with_one_loud_direction_in_common_no_longer_agree() -> None:
    one, other = random(1, loud=20.0), random(2, loud=20.0)
    eye = Basis("stored", np.eye(24), np.eye(24))
    read, _ = whitened([layer(one)], [layer(other)], eye)
    for basis, bound in ((eye, (0.5, 1.0)), (read, (0.0, 0.2))):
        cosines = np.abs((in_common(one, basis.suspect_AK) * in_common(other, basis.base_BK)).sum(axis=1))
        assert bound[0] < cosines.mean() < bound[1]


def test_a_copy_keeps_its_cosines() -> None:
    rows = random(1, loud=20.0)
    read, _ = whitened([layer(rows)], [layer(rows)], Basis("stored", np.eye(24), np.eye(24)))
    cosines = (in_common(rows, read.suspect_AK) * in_common(rows, read.base_BK)).sum(axis=1)
    np.testing.assert_allclose(cosines, 1.0, rtol=1e-5)


def test_turning_the_common_basis_turns_the_result_and_changes_no_cosine() -> None:
    one, other = random(1, loud=5.0), random(2, loud=5.0)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((24, 24)))[0]
    cosines = []
    for basis in (Basis("stored", np.eye(24), np.eye(24)), Basis("stored", turn, turn)):
        read, _ = whitened([layer(one)], [layer(other)], basis)
        cosines.append(in_common(one, read.suspect_AK) @ in_common(other, read.base_BK).T)
    np.testing.assert_allclose(cosines[0], cosines[1], atol=1e-5)


def test_the_deeper_model_weighs_no_more() -> None:
    one, other = layer(random(1, loud=9.0)), layer(random(2, loud=1.0))
    eye = Basis("stored", np.eye(24), np.eye(24))
    np.testing.assert_allclose(
        whitened([one], [other], eye)[0].base_BK, whitened([one] * 5, [other], eye)[0].base_BK, rtol=1e-6
    )


@pytest.mark.parametrize("layers", [[], [layer(np.zeros((3, 2)))]])
def test_without_energy_the_basis_stays_as_it_is(layers: list[Layer]) -> None:
    assert whitened(layers, layers, EYE) == (EYE, EYE)


def test_of_the_layers_of_a_model_one_is_held_at_a_time() -> None:
    def made(seed: int) -> Iterator[Layer]:
        held: weakref.ref[np.ndarray] | None = None
        for number in range(3):
            assert held is None or held() is None
            one = layer(random(seed + number, loud=3.0))
            held = weakref.ref(one.mlps[0].up_FD)
            yield one
            del one

    eye = Basis("stored", np.eye(24), np.eye(24))
    read, _ = whitened(made(1), made(7), eye)
    expected, _ = whitened(made_whole(1), made_whole(7), eye)
    np.testing.assert_array_equal(read.base_BK, expected.base_BK)


def made_whole(seed: int) -> list[Layer]:
    return [layer(random(seed + number, loud=3.0)) for number in range(3)]
