"""Which tables of scores share one numbering, and so one permutation.

Each layer numbers its heads and experts for itself, unless layers are copies of each other. It is enough that the
numbering of *one* of the two models is exchangeable: so the tables are grouped by the layers of the model that has no
repeated layers, and where both have, all tables share one permutation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinprint.checkpoint import Array
from kinprint.evidence.pair import Facing, Pair


def by_numbering(pair: Pair, scores: Sequence[tuple[Facing, Array]]) -> list[Array]:
    """Return one table for each independent numbering: the sum of those that share it."""
    if pair.base.repeats and pair.suspect.repeats:
        return one_group(scores)
    owners: dict[int, Array] = {}
    for facing, table in scores:
        owner = owner_of(pair, facing)
        owners[owner] = owners[owner] + table if owner in owners else table
    return list(owners.values())


def owner_of(pair: Pair, facing: Facing) -> int:
    """Return the layer whose numbering is permuted, of the model without repeated layers; -1 where both have some."""
    if pair.base.repeats:
        return -1 if pair.suspect.repeats else facing.suspect
    return facing.base


def one_group(scores: Sequence[tuple[Facing, Array]]) -> list[Array]:
    """Return the sum of the tables of the commonest size, as one group of labels."""
    sizes = [len(table) for _, table in scores]
    common = max(sorted(set(sizes)), key=sizes.count)
    return [np.sum([table for _, table in scores if len(table) == common], axis=0)]
