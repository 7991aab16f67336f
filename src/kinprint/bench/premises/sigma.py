"""Premise: the standard deviation of each layer's weights, over depth, is a family likeness.

Axes: L = layers.

The curves of the Intrinsic Fingerprint, z-scored over layers, of models whose relations are known: a parent and its
children, its twins, other families, a mixture upcycled from it and one that is nobody's child. Pearson correlations of
all pairs, for attention (mean over Q, K, V, O) and for the MLP (mean over what both have of gate, up and down; the
experts of a mixture pooled).

Source of the premise: HonestAGI, Intrinsic Fingerprint of LLMs, arXiv 2507.03014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kinprint.architecture import view
from kinprint.bench.premises.models import Models, Real, Told
from kinprint.bench.premises.records import Curves, Grid, HeatMap, Premise, Series, unmeasured
from kinprint.checkpoint import Array, MemoryCheckpoint
from kinprint.fingerprints import Fingerprint
from kinprint.linalg import zscore
from kinprint.methods import intrinsic
from kinprint.types import Cell, Table

NAME = "sigma"
TITLE = "Curves of standard deviations over depth run in families"
FFN = ("mlp.gate", "mlp.up", "mlp.down")
COLUMNS = ("model", "relation to the base", "layers", "attention", "MLP")


def measure(models: Models, real: Real | None, tell: Told) -> Premise:
    """Draw the curves and correlate every pair of models."""
    roster = models.roster
    relation = _relations(models)
    if models.absent([roster.base]):
        return unmeasured(NAME, TITLE, f"needs {roster.base}")
    missing = models.missing_note(relation)
    curves: dict[str, Fingerprint] = {}
    for name in models.present(relation):
        tell(f"standard deviations: {name}")
        curves[name] = intrinsic.deviations(models.view(name))
    if real is not None:
        tell(f"standard deviations: {real.name}")
        relation[real.name] = "stranger, real"
        curves[real.name] = intrinsic.deviations(
            view(MemoryCheckpoint(real.model.weights, config=real.model.config, name=real.name))
        )
    base = curves[roster.base]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            relation[name],
            int(found.arrays["layers"].size),
            correlation(found, base, intrinsic.ATTENTION),
            correlation(found, base, FFN),
        )
        for name, found in curves.items()
        if name != roster.base
    ]
    depth = int(base.arrays["layers"].size)
    return Premise(
        name=NAME,
        title=TITLE,
        status="measured",
        tables={"sigma": Table(title=f"Pearson correlation with {roster.base}", columns=COLUMNS, rows=tuple(rows))},
        curves=(_picture(curves, relation),),
        heat_maps=(_heat_map(curves),),
        notes=(
            f"the base has {depth} layers: the correlation of {depth} independent points has standard deviation "
            f"{1 / np.sqrt(depth - 1):.2f}, so that single values here say little",
            *missing,
        ),
    )


def correlation(left: Fingerprint, right: Fingerprint, roles: Sequence[str]) -> float | None:
    """Return the mean Pearson correlation over the roles that both models have; None where there is none."""
    paired = np.array_equal(left.arrays["layers"], right.arrays["layers"])
    both = [role for role in roles if role in left.arrays and role in right.arrays]
    found = [intrinsic.correlate(left.arrays[role], right.arrays[role], paired=paired)[0] for role in both]
    known = [number for number in found if number is not None]
    return float(np.mean(known)) if known else None


def _relations(models: Models) -> dict[str, str]:
    """Return what each model of the roster is to the base, in the order in which they are shown."""
    roster = models.roster
    return {
        roster.base: "itself",
        **dict.fromkeys(roster.children, "child"),
        **dict.fromkeys(roster.laundered, "child, laundered"),
        **dict.fromkeys(roster.upcycled, "mixture made from it"),
        **dict.fromkeys(roster.twins, "stranger, twin"),
        **dict.fromkeys(roster.mixture, "stranger, mixture"),
        **dict.fromkeys(roster.families, "stranger, other shape or family"),
    }


def _picture(curves: Mapping[str, Fingerprint], relation: Mapping[str, str]) -> Curves:
    series: list[Series] = []
    for role in (*intrinsic.ATTENTION, *FFN):
        for name, found in curves.items():
            values_L = found.arrays.get(role)
            if values_L is None or np.isfinite(values_L).sum() < intrinsic.MINIMUM_LAYERS:
                continue
            kept_L = values_L[np.isfinite(values_L)]
            scaled_L: Array = zscore(kept_L)
            if not np.isfinite(scaled_L).all():
                continue
            depth_L = np.linspace(0, 1, kept_L.size)
            series.append(
                Series(
                    panel=role,
                    label=name,
                    x=tuple(float(x) for x in depth_L),
                    y=tuple(float(y) for y in scaled_L),
                    style="dashed" if relation[name].startswith("stranger") else "line",
                )
            )
    return Curves(
        name="premises-sigma",
        title="Standard deviation of weights over depth, z-scored (dashed: strangers of the base)",
        x_label="depth",
        y_label="z-score",
        series=tuple(series),
    )


def _heat_map(curves: Mapping[str, Fingerprint]) -> HeatMap:
    names = tuple(curves)
    grids = [
        Grid(
            title=title,
            rows=names,
            columns=names,
            values=tuple(tuple(correlation(curves[a], curves[b], roles) for b in names) for a in names),
        )
        for title, roles in (("attention: mean over Q, K, V, O", intrinsic.ATTENTION), ("MLP: gate, up, down", FFN))
    ]
    return HeatMap(
        name="premises-sigma-pearson",
        title="Pearson correlation of the curves",
        grids=tuple(grids),
        low=-1.0,
        high=1.0,
    )
