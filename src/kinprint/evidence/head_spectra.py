"""Do heads have the same singular values? No basis, no token, no order; by size.

Axes: G, H = key/value groups of suspect and base, S = singular values.

H0: the models were trained independently. Of every key/value group the singular values of its QK and VO products (gains
folded, query heads of a group summed), as logarithms, cut at the smallest effective rank of a group in either layer,
about their mean over the groups of a layer: what all heads of a layer share, models of one kind share too. Groups of
facing layers are matched by LAP on the root mean square difference; the statistic is the correlation of matched values.
It rests on nothing but the map of layers.

Survives: everything that keeps what a head computes (rotation of the stream, order of heads, gauges of queries and
keys and of values, gains), and new embeddings.

Defeated by training that changes heads much, by heads that are merged or trained anew, and by few groups: the best
match of a few smooth sequences correlates by chance, at .3 to .6 (two groups about their mean are each other's mirror
image). So the size is the mean correlation r less the mean c over layers that do not face each other, over what there
is to reach: (r - c) / (1 - c). With two groups in four layers innocents still had -.45 to .40, copies .68 and more.

Source: worked out here. Spectra of these products: GhostSpec (arXiv 2511.06390), section 3.1, for whole layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kinprint.alignment.trunk import Attention, Trunk
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.controls import off_map
from kinprint.evidence.pair import Pair
from kinprint.evidence.records import Statement
from kinprint.linalg.assignment import assignment
from kinprint.linalg.spectrum import effective_rank, kept_rank, product_singular_values
from kinprint.shapes import Float64
from kinprint.types import Cell, Evidence, Table

PRODUCTS: tuple[Literal["qk", "vo"], ...] = ("qk", "vo")

_LEAST_RANK = 2.0
"""A group below this effective rank has no shape to compare: one that was cut out, or is a single spike."""

_ROUNDING = 1e-6
"""How far logarithms of spectra that are the same in all groups may be apart."""


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="heads by their singular values",
        id=method_id("head-spectra", 1, products="qk+vo"),
        rung=3,
        null="independent training: heads differ from the mean of their layer in ways of their own",
        defeats="training that changes heads much; merged heads; fewer than two key/value groups",
    )


@dataclass(frozen=True, slots=True)
class Heads:
    """Spectra of a layer's key/value groups, [G, S] by product, and their effective ranks, [G]."""

    spectra: Mapping[str, Array]
    ranks: Mapping[str, Array]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.ranks[PRODUCTS[0]])


def test(pair: Pair) -> Evidence:
    """Measure one pair."""
    said = statement()
    if (reason := pair.obstacle) is not None:
        return said.not_applicable(reason)
    table_ST = correlations(pair)
    facing = [at for at in pair.facing if np.isfinite(table_ST[at.suspect, at.base])]
    if not facing:
        return said.not_applicable("no facing layers have two key/value groups each that could be compared")
    chance = off_map(table_ST, pair.facing)
    if chance.value is None:
        return said.not_applicable("there is only one pair of layers, and so nothing to tell chance by")
    found = [float(table_ST[at.suspect, at.base]) for at in facing]
    rows: list[tuple[Cell, ...]] = [
        (pair.suspect.layers[at.suspect], pair.base.layers[at.base], value)
        for at, value in zip(facing, found, strict=True)
    ]
    columns = ("suspect layer", "base layer", "correlation")
    return said.sized(
        beyond_chance(float(np.mean(found)), chance.value),
        controls=(chance,),
        tables=(Table(title="correlation of matched heads' spectra", columns=columns, rows=tuple(rows)),),
        notes=(f"mean correlation {np.mean(found):.3f}, of layers that do not face each other {chance.value:.3f}",),
    )


def beyond_chance(correlation: float, chance: float) -> float:
    """Return what a correlation has above chance, over what there is to have; not below -1.

    Example:
        >>> beyond_chance(0.75, 0.5), beyond_chance(0.5, 0.5)
        (0.5, 0.0)
    """
    return max(-1.0, (correlation - chance) / (1.0 - chance)) if chance < 1.0 else 0.0


def correlations(pair: Pair) -> Float64[Array, "S T"]:
    """Return the correlation of matched groups for every pair of layers; NaN where there is none."""
    sides = [[_of_layer(trunk, at) for at in range(len(trunk.layers))] for trunk in (pair.suspect, pair.base)]
    table_ST = np.full((len(sides[0]), len(sides[1])), np.nan)
    for row, mine in enumerate(sides[0]):
        for column, theirs in enumerate(sides[1]):
            if mine is not None and theirs is not None and min(mine.count, theirs.count) > 1:
                table_ST[row, column] = matched_correlation(mine, theirs)
    return table_ST


def _of_layer(trunk: Trunk, at: int) -> Heads | None:
    attention = trunk.layer(trunk.layers[at]).attention
    return None if attention is None else head_spectra(attention)


def head_spectra(attention: Attention) -> Heads:
    """Return the spectra of all groups but those without a shape."""
    spectra = {form: _spectra(attention, form) for form in PRODUCTS}
    ranks = {form: np.array([effective_rank(row_S) for row_S in rows_GS]) for form, rows_GS in spectra.items()}
    usable_G = np.all([ranks_G >= _LEAST_RANK for ranks_G in ranks.values()], axis=0)
    return Heads(
        {form: rows_GS[usable_G] for form, rows_GS in spectra.items()},
        {form: ranks_G[usable_G] for form, ranks_G in ranks.items()},
    )


def _spectra(attention: Attention, form: Literal["qk", "vo"]) -> Float64[Array, "G S"]:
    left, right = attention.group_factors(form)
    return np.stack([product_singular_values(a, b) for a, b in zip(left, right, strict=True)])


def matched_correlation(mine: Heads, theirs: Heads) -> float:
    """Return the correlation of the matched groups' values; NaN where the groups of a layer do not differ."""
    sides: list[list[Array]] = [[], []]
    for form in PRODUCTS:
        available = min(mine.spectra[form].shape[1], theirs.spectra[form].shape[1])
        kept = kept_rank(float(mine.ranks[form].min()), float(theirs.ranks[form].min()), available)
        for side, heads in zip(sides, (mine, theirs), strict=True):
            logs_GS = np.log(heads.spectra[form][:, :kept])
            side.append(logs_GS - logs_GS.mean(axis=0))
    left_GS, right_HS = (np.concatenate(side, axis=1) for side in sides)
    apart_GH = np.sqrt(((left_GS[:, None] - right_HS[None]) ** 2).mean(axis=2))
    here, there = assignment(-apart_GH)
    left, right = left_GS[here].ravel(), right_HS[there].ravel()
    left, right = left - left.mean(), right - right.mean()
    norms = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    return float(left @ right) / norms[0] / norms[1] if min(norms) > _ROUNDING else np.nan
