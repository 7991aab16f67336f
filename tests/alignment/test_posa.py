"""POSA against every strictly increasing map, and by hand."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.alignment.posa import posa

seeds = st.integers(0, 2**32 - 1)


def steered_cost(distances: np.ndarray, columns: tuple[int, ...], penalty: float) -> float:
    gaps = sum(after - before - 1 for before, after in pairwise(columns))
    return float(sum(distances[row, column] for row, column in enumerate(columns)) + penalty * gaps)


@given(seed=seeds, rows=st.integers(1, 5), extra=st.integers(0, 4), penalty=st.sampled_from([0.0, 0.1, 1.0]))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_no_other_increasing_map_is_cheaper(seed: int, rows: int, extra: int, penalty: float) -> None:
    distances = np.random.default_rng(seed).random((rows, rows + extra))
    found = posa(distances, penalty)
    best = min(steered_cost(distances, c, penalty) for c in combinations(range(rows + extra), rows))
    columns = tuple(column for _, column in found.pairs)
    assert [row for row, _ in found.pairs] == list(range(rows))
    assert steered_cost(distances, columns, penalty) == pytest.approx(best, abs=1e-12)
    assert found.distance == pytest.approx(float(np.mean([distances[pair] for pair in found.pairs])))


@given(seed=seeds, side=st.integers(1, 6))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_equal_depth_forces_the_identity(seed: int, side: int) -> None:
    distances = np.random.default_rng(seed).random((side, side))
    assert posa(distances, 0.0).pairs == tuple((i, i) for i in range(side))


def test_start_and_end_are_free_and_only_gaps_cost() -> None:
    distances = np.full((2, 5), 9.0)
    distances[0, 2] = distances[1, 3] = 0.0
    assert posa(distances, penalty=100.0).pairs == ((0, 2), (1, 3))


def test_the_penalty_steers_the_map_and_is_not_in_the_distance() -> None:
    distances = np.array([[0.0, 1.0, 5.0], [9.0, 1.0, 0.5]])
    assert posa(distances, penalty=0.0).pairs == ((0, 0), (1, 2))
    assert posa(distances, penalty=0.0).distance == 0.25
    assert posa(distances, penalty=0.6).pairs == ((0, 0), (1, 1))
    assert posa(distances, penalty=0.6).distance == 0.5


def test_a_deeper_first_model_is_the_transposed_map() -> None:
    distances = np.random.default_rng(1).random((6, 3))
    turned = posa(np.ascontiguousarray(distances.T), 0.1)
    found = posa(distances, 0.1)
    assert found.distance == turned.distance
    assert found.pairs == tuple((row, column) for column, row in turned.pairs)


def test_a_removed_layer_is_found() -> None:
    deep = np.arange(8.0)
    shallow = np.delete(deep, 3)
    distances = np.abs(shallow[:, None] - deep[None, :])
    assert [column for _, column in posa(distances, 0.1).pairs] == [0, 1, 2, 4, 5, 6, 7]
