"""Assignments against every pairing, and by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from kinprint.linalg.assignment import assignment


@pytest.mark.parametrize(
    ("scores", "rows", "columns"),
    [
        ([[1.0, 9.0], [2.0, 8.0]], [0, 1], [1, 0]),  # 9 + 2 against 1 + 8
        ([[1.0, 9.0, 0.0], [2.0, 8.0, 0.0]], [0, 1], [1, 0]),
        ([[1.0], [5.0], [3.0]], [1], [0]),
    ],
)
def test_by_hand(scores: list[list[float]], rows: list[int], columns: list[int]) -> None:
    assert [side.tolist() for side in assignment(np.array(scores))] == [rows, columns]


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), columns=st.integers(1, 5))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_no_pairing_has_a_larger_sum(seed: int, rows: int, columns: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((rows, columns))
    here, there = assignment(scores)
    assert here.tolist() == sorted(set(here.tolist()))
    assert len(set(there.tolist())) == len(here) == min(rows, columns)
    wide = scores if rows <= columns else scores.T
    sums = [wide[range(len(wide)), list(order)].sum() for order in permutations(range(wide.shape[1]), len(wide))]
    assert scores[here, there].sum() == pytest.approx(max(sums))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), columns=st.integers(1, 40), noise=st.floats(0, 1))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_the_answer_is_that_of_scipys_solver_for_copies_and_for_strangers(
    seed: int, rows: int, columns: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    copies = np.eye(rows, columns)[rng.permutation(rows)][:, rng.permutation(columns)]
    scores = copies + noise * rng.standard_normal((rows, columns))
    expected = optimize.linear_sum_assignment(scores, maximize=True)
    if noise:  # else there are ties
        assert [side.tolist() for side in assignment(scores)] == [side.tolist() for side in expected]
    assert scores[assignment(scores)].sum() == pytest.approx(scores[expected].sum())


def test_no_pairing_of_scores_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="invalid"):
        assignment(np.array([[np.nan, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3)])
def test_nothing_to_pair(shape: tuple[int, int]) -> None:
    assert [side.tolist() for side in assignment(np.empty(shape))] == [[], []]


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_partners_stay_when_rows_and_columns_are_reordered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, rows, columns = rng.standard_normal((6, 8)), rng.permutation(6), rng.permutation(8)
    before = set(zip(*assignment(scores), strict=True))
    here, there = assignment(scores[rows][:, columns])
    assert set(zip(rows[here], columns[there], strict=True)) == before
