"""The innocents: margins from one half, rates from the other."""

from __future__ import annotations

import pytest

from kinprint.evidence.matched import PROCEDURE
from kinprint.evidence.population import (
    LEAST_MARGIN,
    SLACK,
    STATISTICS,
    Innocent,
    InnocentPair,
    Innocents,
    among_innocents,
    innocents,
)
from kinprint.types import Population


def model(name: str, half: str, width: int = 64) -> Innocent:
    return Innocent(name=name, source="s", family="llama", width=width, layers=2, half=half)


def population(*sizes: tuple[int, int, float]) -> Innocents:
    models = (model("a", "margin"), model("b", "margin"), model("c", "report"), model("d", "report", 128))
    pairs = tuple(InnocentPair(first=first, second=second, sizes={"heads": size}) for first, second, size in sizes)
    return Innocents(version=1, procedure="p", models=models, pairs=pairs)


def test_the_margin_is_a_multiple_of_the_largest_size_in_its_half_alone() -> None:
    assert population((0, 1, 0.2), (2, 3, 0.9)).margin("heads") == pytest.approx(SLACK * 0.2)


def test_the_margin_never_falls_below_the_least() -> None:
    assert population((0, 1, 0.001), (2, 3, 0.0)).margin("heads") == LEAST_MARGIN


def test_the_other_half_reports() -> None:
    told = population((0, 1, 0.2), (2, 3, 0.9)).report("heads", (64, 128))
    assert told == Population(
        pairs=1, models=2, largest=0.9, passed=1, bound=1.0, bound_disjoint=1.0, widths=(64, 128), outside=None
    )


@pytest.mark.parametrize("width", [63, 129, 4096])
def test_a_width_that_no_innocent_has_is_named(width: int) -> None:
    told = population((0, 1, 0.2), (2, 3, 0.1)).report("heads", (64, width))
    assert told is not None
    assert str(width) in (told.outside or "")


def test_a_statistic_without_pairs_can_convict_nobody() -> None:
    empty = population((0, 1, 0.2))
    assert empty.report("units", (64, 64)) is None
    assert empty.margin("units") > 1


def test_what_ships_was_measured_as_pairs_are_measured_now() -> None:
    shipped = innocents()
    assert shipped.procedure == PROCEDURE
    assert len(shipped.models) >= 40
    for statistic in STATISTICS:
        assert len(shipped.sizes(statistic, "margin")) >= 100
        assert len(shipped.sizes(statistic, "report")) >= 100


def test_no_innocent_that_ships_is_beyond_a_margin() -> None:
    shipped = innocents()
    for statistic in STATISTICS:
        told = shipped.report(statistic, (64, 64))
        assert told is not None
        assert told.passed == 0
        assert told.largest < shipped.margin(statistic)


def test_pairs_that_ship_never_cross_the_halves() -> None:
    shipped = innocents()
    assert all(shipped.models[pair.first].half == shipped.models[pair.second].half for pair in shipped.pairs)


def test_a_size_is_beyond_only_above_the_margin() -> None:
    margin = innocents().margin("heads")
    assert among_innocents("heads", margin, (64, 64))["beyond"] is False
    assert among_innocents("heads", margin + 1e-6, (64, 64))["beyond"] is True
