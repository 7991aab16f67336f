"""Work side by side gives what work one after the other gives."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from kinprint.linalg.threads import side_by_side


def test_results_come_in_the_order_of_the_items() -> None:
    assert side_by_side(lambda item: item * item, range(50)) == [item * item for item in range(50)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_items_are_no_special_case(count: int) -> None:
    assert side_by_side(str, range(count)) == [str(item) for item in range(count)]


def test_products_do_not_depend_on_what_runs_beside_them() -> None:
    arrays = [np.random.default_rng(seed).standard_normal((60, 60)) for seed in range(12)]
    alone = [array @ array for array in arrays]
    beside = side_by_side(lambda array: array @ array, arrays)
    assert all(np.array_equal(left, right) for left, right in zip(alone, beside, strict=True))


def test_a_fault_of_one_item_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 // item, [2, 1, 0, 3])


def test_no_more_pieces_are_at_work_than_memory_leaves_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    counting, now, most = threading.Lock(), 0, 0

    def work(item: int) -> int:
        nonlocal now, most
        with counting:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with counting:
            now -= 1
        return item

    assert side_by_side(work, range(12), most=2) == list(range(12))
    assert most == 2
    assert side_by_side(work, range(12)) == list(range(12))
    assert most == 6
