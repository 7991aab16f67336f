"""What calibration writes down: what each test gave on each pair, and one row for each test and zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinprint.types import Record

RESULT_VERSION = 1
"""Raised whenever a reader of the JSON could be misled by the change."""

Statistic = Literal["ks", "ad", "dispersion"]


class Outcome(Record):
    """What one test gave on one pair: the line that a resumed run reads.

    Attributes:
        suspect: Content digest.
        base: Content digest.
        id: The test's id.
        draws: Relabellings that were tried: all of them where there are few.
        count: How many reached the observed statistic; None where the test did not apply.
        log10_p: What the test reports, which may be a bound where ``count`` is 0.
        log10_floor: Minus log10 of the number of relabellings.
        reason: Why it did not apply.
    """

    suspect: str
    base: str
    id: str
    draws: int | None = None
    count: int | None = None
    log10_p: float | None = None
    log10_floor: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """One p-value of one row.

    Attributes:
        test: The test's id.
        zoo: The suite.
        suspect: Model's name.
        base: Model's name.
        outcome: What the test gave.
        p: The p-value between its steps, uniform on (0, 1) under the null; None where the test did not apply.
    """

    test: str
    zoo: str
    suspect: str
    base: str
    outcome: Outcome
    p: float | None


class Check(Record):
    """One statistic of a row.

    Attributes:
        statistic: ``ks`` Kolmogorov and Smirnov, ``ad`` Anderson and Darling, ``dispersion`` mean square of z.
        value: The statistic on all pairs.
        p_all: Its p-value if all pairs were independent draws: a description, not a test.
        p: The p-value that counts.
        p_rounds: Twice the mean of the p-values of rounds of disjoint pairs.
        adjusted: ``p`` after Holm's correction over all rows and statistics.
    """

    statistic: Statistic
    value: float
    p_all: float
    p: float
    p_rounds: float
    adjusted: float = 1.0


class CalibrationRow(Record):
    """One test on the pairs of one zoo.

    Attributes:
        test: The test's id.
        name: What was tested, for people.
        zoo: The suite.
        models: Models in pairs to which the test applied.
        pairs: Those pairs.
        not_applicable: Pairs to which it did not.
        reasons: Why, the commonest first, three at most.
        independent: Pairs of a largest set without a cycle: that many p-values are independent draws.
        disjoint: Pairs of a largest round, in which no two share a model.
        rounds: Rounds of disjoint pairs that together are all pairs.
        enumerated: Pairs whose p-value is exact over all relabellings, and so in few steps.
        spread: Root of the mean square of z over all pairs, 1 under the null; z is the normal quantile of 1 - p.
        share_at_5: Share of pairs with p at most .05.
        smallest: Smallest p-value, between its steps.
        checks: The statistics.
        found_from: Spread above 1 from which on dispersion would be found 8 times in 10, at Holm's strictest level;
            None where no spread would be.
        found_from_rounds: The same for the rounds.
        calibrated: Whether no adjusted p-value is below the level; None where there are too few independent draws.
    """

    test: str
    name: str
    zoo: str
    models: int
    pairs: int
    not_applicable: int
    reasons: tuple[str, ...]
    independent: int
    disjoint: int
    rounds: int
    enumerated: int
    spread: float
    share_at_5: float
    smallest: float
    checks: tuple[Check, ...]
    found_from: float | None = None
    found_from_rounds: float | None = None
    calibrated: bool | None = None


class CalibrationResult(Record):
    """A whole run.

    Attributes:
        result_version: Version of this record.
        level: A test is not calibrated if an adjusted p-value is below this.
        least: Independent draws below which a row says nothing.
        seed: Of the places between steps, of the order of models and of simulations.
        zoos: Digest of the models that were used, by suite.
        models: Their names, by suite.
        rows: One for each test and zoo with pairs to which it applies.
        unused: Tests that applied to no pair of a zoo, as ``test: zoo: reason``.
        axis: Whether weights were tested or behaviour.
        notes: What must be known of the tests.
        kinprint: The program that measured.
        versions: Of the libraries.
        seconds: Wall time of this run, without what an earlier one had measured.
    """

    result_version: int = RESULT_VERSION
    level: float
    least: int
    seed: int
    zoos: dict[str, str]
    models: dict[str, tuple[str, ...]]
    rows: tuple[CalibrationRow, ...]
    unused: tuple[str, ...]
    axis: Literal["weights", "behaviour"] = "weights"
    notes: tuple[str, ...] = ()
    kinprint: str
    versions: dict[str, str]
    seconds: float
