"""Which tables share one permutation, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evidence.models import Reader, disguised, random
from kinprint.alignment.trunk import Trunk
from kinprint.evidence.numbering import by_numbering, one_group
from kinprint.evidence.pair import Facing, Pair
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers

Array = np.ndarray[Any, np.dtype[Any]]
ONE, TWO, THREE = np.eye(2), np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 0.0]])


def trunk(order: Sequence[int], *, seed: int = 0) -> Trunk:
    state: ModelState = with_layers(random("llama", seed, layers=2), order)
    return Reader(disguised(state)).trunk(disguised(state))


def grouped(suspect: Trunk, base: Trunk, facing: Sequence[tuple[int, int]]) -> list[list[list[float]]]:
    scores = [(Facing(*both), table) for both, table in zip(facing, (ONE, TWO, THREE), strict=True)]
    return [table.tolist() for table in by_numbering(Pair(suspect, base), scores)]


def test_every_layer_of_the_base_is_numbered_for_itself() -> None:
    found = grouped(trunk([0, 1, 0]), trunk([0, 1], seed=1), [(0, 0), (1, 1), (2, 0)])
    assert found == [(ONE + THREE).tolist(), TWO.tolist()]


def test_where_the_base_repeats_its_layers_those_of_the_suspect_count() -> None:
    found = grouped(trunk([0, 1]), trunk([0, 1, 0], seed=1), [(0, 0), (1, 1), (1, 2)])
    assert found == [ONE.tolist(), (TWO + THREE).tolist()]


def test_where_both_repeat_theirs_there_is_one_permutation() -> None:
    found = grouped(trunk([0, 1, 0]), trunk([0, 1, 0], seed=1), [(0, 0), (1, 1), (2, 2)])
    assert found == [(ONE + TWO + THREE).tolist()]


def test_models_that_repeat_no_layer_have_a_permutation_for_each() -> None:
    found = grouped(trunk([0, 1]), trunk([0, 1], seed=1), [(0, 0), (1, 1), (1, 1)])
    assert found == [ONE.tolist(), (TWO + THREE).tolist()]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_one_group_holds_the_tables_of_the_commonest_size(order: tuple[int, ...]) -> None:
    tables: list[Array] = [ONE, TWO, np.eye(3)]
    scores = [(Facing(at, at), tables[at]) for at in order]
    assert [table.tolist() for table in one_group(scores)] == [(ONE + TWO).tolist()]


def test_of_sizes_that_are_as_common_the_smaller_is_taken() -> None:
    scores = [(Facing(0, 0), np.eye(3)), (Facing(1, 1), ONE)]
    assert [table.tolist() for table in one_group(scores)] == [ONE.tolist()]
