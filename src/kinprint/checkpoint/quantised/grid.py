"""Scales (or zero points, or offsets) that each stand for a block of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint.base import Array
from kinprint.checkpoint.quantised.stored import Stored, View

Rows = Callable[[int, int], Array]
"""Reads rows first to last of blocks."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How blocks lie on a matrix, or on a stack of them.

    Attributes:
        rows: Rows of one matrix.
        columns: Columns.
        block: Rows and columns of a block; the last ones may be cut.
        shared: Whether all matrices of a stack use the same grid.
    """

    rows: int
    columns: int
    block: tuple[int, int]
    shared: bool = False

    @property
    def across(self) -> int:
        """Blocks beside each other."""
        return -(-self.columns // self.block[1])

    @property
    def down(self) -> int:
        """Blocks above each other."""
        return -(-self.rows // self.block[0])

    def of(self, stored: Stored, view: View, name: str) -> Rows:
        """Return what reads rows of blocks from a stored tensor."""
        return lambda first, last: stored.run(view, name, first, last, self.across)

    def spread(self, values: Rows, first: int, last: int) -> Array:
        """Return the value of every element of a range of rows, as float32 [rows, columns], or one column for all.

        Args:
            values: Reads some rows of blocks, [last - first, across].
            first: First row, counted through the stack.
            last: Row after the last.
        """
        rows_M = np.arange(first, last)
        item_M = 0 if self.shared else rows_M // self.rows
        at_M = item_M * self.down + rows_M % self.rows // self.block[0]
        lowest, highest = (int(at_M.min()), int(at_M.max()) + 1) if rows_M.size else (0, 0)
        blocks_MK = values(lowest, highest)[at_M - lowest].astype(np.float32)
        if self.across == 1:
            return blocks_MK
        return np.repeat(blocks_MK, self.block[1], axis=1)[:, : self.columns]


def fitted(stored: Stored, name: str, shape: tuple[int, ...], block: tuple[int, int] | None) -> Grid | None:
    """Lay a tensor of scales over a matrix or a stack of them.

    One for all, one for each matrix, one for each row, and blocks, whose size follows from the shapes, or is given
    where the last blocks may be cut.

    Args:
        stored: The checkpoint.
        name: The scales.
        shape: Shape of what they scale.
        block: Rows and columns of a block that the config states.

    Returns:
        The grid, or None where they do not fit.
    """
    scales = stored.tensors[name].shape
    *stack, rows, columns = shape
    items = math.prod(stack)
    count = math.prod(scales)
    if count == 1:
        return Grid(rows, columns, (rows, columns), shared=True)
    if scales in ((items,), (*stack, 1, 1)) and stack:
        return Grid(rows, columns, (rows, columns))
    if scales in ((*stack, rows), (*stack, rows, 1)):
        return Grid(rows, columns, (1, columns))
    if len(scales) != len(shape) or list(scales[:-2]) != stack:
        return None
    for candidate in (block, _divided(rows, columns, scales[-2], scales[-1])):
        if candidate is not None and min(candidate) > 0:
            grid = Grid(rows, columns, (min(candidate[0], rows), min(candidate[1], columns)))
            if (grid.down, grid.across) == scales[-2:]:
                return grid
    return None


def _divided(rows: int, columns: int, down: int, across: int) -> tuple[int, int] | None:
    if down < 1 or across < 1 or rows % down or columns % across:
        return None
    return rows // down, columns // across


def grouped(columns: int, groups: int) -> int | None:
    """Return how many neighbours form a group, None where groups are not equally long."""
    return columns // groups if groups > 0 and columns % groups == 0 else None


Decoder = Callable[[int, int], Array]
"""From a range of rows to float32 values."""
