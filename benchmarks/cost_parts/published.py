"""Tasks beside the published procedures, on the same layer set: time, and how far they tell kin from strangers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cost_parts.comparing import FailedError, compare, d_prime, row
from cost_parts.context import Context
from cost_parts.fixtures import CHILDREN, RELATED, STRANGERS, child
from cost_parts.process import Run, cold
from cost_parts.rows import Check, Row, at_least, equals

PROCEDURE = Path(__file__).parents[1] / "reference" / "measured.py"
NAMES = {"awm": "AWM as published", "ghostspec": "GhostSpec as published, dense"}
OURS, OURS_BY_SIZE = "kinprint, -log10 p", "kinprint, by size"
FASTER = {"awm": 10.0, "ghostspec": 20.0}
BASE = "mistral-2L-base"
WHAT = "Mistral-7B, 2 layers"


def mistral(context: Context) -> Iterator[Row]:
    """Time on one pair, each in a cold process."""
    suspect, base = context.fixtures.get(child(RELATED[0])), context.fixtures.get(BASE)
    ours = row(f"{WHAT}: kinprint", compare(suspect, base, runs=context.runs), (suspect, base))
    theirs = {name: _run(name, base, [suspect]) for name in NAMES}
    checks = [equals("derived", ours.says)]
    for name, (run, _) in theirs.items():
        checks.append(at_least(f"times faster than {NAMES[name]}", _times(run.seconds, ours.seconds), FASTER[name]))
    told = ", ".join(f"{_times(run.seconds, ours.seconds):.1f} times {name}" for name, (run, _) in theirs.items())
    yield replace(ours, checks=tuple(checks), note=told)
    for name, (run, pairs) in theirs.items():
        yield Row(
            what=f"{WHAT}: {NAMES[name]}",
            seconds=run.seconds,
            cpu_seconds=run.cpu_seconds,
            peak_mb=run.peak_mb,
            says=f"{pairs[0]['score']:.4g}",
            note=f"{pairs[0]['seconds']:.2f} s without the start",
        )


def separation(context: Context) -> Iterator[Row]:
    """Give d' of the score that every procedure decides by, children of all changes against strangers, on one set."""
    get = context.fixtures.get
    base = get(BASE)
    children = [get(child(change, number)) for change in RELATED for number in range(CHILDREN)]
    strangers = [get(f"mistral-2L-twin-{number}") for number in range(STRANGERS)]
    compared = [compare(suspect, base, runs=1, warm=False) for suspect in (*children, *strangers)]
    scores = {OURS: [one.strength for one in compared], OURS_BY_SIZE: [one.size or 0.0 for one in compared]}
    seconds = {name: [one.run.seconds for one in compared] for name in scores}
    for name in NAMES:
        _, pairs = _run(name, base, [*children, *strangers])
        scores[name] = [pair["score"] for pair in pairs]
        seconds[name] = [pair["seconds"] for pair in pairs]
    found = {name: d_prime(*_classes(values)) for name, values in scores.items()}
    verdicts = [one.says for one in compared]
    checks = (
        *(Check(f"d' above that of {NAMES[other]}", found[OURS] > found[other]) for other in NAMES),
        equals("derived", _all(verdicts[: len(children)])),
        equals("independent", _all(verdicts[len(children) :])),
    )
    for name, values in scores.items():
        related, unrelated = _classes(values)
        by_change = ", ".join(f"{value:.1f} at {change:g}" for change, value in _by_change(values).items())
        yield Row(
            what=f"{WHAT}, separation: {NAMES.get(name, name)}",
            seconds=sum(seconds[name]) / len(seconds[name]),
            says=f"d' {found[name]:.2f}",
            checks=checks if name == OURS else (),
            note=f"mean seconds a pair; related {_listed(related)}; unrelated {_listed(unrelated)};"
            f" d' of each change by itself {by_change}",
        )


def _classes(scores: list[float]) -> tuple[list[float], list[float]]:
    """Return the scores of the children, of every change, and those of the strangers."""
    children = len(RELATED) * CHILDREN
    return scores[:children], scores[children:]


def _by_change(scores: list[float]) -> dict[float, float]:
    related, unrelated = _classes(scores)
    return {
        change: d_prime(related[place * CHILDREN : (place + 1) * CHILDREN], unrelated)
        for place, change in enumerate(RELATED)
    }


def _run(name: str, base: Path, suspects: list[Path]) -> tuple[Run, list[dict[str, Any]]]:
    run = cold([sys.executable, str(PROCEDURE), name, str(base), *map(str, suspects)], timeout=7200)
    if run.code != 0:
        raise FailedError(f"{name}: exit {run.code}: {run.err[-200:]}")
    return run, json.loads(run.out)


def _times(slow: float, fast: float | None) -> float:
    assert fast
    return slow / fast


def _all(words: list[str]) -> str:
    """Return the one word that all are, or the words."""
    return words[0] if len(set(words)) == 1 else ", ".join(words)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
