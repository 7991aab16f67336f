"""The running minimum of POSA against the recurrence as it is printed, ties and refusals included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.alignment.posa import posa
from kinprint.errors import UsageError


def printed_recurrence(distances: np.ndarray, penalty: float) -> float:
    """Algorithm 1 with its inner loop over every predecessor: the cost of the best path, penalties included."""
    rows, columns = distances.shape
    cost = np.full((rows, columns), np.inf)
    cost[0] = distances[0]
    for i in range(1, rows):
        for j in range(i, columns):
            cost[i, j] = min(cost[i - 1, k] + (j - k - 1) * penalty for k in range(i - 1, j)) + distances[i, j]
    return float(cost[rows - 1].min())


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 24),
    extra=st.integers(0, 24),
    penalty=st.sampled_from([0.0, 1e-3, 0.05, 3.0]),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_the_running_minimum_finds_the_cost_of_the_printed_recurrence(
    seed: int, rows: int, extra: int, penalty: float
) -> None:
    distances = np.random.default_rng(seed).random((rows, rows + extra))
    columns = [column for _, column in posa(distances, penalty).pairs]
    found = sum(distances[row, column] for row, column in enumerate(columns))
    found += penalty * sum(int(gap) - 1 for gap in np.diff(columns))
    assert found == pytest.approx(printed_recurrence(distances, penalty), abs=1e-12)


def test_of_equal_maps_the_earliest_end_and_the_smallest_skips_are_taken() -> None:
    assert posa(np.zeros((2, 4)), penalty=0.0).pairs == ((0, 0), (1, 1))
    later = np.array([[0.0, 0.0, 9.0], [9.0, 9.0, 0.0]])
    assert posa(later, penalty=0.0).pairs == ((0, 1), (1, 2))


def test_the_result_says_which_side_was_the_shallower() -> None:
    distances = np.array([[5.0], [1.0], [3.0]])
    assert posa(distances, penalty=0.1).transposed
    assert posa(distances, penalty=0.1).pairs == ((1, 0),)
    assert not posa(distances.T, penalty=0.1).transposed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_distances_that_are_missing_are_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="not finite"):
        posa(np.array([[0.0, bad]]), penalty=0.1)


@pytest.mark.parametrize("penalty", [-0.1, np.nan, np.inf])
def test_a_penalty_that_is_no_price_is_refused(penalty: float) -> None:
    with pytest.raises(UsageError, match="penalty"):
        posa(np.ones((1, 2)), penalty=penalty)


def test_no_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="missing"):
        posa(np.ones((0, 2)), penalty=0.1)
