"""The error rate of each verdict, and names cut to what fits."""

from __future__ import annotations

import pytest

from kinprint.report.html.words import error_rate
from kinprint.types import Conclusion, Evidence, Planting, Population, Power, Verdict

PEOPLE = Population(
    pairs=300, models=25, largest=0.07, passed=0, bound=0.01, bound_disjoint=0.25, widths=(64, 96), outside=None
)
MATCHED = Evidence(
    name="units", id="matched-units/v1", rung=2, status="measured", null="n", defeats="d", size=0.9, population=PEOPLE
)
EXACT = Evidence(
    name="order", id="exact-units/v1", rung=1, status="measured", null="n", defeats="d", log10_p=-506.9, size=0.9
)


def verdict(conclusion: Conclusion, decided_by: str | None = None, power: Power | None = None) -> Verdict:
    return Verdict(
        conclusion=conclusion,
        headline="h",
        alpha=1e-6,
        planned=10,
        decided_by=decided_by,
        evidence=(MATCHED, EXACT),
        power=power,
    )


def test_an_exact_test_has_the_rate_of_all_of_them_together() -> None:
    told = error_rate(verdict("derived", "order"))
    assert told.startswith("p = 10^-506.9; all 10 planned exact tests together")
    assert told.endswith("at most 1e-06")


def test_a_matched_test_has_the_rate_of_its_independent_pairs() -> None:
    told = error_rate(verdict("derived", "units"))
    assert told.startswith("0 of 300 independent pairs")
    assert "at most 0.01 if pairs count as independent draws, 0.25 if only" in told


def test_independent_has_the_rate_at_which_planted_copies_would_be_missed() -> None:
    plantings = tuple(Planting(change="c", plantings=300, seen=300, lower_bound=low) for low in (0.99, 0.98))
    power = Power(plantings=plantings, sufficient=True, not_excluded=())
    assert "at most 0.02 would be missed" in error_rate(verdict("independent", power=power))


@pytest.mark.parametrize(
    ("conclusion", "begins"),
    [
        ("identical", "none: values were compared"),
        ("derived", "not known for the whole"),
        ("inconclusive", "none is claimed"),
        ("independent", "none is claimed"),
        ("not_comparable", "none is claimed"),
    ],
)
def test_no_rate_is_made_up(conclusion: Conclusion, begins: str) -> None:
    assert error_rate(verdict(conclusion)).startswith(begins)
