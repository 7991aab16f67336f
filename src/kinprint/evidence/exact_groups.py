"""Do key/value groups of the same number resemble each other? Exact.

H0: the models were initialised independently. Label group: the key/value heads of a layer with the query heads that
share them; q, k, v and o of a group carry one label. Each group is represented by what no gauge changes, its QK and VO
forms with gains folded, in a common basis. The statistic is the sum over facing layers and groups of both cosines.
Of layers too large to hold each model holds its largest groups, and those with the same numbers in both are tested:
which groups a model holds does not depend on their numbers, so given what is held every numbering is as likely.
Layers are numbered independently, so each has a permutation of its own, all in one statistic; where a family's layers
start as copies of one, one permutation for all.

Defeated by renumbering the heads. With few groups the floor is high: 4 groups in one layer cannot give less than 1/24.
Not valid for heads with slopes of their own (ALiBi) or groups shared between layers; family tables say so.
"""

from __future__ import annotations

import numpy as np

from kinprint.alignment.basis import Basis
from kinprint.alignment.trunk import same_groups
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.numbering import by_numbering, one_group, owner_of
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.records import NOISE, SEED, Statement
from kinprint.evidence.sizes import group_cosines
from kinprint.linalg.permutation import permutation_test
from kinprint.types import Evidence

DRAWS = 999


def statement(basis: str) -> Statement:
    """Return what this test says about itself in one kind of basis."""
    return Statement(
        name=f"key/value groups in stored order, {basis} basis",
        id=method_id("exact-groups", 1, basis=basis, draws=DRAWS, seed=SEED),
        rung=1,
        null="independent initialisation: the numbering of key/value groups is exchangeable (q, k, v and o together)",
        defeats="heads in another order" + ("; a rotated residual stream" if basis == "stored" else ""),
    )


def test(pair: Pair, basis: Basis, kind: str, log10_alpha: float) -> Evidence:
    """Test one pair in one basis."""
    said = statement(kind)
    for trunk in (pair.suspect, pair.base):
        if (reason := trunk.view.family.exchangeable("kv")) is not None:
            return said.not_applicable(reason)
    together = any(trunk.view.family.together("kv") for trunk in (pair.suspect, pair.base))
    scores = score_tables(pair, basis, together=together)
    if not scores:
        return said.not_applicable("no facing layers have the same number of key/value groups, two at least")
    groups = one_group(scores) if together else by_numbering(pair, scores)
    labels = sum(len(group) for group in groups)
    size = sum(float(np.trace(table)) for _, table in scores) / 2 / sum(len(table) for _, table in scores)
    notes = (f"{labels} labels in {len(groups)} groups",)
    return said.exact(
        permutation_test(groups, draws=DRAWS, seed=SEED, noise=NOISE), size=size, log10_alpha=log10_alpha, notes=notes
    )


def score_tables(pair: Pair, basis: Basis, *, together: bool = False) -> list[tuple[Facing, Array]]:
    """Return the cosines of every group with every group, for facing layers that have as many.

    Where layers hold some of their groups, other layers hold others: then one table of each numbering is kept, for
    tables that share a permutation must have the same labels.
    """
    found: list[tuple[Facing, Array]] = []
    owners: dict[int, bool] = {}  # whether its table is of some of the groups
    for facing in pair.facing:
        mine, theirs = (layer.attention for layer in pair.layers(facing))
        both = None if mine is None or theirs is None else same_groups(mine, theirs)
        if both is None or both[0].kv_heads < 2:
            continue
        mine, theirs = both
        owner = -1 if together else owner_of(pair, facing)
        some = mine.numbers is not None
        if owner in owners and (some or owners[owner]):
            continue
        owners[owner] = some
        table = group_cosines(mine, theirs, basis, "qk") + group_cosines(mine, theirs, basis, "vo")
        found.append((facing, table))
    return found
