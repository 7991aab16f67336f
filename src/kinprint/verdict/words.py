"""A verdict in sentences for people who are no statisticians. Computes nothing but what a sentence needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kinprint.types import (
    ComponentVerdict,
    Conclusion,
    Evidence,
    LayerMapInfo,
    Power,
    ThirdModel,
    Verdict,
)

WEAK = 0.5
"""Size below which a shared random start fits as well as a copy: copies seen so far lie above, shared starts below."""

STRANGERS_P = 0.05
"""An exact test with a larger p-value saw no more than it sees between strangers."""

TELLING_P = 1e-2
"""And only one that could have gone below this says anything by its silence."""

ALTERNATIVES = (
    "a common ancestor: both models may come from a third one (siblings), or the base from the suspect",
    "a shared random start: models trained apart from the same initial weights keep part of them",
)

_MATCHED = {"matched-heads": "matched attention heads", "matched-units": "matched MLP units"}
"""What people call the evidence whose id starts so."""


def probability(log10_p: float) -> str:
    """Return a p-value as people read it: never 0, for what a float cannot hold is a power of ten.

    Example:
        >>> [probability(x) for x in (0.0, -0.34, -2.5, -506.93)]
        ['1', '0.46', '0.0032', '10^-506.9']
    """
    return f"10^{log10_p:.1f}" if log10_p < -3 else f"{10**log10_p:.2g}"


def uncalibrated(evidence: Evidence) -> bool:
    """Return whether a test ran that was never calibrated on independent models, and so says nothing."""
    return any(note.startswith("not calibrated") for note in evidence.notes)


def identical(how: str) -> str:
    """Return the sentence for models with the same values."""
    if how == "bytes":
        return "Every tensor of each model has the same values in the other."
    if how == "quantised":
        return (
            "Every tensor of each model has the same values in the other, up to the rounding of those that are"
            " quantised."
        )
    return (
        "Every tensor of each model has the same values in the other, after rounding to the coarser of the two dtypes."
    )


def verdict(
    conclusion: Conclusion,
    *,
    evidence: tuple[Evidence, ...],
    alpha: float,
    planned: int,
    log10_p: float | None,
    layer_map: LayerMapInfo | None,
    power: Power | None,
    components: tuple[ComponentVerdict, ...],
    third_models: tuple[ThirdModel, ...],
    grey: float,
) -> Verdict:
    """Return the verdict with its sentences."""
    carrier = _carrier(evidence)
    return Verdict(
        conclusion=conclusion,
        headline=_headline(conclusion, carrier, layer_map, alpha, components),
        decided_by=carrier.name if conclusion == "derived" and carrier is not None else None,
        alpha=alpha,
        planned=planned,
        log10_p=log10_p,
        reasons=tuple(_reasons(conclusion, carrier, evidence, power, grey)),
        contrary=_contrary(conclusion, evidence),
        alternatives=ALTERNATIVES if conclusion == "derived" else (),
        components=components,
        layer_map=layer_map,
        power=power,
        evidence=evidence,
        third_models=third_models,
    )


def _carrier(evidence: Sequence[Evidence]) -> Evidence | None:
    """Return the evidence that carries ``derived``: the smallest p-value, else the largest size over its margin."""
    speaking = [one for one in evidence if one.carries and one.beyond]
    exact = [one for one in speaking if one.log10_p is not None]
    if exact:
        return min(exact, key=lambda one: one.log10_p or 0.0)
    return max(speaking, key=_ratio, default=None)


def _ratio(one: Evidence) -> float:
    return (one.size or 0.0) / one.margin if one.margin else 0.0


def _headline(
    conclusion: Conclusion,
    carrier: Evidence | None,
    layer_map: LayerMapInfo | None,
    alpha: float,
    components: Sequence[ComponentVerdict],
) -> str:
    copied = [part.component for part in components[1:] if part.conclusion in ("derived", "identical")]
    if conclusion == "derived":
        weak = _largest_size(layer_map) < WEAK
        return (
            "Weights of one model come from the other, or from a common ancestor"
            + (" or a shared random start" if weak else "")
            + f" ({_strength(carrier, layer_map, alpha)})."
        )
    tail = f" But its {' and '.join(copied)} {'are' if len(copied) > 1 else 'is'} derived." if copied else ""
    if conclusion == "independent":
        return f"No trace of the base in the suspect, and a copy would have been seen.{tail}"
    if conclusion == "not_comparable":
        return "No test could run on these models."
    return f"The tests that ran neither show a derivation nor exclude one.{tail}"


def _largest_size(layer_map: LayerMapInfo | None) -> float:
    if layer_map is None:
        return 1.0
    return max((size for one in layer_map.layers for size in (one.heads, one.units) if size is not None), default=1.0)


def _strength(carrier: Evidence | None, layer_map: LayerMapInfo | None, alpha: float) -> str:
    if carrier is not None and carrier.log10_p is not None:
        return f"p = {probability(carrier.log10_p)} in an exact test; error rate of all of them together {alpha:g}"
    if carrier is not None and carrier.population is not None:
        people = carrier.population
        return (
            f"{_called(carrier)} agree to {carrier.size:.2f} of 1; the largest among {people.pairs} independent pairs "
            f"is {people.largest:.3f}"
        )
    layers = [] if layer_map is None else [str(one.suspect) for one in layer_map.layers if one.derived]
    return f"in layer{'s' if len(layers) > 1 else ''} {', '.join(layers)} only"


def _called(one: Evidence) -> str:
    return _MATCHED.get(one.id.split("/")[0], one.name)


def _reasons(
    conclusion: Conclusion, carrier: Evidence | None, evidence: Sequence[Evidence], power: Power | None, grey: float
) -> list[str]:
    found = _matched_sentences(evidence)
    exact = _exact_sentences(evidence)
    found = exact + found if carrier is not None and carrier.log10_p is not None else found + exact
    if conclusion in ("independent", "inconclusive"):
        found += _power_sentences(power)
        high = [one for one in evidence if one.carries and _ratio(one) > grey and not one.beyond]
        found += [
            f"{_sentence(_called(one))} are at {one.size:z.3f}, too close to their margin of {one.margin:.2f}."
            for one in high
        ]
    people = next((one.population for one in evidence if one.carries and one.population is not None), None)
    if people is not None:
        found.append(
            f"Of {people.pairs} independent pairs of {people.models} models, which had no say in the margins, "
            f"{people.passed} {'is' if people.passed == 1 else 'are'} beyond: an error rate of at most "
            f"{people.bound:.2g} if the pairs count as independent draws, {people.bound_disjoint:.2g} if only pairs "
            "that share no model do."
        )
        if people.outside is not None:
            found.append(f"The {people.outside}.")
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _matched_sentences(evidence: Sequence[Evidence]) -> list[str]:
    return [
        f"{_sentence(_called(one))} agree to {one.size:z.3f} of 1, {'beyond' if one.beyond else 'below'} the margin of "
        f"{one.margin:.2f} for independent models."
        for one in evidence
        if one.rung == 2 and one.carries and one.size is not None and one.margin is not None
    ]


def _exact_sentences(evidence: Sequence[Evidence]) -> list[str]:
    exact = [(one.log10_p, one) for one in evidence if one.carries and one.log10_p is not None]
    if not exact:
        return []
    log10_p, best = min(exact, key=lambda one: one[0])
    if best.beyond:
        return [
            f"Independent models would agree as much with a probability of {probability(log10_p)} ({best.name}; "
            f"exact test, the strongest of {len(exact)})."
        ]
    return [f"Exact tests: {len(exact)} ran, and the smallest p-value is {probability(log10_p)}, which is no evidence."]


def _power_sentences(power: Power | None) -> list[str]:
    if power is None or not power.plantings:
        return ["Whether a copy would have been seen could not be tried."]
    return [
        f"Of {one.plantings} copies planted in the suspect's own weights ({one.change}), {one.seen} were seen: "
        f"at least {100 * one.lower_bound:.1f} % of such copies."
        for one in power.plantings
    ]


def _contrary(conclusion: Conclusion, evidence: Sequence[Evidence]) -> str | None:
    carrying = [one for one in evidence if one.carries and one.status == "measured"]
    if conclusion == "derived":
        return _against_derived([one for one in carrying if not one.beyond])
    exact = [(one.log10_p, one) for one in carrying if one.log10_p is not None]
    if exact:
        log10_p, best = min(exact, key=lambda one: one[0])
        if log10_p < math.log10(TELLING_P):
            return f"{best.name}: p = {probability(log10_p)}, not beyond its share of alpha"
    sized = [one for one in carrying if one.margin is not None and one.size is not None]
    if sized:
        one = max(sized, key=_ratio)
        return f"nearest to their margin of {one.margin:.2f} are {_called(one)}, at {one.size:z.3f}"
    return None


def _against_derived(silent: Sequence[Evidence]) -> str | None:
    """Return what a derived model was expected to show and did not."""
    sized = [one for one in silent if one.margin is not None and one.size is not None]
    if sized:
        one = min(sized, key=_ratio)
        return f"{_called(one)} agree to {one.size:z.3f} only, below their margin of {one.margin:.2f}"
    strange = [
        (one.log10_p, one)
        for one in silent
        if one.log10_p is not None
        and one.log10_p > math.log10(STRANGERS_P)
        and (one.log10_floor or 0.0) <= math.log10(TELLING_P)
    ]
    if not strange:
        return None
    log10_p, one = max(strange, key=lambda found: found[0])
    return (
        f"{one.name}: p = {probability(log10_p)}, as between strangers. "
        f"What makes this test blind to a copy: {one.defeats}"
    )


def trunk_reason(layer_map: LayerMapInfo | None) -> str:
    """Return which layers are derived, in a sentence."""
    if layer_map is None:
        return "layers were not matched one by one"
    derived = [one.suspect for one in layer_map.layers if one.derived]
    if not derived:
        return f"none of {len(layer_map.layers)} layers is beyond the margin of a single layer"
    order = {
        "same": "in the same places",
        "ordered": "in order, not all in the same places",
        "free": "in another order",
    }
    return f"{len(derived)} of {len(layer_map.layers)} layers come from layers of the base, {order[layer_map.kind]}"


def embedding_component(sized: Evidence | None, exact: Evidence | None, *, trunk: Conclusion) -> ComponentVerdict:
    """Return the verdict on the token embedding; only a derived trunk gives a basis in which absence says anything.

    Args:
        sized: Embeddings of shared tokens, by size; None where only the exact test ran.
        exact: Embedding coordinates in stored order.
        trunk: The verdict on the trunk.
    """
    texts: list[str] = []
    if sized is not None and sized.size is not None and sized.margin is not None:
        texts.append(f"size {sized.size:z.3f}, margin {sized.margin:.2f}")
    if exact is not None and exact.log10_p is not None and not uncalibrated(exact):
        texts.append(f"p = {probability(exact.log10_p)} in stored order")
    text = "; ".join(texts)
    if not texts:
        reasons = (one.reason for one in (sized, exact) if one is not None and one.reason)
        reason = next(reasons, "no test of it that may decide was run")
        return ComponentVerdict(component="embedding", conclusion="not_comparable", reason=reason)
    if any(one is not None and one.beyond for one in (sized, exact)):
        return ComponentVerdict(component="embedding", conclusion="derived", reason=text)
    if trunk == "derived" and sized is not None and sized.size is not None:
        return ComponentVerdict(
            component="embedding", conclusion="independent", reason=f"{text}: replaced or drawn anew"
        )
    return ComponentVerdict(
        component="embedding",
        conclusion="inconclusive",
        reason=f"{text}; a copy turned by a rotation would not be seen",
    )


def experts_component(units: Evidence) -> ComponentVerdict:
    """Return the verdict on the experts of a mixture, from the units matched in them."""
    if units.status != "measured" or units.size is None:
        return ComponentVerdict(
            component="experts", conclusion="not_comparable", reason=units.reason or "they could not be tested"
        )
    return ComponentVerdict(
        component="experts",
        conclusion="derived" if units.beyond else "independent",
        reason=f"units of sampled experts: size {units.size:z.3f}, margin {units.margin:.2f}",
    )
