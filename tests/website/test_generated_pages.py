"""Pages that commands write are what the commands write, and say what their numbers say."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from built_site import ROOT

import kinprint
from kinprint import errors, types
from kinprint.behaviour.axis import METHODS as BEHAVIOURAL
from kinprint.registry import METHODS

DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
NUMBER = r"-?\d+(?:\.\d+)?"


@cache
def script(name: str) -> Mapping[str, Any]:
    return runpy.run_path(str(DOCS / "reference" / f"make_{name}.py"))


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def numbers(page: str) -> list[float]:
    return [float(found) for found in re.findall(NUMBER, page)]


def masked(page: str) -> str:
    return re.sub(NUMBER, "#", page)


def assert_like(shown: str, made: str, *, within: float) -> None:
    """Floats differ in the last places between processors; everything else is compared to the letter."""
    assert masked(shown) == masked(made)
    assert numbers(shown) == pytest.approx(numbers(made), abs=within, rel=1e-3)


def described(picture: str) -> Any:
    """Return what a picture says that it shows."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", (IMAGES / picture).read_text(), re.DOTALL)
    assert found is not None
    return json.loads(unescape(found[1]))


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in (key, *flat(value[key]))]
    return [leaf for one in value for leaf in flat(one)] if isinstance(value, list | tuple) else [value]


def assert_shows(picture: str, data: Any) -> None:
    """Hold a picture to data; counts of a histogram may move by one between processors."""
    shown, made = flat(described(picture)), flat(json.loads(json.dumps(data)))
    assert len(shown) == len(made)
    for mine, theirs in zip(shown, made, strict=True):
        if isinstance(mine, float) and isinstance(theirs, float | int):
            assert mine == pytest.approx(theirs, rel=0.02, abs=2e-3)
        elif isinstance(mine, int) and isinstance(theirs, int):
            assert abs(mine - theirs) <= 1
        else:
            assert mine == theirs


# -- commands --------------------------------------------------------------------------------------------------------


def test_the_command_reference_is_the_programs_help() -> None:
    assert text("reference/commands.md") == script("commands")["page"](), "run: make pages"


@pytest.mark.parametrize("command", ["compare", "behave", "zoo derive"])
def test_the_options_that_a_terminal_shows_are_those_of_the_command_reference(command: str) -> None:
    found = re.search(
        rf"^## kinprint {command}\n\n```text\n(.*?)\n```$", text("reference/commands.md"), re.DOTALL | re.M
    )
    assert found is not None
    shown = subprocess.run(
        [sys.executable, "-c", "from kinprint.cli import main; main()", *command.split(), "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    option = r"(?<![\w-])--[a-z][a-z-]+"
    assert set(re.findall(option, shown.stdout)) == set(re.findall(option, found[1]))
    assert len(set(re.findall(option, found[1]))) > 4


# -- the Python interface --------------------------------------------------------------------------------------------


def test_the_python_interface_has_every_public_name() -> None:
    page = text("reference/api.md")
    assert set(re.findall(r"heading: kinprint\.(\w+)", page)) == set(kinprint.__all__) - {"__version__"}
    records = {
        name
        for name, one in inspect.getmembers(types, inspect.isclass)
        if issubclass(one, types.Record) and one is not types.Record
    }
    assert set(re.findall(r"^::: kinprint\.types\.(\w+)", page, re.MULTILINE)) == records
    faults = {
        name
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, errors.KinprintError) and one.__module__ == errors.__name__
    }
    assert set(re.findall(r"^::: kinprint\.errors\.(\w+)", page, re.MULTILINE)) == faults


# -- the first page ----------------------------------------------------------------------------------------------------


def test_the_first_answer_is_the_programs() -> None:
    assert_like(text("index.md"), script("start")["filled"](text("index.md")), within=0.02)


# -- methods -----------------------------------------------------------------------------------------------------------


def test_every_method_has_a_page_with_mathematics_invariances_failures_and_a_picture() -> None:
    names = {name.split("[")[0] for name in METHODS} | set(BEHAVIOURAL)
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == names
    for name in names:
        page = text(f"methods/{name}.md")
        assert "\n```math\n" in page, name
        for heading in ("What it computes", "What it ignores and notices", "Where it fails"):
            assert f"\n## {heading}\n" in page, name
        assert f"](../images/method-{name}.svg)" in page, name


@pytest.fixture(scope="module")
def measured() -> Mapping[str, Any]:
    pytest.importorskip("torch", reason="mixtures are checked by logits")
    return script("methods")["measured"]()


def test_pages_of_methods_show_what_the_methods_say(measured: Mapping[str, Any]) -> None:
    make = script("methods")
    assert set(measured) == {name.split("[")[0] for name in METHODS}
    for name, results in measured.items():
        page = text(f"methods/{name}.md")
        blocks = {"declared": make["declared"](name), "numbers": make["numbers"](name, results)}
        assert_like(page, make["filled"](page, blocks), within=2e-3)


def test_pictures_of_methods_show_what_the_methods_say(measured: Mapping[str, Any]) -> None:
    for name, results in measured.items():
        assert_shows(f"method-{name}.svg", script("methods")["shown"](name, results))


@pytest.mark.parametrize("name", list(BEHAVIOURAL))
def test_the_picture_of_a_behavioural_method_shows_the_numbers_of_its_page(name: str) -> None:
    # The models are not run again: it takes minutes.
    make = script("methods")
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text(f"methods/{name}.md"), re.MULTILINE)
    table = {value: cells.split(" | ") for value, cells in rows}
    for at, suspect in enumerate(make["SUSPECTS"]):
        shown = described(f"method-{name}.svg")["numbers"][suspect]
        for value, number in zip(make["SHOWN"][name], shown, strict=True):
            cell = table[value][at]
            assert (cell == "-") if number is None else (float(cell) == pytest.approx(number, rel=0.01, abs=1e-3))


def test_a_page_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has blocks"):
        script("methods")["filled"]("# Nothing\n", {"numbers": "x"})


# -- the tests of the verdict ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts() -> Mapping[str, Any]:
    return script("evidence")["verdicts"]()


def test_the_ladder_on_the_shipped_models_is_the_programs(verdicts: Mapping[str, Any]) -> None:
    assert_like(text("tests.md"), script("evidence")["filled"](text("tests.md"), verdicts), within=0.02)


def test_the_pictures_of_the_evidence_show_what_the_program_finds(verdicts: Mapping[str, Any]) -> None:
    make = script("evidence")
    assert_shows("evidence-exact.svg", make["exact"]())
    assert_shows("evidence-sizes.svg", make["sizes"](verdicts))
    assert_shows("evidence-ladder.svg", make["all_sizes"](verdicts))


def test_every_test_of_the_ladder_has_its_module_named() -> None:
    named = set(re.findall(r"\]\(\.\./src/kinprint/evidence/(\w+)\.py\)", text("tests.md")))
    help_only = {"__init__", "calibration", "controls", "identity_search", "numbering", "pair", "records", "sampling"}
    help_only |= {"related", "sizes", "values"}
    assert named | help_only == {file.stem for file in (ROOT / "src" / "kinprint" / "evidence").glob("*.py")}


# -- upcycling ---------------------------------------------------------------------------------------------------------


def rows(page: str, block: str) -> dict[str, list[str]]:
    found = re.search(rf"<!-- begin: {block} -->(.*?)<!-- end: {block} -->", page, re.DOTALL)
    assert found is not None
    return {name: cells.split(" | ") for name, cells in re.findall(r"^\| `(.+?)` \| (.+) \|$", found[1], re.MULTILINE)}


def test_the_case_of_upcycling_says_what_its_tables_say() -> None:
    page = text("case-studies/upcycling.md")
    correlations = {name: float(cells[1]) for name, cells in rows(page, "correlations").items()}
    concluded = {name: cells[0].strip("*") for name, cells in rows(page, "verdicts").items()}
    derived = {name for name in concluded if "upcycled" in name}
    assert len(derived) == 3
    assert {concluded[name] for name in derived} == {"derived"}
    assert {concluded[name] for name in set(concluded) - derived} == {"independent"}
    assert min(correlations["moe"], correlations["moe-twin"], correlations["wide"]) > 0.927
    assert correlations["base.upcycled, laundered"] < min(correlations["moe"], correlations["moe-twin"])
    assert set(described("upcycling-sigma.svg")) == {"base", "moe", "moe-twin", *derived} - {"base.upcycled-raw"}


def test_the_case_of_upcycling_comes_out_alike_on_the_shipped_models(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="kinds that keep the function are checked by logits")
    from kinprint.zoo.single import derive_folder

    examples = ROOT / "examples"
    for name, parent, kinds in (
        ("base.upcycled", "base", ["upcycle:experts=4,noise=0.01", "noise:share=0.1"]),
        ("moe", "twin", ["upcycle:experts=4,noise=0.01"]),
    ):
        derive_folder(examples / parent, tmp_path / name, kinds)
    (tmp_path / "base").symlink_to(examples / "base", target_is_directory=True)
    make = script("upcycling")
    found = make["measured"](tmp_path, ("base.upcycled", make["LAUNDERED"], "moe"))
    table = rows(f"<!-- begin: v -->\n{make['verdicts'](found)}\n<!-- end: v -->", "v")
    assert {name: cells[0] for name, cells in table.items()} == {
        "base.upcycled": "**derived**",
        make["LAUNDERED"]: "**derived**",
        "moe": "**independent**",
    }
    page = make["filled"](text("case-studies/upcycling.md"), found)
    assert list(rows(page, "correlations")) == list(found)
    assert list(make["curves"](found)) == ["base", *found]
