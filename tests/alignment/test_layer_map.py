"""Maps of layers by hand."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.alignment.layer_map import ORDER_BONUS, layer_map


def test_equal_depths_and_the_same_places_by_hand() -> None:
    found = layer_map(np.array([[0.9, 0.1], [0.2, 0.7]]))
    assert (found.kind, found.partners, found.similarities) == ("same", (0, 1), (0.9, 0.7))


def test_dropped_layers_by_hand() -> None:
    found = layer_map(np.array([[0.9, 0.0, 0.1], [0.0, 0.1, 0.8]]))
    assert (found.kind, found.partners, found.similarities) == ("ordered", (0, 2), (0.9, 0.8))


def test_repeated_blocks_by_hand() -> None:
    found = layer_map(np.eye(3)[[0, 1, 0, 1, 2]])
    assert (found.kind, found.partners) == ("free", (0, 1, 0, 1, 2))


def test_a_layer_repeated_in_place_is_in_order() -> None:
    found = layer_map(np.eye(3)[[0, 1, 1, 2]])
    assert (found.kind, found.partners) == ("ordered", (0, 1, 1, 2))


@pytest.mark.parametrize(("more", "kind", "partners"), [(-0.01, "ordered", (0, 0)), (0.01, "free", (1, 0))])
def test_going_back_must_be_worth_it_by_hand(more: float, kind: str, partners: tuple[int, int]) -> None:
    # In order the best sum is .5 + .5 (both in column 0); the free map gains the excess of the first row, over 2 rows.
    excess = 2 * (ORDER_BONUS + more)
    found = layer_map(np.array([[0.5, 0.5 + excess], [0.5, 0.0]]))
    assert (found.kind, found.partners) == (kind, partners)


def test_a_layer_that_could_not_be_compared_has_no_partner() -> None:
    nan = np.nan
    found = layer_map(np.array([[0.9, 0.1, nan], [nan, nan, nan], [nan, 0.1, 0.8]]))
    assert (found.kind, found.partners, found.similarities) == ("same", (0, None, 2), (0.9, None, 0.8))


def test_a_pair_that_could_not_be_compared_is_avoided() -> None:
    assert layer_map(np.array([[np.nan, -0.5], [-0.2, -0.25]])).partners == (1, 1)


def test_a_pair_that_could_not_be_compared_is_never_a_partner() -> None:
    # Column 0 is all that row 15 can be compared with; to keep order everything else would have to stay there too.
    table = np.eye(30)
    table[15, 1:] = np.nan
    found = layer_map(table)
    assert found.partners == (*range(15), None, *range(16, 30))
    assert found.similarities[15] is None
    assert found.kind == "same"


def test_nothing_to_compare() -> None:
    found = layer_map(np.full((2, 3), np.nan))
    assert (found.partners, found.similarities) == ((None, None), (None, None))
    assert layer_map(np.empty((0, 3))).partners == ()


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), columns=st.integers(1, 5))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_no_map_in_order_is_better_than_the_ordered_one(seed: int, rows: int, columns: int) -> None:
    table = np.random.default_rng(seed).standard_normal((rows, columns))
    best = max(table[range(rows), list(chosen)].sum() for chosen in combinations_with_replacement(range(columns), rows))
    found = layer_map(table)
    total = float(sum(similarity for similarity in found.similarities if similarity is not None))
    free = float(table.max(axis=1).sum())
    assert total == pytest.approx(free if free > best + ORDER_BONUS * rows else best)
    assert (found.kind == "free") == (list(found.partners) != sorted(found.partners, key=lambda at: at or 0))
