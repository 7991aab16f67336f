"""Two models on the axis of behaviour: every method on the same probes, each side also against third models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from kinprint.behaviour import attndiff, gradient, logits, next_token, quere, reef, seedprint
from kinprint.behaviour.black_box import BlackBox
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.probes import ProbeSet
from kinprint.behaviour.runner import Runner
from kinprint.errors import UsageError
from kinprint.types import Behaviour, Conclusion, ControlPair, MethodResult, ProbeInfo
from kinprint.version import __version__

METHODS: Mapping[str, BehaviourMethod] = {
    method.name: method
    for method in (
        reef.METHOD,
        logits.METHOD,
        next_token.METHOD,
        quere.METHOD,
        attndiff.METHOD,
        seedprint.METHOD,
        gradient.METHOD,
    )
}
"""Every behavioural method of two local models, by name, in the order in which they are shown."""

PROBES = 200
"""Probes that are asked by default, spread over the set."""

Tell = Callable[[str, int, int], None]


def select(names: Iterable[str] | None = None) -> list[BehaviourMethod]:
    """Return methods by name, or all of them.

    Raises:
        UsageError: A name that no behavioural method has.
    """
    chosen = list(names or METHODS)
    for name in chosen:
        if name not in METHODS:
            raise UsageError(f"unknown behavioural method {name!r}: choose from {', '.join(METHODS)}")
    return [METHODS[name] for name in dict.fromkeys(chosen)]


def behave(
    suspect: Runner,
    base: Runner,
    probes: ProbeSet,
    *,
    controls: Sequence[Runner] = (),
    methods: Iterable[str] | None = None,
    tell: Tell | None = None,
) -> Behaviour:
    """Return what every method measures on one pair, and on each side of it against third models.

    Args:
        suspect: The model whose origin is in question.
        base: The model it may come from.
        probes: What both are asked.
        controls: Third models that are known to be unrelated.
        methods: Names of methods; all by default.
        tell: Called before each method.

    Raises:
        UsageError: An unknown method.
    """
    chosen = select(methods)
    texts = fitting(probes, (suspect, base, *controls))
    pairs = [(suspect, base), *((side, third) for third in controls for side in (suspect, base))]
    total, done = len(pairs) * len(chosen), 0
    found: list[tuple[MethodResult, ...]] = []
    for one, other in pairs:
        results: list[MethodResult] = []
        for method in chosen:
            if tell is not None:
                tell(f"{method.name}: {one.name} and {other.name}", done, total)
            results.append(method.run(one, other, texts))
            done += 1
        found.append(tuple(results))
    against = tuple(
        ControlPair(
            side="suspect" if one is suspect else "base",
            control=other.name,
            methods=tuple(result.model_copy(update={"tables": ()}) for result in results),
        )
        for (one, other), results in zip(pairs[1:], found[1:], strict=True)
    )
    return record(suspect, base, probes, len(texts), found[0], against)


def fitting(probes: ProbeSet, models: Sequence[Runner]) -> list[str]:
    """Return the texts that every model has room for.

    Raises:
        UsageError: There is none.
    """
    texts = [text for text in probes.texts if all(model.fits(text) for model in models)]
    if not texts:
        raise UsageError(f"none of {len(probes.texts)} probes fits the context of every model: give shorter ones")
    return texts


def record(
    suspect: BlackBox,
    base: BlackBox,
    probes: ProbeSet,
    asked: int,
    measured: Sequence[MethodResult],
    against: Sequence[ControlPair],
) -> Behaviour:
    """Return what was measured on a pair and against third models, and how the pair stands to these."""
    judged, closer = standing(measured, against)
    return Behaviour(
        kinprint_version=__version__,
        suspect=suspect.name,
        base=base.name,
        suspect_identity=suspect.identity,
        base_identity=base.identity,
        probes=ProbeInfo(
            name=probes.name, licence=probes.licence, digest=probes.digest, asked=asked, given=len(probes.texts)
        ),
        methods=tuple(measured),
        control_pairs=tuple(against),
        close=2 * len(closer) > len(judged) if judged else None,
        summary=summary(judged, closer),
    )


def standing(measured: Sequence[MethodResult], against: Sequence[ControlPair]) -> tuple[list[str], list[str]]:
    """Return the methods that have third models to be held against, and those by which the pair is closest."""
    own = {result.method: _similarity(result) for result in measured}
    others: dict[str, list[float]] = {}
    for pair in against:
        for result in pair.methods:
            value = _similarity(result)
            if value is not None:
                others.setdefault(result.method, []).append(value)
    judged = {name: value for name, value in own.items() if value is not None and name in others}
    return list(judged), [name for name, value in judged.items() if value > max(others[name])]


def summary(judged: Sequence[str], closer: Sequence[str]) -> str:
    """Return in one sentence how the pair stands to third models; without any there is nothing to stand against."""
    if not judged:
        return "No third model to hold a number against, so nothing says whether behaviour is close: give --control."
    named = f": {', '.join(closer)}" if closer else ""
    return (
        f"By {len(closer)} of {len(judged)} methods the pair is closer than either side is to any third model{named}."
        " Behaviour does not tell copying from distillation or shared data."
    )


def beside(conclusion: Conclusion, *, close: bool | None) -> str:
    """Return how a verdict on weights and behaviour go together; no more than what both are consistent with.

    Example:
        >>> beside("independent", close=True)
        'Weights independent, behaviour close: consistent with distillation or shared data.'
    """
    said = conclusion.replace("_", " ")
    if close is None:
        return f"Weights {said}; without third models behaviour stands by itself."
    if conclusion not in ("identical", "derived", "independent"):
        return f"Weights {said}, behaviour {'close' if close else 'not close'}: behaviour cannot settle it."
    related = conclusion != "independent"
    meaning = {
        (True, True): "a copy that was changed little",
        (True, False): "a copy that was trained on to behave otherwise",
        (False, True): "distillation or shared data",
        (False, False): "no relation",
    }[related, close]
    return f"Weights {said}, behaviour {'close' if close else 'not close'}: consistent with {meaning}."


def _similarity(result: MethodResult) -> float | None:
    return next((value.value for value in result.values if value.kind == "similarity"), None)
