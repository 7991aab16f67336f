"""Assignments against every pairing, and by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_nothing_on_one_side() -> None:
    assert [side.tolist() for side in assignment(np.empty((0, 3)))] == [[], []]


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


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_partners_stay_when_rows_and_columns_are_reordered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, rows, columns = rng.standard_normal((6, 8)), rng.permutation(6), rng.permutation(8)
    before = set(zip(*assignment(scores), strict=True))
    here, there = assignment(scores[rows][:, columns])
    assert set(zip(rows[here], columns[there], strict=True)) == before
