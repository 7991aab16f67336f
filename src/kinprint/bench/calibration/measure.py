"""Every exact test on every pair of a zoo's independent models, each measured once.

A p-value comes in steps of 1/n: n is the number of relabellings where all are tried, and draws + 1 otherwise. Under the
null it takes each step with the same probability (ties can only make it larger), so the p-value less a uniform share
of one step is uniform on (0, 1), exactly. That *randomised* p-value is what is tested for uniformity; the share
is drawn from a seed made of the digests of the models and the test's id, so it is the same in every run.

Where no draw reached the observed statistic a test reports a bound, which is no p-value of a test at every level. For
calibration the Monte Carlo p-value (1 + count) / (1 + draws) is taken throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np

from kinprint import canonical
from kinprint.alignment.basis import BasisKind, Refusal
from kinprint.alignment.trunk import Trunk
from kinprint.architecture import view
from kinprint.bench.calibration.records import Outcome
from kinprint.bench.lines import appended, read_lines
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.evidence import exact_experts, exact_groups, exact_residual, exact_sample, exact_units
from kinprint.evidence.pair import BASES, Pair
from kinprint.evidence.records import ALPHA, Statement
from kinprint.linalg.threads import one_thread
from kinprint.types import Evidence
from kinprint.zoo.workers import workers

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

TESTED_FILE = "tested.jsonl"
"""Grows by one line per pair and test; a later run with the same output folder reads it."""

ENUMERATED = 20_000
"""Relabellings up to which ``permutation_test`` tries all of them."""

REACHED = "relabellings that reached it"
"""The control of an exact test that says how many did."""

_OPEN_MODELS = 64

Key = tuple[str, str, str]
"""Content digests of suspect and base, and the test's id."""


@dataclass(frozen=True, slots=True)
class ExactTest:
    """A test as it is planned for every pair.

    Attributes:
        statement: What it says about itself.
        draws: Relabellings that it draws where it does not try all.
        run: Test one pair.
    """

    statement: Statement
    draws: int
    run: Callable[[Pair], Evidence]


@cache
def exact_tests() -> tuple[ExactTest, ...]:
    """Return every exact test: the sample, units, groups and experts in every basis, and residual coordinates."""
    found = [ExactTest(exact_sample.statement(), exact_sample.DRAWS, _sample)]
    for module in (exact_units, exact_groups, exact_experts):
        for kind in BASES:
            said = module.statement(kind)
            found.append(ExactTest(said, module.DRAWS, partial(_in_basis, module.test, said, kind)))
    for rows in ("stored", "matched", "embeddings"):
        run = partial(exact_residual.test, rows=rows, log10_alpha=math.log10(ALPHA))
        found.append(ExactTest(exact_residual.statement(rows), exact_residual.DRAWS, run))
    return tuple(found)


def _sample(pair: Pair) -> Evidence:
    return exact_sample.test(pair.suspect.view, pair.base.view, math.log10(ALPHA))


def _in_basis(test: Callable[..., Evidence], said: Statement, kind: BasisKind, pair: Pair) -> Evidence:
    basis = pair.basis(kind)
    if isinstance(basis, Refusal):
        return said.not_applicable(basis.reason)
    return test(pair, basis, kind, math.log10(ALPHA))


def randomised_p(outcome: Outcome, seed: int = 0) -> float | None:
    """Return the p-value less a uniform share of its step, in (0, 1); None where the test did not apply.

    Example:
        >>> outcome = Outcome(suspect="a", base="b", id="t", draws=999, count=499, log10_p=-0.3, log10_floor=-80.0)
        >>> 0.499 < randomised_p(outcome) < 0.5
        True
    """
    if outcome.count is None or outcome.draws is None:
        return None
    steps, reached = (
        (outcome.draws, outcome.count) if is_enumerated(outcome) else (outcome.draws + 1, outcome.count + 1)
    )
    named = canonical.digest([outcome.suspect, outcome.base, outcome.id, seed]).removeprefix("sha256:")
    share = (np.random.default_rng(int(named, 16)).integers(2**32) + 0.5) / 2**32
    return float((reached - share) / steps)


def is_enumerated(outcome: Outcome) -> bool:
    """Return whether all relabellings were tried."""
    return outcome.log10_floor is not None and -outcome.log10_floor <= math.log10(ENUMERATED) + 1e-9


# -- measuring -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToTest:
    """A pair, as paths and as the content digests that the manifest gives them."""

    suspect: Path
    base: Path
    suspect_digest: str
    base_digest: str


def measure_all(pairs: Sequence[ToTest], out: Path, *, jobs: int, progress: Progress | None) -> dict[Key, Outcome]:
    """Return what every test gives on every pair; what an earlier run wrote to ``out`` is not tested again.

    Raises:
        UsageError: A model's bytes are not those of the manifest, or ``out`` cannot be written.
        CheckpointError: A model cannot be read.
    """
    ids = [test.statement.id for test in exact_tests()]
    known = _read(out / TESTED_FILE)
    missing: dict[ToTest, list[str]] = {}
    for pair in pairs:
        if lacking := [i for i in ids if (pair.suspect_digest, pair.base_digest, i) not in known]:
            missing[pair] = lacking
    with appended(out / TESTED_FILE) as file:
        for done, (pair, found) in enumerate(zip(missing, _results(missing, jobs), strict=True), start=1):
            _check_digests(pair, found)
            for one in found:
                known[one.suspect, one.base, one.id] = one
                file.write(one.model_dump_json() + "\n")
            file.flush()
            if progress is not None:
                progress(f"{done} of {len(missing)} pairs", done, len(missing))
    return known


def _results(missing: dict[ToTest, list[str]], jobs: int) -> Generator[list[Outcome]]:
    tasks = [(pair.suspect, pair.base, ids) for pair, ids in missing.items()]
    if jobs == 1 or len(tasks) < 2:
        yield from map(_task, tasks)
        return
    with workers(jobs) as pool:
        yield from pool.map(_task, tasks, chunksize=4)


def _task(task: tuple[Path, Path, list[str]]) -> list[Outcome]:
    suspect, base, ids = task
    with one_thread():
        return outcomes(_trunk(suspect), _trunk(base), ids)


def outcomes(suspect: Trunk, base: Trunk, ids: Sequence[str]) -> list[Outcome]:
    """Return what some tests give on one pair."""
    pair = Pair(suspect, base)
    digests = suspect.view.checkpoint.content_digest, base.view.checkpoint.content_digest
    obstacle = pair.obstacle
    return [
        Outcome(suspect=digests[0], base=digests[1], id=test.statement.id, reason=obstacle)
        if obstacle is not None
        else _of_evidence(test, test.run(pair), *digests)
        for test in exact_tests()
        if test.statement.id in ids
    ]


def _of_evidence(test: ExactTest, found: Evidence, suspect: str, base: str) -> Outcome:
    if found.log10_p is None or found.log10_floor is None:
        return Outcome(suspect=suspect, base=base, id=found.id, reason=found.reason)
    count = next(control.value for control in found.controls if control.name == REACHED)
    one = Outcome(
        suspect=suspect,
        base=base,
        id=found.id,
        draws=test.draws,
        count=round(count or 0.0),
        log10_p=found.log10_p,
        log10_floor=found.log10_floor,
    )
    return one.model_copy(update={"draws": round(10**-found.log10_floor)}) if is_enumerated(one) else one


@lru_cache(maxsize=_OPEN_MODELS)
def _trunk(path: Path) -> Trunk:
    return Trunk(view(open_checkpoint(path)))


def _check_digests(pair: ToTest, found: Sequence[Outcome]) -> None:
    """The manifest says which models are independent; of other bytes it says nothing."""
    for path, digest, seen in (
        (pair.suspect, pair.suspect_digest, {one.suspect for one in found}),
        (pair.base, pair.base_digest, {one.base for one in found}),
    ):
        if seen != {digest}:
            raise UsageError(f"{path} does not hold what its zoo's manifest says: run 'kinprint zoo build' again")


def _read(path: Path) -> dict[Key, Outcome]:
    """Return what earlier runs tested. A line that a stopped run left half-written is tested again."""
    return {(one.suspect, one.base, one.id): one for one in read_lines(path, Outcome)}
