"""Which layer of the base each layer of the suspect faces, in order or not.

Axes: S = layers of the suspect, T = layers of the base.

Two maps are made of one table of similarities. The *ordered* one takes, of all maps that never go back, the one with
the largest sum (dynamic programming; several layers of the suspect may face one of the base). The *free* one gives
every layer its best partner: it finds blocks that were repeated or reordered. Free maps fit strangers better, so the
ordered one is kept unless the free one is better by more than ``ORDER_BONUS`` a layer.

Source: monotone alignment by dynamic programming as in POSA (GhostSpec, arXiv 2511.06390, Algorithm 1), without the
penalty and without the condition that every layer is used at most once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from kinprint.checkpoint import Array
from kinprint.shapes import Float

MapKind = Literal["same", "ordered", "free"]

ORDER_BONUS = 0.05
"""How much better, in similarity a layer, a map must be to be allowed to go back and forth."""


@dataclass(frozen=True, slots=True)
class DepthMap:
    """A map of layers.

    Attributes:
        kind: ``same`` where layer i faces layer i and there are as many, ``ordered`` where the map never goes back,
            ``free`` otherwise.
        partners: For each layer of the suspect the position of its partner in the base; None where it has none that
            could be compared.
        similarities: What the table says of each pair; None where there is no partner.
    """

    kind: MapKind
    partners: tuple[int | None, ...]
    similarities: tuple[float | None, ...]


def layer_map(table_ST: Float[Array, "S T"]) -> DepthMap:
    """Return the map that a table of similarities gives; NaN stands where a pair could not be compared.

    Example:
        >>> layer_map(np.array([[0.9, 0.0, 0.1], [0.0, 0.1, 0.8]])).partners
        (0, 2)
    """
    known = ~np.isnan(table_ST).all(axis=1)
    rows = np.flatnonzero(known)
    partners: list[int | None] = [None] * len(table_ST)
    if rows.size:
        table = cast("Array", np.nan_to_num(table_ST[rows], nan=-1.0))
        free, ordered = table.argmax(axis=1), _ordered(table)
        gains = [float(table[np.arange(rows.size), chosen].mean()) for chosen in (free, ordered)]
        chosen = free if gains[0] > gains[1] + ORDER_BONUS else ordered
        for row, partner in zip(rows, chosen, strict=True):
            # In a deep model one pair that could not be compared may be what keeps the order.
            partners[int(row)] = None if np.isnan(table_ST[row, partner]) else int(partner)
    similarities = [None if at is None else float(table_ST[row, at]) for row, at in enumerate(partners)]
    return DepthMap(_kind(partners, (len(table_ST), table_ST.shape[1])), tuple(partners), tuple(similarities))


def _ordered(table_ST: Array) -> Array:
    """Return for each row a column, never falling, with the largest sum; of equal sums the one of later columns."""
    rows, columns = table_ST.shape
    best_T: Array = table_ST[0].astype(np.float64)
    came_from = np.zeros((rows, columns), dtype=np.int64)
    places = cast("Array", np.arange(columns))
    for row in range(1, rows):
        running = np.maximum.accumulate(best_T)
        is_new = best_T >= running
        came_from[row] = np.maximum.accumulate(np.where(is_new, places, 0))
        best_T = running + table_ST[row]
    chosen = np.empty(rows, dtype=np.int64)
    chosen[-1] = int(np.argmax(best_T))
    for row in range(rows - 1, 0, -1):
        chosen[row - 1] = came_from[row, chosen[row]]
    return chosen


def _kind(partners: list[int | None], shape: tuple[int, int]) -> MapKind:
    found = [partner for partner in partners if partner is not None]
    if shape[0] == shape[1] and all(partner in (None, row) for row, partner in enumerate(partners)):
        return "same"
    return "ordered" if found == sorted(found) else "free"
