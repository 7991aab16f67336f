"""Behavioural methods on one pair of a zoo, with what each cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kinprint.behaviour.axis import METHODS, PROBES, select
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.probes import shipped
from kinprint.behaviour.runner import Runner
from kinprint.bench.measure import Measured, Meter, Opened, measured, metered
from kinprint.linalg.threads import one_thread

_LOADED = 2
"""Models that are in memory to run: those of one pair."""


def ids(names: Sequence[str] | None = None) -> list[str]:
    """Return the ids of behavioural methods, of all by default.

    Raises:
        UsageError: A name that none has.
    """
    return [method.id for method in select(names)]


def measure(suspect: Opened, base: Opened, wanted: Sequence[str]) -> list[Measured]:
    """Run behavioural methods on one pair: each pays for its own passes, on one thread."""
    with one_thread():
        return [_measure(suspect, base, method) for method in METHODS.values() if method.id in wanted]


def _measure(suspect: Opened, base: Opened, method: BehaviourMethod) -> Measured:
    costs = [_ready(side, method) for side in (suspect, base)]
    sides = [_runner(side, method) for side in (suspect, base)]
    with metered() as meter:
        result = method.run(sides[0], sides[1], _texts())
    return measured(suspect, base, result, [meter, *costs])


def _ready(side: Opened, method: BehaviourMethod) -> Meter:
    """Return what it took to run a model as a method needs it, run now if it was not before."""
    if method.id not in side.behaved:
        side.behaved[method.id] = Cache.in_memory(), Meter()
        alone = _runner(side, method)
        with metered() as meter:
            method.run(alone, alone, _texts())
        side.behaved[method.id] = side.behaved[method.id][0], meter
    return side.behaved[method.id][1]


def _runner(side: Opened, method: BehaviourMethod) -> Runner:
    return _loaded(side.model.checkpoint.location).keeping(side.behaved[method.id][0])


@lru_cache(maxsize=_LOADED)
def _loaded(location: str) -> Runner:
    return Runner.open(location)


@lru_cache(maxsize=1)
def _texts() -> list[str]:
    return list(shipped().spread(PROBES).texts)
