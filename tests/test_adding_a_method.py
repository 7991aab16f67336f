"""The worked example in docs/adding-a-method.md, taken out of the page and run."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

import kinprint.methods
import test_declarations
from kinprint import registry
from kinprint.bench.cases import CaseList, read_cases
from kinprint.bench.records import BenchResult
from kinprint.cli import app
from kinprint.zoo import suite as build
from kinprint.zoo import suites
from kinprint.zoo.recipes import Derived, Recipe, Suite, Trained

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
NAME = "energy-profile"
METHOD_FILE, TEST_FILE = "src/kinprint/methods/energy_profile.py", "tests/methods/test_energy_profile.py"
REGISTRY, SUITES, CASES = "src/kinprint/registry.py", "src/kinprint/zoo/suites.py", "my-cases.yaml"

BLOCKS = dict(re.findall(r"^`(\S+)`\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def with_row(path: str) -> str:
    """A file of the repository with the page's row in it; the line above the row must stand there once."""
    kept, row = BLOCKS[path].splitlines()
    source = (ROOT / path).read_text()
    assert kept.startswith(" ")
    assert row.startswith("+")
    assert source.count(f"\n{kept[1:]}\n") == 1, kept
    return source.replace(f"{kept[1:]}\n", f"{kept[1:]}\n{row[1:]}\n")


def execute(path: str, **names: object) -> dict[str, Any]:
    """The names of a module of the repository as it would be with the page's row."""
    found = {"__name__": f"changed.{Path(path).stem}", **names}
    exec(compile(with_row(path), path, "exec"), found)
    return found


def small(recipe: Recipe) -> Recipe:
    """A recipe with sizes and training cut down to what a test can wait for."""
    if isinstance(recipe, Trained):
        shape = replace(recipe.shape, hidden=16, heads=4, kv_heads=2, head_dim=4, ffn=16, context=32)
        training = recipe.training.model_copy(update={"steps": 3, "batch": 2, "warmup": 1})
        # Wider at the start, or the epsilon in q and k norms would count: kinds that rescale q and k leave it out.
        return replace(recipe, shape=shape, training=training, init_std=0.3)
    assert isinstance(recipe, Derived)
    return replace(recipe, corpus=None)


def needed(cases: CaseList, suite: Suite) -> Suite:
    """The suite's models that a list names, small."""
    patterns = [pattern for group in cases.cases for pattern in (*group.suspects, *group.bases, *group.models)]
    recipes = [recipe for recipe in suite.recipes if any(fnmatchcase(recipe.name, pattern) for pattern in patterns)]
    return replace(suite, recipes=tuple(map(small, recipes)))


@dataclass(frozen=True)
class Example:
    """The page's files, written and imported, and its row in the smoke suite."""

    folder: Path
    tests: ModuleType
    before: Suite
    after: Suite


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    folder = tmp_path_factory.mktemp("page")
    for name, body in BLOCKS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    before = suites.SUITES["smoke"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinprint.methods, "__path__", [*kinprint.methods.__path__, str((folder / METHOD_FILE).parent)])
        patch.syspath_prepend(str((folder / TEST_FILE).parent))
        module = importlib.import_module("kinprint.methods.energy_profile")
        methods = execute(REGISTRY, energy_profile=module)["METHODS"]
        patch.setattr(registry, "METHODS", methods)
        patch.setattr(test_declarations, "METHODS", methods)
        after = execute(SUITES)["SUITES"]["smoke"]
        small_suite = needed(read_cases(str(folder / CASES)), after)
        patch.setattr(build, "SUITES", {**suites.SUITES, "smoke": small_suite})
        yield Example(folder, importlib.import_module("test_energy_profile"), before, after)
    for name in ("kinprint.methods.energy_profile", "test_energy_profile"):
        del sys.modules[name]
    del kinprint.methods.energy_profile  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def printed(example: Example) -> list[str]:
    """What each command of the page printed, run in the page's order."""
    command_line = typer.main.get_command(app)
    command_line.callback = None  # only --version, for which typer's None is no bool to the runtime checks of tests
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(example.folder)
        for command in COMMANDS:
            program, *arguments = shlex.split(command)
            assert program == "kinprint"
            with redirect_stdout(StringIO()) as output:
                command_line.main(arguments, standalone_mode=False)
            found.append(output.getvalue())
    return found


def test_the_page_has_every_file_that_it_speaks_of() -> None:
    assert set(BLOCKS) == {METHOD_FILE, TEST_FILE, REGISTRY, SUITES, CASES}
    assert len(COMMANDS) == 4


def test_the_pages_own_tests_pass(example: Example) -> None:
    tests = [test for name, test in vars(example.tests).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_the_method_ignores_and_notices_what_the_page_declares(example: Example) -> None:
    del example
    method = registry.METHODS[NAME]
    assert method.ignores
    assert method.notices
    for change in method.ignores:
        test_declarations.test_a_method_ignores_what_it_declares_to_ignore(NAME, change)
    for change in method.notices:
        test_declarations.test_a_method_notices_what_it_declares_to_notice(NAME, change)
    test_declarations.test_every_transformation_is_declared_by_every_method()
    test_declarations.test_every_method_names_its_source()


def test_a_row_where_the_page_puts_it_changes_no_other_model(example: Example) -> None:
    added = [recipe for recipe in example.after.recipes if recipe not in example.before.recipes]
    assert [recipe.name for recipe in added] == ["base.noisy-shuffled"]
    assert len(example.after.recipes) == len(example.before.recipes) + 1


def test_the_commands_of_the_page_give_what_it_promises(example: Example, printed: list[str]) -> None:
    assert NAME in printed[2]
    out = example.folder / "my-results"
    result = BenchResult.model_validate_json((out / "result.json").read_bytes())
    assert [row.case.name for row in result.rows] == [
        "base.noise-5 / base",
        "base.noisy-shuffled / base",
        "base.laundered / base",
        "qwen3.laundered / qwen3",
        "base / twin",
        "base.laundered / twin",
    ]
    assert {column.name for column in result.columns} == {f"{NAME}: similarity"}
    assert all(row.cells[f"{NAME}: similarity"].value is not None for row in result.rows)
    assert NAME in (out / "table.md").read_text()
    assert len((out / "cases.csv").read_text().splitlines()) == 1 + len(result.rows)
