"""Sets of whole numbers as disjoint ranges: which bytes were handed out, which are there, which are missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""First byte, and byte after the last."""


class Intervals:
    """Disjoint half-open ranges, merged as they are added.

    Attributes:
        total: How many numbers are in them.

    Example:
        >>> held = Intervals()
        >>> for start, end in ((0, 4), (8, 10), (3, 8)):
        ...     held.add(start, end)
        >>> held.total, list(held), held.gaps(0, 12)
        (10, [(0, 10)], [(10, 12)])
    """

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __iter__(self) -> Iterable[Range]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def add(self, start: int, end: int) -> None:
        """Put a range in; ranges that touch become one."""
        if start >= end or self.covers(start, end):
            return
        first = bisect_left(self._ends, start)
        after = bisect_right(self._starts, end)
        if first < after:
            start, end = min(start, self._starts[first]), max(end, self._ends[after - 1])
        self.total += end - start - sum(self._ends[first:after]) + sum(self._starts[first:after])
        self._starts[first:after] = [start]
        self._ends[first:after] = [end]

    def covers(self, start: int, end: int) -> bool:
        """Tell whether a whole range is in; an empty one always is."""
        place = bisect_right(self._starts, start) - 1
        return start >= end or (place >= 0 and self._ends[place] >= end)

    def gaps(self, start: int, end: int) -> list[Range]:
        """Return the parts of a range that are not in."""
        found: list[Range] = []
        place = bisect_right(self._ends, start)
        while start < end:
            begin = self._starts[place] if place < len(self._starts) else end
            if start < begin:
                found.append((start, min(begin, end)))
            start = self._ends[place] if place < len(self._ends) else end
            place += 1
        return found


def joined(ranges: Iterable[Range], gap: int) -> list[Range]:
    """Return ranges in order, those merged between which at most ``gap`` lies; empty ones are left out.

    Example:
        >>> joined([(20, 30), (0, 4), (6, 6), (9, 12)], 5)
        [(0, 12), (20, 30)]
    """
    found: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
