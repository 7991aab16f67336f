"""The verdict on a pair, measured as methods are: one number for rates, and the conclusion beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

from kinprint import canonical
from kinprint.bench.measure import Measured, Opened, metered
from kinprint.bench.records import Cell, Cost, PairVerdict
from kinprint.evidence import calibration, population
from kinprint.evidence.matched import PROCEDURE
from kinprint.evidence.records import ALPHA
from kinprint.linalg.threads import one_thread
from kinprint.types import Evidence, Verdict
from kinprint.verdict import Mode, decide

NAME = "kinprint verdict"
"""What tables call the verdict, in place of a method."""

ASKED = "verdict"
"""What a person who asks for single methods calls it."""

VALUE = "size"

VERSION = 6
"""Raised whenever a test, the plan or the rule gives another verdict on the same pair."""

MODE: Mode = "default"


@cache
def verdict_id() -> str:
    """Return the id under which verdicts are kept: with the margins, the calibration and every setting behind them.

    Example:
        >>> verdict_id().startswith(f"verdict/v{VERSION}[alpha=1e-06,calibration=")
        True
    """
    return canonical.method_id(
        "verdict",
        VERSION,
        alpha=ALPHA,
        mode=MODE,
        sizes=PROCEDURE,
        population=f"{population.innocents().version}-{shipped_digest('innocents.json')}",
        calibration=shipped_digest(calibration.FILE),
    )


def shipped_digest(file: str) -> str:
    """Return the start of the digest of a file that comes with the evidence."""
    text = (resources.files("kinprint.evidence") / file).read_text(encoding="utf-8")
    return canonical.digest(text).removeprefix("sha256:")[:12]


def measure(suspect: Opened, base: Opened) -> Measured:
    """Return the verdict on one pair, given on one thread, with what it cost."""
    with one_thread(), metered() as meter:
        found = decide(suspect.model, base.model, mode=MODE)
    verdict = summary(found)
    size = similarity(verdict)
    return Measured(
        suspect=suspect.digest,
        base=base.digest,
        id=verdict_id(),
        method=NAME,
        values=((VALUE, "similarity", 1.0),),
        cells={VALUE: Cell(value=size, reason=None if size is not None else verdict.contrary or verdict.headline)},
        cost=Cost(seconds=meter.seconds, peak_mb=meter.peak_mb),
        verdict=verdict,
    )


def summary(verdict: Verdict) -> PairVerdict:
    """Return what tables tell of a verdict."""
    planted = None if verdict.power is None or not verdict.power.plantings else verdict.power.plantings[0]
    untold = verdict.conclusion == "not_comparable" and verdict.reasons
    return PairVerdict(
        conclusion=verdict.conclusion,
        headline=verdict.headline,
        decided_by=verdict.decided_by,
        contrary=verdict.reasons[0] if untold else verdict.contrary,
        log10_p=verdict.log10_p,
        heads=_size(verdict.evidence, "matched-heads"),
        units=_size(verdict.evidence, "matched-units"),
        seen=None if planted is None else planted.seen,
        plantings=None if planted is None else planted.plantings,
        layers=None if verdict.layer_map is None else tuple(layer.base for layer in verdict.layer_map.layers),
    )


def similarity(verdict: PairVerdict) -> float | None:
    """Return the number by which rates judge a verdict: the larger size of the trunk, 1 for identical models.

    Example:
        >>> similarity(PairVerdict(conclusion="derived", headline="", heads=0.9, units=0.8))
        0.9
    """
    if verdict.conclusion == "identical":
        return 1.0
    return max((size for size in (verdict.heads, verdict.units) if size is not None), default=None)


def _size(evidence: Sequence[Evidence], name: str) -> float | None:
    return next((one.size for one in evidence if one.id.partition("/")[0] == name), None)
