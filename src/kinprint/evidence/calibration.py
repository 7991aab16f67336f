"""Which exact tests were calibrated: did their p-values come out uniform on models known to be independent?

An exact test is exact by its argument; the argument can fail where labels are not exchangeable after all, or where code
does not do what the argument says. So each test is run on pairs of independent models, and only one that showed nothing
there carries a verdict. ``calibration.json`` is written from what ``kinprint bench calibration`` measured.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from kinprint.types import Record

FILE = "calibration.json"


class CalibratedTest(Record):
    """What came out for one test, over all zoos together.

    Attributes:
        calibrated: Whether every zoo that could say anything found nothing; None where none could.
        pairs: Independent pairs that were tested.
        independent: How many of them are independent draws: models less one, for each set of models tested together.
        disjoint: Pairs of a largest set that share no model.
        ks: Smallest p-value of Kolmogorov and Smirnov's test over the zoos, as measured.
        ad: The same of Anderson and Darling's.
        dispersion: The same of the test that z has mean square 1.
        adjusted: Smallest of all these after Holm's correction over everything that was calibrated.
    """

    calibrated: bool | None
    pairs: int
    independent: int
    disjoint: int
    ks: float
    ad: float
    dispersion: float
    adjusted: float


class CalibratedTests(Record):
    """The tests that were calibrated, by id: another version or setting of a test is another test.

    Attributes:
        level: A test is not calibrated if an adjusted p-value is below this.
        zoos: Digest of the models of each zoo, by suite.
        tests: By id.
    """

    level: float
    zoos: dict[str, str]
    tests: dict[str, CalibratedTest]


@cache
def calibrations() -> CalibratedTests:
    """Return what ships with this version of kinprint."""
    content = (resources.files("kinprint.evidence") / FILE).read_bytes()
    return CalibratedTests.model_validate_json(content)


def calibrated(test_id: str) -> bool | None:
    """Return whether a test came out uniform on independent models; None where that was never measured.

    A test that did not, or that was never tried, carries no verdict.

    Args:
        test_id: ``Evidence.id``.

    Example:
        >>> calibrated("a-test/v0[nobody=ran]") is None
        True
    """
    found = calibrations().tests.get(test_id)
    return None if found is None else found.calibrated
