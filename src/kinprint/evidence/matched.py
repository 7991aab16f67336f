"""Heads and units of two models, matched on one part and tested on another: by size.

Stated against: independent training. There is no p-value: features that all language models share make strangers'
statistics significant and small. What counts is the size, beyond a margin over pairs known to be independent
(``kinprint.evidence.population``).

Survive every permutation, rotation and gauge together, because heads and units are matched before they are tested and
the residual basis is aligned by what no numbering changes; and pruning, cuts, repeats, merges, up-scaling and upcycling
by the layer map. Defeated where too little of the old weights is left (training from scratch, distillation, training
long enough), and where no basis can be found.

Tested parts took no part in any match or fit: heads are matched by QK and tested by VO; units are matched by gate and
tested by up and down. The basis may have been chosen among few by how well value forms agree, which the population's
pairs have gone through too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from kinprint.alignment.whitening import RIDGE
from kinprint.canonical import method_id
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.population import among_innocents
from kinprint.evidence.records import Statement
from kinprint.evidence.sizes import EXPERTS, UNITS, matched_heads, matched_mlps, matched_units, trunk_size
from kinprint.linalg.threads import side_by_side
from kinprint.types import Evidence, Table, Value

PROCEDURE = method_id("matched", 1, experts=EXPERTS, ridge=RIDGE, units=UNITS)
"""How sizes are measured, of pairs and of the population alike."""

CONTROL_LAYERS = 4
"""Layers that are set against a wrong partner, as a control."""

CONTROL_UNITS = 256
"""Units of each of them that are matched: to match all units of layers that do not belong together is dear."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of every pair of facing layers, in the order of ``Pair.facing``, and of the experts that were matched."""

    heads: tuple[float | None, ...]
    units: tuple[float | None, ...]
    experts: tuple[tuple[tuple[int, float], ...], ...] = ()

    def all(self) -> dict[str, float]:
        """Return the sizes that the population knows, those that could be measured."""
        found = {
            "heads": trunk_size(list(self.heads)),
            "units": trunk_size(list(self.units)),
            "layer heads": max((size for size in self.heads if size is not None), default=None),
            "layer units": max((size for size in self.units if size is not None), default=None),
        }
        return {name: size for name, size in found.items() if size is not None}


def measure(pair: Pair) -> Sizes:
    """Return the sizes of all facing layers; empty where no basis could be found."""
    if pair.whitened is None:
        return Sizes((), ())

    def sizes(facing: Facing) -> tuple[float | None, list[tuple[int | None, float]]]:
        compared = pair.compared(facing)
        return matched_heads(*compared), matched_mlps(*compared)

    found = side_by_side(sizes, pair.facing, large=pair.suspect.large, most=pair.at_once)
    return Sizes(
        tuple(heads for heads, _ in found),
        tuple(float(np.mean([size for _, size in mlps])) if mlps else None for _, mlps in found),
        tuple(tuple((expert, size) for expert, size in mlps if expert is not None) for _, mlps in found),
    )


def heads(pair: Pair, sizes: Sizes) -> Evidence:
    """Return the evidence of matched heads."""
    said = Statement(
        name="heads matched on QK, tested on VO",
        id=method_id("matched-heads", 1, ridge=RIDGE),
        rung=2,
        null="independent training: key/value groups that attend alike do not move the same things",
        defeats="training so long that nothing of the value paths is left; no common basis",
    )
    return _evidence(said, pair, "heads", sizes.heads)


def units(pair: Pair, sizes: Sizes) -> Evidence:
    """Return the evidence of matched units."""
    said = Statement(
        name="units matched on gate, tested on up and down",
        id=PROCEDURE.replace("matched", "matched-units", 1),
        rung=2,
        null="independent training: MLP units that open alike do not write the same things",
        defeats="MLPs trained anew; no common basis",
    )
    found = _evidence(said, pair, "units", sizes.units)
    if found.status != "measured" or not any(sizes.experts):
        return found
    return found.model_copy(update={"tables": (*found.tables, _expert_table(pair, sizes))})


def _expert_table(pair: Pair, sizes: Sizes) -> Table:
    rows = tuple(
        (*pair.numbers(facing), expert, size)
        for facing, experts in zip(pair.facing, sizes.experts, strict=True)
        for expert, size in experts
    )
    return Table(title="experts of facing layers", columns=("suspect", "base", "expert", "size"), rows=rows)


def _evidence(said: Statement, pair: Pair, statistic: str, sizes: tuple[float | None, ...]) -> Evidence:
    size = trunk_size(list(sizes))
    if size is None or pair.best is None:
        return said.not_applicable("no facing layers have both parts" if pair.best else "the models share no basis")
    rows = tuple(
        (pair.suspect.layers[facing.suspect], pair.base.layers[facing.base], found)
        for facing, found in zip(pair.facing, sizes, strict=True)
    )
    return said.sized(
        size,
        controls=_controls(pair, statistic),
        tables=(Table(title=f"{statistic} of facing layers", columns=("suspect", "base", "size"), rows=rows),),
        notes=(f"mean over the better half of {len(sizes)} layers, in the {pair.best.kind} basis",),
    ).model_copy(update={**among_innocents(statistic, size, (pair.suspect.width, pair.base.width)), "carries": True})


def _controls(pair: Pair, statistic: str) -> tuple[Value, ...]:
    """Return sizes of layers that do not belong together, across the models and inside the suspect."""
    size_of = matched_heads if statistic == "heads" else partial(matched_units, most=CONTROL_UNITS)
    there, here = len(pair.base.layers), len(pair.suspect.layers)
    chosen = pair.spread(CONTROL_LAYERS)
    at_once = partial(side_by_side, large=pair.suspect.large, most=pair.at_once)
    found: list[Value] = []
    if there > 1:
        wrong = [Facing(facing.suspect, (facing.base + there // 2) % there) for facing in chosen]
        sizes = at_once(lambda facing: size_of(*pair.compared(facing)), wrong)
        found += _mean("mismatched layers", sizes, "against one half a depth away in the base")
    if here > 1:
        opposite = [(at, (at + here // 2) % here) for at in (facing.suspect for facing in chosen)]
        sizes = at_once(lambda both: size_of(*pair.compared_within(*both)), opposite)
        found += _mean("within the suspect", sizes, "against one half a depth away in the suspect")
    return tuple(found)


def _mean(name: str, sizes: list[float | None], note: str) -> list[Value]:
    known = [size for size in sizes if size is not None]
    if not known:
        return []
    return [
        Value(name=name, value=sum(known) / len(known), kind="similarity", note=f"mean of {len(known)} layers {note}")
    ]
