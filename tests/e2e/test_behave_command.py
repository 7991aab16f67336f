"""``kinprint behave`` as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
KINPRINT = Path(sys.executable).with_name("kinprint")

pytest.importorskip("torch", reason="the [torch] extra is not installed")


def kinprint(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1", "HOME": str(cache)}
    return subprocess.run(
        [KINPRINT, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )


def test_a_child_behaves_closer_than_a_twin_and_the_result_says_what_it_does_not_mean(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    asked = ["--count", "24", "--method", "reef", "--method", "logits", "--json", out]
    pair = [EXAMPLES / "child", EXAMPLES / "base", "--control", EXAMPLES / "twin"]
    ran = kinprint("behave", *pair, *asked, cache=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "enters no verdict" in ran.stdout
    assert "does not tell copying from distillation" in ran.stdout
    found = json.loads(out.read_text("utf-8"))
    assert [method["method"] for method in found["methods"]] == ["reef", "logits"]
    assert found["probes"]["asked"] == found["probes"]["given"] == 24
    assert len(found["control_pairs"]) == 2
    own = found["methods"][0]["values"][0]["value"]
    assert own > max(pair["methods"][0]["values"][0]["value"] for pair in found["control_pairs"])
    # What was run is kept, and gives the same numbers.
    assert list((tmp_path / "kinprint" / "behaviour").glob("*.npz"))
    kinprint("behave", *pair, *asked[:-1], tmp_path / "again.json", "-q", cache=tmp_path)
    assert json.loads((tmp_path / "again.json").read_text("utf-8"))["methods"] == found["methods"]


def test_both_axes_stand_in_one_result(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    pair = [EXAMPLES / "child", EXAMPLES / "base", "--control", EXAMPLES / "twin"]
    ran = kinprint("compare", *pair, "--quick", "--behave", "--json", out, cache=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(out.read_text("utf-8"))
    assert found["verdict"]["conclusion"] == "derived"
    assert "Weights derived, behaviour close" in found["behaviour"]["summary"]
    assert "Weights derived, behaviour close" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such-folder", "base"], 2, "is no folder"),
        (["base", "bare"], 5, "holds no tokenizer"),
        (["base", "base", "--method", "nonsense"], 2, "choose from reef"),
        (["base", "base", "--probes", "empty.txt"], 5, "empty.txt"),
        (["base", "base", "--device", "warp"], 2, "no device"),
        (["base", "base", "--probes", "long.txt"], 2, "none of 1 probes fits"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_the_documented_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    shutil.copytree(EXAMPLES / "base", tmp_path / "base")
    shutil.copytree(EXAMPLES / "base", tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    (tmp_path / "empty.txt").write_text("", "utf-8")
    (tmp_path / "long.txt").write_text("word " * 100 + "\n", "utf-8")
    places = [str(tmp_path / one) if (tmp_path / one).exists() or "no-such" in one else one for one in arguments]
    ran = kinprint("behave", *places, cache=tmp_path)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not ran.stdout


def test_a_name_with_markup_is_printed_as_text(tmp_path: Path) -> None:
    hostile = tmp_path / "[red]<img src=x onerror=alert(1)>"
    shutil.copytree(EXAMPLES / "base", hostile)
    ran = kinprint("behave", hostile, EXAMPLES / "base", "--count", "10", "--method", "logits", cache=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "[red]<img" in ran.stdout
