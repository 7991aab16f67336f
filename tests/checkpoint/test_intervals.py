"""Sets of ranges: what a plain set of numbers says, they say."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kinprint.checkpoint.intervals import Intervals, joined

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(RANGES, st.integers(0, 60), st.integers(0, 60))
def test_ranges_are_what_a_set_of_their_numbers_is(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    held, numbers = Intervals(), set[int]()
    for first, last in ranges:
        held.add(first, last)
        numbers |= set(range(first, last))
    assert held.total == len(numbers)
    assert {n for first, last in held for n in range(first, last)} == numbers
    assert held.covers(start, end) == (set(range(start, end)) <= numbers)
    missing = [n for first, last in held.gaps(start, end) for n in range(first, last)]
    assert missing == sorted(set(range(start, end)) - numbers)


@given(RANGES, st.integers(0, 9))
def test_joined_ranges_cover_the_same_and_gaps_no_longer_than_allowed(ranges: list[tuple[int, int]], gap: int) -> None:
    numbers = {n for first, last in ranges for n in range(first, last)}
    found = joined(ranges, gap)
    covered = {n for first, last in found for n in range(first, last)}
    assert numbers <= covered
    assert all(later[0] - earlier[1] > gap for earlier, later in pairwise(found))
    assert all(first in numbers and last - 1 in numbers for first, last in found)


def test_a_thousand_blocks_of_rows_become_one_range() -> None:
    held = Intervals()
    for block in range(1000):
        held.add(16 * block, 16 * block + 16)
    assert (list(held), held.total) == ([(0, 16000)], 16000)
