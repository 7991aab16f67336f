"""Do MLP units of the same number resemble each other? Exact.

H0: the models were initialised independently. Label group: the units of an MLP; gate row, up row and down column of a
unit carry one label and enter one statistic. Under H0, and under any training that treats units alike, every numbering
of one model's units is equally likely given everything that does not depend on it: the other model, the common basis
and the layer map (neither changes when units are renumbered). The statistic is the sum over facing layers and over
units of cos(gate) + cos(up) cos(down), in a common basis; one renumbering is applied to all layers at once, which is
valid where layers are numbered independently and also where they started as copies of one another.

Defeated by renumbering the units, by cutting units without keeping their order, and in the stored basis by turning
the stream. Not valid for units that a tool has sorted by size, or models that share a random start: those are not
independently initialised.

Source: the constrained test of Zhu et al. (arXiv 2502.12292), section 3, with one statistic for the whole group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kinprint.alignment.basis import Basis
from kinprint.alignment.trunk import Layer, Units
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.records import NOISE, SEED, Statement
from kinprint.linalg.permutation import permutation_test
from kinprint.types import Evidence

LABELS = 512
"""Most units whose labels are permuted: a fixed subset of numbers, whose relabellings are a group of their own."""

EXPERTS = 4
"""Most experts of a layer whose units enter; experts of the same number face each other."""

LAYERS = 12
"""Most facing layers that enter, spread over the depth."""

DRAWS = 999


def statement(basis: str) -> Statement:
    """Return what this test says about itself in one kind of basis."""
    return Statement(
        name=f"units in stored order, {basis} basis",
        id=method_id(
            "exact-units", 1, basis=basis, labels=LABELS, layers=LAYERS, experts=EXPERTS, draws=DRAWS, seed=SEED
        ),
        rung=1,
        null="independent initialisation: the numbering of MLP units is exchangeable (gate, up and down together)",
        defeats="units in another order" + ("; a rotated residual stream" if basis == "stored" else ""),
    )


def test(pair: Pair, basis: Basis, kind: str, log10_alpha: float) -> Evidence:
    """Test one pair in one basis."""
    said = statement(kind)
    for trunk in (pair.suspect, pair.base):
        if (reason := trunk.view.family.exchangeable("ffn")) is not None:
            return said.not_applicable(reason)
    total, used, skipped = score_sum(pair, basis)
    if total is None:
        return said.not_applicable("no facing layers have MLPs with the same number of units" + _listed(skipped))
    size = float(np.trace(total)) / len(total) / used / 2
    notes = (f"{len(total)} labels in {used} facing MLPs{_listed(skipped)}",)
    return said.exact(
        permutation_test([total], draws=DRAWS, seed=SEED, noise=NOISE), size=size, log10_alpha=log10_alpha, notes=notes
    )


def score_sum(pair: Pair, basis: Basis) -> tuple[Array | None, int, list[str]]:
    """Return the sum over facing MLPs of how much each unit resembles each, how many entered, and what did not."""
    sums: dict[int, tuple[Array, int]] = {}
    skipped: list[str] = []
    for facing in pair.spread(LAYERS):
        for mine, theirs in _facing_mlps(*pair.layers(facing)):
            if mine.count != theirs.count or (mine.gate_FD is None) != (theirs.gate_FD is None):
                skipped.append(f"layer {pair.suspect.layers[facing.suspect]}")
                continue
            labels = _labels(mine.count)
            try:
                scores = unit_scores(*numbered(pair, facing, mine, theirs, labels), basis)
            except NonFiniteError as error:  # in units that the layer did not hold
                skipped.append(str(error))
                continue
            before, count = sums.get(len(scores), (np.zeros_like(scores), 0))
            sums[len(scores)] = before + scores, count + 1
    if not sums:
        return None, 0, skipped
    # One group: the commonest number of units. Layers of other widths have labels of their own.
    total, used = max(sums.values(), key=lambda entry: entry[1])
    return total, used, skipped


def _facing_mlps(suspect: Layer, base: Layer) -> Iterator[tuple[Units, Units]]:
    mine, theirs = ([units for units in side.mlps if not units.state_space] for side in (suspect, base))
    if len(mine) == len(theirs):
        yield from zip(mine[:EXPERTS], theirs[:EXPERTS], strict=True)
    elif min(len(mine), len(theirs)) == 1:
        yield mine[0], theirs[0]


def numbered(pair: Pair, facing: Facing, suspect: Units, base: Units, labels: Array) -> tuple[Units, Units]:
    """Return the units of two facing MLPs that carry some numbers."""
    here, there = pair.numbers(facing)
    return pair.suspect.numbered(here, suspect, labels), pair.base.numbered(there, base, labels)


def unit_scores(suspect: Units, base: Units, basis: Basis) -> Array:
    """Return cos(gate) + cos(up) cos(down) of every unit with every unit; cos(up) + cos(down) without a gate."""
    gate, up, down = (
        None if mine is None or theirs is None else basis.cosines(mine, theirs)
        for mine, theirs in (
            (suspect.gate_FD, base.gate_FD),
            (suspect.up_FD, base.up_FD),
            (suspect.down_FD, base.down_FD),
        )
    )
    assert up is not None
    assert down is not None
    return up + down if gate is None else gate + up * down


def _labels(count: int) -> Array:
    if count <= LABELS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, LABELS, replace=False))


def _listed(skipped: Sequence[str]) -> str:
    unique = list(dict.fromkeys(skipped))
    return f"; left out: {', '.join(unique[:4])}{' and more' if len(unique) > 4 else ''}" if unique else ""
