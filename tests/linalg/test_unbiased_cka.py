"""Unbiased CKA: what it ignores, what strangers have, and answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.linalg.cka import centred_gram, unbiased_cka

seeds = st.integers(0, 2**32 - 1)


def gram(features_FK: np.ndarray) -> np.ndarray:
    return features_FK.T @ features_FK


def drawn(seed: int, features: int = 5, samples: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((features, samples))


def joined(*pairs: tuple[int, int]) -> np.ndarray:
    """Four samples of which only these pairs have to do with each other."""
    found = np.zeros((4, 4))
    for i, j in pairs:
        found[i, j] = found[j, i] = 1.0
    return found


# -- what it ignores -----------------------------------------------------------------------------------------------


@given(seed=seeds, scale=st.floats(1e-12, 1e12))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_unchanged_when_features_are_turned_scaled_and_shifted(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    mine, theirs = drawn(seed), drawn(seed + 1, features=7)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    changed = scale * (turn @ mine + rng.standard_normal((5, 1)))
    assert unbiased_cka(gram(changed), gram(theirs)) == pytest.approx(unbiased_cka(gram(mine), gram(theirs)), abs=1e-9)
    assert unbiased_cka(gram(changed), gram(mine)) == pytest.approx(1.0, abs=1e-9)


def test_the_diagonal_does_not_enter() -> None:
    mine, theirs = gram(drawn(1)), gram(drawn(2))
    assert unbiased_cka(mine + np.diag(np.arange(9.0)), theirs) == pytest.approx(unbiased_cka(mine, theirs), abs=1e-12)


# -- what it notices -----------------------------------------------------------------------------------------------


def test_strangers_have_zero_on_average_where_the_usual_cka_is_far_above() -> None:
    usual: list[float] = []
    found: list[float] = []
    centre = np.eye(8) - 1 / 8
    for seed in range(600):
        mine, theirs = (gram(drawn(2 * seed + side, features=32, samples=8)) for side in (0, 1))
        found.append(unbiased_cka(mine, theirs))
        left, right = centre @ mine @ centre, centre @ theirs @ centre
        usual.append(float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right)))
    assert np.mean(usual) > 0.7
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))  # standard error of the mean
    assert np.std(found) > 0.1


def test_samples_in_another_order_are_strangers() -> None:
    mine = drawn(0, features=200, samples=100)
    assert abs(unbiased_cka(gram(mine), gram(mine[:, ::-1]))) < 0.1


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_four_samples_by_hand() -> None:
    # Column sums over 2: (1/2, 1/2, 0, 0); less 1 / 6: means (1/3, 1/3, -1/6, -1/6). So 1/3 at (0, 1) and (2, 3), and
    # -1/6 at the other four pairs; the square norm over both triangles is 2 (2/9 + 4/36) = 2/3.
    expected = np.full((4, 4), -1 / 6)
    expected[[0, 1, 2, 3], [1, 0, 3, 2]] = 1 / 3
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(centred_gram(joined((0, 1))), expected / np.sqrt(2 / 3), atol=1e-15)
    # The pair (2, 3) leaves the same; (0, 2) leaves 1/3 at (0, 2) and (1, 3): (4 (-1/18) + 2/36) / (1/3) = -1/2.
    assert unbiased_cka(joined((0, 1)), joined((2, 3))) == pytest.approx(1.0, abs=1e-12)
    assert unbiased_cka(joined((0, 1)), joined((0, 2))) == pytest.approx(-0.5, abs=1e-12)


@pytest.mark.parametrize(
    "empty", [np.zeros((9, 9)), np.full((9, 9), 0.1), np.add.outer(np.arange(9.0), np.arange(9.0))]
)
def test_a_gram_matrix_that_centring_empties_has_zero_with_everything(empty: np.ndarray) -> None:
    assert unbiased_cka(empty, gram(drawn(0))) == 0.0
    assert unbiased_cka(empty, empty) == 0.0


@pytest.mark.parametrize("samples", [0, 1, 2, 3])
def test_up_to_three_samples_say_nothing(samples: int) -> None:
    assert unbiased_cka(gram(drawn(0, samples=samples)), gram(drawn(0, samples=samples))) == 0.0


def test_the_arrays_given_are_left_as_they_were() -> None:
    given_KK = gram(drawn(0))
    before = given_KK.copy()
    centred_gram(given_KK)
    np.testing.assert_array_equal(given_KK, before)
