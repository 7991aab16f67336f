"""Numbers as one line of marks: where a pair stands among unrelated ones, and how much of each layer is left.

The marks are blocks where the terminal can show them, and ASCII where it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console


@dataclass(frozen=True, slots=True)
class Marks:
    """What lines are drawn with.

    Attributes:
        heights: Eight marks, from the lowest to the highest.
        ground: Where nothing is.
        margin: The margin of a size.
        third: A pair with a third model.
        pair: The pair in question.
    """

    heights: str
    ground: str
    margin: str
    third: str
    pair: str


BLOCKS = Marks(heights="▁▂▃▄▅▆▇█", ground="·", margin="│", third="△", pair="◆")
ASCII = Marks(heights=".:;=+*%#", ground="_", margin="|", third="^", pair="@")


def marks_for(console: Console) -> Marks:
    """Return the marks that a console's encoding can show."""
    try:
        "".join((BLOCKS.heights, BLOCKS.ground, BLOCKS.margin, BLOCKS.third, BLOCKS.pair)).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def place(
    strangers: Sequence[float], pair: float, thirds: Sequence[float], margin: float | None, cells: int, marks: Marks
) -> str:
    """Return a line from 0 to 1 with unrelated pairs as heights, and the margin, third models and the pair as marks.

    The scale is of square roots: all that unrelated pairs reach would be two or three marks of an even one. What is
    below 0 stands at 0.

    Args:
        strangers: Sizes of unrelated pairs.
        pair: Size of the pair in question, which no other mark covers.
        thirds: Sizes of its sides against third models.
        margin: Where the margin stands.
        cells: Marks of the line.
        marks: What to draw with.

    Example:
        >>> place([0.0, 0.0, 0.01], 0.99, [0.0], 0.25, 12, ASCII)
        '^=____|____@'
    """
    counts = [0] * cells
    for value in strangers:
        counts[_cell(value, cells)] += 1
    most = max(counts, default=0)
    line = [marks.heights[math.ceil(8 * count / most) - 1] if count else marks.ground for count in counts]
    if margin is not None:
        line[_cell(margin, cells)] = marks.margin
    for value in thirds:
        line[_cell(value, cells)] = marks.third
    line[_cell(pair, cells)] = marks.pair
    return "".join(line)


def _cell(value: float, cells: int) -> int:
    return min(cells - 1, int(math.sqrt(max(0.0, value)) * cells))


def heat(values: Sequence[float | None], cells: int, marks: Marks) -> tuple[str, int]:
    """Return a line with a height from 0 to 1 for each value, and how many values a mark stands for.

    Where there are more values than marks, a mark is the least of its values: what was replaced is not to be hidden by
    what was kept.

    Args:
        values: One number for each layer; None where there is none.
        cells: Most marks of the line.
        marks: What to draw with.

    Example:
        >>> heat([0.0, 0.5, 1.0, None], 4, ASCII), heat([1.0, 0.0, 1.0, None], 2, ASCII)
        (('.+#_', 1), ('.#', 2))
    """
    each = max(1, math.ceil(len(values) / max(1, cells)))
    groups = [[one for one in values[at : at + each] if one is not None] for at in range(0, len(values), each)]
    return "".join(_height(min(group), marks) if group else marks.ground for group in groups), each


def _height(value: float, marks: Marks) -> str:
    return marks.heights[min(7, int(max(0.0, value) * 8))]
