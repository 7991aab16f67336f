"""Order of the MLP's units, layer by layer: the test phi_U of Independence Tests for Language Models.

Axes: U = units of an MLP, N = coordinates of the residual stream.

In each layer the rows of the two up matrices are matched one to one so that the sum of their plain cosines is highest.
Spearman's correlation of the matching with the identity is 1 where every unit is matched with the unit of its own
place. Its two-sided p-value is Student's t with U - 2 degrees of freedom; Fisher's sum joins the layers. As in the
paper's code a layer's p-value is never below 2.2e-308; the joint one is given as a logarithm and has no floor of its
own (the paper's tables print eps for whatever is below that number).

What the p-value assumes: that the units of one initialisation are exchangeable given the other (true of independent
ones under any permutation-equivariant training), the normal theory behind t (an approximation: at r = 1 it says 0
whatever U is), and that layers are independent evidence (all their rows share one residual basis).

For one architecture only: the same layers with the same numbers of units. Ignores attention. Notices everything that
touches the up rows: reordered units (a shuffled copy is a stranger to it), turned signs of units, and any change of the
residual basis. Norm gains are not folded, as published.

Where a layer has more than 4096 units, a seeded sample of at most 8 layers is matched. The control matches a few of the
suspect's layers with the base's next one.

Source: Zhu et al., Independence Tests for Language Models (ICML 2025, arXiv 2502.12292), constrained setting, phi_U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
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

NAME = "phi-u"
VERSION = 1  # raise whenever any output can change
SEED, CONTROL_LAYERS = 0, 2
ID = method_id(NAME, VERSION, all_layers_to=CHEAP_UNITS, layers_beyond=SAMPLED_LAYERS, seed=SEED)
SOURCE = "Zhu et al., Independence Tests for Language Models (arXiv 2502.12292), constrained setting, phi_U"

ROLE = "mlp.up"

MINIMUM_UNITS = 3
"""Student's t needs a degree of freedom."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of the suspect matched with one of the base."""

    layer: int
    units: int
    correlation: float
    in_place: float

    @property
    def p(self) -> float:
        return correlation_p(self.correlation, self.units)


def compare(suspect: ModelView, base: ModelView) -> MethodResult:
    """Correlate the matching of two models' up rows with the identity.

    Args:
        suspect: One model.
        base: The other; its units are the identity that the suspect's are held against.

    Returns:
        Mean correlation over layers and the joint p-value's logarithm; one line for each layer in the table.
        ``not_applicable`` where the two are not of one architecture.
    """
    reason = _obstacle(suspect, base)
    if reason is not None:
        return _not_applicable(reason)
    layers = suspect.layers(ROLE)
    chosen = affordable(layers, max(suspect.shape(ROLE, layer)[0] for layer in layers), seed=SEED)
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
        notes=(*_notes(len(layers), len(chosen)), *problems),
    )


def _not_applicable(reason: str) -> MethodResult:
    return MethodResult(method=NAME, id=ID, source=SOURCE, status="not_applicable", reason=reason)


def _obstacle(suspect: ModelView, base: ModelView) -> str | None:
    """Return why the two are not of one architecture, or None."""
    for who, view in (("suspect", suspect), ("base", base)):
        if not view.layers(ROLE):
            return f"the {who} has no {ROLE}: the test is defined on dense MLPs"
    left, right = suspect.layers(ROLE), base.layers(ROLE)
    if left != right:
        return f"{len(left)} layers with an MLP against {len(right)}: the test needs one architecture"
    for layer in left:
        shapes = [view.shape(ROLE, layer) for view in (suspect, base)]
        if shapes[0] != shapes[1]:
            return f"{ROLE} of layer {layer} is {list(shapes[0])} against {list(shapes[1])}: the test needs one shape"
        if shapes[0][0] < MINIMUM_UNITS:
            return f"layer {layer} has {shapes[0][0]} units, at least {MINIMUM_UNITS} are needed"
    return None


def _matched(suspect: ModelView, base: ModelView, layer: int, base_layer: int) -> _Layer:
    match_U = match_rows(suspect.array(ROLE, layer), base.array(ROLE, base_layer))
    identity_U = np.arange(match_U.size)
    in_place = np.count_nonzero(match_U == identity_U) / match_U.size
    return _Layer(layer, match_U.size, spearman(match_U, identity_U), in_place)


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
            note=f"Fisher over {len(found)} layers, each p at least {FLOOR:g}",
        ),
    )


def _controls(suspect: ModelView, base: ModelView, layers: Sequence[int]) -> tuple[Value, ...]:
    """Return what layers that do not correspond score: the first and the middle one with their next, where it fits."""
    pairs = [
        (layer, following)
        for layer, following in pairwise(layers)
        if suspect.shape(ROLE, layer) == base.shape(ROLE, following)
    ]
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
        title="Matching of the up rows with the identity, by layer",
        columns=("layer", "units", "spearman", "p", "matched in place"),
        rows=tuple((one.layer, one.units, one.correlation, one.p, one.in_place) for one in found),
    )


def _notes(layers: int, chosen: int) -> list[str]:
    notes = ["p: two-sided normal-theory t for each layer, and layers taken as independent: an approximation"]
    if chosen < layers:
        notes.append(f"{chosen} of {layers} layers, drawn with seed {SEED}: they are wider than {CHEAP_UNITS} units")
    return notes


METHOD = PairwiseMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    compare=compare,
    ignores=frozenset({"kv-group-permutation", "query-head-permutation", "vo-gauge", "qk-gauge"}),
    notices=frozenset(
        {
            "residual-permutation", "residual-signs", "residual-rotation", "norm-gain-replacement", "ffn-permutation",
            "ffn-rescaling",
        }
    ),
)  # fmt: skip
