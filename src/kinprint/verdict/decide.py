"""From evidence to a verdict: one rule, applied in one place.

* ``identical``: every tensor has its counterpart, byte for byte or after rounding to the coarser dtype.
* ``derived``: an exact test at its share of alpha, or a matched size beyond its margin.
* ``independent``: none of it, every size below half its margin, and copies planted in the suspect were seen.
* ``inconclusive``: none of it, and a size in between, or planted copies were missed, or nothing that could be judged.
* ``not_comparable``: nothing could be tested.

Names play no part: not of files or folders, nor of tensors beyond what the family table reads, nor what a config says
of a base.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from kinprint.architecture import ModelView
from kinprint.evidence import identity, matched, matched_tensors
from kinprint.evidence.pair import Pair
from kinprint.evidence.population import innocents
from kinprint.evidence.power import NOT_EXCLUDED, power
from kinprint.evidence.records import ALPHA
from kinprint.types import (
    ComponentVerdict,
    Conclusion,
    Evidence,
    LayerMapInfo,
    LayerMatch,
    Power,
    ThirdModel,
    Verdict,
)
from kinprint.verdict import words
from kinprint.verdict.components import towers
from kinprint.verdict.plan import PLANNED, Findings, Mode, gather, share

GREY = 0.5
"""Share of a margin from which on a size is too large to be called independent."""

Tell = Callable[[str], None]


def decide(
    suspect: ModelView,
    base: ModelView,
    *,
    controls: Sequence[ModelView] = (),
    mode: Mode = "default",
    alpha: float = ALPHA,
    tell: Tell | None = None,
) -> Verdict:
    """Return the verdict on one pair.

    Args:
        suspect: The model whose origin is in question.
        base: The model it may have been derived from.
        controls: Third models: each side is matched with each of them in the same way.
        mode: ``quick`` stops at the first decision, ``default`` goes on while undecided, ``thorough`` runs everything.
        alpha: Family-wise error rate of the exact tests, above 0 and below 1.
        tell: Called before each step, with what comes next.
    """
    told: Tell = tell or (lambda _: None)
    told("identical values")
    guessed = suspect.inferred or base.inferred
    same = identity.compare_values(suspect, base)
    first = identity.evidence(same)
    pair = Pair.of(suspect, base)
    if same.identical is not None:
        return _identical(same.identical, first, alpha)
    if pair.obstacle is not None:
        return _without_roles(suspect, base, pair.obstacle, first, alpha)
    tensors = (matched_tensors.test(suspect, base),) if guessed else ()
    found = gather(pair, mode=mode, alpha=alpha, first=(first, *tensors), tell=told)
    seen: Power | None = None
    if not found.decided and _can_be_judged(found):
        told("planting copies in the suspect")
        seen = power(pair)
    layer_map = _layer_map(pair, found)
    conclusion = _conclusion(found, layer_map, seen)
    if guessed and conclusion == "independent":
        # Roles that order alone tells apart may be wrong, and a copy that is misread looks like a stranger.
        conclusion = "inconclusive"
    told("third models")
    verdict = words.verdict(
        conclusion,
        evidence=tuple(found.evidence),
        alpha=alpha,
        planned=PLANNED,
        log10_p=_log10_p(found.evidence),
        layer_map=layer_map,
        power=seen,
        components=(*_components(conclusion, found, layer_map, pair), *towers(suspect, base)),
        third_models=_third_models(suspect, base, controls),
        grey=GREY,
    )
    requantised = conclusion == "derived" and same.requantised
    return verdict.model_copy(update={"relation": "requantised"}) if requantised else verdict


def _conclusion(found: Findings, layer_map: LayerMapInfo | None, seen: Power | None) -> Conclusion:
    if found.decided or (layer_map is not None and any(layer.derived for layer in layer_map.layers)):
        return "derived"
    if not any(one.status == "measured" for one in found.evidence):
        return "not_comparable"
    if not _can_be_judged(found) or seen is None or not seen.sufficient:
        return "inconclusive"
    grey = any(
        one.size is not None and one.margin is not None and one.size > GREY * one.margin
        for one in found.evidence
        if one.carries
    )
    return "inconclusive" if grey else "independent"


def _can_be_judged(found: Findings) -> bool:
    """Return whether a matched test ran: exact tests alone cannot clear a model whose numbering may be scrambled."""
    return any(one.rung == 2 and one.carries and one.status == "measured" for one in found.evidence)


def _log10_p(evidence: Sequence[Evidence]) -> float | None:
    """Return the smallest p-value, each over its share of alpha, so that it may be held against alpha itself."""
    adjusted = [
        min(0.0, one.log10_p - math.log10(share(1 if "stored" in one.id else 2)))
        for one in evidence
        if one.carries and one.log10_p is not None
    ]
    return min(adjusted, default=None)


def _layer_map(pair: Pair, found: Findings) -> LayerMapInfo | None:
    if pair.best is None or not found.sizes.heads:
        return None
    margins = {name: innocents().margin(f"layer {name}") for name in ("heads", "units")}
    sizes = {
        facing.suspect: both
        for facing, both in zip(pair.facing, zip(found.sizes.heads, found.sizes.units, strict=True), strict=True)
    }
    layers: list[LayerMatch] = []
    for at, number in enumerate(pair.suspect.layers):
        partner = pair.map.partners[at]
        heads, units = sizes.get(at, (None, None))
        layers.append(
            LayerMatch(
                suspect=number,
                base=None if partner is None else pair.base.layers[partner],
                similarity=pair.map.similarities[at],
                heads=heads,
                units=units,
                derived=any(
                    size is not None and size > margins[name] for name, size in (("heads", heads), ("units", units))
                ),
            )
        )
    return LayerMapInfo(kind=pair.map.kind, basis=pair.best.kind, layers=tuple(layers))


def _components(
    conclusion: Conclusion, found: Findings, layer_map: LayerMapInfo | None, pair: Pair
) -> tuple[ComponentVerdict, ...]:
    parts = [ComponentVerdict(component="trunk", conclusion=conclusion, reason=words.trunk_reason(layer_map))]
    sized = next((one for one in found.evidence if one.id.startswith("embedding/")), None)
    exact = next((one for one in found.evidence if "rows=embeddings" in one.id), None)
    if sized is not None or exact is not None:
        parts.append(words.embedding_component(sized, exact, trunk=conclusion))
    # Where an exact test decided first, nothing was matched.
    units = next((one for one in found.evidence if "matched-units" in one.id), None)
    if units is not None and any(pair.layers(facing)[0].experts for facing in pair.spread(2)):
        parts.append(words.experts_component(units))
    return tuple(parts)


def _third_models(suspect: ModelView, base: ModelView, controls: Sequence[ModelView]) -> tuple[ThirdModel, ...]:
    found: list[ThirdModel] = []
    for third in controls:
        for side, model in (("suspect", suspect), ("base", base)):
            pair = Pair.of(model, third)
            sizes = {} if pair.obstacle is not None else matched.measure(pair).all()
            found.append(
                ThirdModel(
                    side="suspect" if side == "suspect" else "base",
                    control=third.checkpoint.name,
                    sizes={name: sizes.get(name) for name in ("heads", "units")},
                )
            )
    return tuple(found)


_RELATIONS: Mapping[identity.Same, Literal["same", "rounded", "requantised"]] = {
    "bytes": "same", "rounded": "rounded", "quantised": "requantised",
}  # fmt: skip


def _identical(how: identity.Same, first: Evidence, alpha: float) -> Verdict:
    return Verdict(
        conclusion="identical",
        relation=_RELATIONS[how],
        headline=words.identical(how),
        decided_by=first.name,
        alpha=alpha,
        planned=PLANNED,
        reasons=first.notes,
        evidence=(first,),
        components=(ComponentVerdict(component="trunk", conclusion="identical", reason=words.identical(how)),),
    )


def _without_roles(suspect: ModelView, base: ModelView, obstacle: str, first: Evidence, alpha: float) -> Verdict:
    """Judge models that cannot be read by role by their stored values: enough to accuse, never to clear."""
    tensors = matched_tensors.test(suspect, base)
    if tensors.status != "measured":
        return _not_comparable(obstacle, first, alpha)
    conclusion: Conclusion = "derived" if tensors.beyond else "inconclusive"
    return words.verdict(
        conclusion,
        evidence=(first, tensors),
        alpha=alpha,
        planned=PLANNED,
        log10_p=None,
        layer_map=None,
        power=None,
        components=(
            ComponentVerdict(component="trunk", conclusion=conclusion, reason=obstacle),
            *towers(suspect, base),
        ),
        third_models=(),
        grey=GREY,
    )


def untested(reason: str, alpha: float) -> Verdict:
    """Return the verdict on models that no test could run on."""
    return _not_comparable(reason, None, alpha)


def _not_comparable(reason: str, first: Evidence | None, alpha: float) -> Verdict:
    return Verdict(
        conclusion="not_comparable",
        headline=f"The models cannot be compared: {reason}.",
        alpha=alpha,
        planned=PLANNED,
        reasons=(reason, *(() if first is None else first.notes)),
        evidence=() if first is None else (first,),
        power=Power(plantings=(), sufficient=False, not_excluded=NOT_EXCLUDED),
    )
