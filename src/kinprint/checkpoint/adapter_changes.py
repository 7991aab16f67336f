"""What adapters do to one tensor. Every change works on a range of rows, in float32.

Array axes: M rows, N columns (what the tensor stores, whichever of them is in or out), R rank, E experts. What PEFT
computes for a weight W with factors A and B and scale s:

- a linear layer [out, in]: W + s B A; stored [in, out]: W + s (B A)^T; an embedding [tokens, width]: W + s (B A)^T;
- DoRA: the same, then every row of [out, in] (for an embedding every column) set to a stored length;
- fused experts: W_e + s B_e A_e for every expert e;
- IA3: W times one factor for each row or column.

Source: peft 0.21, tuners/lora/layer.py and variants.py (``merge``), tuners/ia3/layer.py, tuners/trainable_tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kinprint.checkpoint.base import BLOCK_BYTES, Array
from kinprint.checkpoint.parts import take

Read = Callable[[slice | None], Array]
"""Reads rows of the tensor as it was before the change."""


class Change(ABC):
    """One step from the base's tensor to the merged one.

    Attributes:
        sources: Names of the adapter's tensors that enter, for digests.
    """

    sources: tuple[str, ...]

    @abstractmethod
    def apply(self, before: Read, rows: slice | None) -> Array:
        """Return the changed rows, float32 unless the tensor is replaced as it is.

        Args:
            before: Reads the tensor as it was.
            rows: Start, stop and step, none of them negative or None; None for all rows.
        """

    @property
    def settings(self) -> str:
        """What enters besides tensors, for digests."""
        return ""


@dataclass(frozen=True)
class LowRank(Change):
    """Adds ``scale * left @ right`` to a matrix, or to the matrix that the later axes of a convolution form.

    Attributes:
        sources: See :class:`Change`.
        left: Reads [M, R].
        right: Reads [R, N].
        scale: s.
        lengths: Reads DoRA's stored lengths, of M rows or of N columns; None without DoRA.
        by_column: Whether the lengths are those of columns.
        known: The lengths of all columns before they are set, once they were computed.
    """

    sources: tuple[str, ...]
    left: Callable[[], Array]
    right: Callable[[], Array]
    scale: float
    lengths: Callable[[], Array] | None = None
    by_column: bool = False
    known: dict[str, Array] = field(default_factory=dict[str, Array], compare=False, repr=False)

    @property
    def settings(self) -> str:
        """The scale."""
        return f"{self.scale!r}"

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Add the product, and for DoRA set the lengths."""
        left_MR, right_RN = _float32(self.left()), _float32(self.right())
        values_MN = self._added(before, rows, left_MR, right_RN)
        if self.lengths is None:
            return values_MN
        lengths = _float32(self.lengths())
        with np.errstate(all="ignore"):  # a row of zeros gives NaN, as it does in PEFT
            if not self.by_column:
                flat_MN = values_MN.reshape(values_MN.shape[0], right_RN.shape[1])
                factors_M = take(lengths, rows) / np.linalg.norm(flat_MN, axis=1)
                return values_MN * factors_M.reshape((-1,) + (1,) * (values_MN.ndim - 1))
            if "columns" not in self.known:
                self.known["columns"] = self._column_lengths(before, left_MR, right_RN)
            return values_MN * (lengths / self.known["columns"])

    def _added(self, before: Read, rows: slice | None, left_MR: Array, right_RN: Array) -> Array:
        """Return rows of the sum."""
        stored = before(rows)
        delta_MN = take(left_MR, rows) @ right_RN
        delta_MN *= np.float32(self.scale)
        delta_MN = delta_MN.reshape(stored.shape)
        delta_MN += stored.astype(np.float32)
        return delta_MN

    def _column_lengths(self, before: Read, left_MR: Array, right_RN: Array) -> Array:
        """Return the length of every column of the whole sum, a block of rows at a time."""
        row_count, column_count = left_MR.shape[0], right_RN.shape[1]
        step = max(BLOCK_BYTES // 4 // max(column_count, 1), 1)
        squares_N = np.zeros(column_count, np.float64)  # squares of many rows add up: float32 would lose the small ones
        for first in range(0, row_count, step):
            block_MN = self._added(before, slice(first, min(first + step, row_count)), left_MR, right_RN)
            squares_N += np.square(block_MN, dtype=np.float64).sum(axis=0)
        return np.sqrt(squares_N).astype(np.float32)


@dataclass(frozen=True)
class Experts(Change):
    """Adds ``scale * left_e @ right_e`` to every expert's matrix of a tensor [E, M, N]."""

    sources: tuple[str, ...]
    left: Callable[[int], Array]
    right: Callable[[int], Array]
    scale: float

    @property
    def settings(self) -> str:
        """The scale."""
        return f"{self.scale!r}"

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Add the products of the experts that are asked for."""
        values_EMN = np.array(before(rows), np.float32)
        first, step = (0, 1) if rows is None else (rows.start, rows.step)
        for place in range(values_EMN.shape[0]):
            expert = first + place * step
            values_EMN[place] += np.float32(self.scale) * (self.left(expert) @ self.right(expert))
        return values_EMN


@dataclass(frozen=True)
class Replaced(Change):
    """Puts the adapter's own tensor in place of the base's."""

    sources: tuple[str, ...]
    read: Callable[[slice | None], Array]

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Return the adapter's rows, in their stored dtype."""
        del before
        return self.read(rows)


@dataclass(frozen=True)
class Rows(Change):
    """Puts some rows in place of the base's."""

    sources: tuple[str, ...]
    read: Callable[[], Array]
    indices: tuple[int, ...]

    @property
    def settings(self) -> str:
        """The rows."""
        return repr(self.indices)

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Return the rows that are asked for, those of the adapter among them."""
        values_MN = np.array(before(rows), np.float32)
        first, step = (0, 1) if rows is None else (rows.start, rows.step)
        new_MN = self.read()
        for place, index in enumerate(self.indices):
            at, off = divmod(index - first, step)
            if not off and 0 <= at < values_MN.shape[0]:
                values_MN[at] = new_MN[place]
        return values_MN


@dataclass(frozen=True)
class Scaled(Change):
    """Multiplies by one factor for each row ([M, 1] or [M]) or each column ([1, N])."""

    sources: tuple[str, ...]
    read: Callable[[], Array]
    by_column: bool

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Multiply."""
        values = before(rows).astype(np.float32)
        factors = _float32(self.read()).reshape(-1)
        if self.by_column:
            return values * factors
        return values * take(factors, rows).reshape((-1,) + (1,) * (values.ndim - 1))


@dataclass(frozen=True)
class Added(Change):
    """Adds a vector times a scale, which is what a bias of B is."""

    sources: tuple[str, ...]
    read: Callable[[], Array]
    scale: float

    @property
    def settings(self) -> str:
        """The scale."""
        return f"{self.scale!r}"

    def apply(self, before: Read, rows: slice | None) -> Array:
        """Add."""
        return before(rows).astype(np.float32) + np.float32(self.scale) * take(_float32(self.read()), rows)


def _float32(values: Array) -> Array:
    """Return values in the precision that changes are computed in."""
    return values.astype(np.float32, copy=False)
