"""Do experts of the same number resemble each other? Exact.

H0: the models were initialised independently. Label group: the experts of a layer with their router rows. Each is
represented by its router row and by its up-down form (W_down W_up), which no order of its units and no exchange of
scale changes, both with gains folded and in a common basis. The statistic is the sum over facing layers and experts of
both cosines; each layer has a permutation of its own, all in one statistic.

Defeated by renumbering the experts. Not valid where experts are routed in groups or by a fixed hash, or were made as
copies of one MLP; family tables say so.
"""

from __future__ import annotations

import numpy as np

from kinprint.alignment.basis import Basis, in_common
from kinprint.alignment.trunk import Units
from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.numbering import by_numbering
from kinprint.evidence.pair import Facing, Pair
from kinprint.evidence.records import NOISE, SEED, Statement
from kinprint.linalg.permutation import permutation_test
from kinprint.linalg.threads import threads_for
from kinprint.types import Evidence

DRAWS = 999
DIRECTIONS = 128
"""Directions, drawn once, in which up-down forms are compared: all of them would be 4096^2 numbers an expert."""


def statement(basis: str) -> Statement:
    """Return what this test says about itself in one kind of basis."""
    return Statement(
        name=f"experts in stored order, {basis} basis",
        id=method_id("exact-experts", 1, basis=basis, directions=DIRECTIONS, draws=DRAWS, seed=SEED),
        rung=1,
        null="independent initialisation: the numbering of experts is exchangeable (with their router rows)",
        defeats="experts in another order" + ("; a rotated residual stream" if basis == "stored" else ""),
    )


def test(pair: Pair, basis: Basis, kind: str, log10_alpha: float) -> Evidence:
    """Test one pair in one basis."""
    said = statement(kind)
    if not all(any(pair.layers(facing)[side].experts for facing in pair.facing) for side in (0, 1)):
        return said.not_applicable("one of the models has no routed experts")
    for trunk in (pair.suspect, pair.base):
        if (reason := trunk.view.family.exchangeable("expert")) is not None:
            return said.not_applicable(reason)
    scores = [(facing, table) for facing in pair.facing if (table := expert_scores(pair, facing, basis)) is not None]
    if not scores:
        return said.not_applicable("no facing layers have the same number of experts, two at least")
    groups = by_numbering(pair, scores)
    size = sum(float(np.trace(table)) for _, table in scores) / 2 / sum(len(table) for _, table in scores)
    notes = (f"{sum(len(group) for group in groups)} experts in {len(groups)} layers",)
    return said.exact(
        permutation_test(groups, draws=DRAWS, seed=SEED, noise=NOISE), size=size, log10_alpha=log10_alpha, notes=notes
    )


def expert_scores(pair: Pair, facing: Facing, basis: Basis) -> Array | None:
    """Return the cosines of every expert with every expert of two facing layers, or None where counts differ."""
    mine, theirs = (layer.experts for layer in pair.layers(facing))
    if len(mine) != len(theirs) or len(mine) < 2:
        return None
    axes_KS = _directions(basis.directions)
    forms = [_flat(units, side, axes_KS) for units, side in ((mine, basis.suspect_AK), (theirs, basis.base_BK))]
    scores = forms[0] @ forms[1].T
    routers = [
        _router(trunk.view, trunk.layers[at])
        for trunk, at in ((pair.suspect, facing.suspect), (pair.base, facing.base))
    ]
    if routers[0] is not None and routers[1] is not None and len(routers[0]) == len(routers[1]) == len(mine):
        scores = scores + in_common(routers[0], basis.suspect_AK) @ in_common(routers[1], basis.base_BK).T
    return scores


def _router(view: ModelView, number: int) -> Array | None:
    if not view.has("moe.router", number):
        return None
    try:
        return view.array("moe.router", number, fold=True)
    except NonFiniteError:
        return None


def _flat(experts: tuple[Units, ...], side_DK: Array, axes_KS: Array) -> Array:
    """Return every expert's up-down form in the drawn directions, at unit length and flat."""
    turn_DS = (side_DK @ axes_KS).astype(np.float32)
    with threads_for(turn_DS.shape[1]):
        forms = [(units.down_FD @ turn_DS).T @ (units.up_FD @ turn_DS) for units in experts]
    flat = np.stack([form.ravel() for form in forms])
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(norms > 0, norms, 1.0)


def _directions(count: int) -> Array:
    if count <= DIRECTIONS:
        return np.eye(count)
    return np.linalg.qr(np.random.default_rng(0).standard_normal((count, DIRECTIONS)))[0]
