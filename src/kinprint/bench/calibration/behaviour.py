"""The behavioural tests that give a p-value, on every pair of a zoo's independent models.

`seedprint` permutes the numbering of residual coordinates: under independent initialisations its p-value is uniform, as
that of the exact tests on weights (see ``measure`` for the share of a step).

Next-token agreement (`model-provenance-test`) is about agreement, and of independent models one may well agree with a
base more than with a control. It is measured in two ways, with all other models of the base's own tensors and shapes
as controls: McNemar's p-value against one of them, drawn by a seed, and the rank of the base's agreement among them.
The rank is exact where base and controls are exchangeable, as models of one recipe and other seeds are; McNemar's takes
prompts for the units, which says nothing of how models differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from kinprint import canonical
from kinprint.behaviour import agreement, seedprint
from kinprint.behaviour.axis import PROBES
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.probes import shipped
from kinprint.behaviour.runner import Runner
from kinprint.bench.calibration.measure import randomised_p
from kinprint.bench.calibration.records import Draw, Outcome
from kinprint.canonical import method_id
from kinprint.errors import UsageError
from kinprint.linalg.threads import one_thread

Progress = Callable[[str, int, int], None]

SEED = 0
ONE_CONTROL = method_id("model-provenance-test.one-control", agreement.VERSION, probes=PROBES, seed=SEED)
RANK = method_id("model-provenance-test.rank", agreement.VERSION, probes=PROBES)
NAMES = {
    seedprint.METHOD.id: "seedprint: residual coordinates on random tokens",
    ONE_CONTROL: "next-token agreement: McNemar against one control",
    RANK: "next-token agreement: rank among controls",
}
NOTES = (
    "controls of next-token agreement are all other independent models with the tensors and shapes of the base; "
    "McNemar's is one of them, drawn by a seed",
)


@dataclass(frozen=True, slots=True)
class Behaving:
    """A model of a zoo, and what its manifest says of it.

    Attributes:
        folder: Where it lies.
        name: Its name in the zoo.
        digest: Content digest.
    """

    folder: Path
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Told:
    """A model that was run.

    Attributes:
        one: Which.
        shapes: Digest of its tensors' names and shapes.
        tokens: The likeliest next token after each probe.
    """

    one: Behaving
    shapes: str
    tokens: tuple[str, ...]


def draws(zoo: str, models: Sequence[Behaving], progress: Progress | None) -> list[list[Draw]]:
    """Return for each test what it gives on every pair, the earlier model as the base.

    Raises:
        UsageError: A model's bytes are not those of the manifest.
        CheckpointError: A model cannot be run.
        MissingExtraError: The [torch] extra is not installed.
    """
    probes = shipped().spread(PROBES).texts
    with one_thread():
        running = [_opened(one, progress, at, len(models)) for at, one in enumerate(models)]
        told = [_told(one, runner, probes) for one, runner in zip(models, running, strict=True)]
        pairs = list(combinations(range(len(told)), 2))
        found: list[list[Draw]] = [[], [], []]
        for done, (at_base, at_suspect) in enumerate(pairs):
            suspect, base = told[at_suspect], told[at_base]
            if progress is not None:
                progress(f"{suspect.one.name} and {base.one.name}", done, len(pairs))
            controls = [one for one in told if one.shapes == base.shapes and one not in (suspect, base)]
            runners = running[at_suspect], running[at_base]
            outcomes = (
                _seedprint(suspect, base, *runners),
                _one_control(suspect, base, controls),
                _rank(suspect, base, controls),
            )
            for held, (outcome, p) in zip(found, outcomes, strict=True):
                held.append(Draw(outcome.id, zoo, suspect.one.name, base.one.name, outcome, p))
    return found


def _opened(one: Behaving, progress: Progress | None, done: int, total: int) -> Runner:
    if progress is not None:
        progress(f"run {one.name}", done, total)
    runner = Runner.open(one.folder, cache=Cache.of_user())
    if runner.checkpoint.content_digest != one.digest:
        raise UsageError(f"{one.folder} does not hold what its zoo's manifest says: run 'kinprint zoo build' again")
    return runner


def _told(one: Behaving, runner: Runner, probes: Sequence[str]) -> _Told:
    shapes = canonical.digest({name: list(info.shape) for name, info in runner.checkpoint.tensors.items()})
    said = runner.next_tokens([text for text in probes if runner.fits(text)], most=1)
    return _Told(one, shapes, tuple(agreement.bare(token.top[0][0]) for token in said))


Found = tuple[Outcome, float | None]


def _outcome(suspect: _Told, base: _Told, test: str, **found: float | int | str | None) -> Outcome:
    return Outcome.model_validate({"suspect": suspect.one.digest, "base": base.one.digest, "id": test, **found})


def _seedprint(suspect: _Told, base: _Told, *running: Runner) -> Found:
    result = seedprint.METHOD.run(running[0], running[1], ())
    if result.status == "not_applicable":
        return _outcome(suspect, base, result.id, reason=result.reason), None
    held = {value.name: value.value for value in (*result.values, *result.controls)}
    outcome = _outcome(
        suspect,
        base,
        result.id,
        draws=seedprint.DRAWS,
        count=round(held[seedprint.REACHED] or 0.0),
        log10_p=held["log10 p"],
        log10_floor=held["log10 floor"],
    )
    return outcome, randomised_p(outcome, SEED)


def _one_control(suspect: _Told, base: _Told, controls: Sequence[_Told]) -> Found:
    if not controls or not _same_probes(suspect, base, *controls):
        return _outcome(suspect, base, ONE_CONTROL, reason=_WITHOUT), None
    generator = _generator(suspect, base)
    control = controls[int(generator.integers(len(controls)))]
    rows = list(zip(suspect.tokens, base.tokens, control.tokens, strict=True))
    counts = agreement.discordant(rows, 2, agreement.same)
    trials = counts.base + counts.control
    own = math.comb(trials, counts.base) / 2**trials
    outcome = _outcome(suspect, base, ONE_CONTROL, log10_p=counts.log10_p, log10_floor=-trials * float(np.log10(2)))
    return outcome, 10**counts.log10_p - float(generator.uniform()) * own


def _rank(suspect: _Told, base: _Told, controls: Sequence[_Told]) -> Found:
    if not controls or not _same_probes(suspect, base, *controls):
        return _outcome(suspect, base, RANK, reason=_WITHOUT), None
    shares, steps = [float(_agreement(suspect, one)) for one in (base, *controls)], len(controls) + 1
    log10_p, floor = agreement.log10_rank(shares), -float(np.log10(steps))
    reached = round(steps * 10**log10_p)
    outcome = _outcome(suspect, base, RANK, draws=steps, count=reached, log10_p=log10_p, log10_floor=floor)
    return outcome, randomised_p(outcome, SEED)


_WITHOUT = "no third independent model has the base's shapes and room for the same probes"


def _same_probes(*models: _Told) -> bool:
    return len({len(one.tokens) for one in models}) == 1


def _agreement(one: _Told, other: _Told) -> int:
    return sum(map(agreement.same, one.tokens, other.tokens))


def _generator(suspect: _Told, base: _Told) -> np.random.Generator:
    named = canonical.digest([suspect.one.digest, base.one.digest, ONE_CONTROL, SEED]).removeprefix("sha256:")
    return np.random.default_rng(int(named, 16))
