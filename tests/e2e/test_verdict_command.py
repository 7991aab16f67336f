"""The verdict of the installed command on the shipped models, whose lineage is known."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kinprint.checkpoint import open_checkpoint
from kinprint.checkpoint.write import write_safetensors
from kinprint.cli import compare
from kinprint.types import Comparison, Verdict
from kinprint.verdict import ALPHA

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = Path(sys.executable).parent / "kinprint"


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def compared(suspect: str | Path, *options: str | Path, code: int = 0) -> tuple[Verdict, Comparison]:
    done = run("compare", EXAMPLES / suspect, EXAMPLES / "base", *options, "--json", "-", code=code)
    found = Comparison.model_validate_json(done.stdout)
    assert found.verdict is not None
    return found.verdict, found


LINEAGE = {"child": "derived", "twin": "independent", "laundered": "derived", "base": "identical"}


@pytest.mark.parametrize("name", LINEAGE)
@pytest.mark.parametrize("mode", ["--quick", "--thorough"])
def test_every_mode_finds_the_lineage_of_the_shipped_models(name: str, mode: str) -> None:
    verdict, found = compared(name, mode, "--fail-on", "derived", code=0 if LINEAGE[name] == "independent" else 3)
    assert verdict.conclusion == LINEAGE[name]
    assert found.schema_version == 2
    assert bool(found.methods) == (mode == "--thorough")


@pytest.mark.parametrize("name", ["child", "laundered"])
def test_the_default_maps_every_layer_of_a_derived_model_to_its_own(name: str) -> None:
    verdict, found = compared(name)
    assert verdict.conclusion == "derived"
    assert verdict.layer_map is not None
    assert [(layer.suspect, layer.base) for layer in verdict.layer_map.layers] == [(i, i) for i in range(6)]
    assert [result.method for result in found.methods] == ["layernorm", "intrinsic", "ghostspec-mse"]
    assert {part.component: part.conclusion for part in verdict.components} == {
        "trunk": "derived", "embedding": "derived",
    }  # fmt: skip


def test_an_exact_test_decides_on_a_saved_order_and_sizes_on_a_scrambled_one() -> None:
    child, laundered = compared("child", "--quick")[0], compared("laundered", "--quick")[0]
    carriers = [next(one for one in v.evidence if one.name == v.decided_by) for v in (child, laundered)]
    assert [one.rung for one in carriers] == [1, 2]
    assert (child.log10_p or 0) < -100
    assert (laundered.log10_p or 0) > -1


def test_a_third_model_is_as_far_from_both_sides() -> None:
    verdict, _ = compared("child", "--control", EXAMPLES / "twin")
    assert [(third.side, third.control) for third in verdict.third_models] == [("suspect", "twin"), ("base", "twin")]
    assert all(abs(size or 1) < 0.1 for third in verdict.third_models for size in third.sizes.values())


def test_the_verdict_stands_first_then_what_it_rests_on_then_the_methods() -> None:
    text = run("compare", EXAMPLES / "twin", EXAMPLES / "base").stdout
    assert text.startswith("INDEPENDENT")
    order = ("INDEPENDENT", "\nsuspect", "\nplace", "\nlayers", "\nparts", "| evidence", "Controls:", "do not enter")
    places = [text.index(one) for one in (*order, "Not excluded", "How to reproduce this")]
    assert places == sorted(places)
    assert "no conclusion" not in text


def test_what_is_identical_has_no_place_among_strangers() -> None:
    text = run("compare", EXAMPLES / "base", EXAMPLES / "base").stdout
    assert text.startswith("IDENTICAL")
    assert "\nplace" not in text


def test_what_an_exact_test_decided_says_why_it_has_no_place_by_size() -> None:
    text = run("compare", EXAMPLES / "child", EXAMPLES / "base", "--quick").stdout
    assert "\nplace    nothing was matched by size, since an exact test decided first\n" in text


def test_alpha_is_what_all_exact_tests_may_spend() -> None:
    assert inspect.signature(compare).parameters["alpha"].default == ALPHA
    verdict, _ = compared("laundered", "--quick", "--alpha", "0.01")
    assert verdict.alpha == 0.01


@pytest.mark.parametrize("alpha", ["0", "1", "-1e-6", "nan", "much"])
def test_an_alpha_that_is_no_probability_is_a_bad_call(alpha: str) -> None:
    done = run("compare", EXAMPLES / "twin", EXAMPLES / "base", "--alpha", alpha, code=2)
    assert "alpha" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--quick", "--thorough"), "--quick and --thorough exclude each other"), (("--fail-on", "doubt"), "'doubt'")],
)
def test_options_that_make_no_sense_are_a_bad_call(options: tuple[str, ...], says: str) -> None:
    done = run("compare", EXAMPLES / "twin", EXAMPLES / "base", *options, code=2)
    assert says in done.stderr
    assert done.stdout == ""


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_without_being_asked_a_derived_model_is_no_failure() -> None:
    run("compare", EXAMPLES / "child", EXAMPLES / "base", "--quick", "--quiet")


def test_what_cannot_be_compared_leaves_the_question_open(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"a": np.ones((3, 4), np.float32)})
    arguments = ("compare", tmp_path / "a.safetensors", EXAMPLES / "base")
    run(*arguments, "--fail-on", "derived", "--quiet", code=4)
    run(*arguments, "--quiet")


def test_an_embedding_that_was_copied_is_a_failure_too(tmp_path: Path) -> None:
    """The twin with the base's embedding: its trunk is innocent, its embedding is not."""
    folder = tmp_path / "twin"
    shutil.copytree(EXAMPLES / "twin", folder)
    (file,) = folder.glob("*.safetensors")
    twin, base = open_checkpoint(EXAMPLES / "twin"), open_checkpoint(EXAMPLES / "base")
    sources = {name: base if "embed_tokens" in name else twin for name in twin.tensors}
    write_safetensors(file, {name: source.read(name) for name, source in sources.items()})
    verdict, _ = compared(folder, "--fail-on", "derived", code=3)
    found = {part.component: part.conclusion for part in verdict.components}
    assert found["trunk"] != "derived"
    assert found["embedding"] == "derived"


# -- edges -------------------------------------------------------------------------------------------------------------


def test_hostile_names_reach_the_terminal_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]\x1b[31m\u202emodel"
    shutil.copytree(EXAMPLES / "twin", folder)
    third = tmp_path / "[red]\x1b]0;title\x07"
    shutil.copytree(EXAMPLES / "child", third)
    done = run("compare", folder, EXAMPLES / "base", "--control", third, "--details")
    assert "INDEPENDENT" in done.stdout
    assert "[red]" in done.stdout
    for character in "\x1b\u202e\x07":
        assert character not in done.stdout


def test_a_device_changes_no_verdict() -> None:
    pytest.importorskip("torch")
    here, there = (compared("laundered", "--quick", "--device", device)[0] for device in ("cpu", "torch"))
    assert here.conclusion == there.conclusion == "derived"
    for one, other in zip(here.evidence, there.evidence, strict=True):
        assert one.id == other.id
        assert other.size == (None if one.size is None else pytest.approx(one.size, abs=1e-3))
