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
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kinprint.architecture import ModelView
from kinprint.evidence import identity, matched, matched_tensors
from kinprint.evidence.exact_sample import Look
from kinprint.evidence.pair import Pair, mean_table
from kinprint.evidence.population import innocents
from kinprint.evidence.power import NOT_EXCLUDED, power
from kinprint.evidence.records import ALPHA
from kinprint.evidence.sampling import Sampling, few_experts
from kinprint.linalg.device import CPU, Device
from kinprint.types import (
    ComponentVerdict,
    Conclusion,
    Evidence,
    LayerMapInfo,
    LayerMatch,
    Power,
    Reading,
    ThirdModel,
    Verdict,
)
from kinprint.verdict import words
from kinprint.verdict.components import towers
from kinprint.verdict.meter import Meter
from kinprint.verdict.plan import PLANNED, Findings, Mode, Tell, first_look, gather, most_steps, share, stage_of
from kinprint.verdict.reading import (
    Limits,
    a_layer,
    layer_bytes,
    look_bytes,
    read_ahead,
    reading_of,
    sentences,
    size,
    total_bytes,
    unseen,
)

GREY = 0.5
"""Share of a margin from which on a size is too large to be called independent."""

WHOLE_BYTES = 1 << 30
"""Bytes of layers that are kept of each model where all of it is read: every test goes through all layers."""

MOST_CELLS = 1 << 16
"""Cells of the table of layers that a verdict keeps: 256 layers against as many."""

DIGITS = 4
"""Digits of its cosines: a form is right to a hundredth, and a hundred layers against a hundred are 10,000 numbers."""


def decide(
    suspect: ModelView,
    base: ModelView,
    *,
    controls: Sequence[ModelView] = (),
    mode: Mode = "default",
    alpha: float = ALPHA,
    limits: Limits | None = None,
    device: Device = CPU,
    meter: Meter | None = None,
    announce: Tell | None = None,
) -> Verdict:
    """Return the verdict on one pair.

    Args:
        suspect: The model whose origin is in question.
        base: The model it may have been derived from.
        controls: Third models: each side is matched with each of them in the same way.
        mode: ``quick`` stops at the first decision, ``default`` goes on while undecided, ``thorough`` runs everything.
        alpha: Family-wise error rate of the exact tests, above 0 and below 1.
        limits: What may be read; ``thorough`` reads everything.
        device: Where rows are matched.
        meter: Counts the steps for whoever looks on.
        announce: Called with a sentence that says how much will be read, before it is.
    """
    silent: Tell = lambda _: None  # noqa: E731
    limits = limits or Limits()
    case = _Case(Sampling(suspect, base), controls, mode, alpha, limits, device, meter or Meter(), announce or silent)
    readable = not (suspect.inferred or base.inferred) and all(case.sampling.layers)
    most = max(total_bytes(model.checkpoint) for model in (suspect, base))
    if not readable and limits.budget is not None and most > limits.budget:
        reason = f"without roles all of a model must be read, {size(most)}, which is beyond the budget"
        return _not_comparable(reason, None, alpha)
    # Values or a first look, what is gathered, and third models.
    with case.meter.at_most(2 + _steps(case) + 2 * len(controls)):
        if mode == "thorough" or not readable or limits.whole(suspect, base):
            return _with_reading(_whole(case), reading_of(case.sampling, case.sampling.layers, sampled=False))
        return _sampled(case)


@dataclass(frozen=True, slots=True)
class _Case:
    """One pair and how it is to be judged."""

    sampling: Sampling
    controls: Sequence[ModelView]
    mode: Mode
    alpha: float
    limits: Limits
    device: Device
    meter: Meter
    announce: Tell

    def reading(self, what: str, planned_bytes: int) -> AbstractContextManager[None]:
        """Tell how much of both models is read while a block runs."""
        sides = (self.sampling.suspect, self.sampling.base)
        return self.meter.reading(what, planned_bytes, [side.checkpoint for side in sides])


def _steps(case: _Case) -> int:
    """Return how many steps it takes at most to judge what was read: those of the plan, and to plant copies."""
    return most_steps(case.mode) + 1


def _whole(case: _Case, look: Look | None = None) -> Verdict:
    """Return the verdict on two models that are read whole, with the first look at them where it was taken."""
    suspect, base = case.sampling.suspect, case.sampling.base
    case.announce(
        f"reads all of both models: {size(total_bytes(suspect.checkpoint))} and {size(total_bytes(base.checkpoint))}"
    )
    case.meter.step("identical values")
    guessed = suspect.inferred or base.inferred
    with case.reading("all values", total_bytes(suspect.checkpoint) + total_bytes(base.checkpoint)):
        same = identity.compare_values(suspect, base)
    first = identity.evidence(same)
    pair = Pair.of(suspect, base, case.device, held_bytes=WHOLE_BYTES)
    if same.identical is not None:
        return _identical(same.identical, first, case.alpha)
    if pair.obstacle is not None:
        return _without_roles(suspect, base, pair.obstacle, first, case.alpha)
    tensors = (matched_tensors.test(suspect, base),) if guessed else ()
    if look is None:
        case.meter.step("a sample of units in stored order")
        look = first_look(case.sampling, case.alpha)
    judged = _judge(case, pair, (first, *tensors, look.evidence), step=0)
    if guessed and judged.conclusion == "independent":
        # Roles that order alone tells apart may be wrong, and a copy that is misread looks like a stranger.
        judged = replace(judged, conclusion="inconclusive")
    verdict = judged.verdict(case, towers(suspect, base), _third_models(suspect, base, case.controls, case.meter))
    requantised = judged.conclusion == "derived" and same.requantised
    return verdict.model_copy(update={"relation": "requantised"}) if requantised else verdict


def _sampled(case: _Case) -> Verdict:
    """Return the verdict on two large models: a first look, then whole layers, more of them while undecided."""
    sampling, limits = case.sampling, case.limits
    views = sampling.suspect, sampling.base
    if limits.budget is not None and max(look_bytes(view) for view in views) > limits.budget:
        needed = size(max(look_bytes(view) for view in views))
        return _not_comparable(f"the first look alone needs {needed} of a model, beyond the budget", None, case.alpha)
    case.announce(_planned(case))
    case.meter.step("a first look")
    with case.reading("a first look", sum(look_bytes(view) for view in views)):
        look = first_look(sampling, case.alpha)
    if (
        look.same
        and limits.budget is None
        and limits.layers is None
        and not any(view.checkpoint.remote for view in views)
    ):
        return _with_reading(_whole(case, look), reading_of(sampling, sampling.layers, sampled=False))
    if look.evidence.carries and look.evidence.beyond:
        return _by_sample(case, look)
    judged: _Judged | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    for step, count in enumerate(limits.steps(min(len(layers) for layers in sampling.layers))):
        wanted = sampling.live(count)
        restricted = sampling.restricted(wanted)
        while wanted and not _affordable(restricted, limits):
            wanted = wanted[: len(wanted) - 1]
            restricted = sampling.restricted(wanted)
            notes = (f"The budget of {size(limits.budget or 0)} left no room for more layers.",)
        if len(wanted) <= len(pairs):
            break
        pairs = wanted
        more = case.reading(f"{len(pairs)} layers", sum(layer_bytes(view) for view in restricted))
        with more, read_ahead(*restricted):
            judged = _judge(case, Pair.of(*restricted, case.device), (look.evidence,), step=step)
        if judged.conclusion in ("derived", "independent") or notes:
            break
    if judged is None:
        reason = "no layer of both holds anything" if not notes else notes[0]
        return _not_comparable(reason, look.evidence, case.alpha)
    here, there = ({pair[side] for pair in (*pairs, *look.layers)} for side in (0, 1))
    there = there if sampling.same_places else sampling.layers[1]
    reading = reading_of(sampling, (here, there), sampled=True, notes=notes)
    controls = [
        few_experts(third, [here for here, _ in Sampling(third, third).live(len(pairs))]) for third in case.controls
    ]
    thirds = _third_models(*sampling.restricted(pairs), controls, case.meter)
    return _with_reading(judged.verdict(case, _unread_towers(*views), thirds), reading)


def _planned(case: _Case) -> str:
    """Return the sentence that says how much will be read."""
    sampling, limits = case.sampling, case.limits
    view = sampling.suspect
    steps = limits.steps(min(len(layers) for layers in sampling.layers))
    each = a_layer(view, sampling.layers[0][-1])
    totals = " and ".join(size(total_bytes(side.checkpoint)) for side in (view, sampling.base))
    return (
        f"reads first {size(look_bytes(view))} of each model ({totals}); while undecided then"
        f" {', '.join(map(str, steps))} layers, {size(each)} each at most"
        + (f", within {size(limits.budget)}" if limits.budget is not None else "")
    )


def _affordable(views: tuple[ModelView, ModelView], limits: Limits) -> bool:
    return limits.budget is None or all(layer_bytes(view) + look_bytes(view) <= limits.budget for view in views)


def _by_sample(case: _Case, look: Look) -> Verdict:
    """Return the verdict that the first look gave."""
    sampling = case.sampling
    notes = ("All that was read is equal in both: --full tells whether every value is.",) if look.same else ()
    here, there = ({pair[side] for pair in look.layers} for side in (0, 1))
    reading = reading_of(sampling, (here, there), sampled=True, notes=notes)
    thirds: list[ThirdModel] = []
    for third in case.controls:
        for model in (sampling.suspect, sampling.base):
            case.meter.step(f"{model.checkpoint.name} and {third.checkpoint.name}")
            thirds.append(
                ThirdModel(
                    side="suspect" if model is sampling.suspect else "base",
                    control=third.checkpoint.name,
                    sizes={"sample": first_look(Sampling(model, third), case.alpha).evidence.size},
                )
            )
    judged = _Judged("derived", Findings([look.evidence]), None, None, None)
    return _with_reading(judged.verdict(case, _unread_towers(sampling.suspect, sampling.base), tuple(thirds)), reading)


def _unread_towers(suspect: ModelView, base: ModelView) -> tuple[ComponentVerdict, ...]:
    return tuple(
        ComponentVerdict(component=title, conclusion="inconclusive", reason=f"not read: --component {title} or --full")
        for title in sorted(suspect.components.keys() & base.components.keys())
    )


def _with_reading(verdict: Verdict, reading: Reading) -> Verdict:
    """Return the verdict with what was read, and what that leaves unseen."""
    power = verdict.power
    if power is not None and (missed := unseen(reading)) is not None:
        power = power.model_copy(update={"not_excluded": (missed, *power.not_excluded)})
    reasons = (*verdict.reasons, *sentences(reading))
    return verdict.model_copy(update={"reading": reading, "reasons": reasons, "power": power})


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the evidence on a pair came to."""

    conclusion: Conclusion
    found: Findings
    layer_map: LayerMapInfo | None
    power: Power | None
    pair: Pair | None

    def verdict(self, case: _Case, beside: Sequence[ComponentVerdict], thirds: tuple[ThirdModel, ...]) -> Verdict:
        """Return the verdict in words."""
        own = (
            (ComponentVerdict(component="trunk", conclusion=self.conclusion, reason=words.trunk_reason(None)),)
            if self.pair is None
            else _components(self.conclusion, self.found, self.layer_map, self.pair)
        )
        return words.verdict(
            self.conclusion,
            evidence=tuple(self.found.evidence),
            alpha=case.alpha,
            planned=PLANNED,
            log10_p=_log10_p(self.found),
            layer_map=self.layer_map,
            power=self.power,
            components=(*own, *beside),
            third_models=thirds,
            grey=GREY,
        )


def _judge(case: _Case, pair: Pair, first: tuple[Evidence, ...], *, step: int) -> _Judged:
    """Return what all planned tests say of two models, or of the layers of them that were read."""
    if pair.obstacle is not None:
        return _Judged("inconclusive", Findings(list(first)), None, None, None)
    seen: Power | None = None
    # A step of reading after the first was not planned: it is taken only while undecided.
    with case.meter.at_most(_steps(case), of_plan=step == 0):
        found = gather(pair, mode=case.mode, alpha=case.alpha, first=first, tell=case.meter.step, step=step)
        if not found.decided and _can_be_judged(found):
            case.meter.step("planting copies in the suspect")
            seen = power(pair)
    layer_map = _layer_map(pair, found)
    return _Judged(_conclusion(found, layer_map, seen), found, layer_map, seen, pair)


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


def _log10_p(found: Findings) -> float | None:
    """Return the smallest p-value, each over its share of alpha, so that it may be held against alpha itself."""
    adjusted = [
        min(0.0, one.log10_p - math.log10(share(stage, 0 if stage == 1 else found.step)))
        for one in found.evidence
        if one.carries and one.log10_p is not None
        for stage in (stage_of(one.id),)
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
                forms={} if partner is None else _forms_of(pair, at, partner),
            )
        )
    return LayerMapInfo(
        kind=pair.map.kind,
        basis=pair.best.kind,
        layers=tuple(layers),
        base_layers=tuple(pair.base.layers),
        table=_whole_table(pair),
    )


def _forms_of(pair: Pair, here: int, there: int) -> dict[str, float]:
    return {
        form: round(float(table_ST[here, there]), DIGITS)
        for form, table_ST in pair.forms.items()
        if not np.isnan(table_ST[here, there])
    }


def _whole_table(pair: Pair) -> tuple[tuple[float | None, ...], ...]:
    """Return every layer against every other, which the map was chosen from and which is worked out anyway."""
    table_ST = mean_table(pair.forms)
    if table_ST.size > MOST_CELLS:
        return ()
    return tuple(tuple(None if np.isnan(cell) else round(float(cell), DIGITS) for cell in row) for row in table_ST)


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


def _third_models(
    suspect: ModelView, base: ModelView, controls: Sequence[ModelView], meter: Meter
) -> tuple[ThirdModel, ...]:
    found: list[ThirdModel] = []
    for third in controls:
        for side, model in (("suspect", suspect), ("base", base)):
            meter.step(f"{model.checkpoint.name} and {third.checkpoint.name}")
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
