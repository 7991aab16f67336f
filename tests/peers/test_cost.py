"""The benchmark of cost: what its rows say, its yardstick, and that its page is written from results alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cost
import ml_dtypes
import numpy as np
import pytest
from cost_parts import published
from cost_parts.comparing import Compared, d_prime
from cost_parts.growth import exponent
from cost_parts.process import Run, cold
from cost_parts.rows import Check, Row, at_least, at_most, equals, table
from cost_parts.streaming import limit_seconds, tensors

from kinprint.checkpoint import write_safetensors

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cost.py"


def test_a_bar_is_met_on_the_bar_and_missed_beyond_it_or_without_a_value() -> None:
    assert at_most("seconds", 2.0, 2).met
    assert at_least("times", 20.0, 20).met
    assert equals("derived", "derived").met
    missed = (
        at_most("seconds", 2.1, 2),
        at_least("times", 19, 20),
        at_most("ratio", None, 2),
        equals("derived", "independent"),
    )
    assert not any(check.met for check in missed)


def test_a_row_shows_its_ratio_and_which_bar_is_missed() -> None:
    checks = (at_most("ratio", 1.5, 2), at_most("peak MB", 1600, 1500))
    row = Row("pair", seconds=3.0, limit_seconds=2.0, suspect_bytes=5_000_000, share=0.125, checks=checks)
    assert row.ratio == 1.5
    assert row.missed
    cells = [cell.strip() for cell in table([row]).splitlines()[2].split("|")]
    expected = "pair,3.00,,2.000,1.50,5.0,,12.50%,,,ratio ≤ 2; **peak MB ≤ 1500**,no,"
    assert cells[1:-1] == expected.split(",")


def test_a_row_comes_back_from_json_as_it_was() -> None:
    row = Row("pair", seconds=1.25, says="derived", checks=(Check("derived", met=True),), note="a note")
    assert Row.of(json.loads(json.dumps(row.record()))) == row


def test_a_cold_process_is_charged_for_what_its_workers_hold() -> None:
    worker = "import time; held = bytearray(b'x') * 200_000_000; time.sleep(1)"
    run = cold([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"])
    assert run.code == 0
    assert 200 < run.peak_mb < 400
    assert run.seconds > 1


def test_a_process_that_takes_too_long_is_stopped() -> None:
    run = cold([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert run.code is None
    assert run.seconds < 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = np.arange(3 * 2**20, dtype=np.float32).reshape(3, -1).astype(ml_dtypes.bfloat16)
    write_safetensors(tmp_path, [("layer", values), ("embed", 2 * values)], config={})
    return tmp_path


def test_mapped_tensors_have_the_values_that_were_written(folder: Path) -> None:
    found = tensors(folder)
    assert set(found) == {"layer", "embed"}
    assert found["layer"].shape == (3, 2**20)
    assert float(found["embed"][2, 1000]) == pytest.approx(2 * (2 * 2**20 + 1000), rel=2**-8)


def test_streaming_more_bytes_takes_longer(folder: Path) -> None:
    little, much = limit_seconds([(folder, 2**14)]), limit_seconds([(folder, 12 * 2**20)])
    assert 0 < 5 * little < much < math.inf


def test_separation_and_exponent_by_hand() -> None:
    # Means 5 and 1, variances 2 and 2.
    assert d_prime([4.0, 6.0], [0.0, 2.0]) == pytest.approx(4 / 2**0.5, abs=1e-12)
    assert exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2, abs=1e-12)


def said(conclusion: str, *evidence: tuple[bool, float | None, float | None]) -> Compared:
    rows = [{"carries": carries, "log10_p": p, "size": size} for carries, p, size in evidence]
    found = {"verdict": {"conclusion": conclusion, "evidence": rows}}
    return Compared(Run(1.0, 1.0, 1.0, 0, "", ""), found)


def test_a_score_counts_only_what_may_carry_the_verdict() -> None:
    found = said("derived", (True, -3.0, 0.5), (True, None, 0.75), (False, -9.0, 0.9))
    assert (found.strength, found.size) == (3.0, 0.75)
    assert said("independent").strength == 0.0


def test_separation_is_told_by_p_values_and_by_size_on_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    children = [(p, size) for size in (0.9, 0.6, 0.3) for p in (-10.0, -14.0)]
    strangers = [(-1.0, 0.01), (-1.5, 0.02), (-0.5, 0.0)]
    answers = iter(
        [said("derived", (True, *one)) for one in children] + [said("independent", (True, *one)) for one in strangers]
    )
    theirs = [{"score": size, "seconds": 2.0} for _, size in (*children, *strangers)]
    monkeypatch.setattr(published, "compare", lambda *_, **__: next(answers))
    monkeypatch.setattr(published, "_run", lambda *_: (None, theirs))
    context = SimpleNamespace(fixtures=SimpleNamespace(get=lambda name: name), runs=1)
    rows = {row.what.rsplit(": ", 1)[1]: row for row in published.separation(context)}
    # Means 12 and 1, variances 4.8 and .25; sizes have means .6 and .01, variances .072 and .0001.
    assert rows["kinprint, -log10 p"].says == f"d' {11 / ((4.8 + 0.25) / 2) ** 0.5:.2f}"
    by_size = f"d' {0.59 / ((0.072 + 0.0001) / 2) ** 0.5:.2f}"
    assert {rows["kinprint, by size"].says, rows[published.NAMES["awm"]].says} == {by_size}
    checks = rows["kinprint, -log10 p"].checks
    assert [check.met for check in checks] == [True] * 4
    assert not any(row.checks for name, row in rows.items() if name != "kinprint, -log10 p")


def test_the_page_is_written_from_kept_results_and_nothing_else_in_it_is_touched(tmp_path: Path) -> None:
    kept = {
        "rows": [Row("two tiny models", seconds=1.0, checks=(Check("seconds ≤ 1.5", met=True),)).record()],
        "machine": "a machine",
        "commit": "abc",
        "date": "2020-01-01",
        "load": 0.1,
    }
    results, page = tmp_path / "kept.json", tmp_path / "page.md"
    results.write_text(json.dumps({"start": kept}))
    page.write_text("before\n<!-- begin: cost -->\nold\n<!-- end: cost -->\nafter\n")
    without = [word for task in cost.TASKS for word in ("--without", task)]
    command = [sys.executable, str(SCRIPT), *without, "--json", str(results), "--write", str(page)]
    done = subprocess.run([*command, "--work", str(tmp_path / "work")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("before\n<!-- begin: cost -->\n")
    assert text.endswith("<!-- end: cost -->\nafter\n")
    assert "| two tiny models | 1.00 |" in text
    assert "2020-01-01, commit abc: start (load 0.1 before it). a machine." in text
    assert "old" not in text


def test_the_page_shows_the_results_that_are_kept_beside_the_benchmark_and_nothing_else() -> None:
    page = (SCRIPT.parents[1] / "docs" / "cost.md").read_text("utf-8")
    kept = json.loads(SCRIPT.with_suffix(".json").read_text("utf-8"))
    shown = cost.MARKED.search(page)
    assert shown is not None
    assert shown[0] == shown[1] + cost.report(kept) + shown[2]
