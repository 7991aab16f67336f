"""The command on the page gives the same result again, whatever was asked for."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinprint import api
from kinprint.report.html.reproduction import command, reproduction
from kinprint.types import Comparison, Request

ROOT = Path(__file__).parents[2]
PAIR = ("examples/child", "examples/base")


@pytest.fixture(scope="module")
def quick() -> Comparison:
    return api.compare(ROOT / PAIR[0], ROOT / PAIR[1], mode="quick")


def asked(comparison: Comparison, **options: Any) -> list[str]:
    """The command's words, without the two models and what goes before."""
    request = Request(**{"mode": "default", **options})
    return shlex.split(command(comparison.model_copy(update={"request": request})))[4:]


@pytest.mark.parametrize(
    "options",
    [
        ["--quick", "--budget=400KB", "--layers=2", "--alpha", "0.001"],
        ["--method=layernorm", "--method=intrinsic", "--full", "--control", "examples/twin"],
    ],
)
def test_the_command_of_a_result_gives_the_same_result(options: list[str], tmp_path: Path) -> None:
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    started = ["kinprint", "compare", *PAIR, *options]
    for words, kept in ((started, first), (None, again)):
        typed = words or shlex.split(command(Comparison.model_validate_json(first.read_bytes())))
        kinprint = Path(sys.executable).with_name(typed[0])
        ran = [kinprint, *typed[1:], "--json", kept, "--quiet"]
        subprocess.run(ran, cwd=ROOT, check=True, timeout=120)
    assert json.loads(first.read_text()) == json.loads(again.read_text())
    assert json.loads(first.read_text())["request"]["mode"] == ("quick" if "--quick" in options else "default")


def test_every_option_that_changes_the_result_is_in_the_command(quick: Comparison) -> None:
    assert asked(quick) == ["--alpha", "1e-06"]
    assert asked(quick, mode="quick", component="vision")[2:] == ["--quick", "--component=vision"]
    assert asked(quick, mode="thorough", full=True)[2:] == ["--thorough"]
    assert asked(quick, full=True, device="cuda:1", behaviour=True)[2:] == ["--full", "--device=cuda:1", "--behave"]


def test_a_result_says_what_it_was_measured_with(quick: Comparison) -> None:
    assert quick.environment is not None
    assert (quick.environment.python, quick.environment.numpy) == (platform.python_version(), np.__version__)
    told = str(reproduction(quick))
    for said in (platform.python_version(), quick.environment.system, quick.environment.device):
        assert said in told


def test_a_result_of_an_older_program_says_what_it_lacks(quick: Comparison) -> None:
    held = json.loads(quick.model_dump_json())
    del held["request"], held["environment"]
    old = Comparison.model_validate(held)
    assert command(old).endswith("--alpha 1e-06")
    assert "is not in a result this old" in str(reproduction(old))


def test_a_command_names_the_commit_that_was_read(quick: Comparison) -> None:
    held: dict[str, Any] = json.loads(quick.model_dump_json())
    held["suspect"]["location"], held["base"]["location"] = "org/one", "org/two@main"
    for side in ("suspect", "base"):
        held["verdict"]["reading"][side]["revision"] = "c0ffee"
    assert command(Comparison.model_validate(held)).startswith("kinprint compare org/one@c0ffee org/two@c0ffee ")


def test_no_place_can_be_more_than_one_word_or_an_option(quick: Comparison) -> None:
    held: dict[str, Any] = json.loads(quick.model_dump_json())
    held["suspect"]["location"], held["base"]["location"] = "--json=/etc/passwd", "a; rm -rf $HOME `x`"
    words = shlex.split(command(Comparison.model_validate(held)))
    assert words[2:4] == ["./--json=/etc/passwd", "a; rm -rf $HOME `x`"]
