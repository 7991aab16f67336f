"""Whether the gate and the up rows of an MLP match in the same order: phi_MATCH, here on weights.

Axes: U = units of the narrower MLP, N = coordinates of the residual stream.

In each layer the gate rows of the two models are matched one to one so that the sum of their plain cosines is highest,
and the up rows by themselves. A unit owns one row of each, so two copies give the same matching twice, however their
units were reordered, and Spearman's correlation of the two matchings is 1; strangers give two unrelated ones, and 0.
Its p-value is Student's t with U - 2 degrees of freedom, never below 2.2e-308; Fisher's sum joins the layers.

Not the published test in one respect: that one matches *activations* of gate and up on text, which do not depend on the
residual basis. Here there are only weights, and their rows are compared in the stored residual basis with unfolded
gains. A rotated, reordered or rescaled residual stream therefore makes a copy a stranger: rotated copies of small
models have p-values from .04 to .93.
Cosines are plain, as published, so turning the sign of some units' up rows (and down columns) defeats it as well.

Layers are matched by index over the shallower model. For different numbers of units the paper pads the narrower side
with zero rows, which gives the same matches for the real rows; the padding itself, tied at cosine 0, is matched in
the order of what is left over, the same for gate and up: counted in, it alone holds strangers at .46 (24 units
against 48) or .18 (512 against 640). It is left out. Reordering the units of the suspect changes nothing; reordering
those of the base leaves copies at 1 and draws a stranger's number anew.

No verdict by the p-value: it assumes the normal theory behind t and independent layers, and trained strangers can
share features of the data they saw, which align gate and up rows without any common origin.

Source: Zhu et al., Independence Tests for Language Models (ICML 2025, arXiv 2502.12292), unconstrained setting,
phi_MATCH; the form on weights is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import PairwiseMethod
from kinprint.linalg.matching import (
    CHEAP_UNITS,
    FLOOR,
    SAMPLED_LAYERS,
    affordable,
    correlation_p,
    fisher_log10,
    match_rows,
    spearman,
)
from kinprint.types import MethodResult, Table, Value

NAME = "phi-match"
VERSION = 1  # raise whenever any output can change
SEED, CONTROL_LAYERS = 0, 2
ID = method_id(
    NAME, VERSION, all_layers_to=CHEAP_UNITS, layers_beyond=SAMPLED_LAYERS, padding=False, seed=SEED, space="weights"
)
SOURCE = "Zhu et al., Independence Tests for Language Models (arXiv 2502.12292), phi_MATCH, here on weights"

GATE, UP = "mlp.gate", "mlp.up"

MINIMUM_UNITS = 3
"""Student's t needs a degree of freedom."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of the suspect matched with one of the base; ``units`` are those of the narrower."""

    layer: int
    units: int
    correlation: float
    agreeing: float

    @property
    def p(self) -> float:
        return correlation_p(self.correlation, self.units)


def compare(suspect: ModelView, base: ModelView) -> MethodResult:
    """Correlate the matching of two models' gate rows with the matching of their up rows.

    Args:
        suspect: One model.
        base: The other.

    Returns:
        Mean correlation over layers and the joint p-value's logarithm; one line for each layer in the table.
        ``not_applicable`` where an MLP has no gate, or the residual streams are not equally wide.
    """
    layers = [layer for layer in _gated(suspect) if layer in _gated(base)]
    reason = _obstacle(suspect, base, layers)
    if reason is not None:
        return _not_applicable(reason)
    widest = max(view.shape(UP, layer)[0] for view in (suspect, base) for layer in layers)
    chosen = affordable(layers, widest, seed=SEED)
    found: list[_Layer] = []
    problems: list[str] = []
    for layer in chosen:
        try:
            found.append(_matched(suspect, base, layer, layer))
        except NonFiniteError as error:
            problems.append(f"layer {layer} left out: {error}")
    if not found:
        return _not_applicable(problems[0])
    return MethodResult(
        method=NAME,
        id=ID,
        source=SOURCE,
        status="measured",
        values=_values(found),
        controls=_controls(suspect, base, [one.layer for one in found]),
        tables=(_table(found),),
        notes=(*_notes(suspect, base, layers, len(chosen)), *problems),
    )


def _not_applicable(reason: str) -> MethodResult:
    return MethodResult(method=NAME, id=ID, source=SOURCE, status="not_applicable", reason=reason)


def _gated(view: ModelView) -> list[int]:
    return [layer for layer in view.layers(UP) if view.has(GATE, layer)]


def _obstacle(suspect: ModelView, base: ModelView, layers: Sequence[int]) -> str | None:
    """Return why no rows can be compared, or None."""
    for who, view in (("suspect", suspect), ("base", base)):
        if not _gated(view):
            return f"the {who} has no dense MLP with a gate"
    if not layers:
        return "no layer has a dense MLP with a gate in both"
    for layer in layers:
        units, widths = zip(*(view.shape(UP, layer) for view in (suspect, base)), strict=True)
        if widths[0] != widths[1]:
            return f"the residual widths differ: {widths[0]} against {widths[1]}, so rows have no common coordinates"
        if min(units) < MINIMUM_UNITS:
            return f"layer {layer} has {min(units)} units, at least {MINIMUM_UNITS} are needed"
    return None


def _matched(suspect: ModelView, base: ModelView, layer: int, base_layer: int) -> _Layer:
    gate_U, up_U = (_match(suspect.array(role, layer), base.array(role, base_layer)) for role in (GATE, UP))
    agreeing = np.count_nonzero(gate_U == up_U) / gate_U.size
    return _Layer(layer, gate_U.size, spearman(gate_U, up_U), agreeing)


def _match(suspect_SN: Array, base_BN: Array) -> Array:
    """Return a unit of the wider side for each of the narrower; the suspect is the narrower where both are alike."""
    if suspect_SN.shape[0] > base_BN.shape[0]:
        return match_rows(base_BN, suspect_SN)
    return match_rows(suspect_SN, base_BN)


# -- records -------------------------------------------------------------------------------------------------------


def _values(found: Sequence[_Layer]) -> tuple[Value, ...]:
    return (
        Value(
            name="similarity",
            value=float(np.mean([one.correlation for one in found])),
            kind="similarity",
            identical=1.0,
            note=f"mean over {len(found)} layers; strangers: 0",
        ),
        Value(
            name="log10 p",
            value=fisher_log10(np.array([one.p for one in found])),
            kind="statistic",
            note=f"Fisher over {len(found)} layers, each p at least {FLOOR:g}; no verdict",
        ),
    )


def _controls(suspect: ModelView, base: ModelView, layers: Sequence[int]) -> tuple[Value, ...]:
    """Return what layers that do not correspond score: the first and the middle one with their next."""
    pairs = list(pairwise(layers))
    pairs = pairs[:: max(1, -(-len(pairs) // CONTROL_LAYERS))]
    if not pairs:
        return ()
    mean = float(np.mean([_matched(suspect, base, *pair).correlation for pair in pairs]))
    return (
        Value(
            name="similarity, mismatched layers",
            value=mean,
            kind="similarity",
            note=f"{len(pairs)} layers against the next one",
        ),
    )


def _table(found: Sequence[_Layer]) -> Table:
    return Table(
        title="Matching of the gate rows with that of the up rows, by layer",
        columns=("layer", "units", "spearman", "p", "matched alike"),
        rows=tuple((one.layer, one.units, one.correlation, one.p, one.agreeing) for one in found),
    )


def _notes(suspect: ModelView, base: ModelView, layers: Sequence[int], chosen: int) -> list[str]:
    notes = [
        "weights instead of activations, in the stored residual basis: a rotated copy scores as a stranger",
        "p: two-sided normal-theory t for each layer, and layers taken as independent: an approximation; trained "
        "strangers can reach small p-values by features of the data that both saw, so it is no verdict",
    ]
    depths = [len(_gated(view)) for view in (suspect, base)]
    if depths[0] != depths[1]:
        notes.append(f"{depths[0]} layers against {depths[1]}: compared by index over the {len(layers)} in both")
    if any(suspect.shape(UP, layer) != base.shape(UP, layer) for layer in layers):
        notes.append("different numbers of units: only those of the narrower side are counted")
    if chosen < len(layers):
        of = f"{chosen} of {len(layers)} layers, drawn with seed {SEED}"
        notes.append(f"{of}: they are wider than {CHEAP_UNITS} units")
    return notes


METHOD = PairwiseMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    compare=compare,
    ignores=frozenset(
        {"ffn-permutation", "kv-group-permutation", "query-head-permutation", "vo-gauge", "qk-gauge"}
    ),
    notices=frozenset(
        {"residual-permutation", "residual-signs", "residual-rotation", "norm-gain-replacement", "ffn-rescaling"}
    ),
)  # fmt: skip
