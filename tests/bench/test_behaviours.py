"""Behavioural columns of the benchmark: what each method gives, and that each pays for its own passes once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinprint.behaviour.axis import METHODS
from kinprint.bench import behaviours
from kinprint.bench.measure import Measured, Opened
from kinprint.bench.run import _ids
from kinprint.errors import UsageError

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["reef", "logits"]

pytest.importorskip("torch", reason="the [torch] extra is not installed")


def by_name(found: list[Measured]) -> dict[str, Measured]:
    return {one.method: one for one in found}


def test_every_method_asked_for_has_a_line_with_what_it_cost() -> None:
    base, child, twin = (Opened.of(EXAMPLES / name) for name in ("base", "child", "twin"))
    first = by_name(behaviours.measure(child, base, behaviours.ids(NAMES)))
    assert list(first) == NAMES
    for one in first.values():
        assert (one.suspect, one.base) == (child.digest, base.digest)
        assert one.id == METHODS[one.method].id
        assert one.cost.seconds > 0
        assert one.reason is None
        assert one.values[0][0] == "similarity"
    made = dict(base.behaved)
    second = by_name(behaviours.measure(twin, base, behaviours.ids(NAMES)))
    assert base.behaved == made  # run once, and its cost is in both lines
    child_value, twin_value = (found["reef"].cells["similarity"].value for found in (first, second))
    assert child_value is not None
    assert twin_value is not None
    assert child_value > twin_value


def test_behavioural_columns_stand_between_methods_and_the_verdict_where_they_are_asked_for() -> None:
    without, within = _ids(None, behave=False), _ids(None, behave=True)
    assert within[:-1] == [*without[:-1], *behaviours.ids()]
    assert within[-1] == without[-1]
    assert len(behaviours.ids()) == len(METHODS)
    with pytest.raises(UsageError, match="unknown behavioural method"):
        behaviours.ids(["nonsense"])
