"""One group of stored tensors that decodes to one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kinprint.checkpoint.base import BLOCK_BYTES, Array, Codec, TensorInfo, Wanted


@dataclass(frozen=True, slots=True)
class Packed:
    """A quantised matrix, or a stack of them.

    Attributes:
        name: Name that the unquantised checkpoint has.
        shape: Decoded shape.
        codec: How its values were rounded.
        members: Stored tensors that it is made of, in the order in which their bytes are digested.
        decode: From a range of rows (first, last) of the matrix that is stacked along its rows, to float32 values.
        transposed: Whether the decoded matrices stand as [in, out], while rows are rows of [out, in].
        apart: Members of which a range of rows needs a range of the first axis only: (a, b) where ``a`` of their items
            hold ``b`` rows.
    """

    name: str
    shape: tuple[int, ...]
    codec: Codec
    members: tuple[str, ...]
    decode: Callable[[int, int], Array]
    transposed: bool = False
    apart: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def needs(self, first: int, last: int) -> list[Wanted]:
        """Return the stored tensors, or rows of them, that reading a range of the first axis takes.

        Example:
            >>> group = Packed("w", (6, 8), Codec("INT", 4, 0), ("p", "s"), lambda first, last: np.empty(0),
            ...     apart={"p": (4, 1)})
            >>> group.needs(2, 3)
            [('p', slice(8, 12, None)), ('s', None)]
        """
        per_item = self.shape[-1] if self.transposed else math.prod(self.shape[1:-1])
        first, last = first * per_item, last * per_item
        wanted: list[Wanted] = []
        for member in self.members:
            items, rows = self.apart.get(member, (0, 0))
            wanted.append((member, slice(first * items // rows, -(-last * items // rows)) if rows else None))
        return wanted

    def read(self, first: int, last: int) -> Array:
        """Decode a range of the first axis, a few rows at a time so that temporaries stay small.

        Returns:
            float32, C order.
        """
        # Scales may be NaN and Inf; they come out as NaN and Inf, which methods look for themselves.
        with np.errstate(all="ignore"):
            return self._transposed(first, last) if self.transposed else self._plain(first, last)

    def _plain(self, first: int, last: int) -> Array:
        per_item, columns = math.prod(self.shape[1:-1]), self.shape[-1]
        values = np.empty((last - first, *self.shape[1:]), np.float32)
        rows_MN = values.reshape(-1, columns)
        start, step = first * per_item, _step(columns)
        for row in range(0, rows_MN.shape[0], step):
            end = min(row + step, rows_MN.shape[0])
            rows_MN[row:end] = self.decode(start + row, start + end)
        return values

    def _transposed(self, first: int, last: int) -> Array:
        _, columns, per_item = self.shape
        values = np.empty((last - first, columns, per_item), np.float32)
        step = _step(columns)
        for item in range(first, last):
            for row in range(0, per_item, step):
                end = min(row + step, per_item)
                values[item - first, :, row:end] = self.decode(item * per_item + row, item * per_item + end).T
        return values


def lying_apart(members: Iterable[TensorInfo], rows: int) -> dict[str, tuple[int, int]]:
    """Return :attr:`Packed.apart` of the members whose leading axes count the rows of the matrix or of the stack."""
    found: dict[str, tuple[int, int]] = {}
    for info in members:
        counts = [math.prod(info.shape[:axes]) for axes in range(1, len(info.shape) + 1)]
        if rows in counts:
            found[info.name] = (info.shape[0], rows)
    return found


def _step(columns: int) -> int:
    return max(BLOCK_BYTES // 4 // columns, 1)
