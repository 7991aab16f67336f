"""A verdict in sentences for people who are no statisticians. Computes nothing but what a sentence needs."""

from __future__ import annotations

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

ALTERNATIVES = (
    "a common ancestor: both models may come from a third one (siblings), or the base from the suspect",
    "a shared random start: models trained apart from the same initial weights keep part of them",
)


def identical(how: str) -> str:
    """Return the sentence for models with the same values."""
    if how == "bytes":
        return "The models are identical: every tensor of each has the same values in the other."
    return "The models are identical up to rounding: every tensor has the same values in the coarser of the two dtypes."


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
        reasons=tuple(_reasons(conclusion, evidence, power, grey)),
        contrary=_contrary(conclusion, evidence, grey),
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
    copied = [part.component for part in components[1:] if part.conclusion == "derived"]
    if conclusion == "derived":
        weak = _largest_size(layer_map) < WEAK
        return (
            "Derived: weights of one model come from the other, or from a common ancestor"
            + (" or a shared random start" if weak else "")
            + f" ({_strength(carrier, layer_map, alpha)})."
        )
    tail = f" Its {' and '.join(copied)} is derived." if copied else ""
    if conclusion == "independent":
        return f"Independent: no trace of the base in the suspect, and a copy would have been seen.{tail}"
    if conclusion == "not_comparable":
        return "The models cannot be compared: no test could run on them."
    return f"Inconclusive: the tests that ran neither show a derivation nor exclude one.{tail}"


def _largest_size(layer_map: LayerMapInfo | None) -> float:
    if layer_map is None:
        return 1.0
    return max((size for one in layer_map.layers for size in (one.heads, one.units) if size is not None), default=1.0)


def _strength(carrier: Evidence | None, layer_map: LayerMapInfo | None, alpha: float) -> str:
    if carrier is not None and carrier.log10_p is not None:
        return f"p = 10^{carrier.log10_p:.1f} in one exact test; family-wise error rate {alpha:g}"
    if carrier is not None and carrier.population is not None:
        people = carrier.population
        return (
            f"size {carrier.size:.2f}, margin {carrier.margin:.2f}; largest of {people.pairs} independent pairs of "
            f"{people.models} models: {people.largest:.3f}"
        )
    layers = [] if layer_map is None else [str(one.suspect) for one in layer_map.layers if one.derived]
    return f"in layer{'s' if len(layers) > 1 else ''} {', '.join(layers)} only"


def _reasons(conclusion: Conclusion, evidence: Sequence[Evidence], power: Power | None, grey: float) -> list[str]:
    found: list[str] = []
    for one in evidence:
        if one.rung == 2 and one.carries and one.size is not None and one.margin is not None:
            side = "beyond" if one.beyond else "below"
            found.append(
                f"{one.name}: {one.size:.3f} of 1, {side} the margin of {one.margin:.2f} for independent models."
            )
    exact = [one for one in evidence if one.carries and one.log10_p is not None]
    if exact:
        best = min(exact, key=lambda one: one.log10_p or 0.0)
        found.append(
            f"{len(exact)} exact tests ran; the smallest p-value is 10^{best.log10_p:.1f} ({best.name})"
            + ("." if best.beyond else ", which is no evidence.")
        )
    if conclusion in ("independent", "inconclusive"):
        found += _power_sentences(power)
        high = [one for one in evidence if one.carries and _ratio(one) > grey and not one.beyond]
        found += [f"{one.name} is at {one.size:.3f}, too close to its margin of {one.margin:.2f}." for one in high]
    people = next((one.population for one in evidence if one.carries and one.population is not None), None)
    if people is not None:
        found.append(
            f"Margins stand on {people.pairs} independent pairs of {people.models} models, {people.passed} of them "
            f"beyond: error rate at most {people.bound:.2g} if pairs count as independent draws, "
            f"{people.bound_disjoint:.2g} by pairs that share no model."
        )
        if people.outside is not None:
            found.append(f"The {people.outside}.")
    return found


def _power_sentences(power: Power | None) -> list[str]:
    if power is None or not power.plantings:
        return ["Whether a copy would have been seen could not be tried."]
    return [
        f"Of {one.plantings} copies planted in the suspect's own weights ({one.change}), {one.seen} were seen: "
        f"at least {one.lower_bound:.3f} of such copies."
        for one in power.plantings
    ]


def _contrary(conclusion: Conclusion, evidence: Sequence[Evidence], grey: float) -> str | None:
    del grey
    if conclusion == "derived":
        silent = [one for one in evidence if one.carries and not one.beyond and one.status == "measured"]
        sized = [one for one in silent if one.margin is not None]
        if sized:
            one = min(sized, key=_ratio)
            return f"{one.name}: size {one.size:.3f}, below its margin of {one.margin:.2f}"
        if silent:
            one = max(silent, key=lambda found: found.log10_p or -1e9)
            return f"{one.name}: p = 10^{one.log10_p:.1f}, as for strangers; {one.defeats} would explain it"
        return None
    sized = [one for one in evidence if one.carries and one.margin is not None and one.size is not None]
    exact = [one for one in evidence if one.carries and one.log10_p is not None]
    if exact:
        best = min(exact, key=lambda found: found.log10_p or 0.0)
        if (best.log10_p or 0.0) < -2:
            return f"{best.name}: p = 10^{best.log10_p:.1f}, not beyond its share of alpha"
    if sized:
        one = max(sized, key=_ratio)
        return f"{one.name}: size {one.size:.3f}, the nearest to its margin ({one.margin:.2f})"
    return None


def trunk_reason(layer_map: LayerMapInfo | None) -> str:
    """Return which layers are derived, in a sentence."""
    if layer_map is None:
        return "no layer could be matched"
    derived = [one.suspect for one in layer_map.layers if one.derived]
    if not derived:
        return f"none of {len(layer_map.layers)} layers is beyond the margin of a single layer"
    order = {
        "same": "in the same places",
        "ordered": "in order, not all in the same places",
        "free": "in another order",
    }
    return f"{len(derived)} of {len(layer_map.layers)} layers come from layers of the base, {order[layer_map.kind]}"


def embedding_component(evidence: Evidence, *, trunk: Conclusion) -> ComponentVerdict:
    """Return the verdict on the token embedding; only a derived trunk gives a basis in which absence says anything."""
    if evidence.status != "measured" or evidence.size is None:
        return ComponentVerdict(
            component="embedding", conclusion="not_comparable", reason=evidence.reason or "it could not be tested"
        )
    text = f"size {evidence.size:.3f}, margin {evidence.margin:.2f}"
    if evidence.beyond:
        return ComponentVerdict(component="embedding", conclusion="derived", reason=text)
    if trunk == "derived":
        return ComponentVerdict(
            component="embedding", conclusion="independent", reason=f"{text}: replaced or drawn anew"
        )
    return ComponentVerdict(
        component="embedding",
        conclusion="inconclusive",
        reason=f"{text}; a copy turned by a rotation would not be seen under an independent trunk",
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
        reason=f"units of sampled experts: size {units.size:.3f}, margin {units.margin:.2f}",
    )
