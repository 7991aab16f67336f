"""What is told of a comparison's progress: steps that are done of those planned, and bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from kinprint import api
from kinprint.checkpoint import open_checkpoint
from kinprint.verdict import READING, Limits, Meter
from kinprint.verdict import meter as meters
from kinprint.verdict.plan import most_steps

EXAMPLES = Path(__file__).parents[2] / "examples"

Told = list[tuple[str, int, int]]


def heard() -> tuple[Told, Meter]:
    told: Told = []
    return told, Meter(lambda what, done, total: told.append((what, done, total)))


def test_a_step_is_done_when_the_next_begins() -> None:
    told, meter = heard()
    with meter.at_most(3):
        meter.step("a")
        meter.step("b")
    meter.done()
    assert told == [("a", 0, 3), ("b", 1, 3), ("done", 2, 2)]


def test_steps_that_were_not_needed_are_taken_off_also_when_the_block_fails() -> None:
    told, meter = heard()
    with meter.at_most(10):
        with contextlib.suppress(ValueError), meter.at_most(4, of_plan=True):
            meter.step("a")
            raise ValueError("no")
        meter.step("b")
    assert told == [("a", 0, 10), ("b", 1, 7)]
    assert meter.planned == meter.begun == 2


def test_what_was_not_planned_adds_to_the_plan_and_never_goes_beyond_it() -> None:
    told, meter = heard()
    with meter.at_most(2):
        meter.step("a")
        with meter.at_most(5):
            meter.step("b")
    meter.step("more")
    assert told == [("a", 0, 2), ("b", 1, 7), ("more", 2, 3)]


def test_nobody_has_to_look_on() -> None:
    meter = Meter()
    with meter.at_most(1), meter.reading("x", 10, []):
        assert [one.name for one in threading.enumerate() if one.name == "progress"] == []
        meter.step("a")
    meter.done()


def test_bytes_are_told_while_they_are_read_and_not_what_was_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "EVERY_SECONDS", 0.01)
    told, meter = heard()
    checkpoint = open_checkpoint(EXAMPLES / "child")
    name, before = next(iter(checkpoint.tensors)), checkpoint.bytes_read
    assert before > 0  # the header
    with meter.reading("all values", 1 << 20, [checkpoint]):
        time.sleep(0.05)
        assert told == []
        checkpoint.read(name)
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
    assert told[0] == ("reading all values", checkpoint.tensors[name].nbytes, 1 << 20)
    assert told[-1] == ("reading all values", 1 << 20, 1 << 20)


def compared(suspect: str, mode: str, *, limits: Limits | None = None) -> Told:
    told: Told = []
    api.compare(
        EXAMPLES / suspect,
        EXAMPLES / "base",
        controls=[EXAMPLES / "twin"] if suspect != "twin" else [],
        mode="quick" if mode == "quick" else "default",
        limits=limits,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    return told


@pytest.mark.parametrize(
    ("suspect", "mode", "limits"),
    [
        ("child", "quick", None),
        ("laundered", "default", None),
        ("twin", "default", None),
        ("base", "quick", None),
        ("child", "quick", Limits(small=0)),
        ("laundered", "default", Limits(small=0)),
    ],
)
def test_steps_go_up_by_one_to_all_that_is_planned(suspect: str, mode: str, limits: Limits | None) -> None:
    told = compared(suspect, mode, limits=limits)
    steps = [one for one in told if not one[0].startswith(READING)]
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert all(done < total for _, done, total in steps[:-1])
    assert steps[-1] == ("done", len(steps) - 1, len(steps) - 1)
    # A plan that is known from the beginning never grows, unless more is read than was needed at first.
    totals = [total for _, _, total in steps]
    assert limits is not None or totals == sorted(totals, reverse=True)


def test_the_plan_of_an_undecided_pair_is_used_up() -> None:
    """All tests run on a stranger: what was planned at first is what is done."""
    steps = [one for one in compared("twin", "default") if not one[0].startswith(READING)]
    assert steps[0][2] == steps[-1][2] == 2 + most_steps("default") + 1 + 3
