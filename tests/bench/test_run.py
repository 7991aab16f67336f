"""A benchmark on a micro zoo: measured once, resumed, recorded."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from kinprint.bench import run
from kinprint.bench.records import BenchResult
from kinprint.bench.run import MEASURED_FILE, bench
from kinprint.bench.verdicts import verdict_id
from kinprint.errors import UsageError
from kinprint.registry import METHODS
from kinprint.zoo.recipes import Derived, Shape, Suite, Trained
from kinprint.zoo.suite import build_suite
from kinprint.zoo.train import Training

pytest.importorskip("torch")

SHAPE = Shape(hidden=16, layers=3, heads=2, kv_heads=1, head_dim=8, ffn=16, context=32)
TRAINING = Training(corpus="help-topics", steps=3, batch=2, learning_rate=1e-2, warmup=1, seed_data=3)
MICRO = Suite(
    name="micro",
    summary="as small as can be",
    recipes=(
        Trained(name="a", summary="start", shape=SHAPE, seed_init=1, training=TRAINING),
        Trained(name="b", summary="start", shape=dataclasses.replace(SHAPE, layers=4), seed_init=2, training=TRAINING),
        Derived(name="a.noise", summary="noise", parent="a", kinds=("noise:share=0.01",)),
        Derived(name="b.permuted", summary="other order", parent="b", kinds=("ffn-permutation",)),
    ),
)
CASES = """
suite: micro
version: 3
summary: two derived pairs and an unrelated one
notes: [for tests]
cases:
  - {category: format, label: derived, suspects: [a.noise], bases: [a]}
  - {category: adversarial transforms, label: derived, suspects: [b.permuted], bases: [b]}
  - {category: unrelated, label: unrelated, models: [a, b]}
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro")
    build_suite(MICRO, out)
    return out


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cases") / "micro.yaml"
    path.write_text(CASES)
    return str(path)


@pytest.fixture(scope="module")
def made(zoo: Path, cases: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchResult, Path]:
    out = tmp_path_factory.mktemp("out")
    return bench(cases, zoo, out), out


def test_every_case_has_every_column_and_a_blank_has_a_reason(made: tuple[BenchResult, Path]) -> None:
    result, _ = made
    names = {column.name for column in result.columns}
    assert len(result.rows) == 3
    for row in result.rows:
        assert set(row.cells) == names
        assert all(cell.value is not None or cell.reason for cell in row.cells.values())
        assert all(cost.seconds > 0 for cost in row.costs.values())


def test_values_are_those_that_compare_gives(made: tuple[BenchResult, Path], zoo: Path) -> None:
    from kinprint import api

    row = made[0].rows[0]
    compared = api.compare(zoo / "a.noise", zoo / "a")
    for method in compared.methods:
        for value in method.values:
            if value.kind != "statistic":
                assert row.cells[f"{method.method}: {value.name}"].value == pytest.approx(value.value, abs=1e-12)


def test_the_record_says_what_ran(made: tuple[BenchResult, Path]) -> None:
    record = made[0].run
    # The suite has no mixture, and a method that measures nothing has no column.
    assert set(record.methods) - {column.id for column in made[0].columns} == {METHODS["router"].id}
    assert {"python", "numpy", "torch"} <= set(record.versions)
    assert record.zoo.startswith("sha256:")
    assert made[0].cases_version == 3


def test_files_hold_the_result_the_tables_and_the_pictures(made: tuple[BenchResult, Path]) -> None:
    result, out = made
    assert BenchResult.model_validate_json((out / "result.json").read_bytes()) == result
    assert "for tests" in (out / "table.md").read_text()
    lines = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    # Each verdict has two lines more: the conclusion and the p-value.
    assert len(lines) == len(result.rows) * (len(result.columns) + 2)
    for picture in ("roc", "heatmap", "distributions"):
        assert (out / f"{picture}.svg").stat().st_size > 1000
        assert (out / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_measures_nothing_and_a_half_written_line_is_measured_again(
    made: tuple[BenchResult, Path], zoo: Path, cases: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (made[1] / MEASURED_FILE).read_text().splitlines(keepends=True)
    (tmp_path / MEASURED_FILE).write_text("".join(lines[:-1]) + lines[-1][:40])
    asked: list[list[str]] = []
    real = run._task

    def watched(task: tuple[Path, Path, list[str]]) -> object:
        asked.append(task[2])
        return real(task)

    monkeypatch.setattr(run, "_task", watched)
    again = bench(cases, zoo, tmp_path, plots=False)
    assert asked == [[json.loads(lines[-1])["id"]]]
    assert [row.cells for row in again.rows] == [row.cells for row in made[0].rows]
    bench(cases, zoo, tmp_path, plots=False)
    assert len(asked) == 1


def test_two_processes_measure_the_same(made: tuple[BenchResult, Path], zoo: Path, cases: str, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = bench(
        cases, zoo, tmp_path, jobs=2, plots=False, progress=lambda what, done, total: told.append((what, done, total))
    )
    assert told[-1] == ("3 of 3 pairs", 3, 3)
    for row, alone in zip(result.rows, made[0].rows, strict=True):
        assert row.cells == alone.cells


def test_the_verdict_is_measured_with_the_methods_and_finds_the_copies(made: tuple[BenchResult, Path]) -> None:
    result, _ = made
    noised, permuted, unrelated = result.rows
    for row in (noised, permuted):
        assert row.verdict is not None
        assert row.verdict.conclusion == "derived"
        assert row.cells["kinprint verdict: size"].value == pytest.approx(1, abs=0.05)
        assert row.true_layers == tuple((layer,) for layer in range(3 if row is noised else 4))
    assert unrelated.verdict is not None
    assert not unrelated.verdict.accuses
    assert unrelated.true_layers is None
    assert all(row.costs["kinprint verdict"].seconds > 0 for row in result.rows)


def test_the_verdict_can_be_asked_for_alone_and_left_out(zoo: Path, cases: str, tmp_path: Path) -> None:
    alone = bench(cases, zoo, tmp_path / "alone", only="a.noise", methods=["verdict"], plots=False)
    assert [column.name for column in alone.columns] == ["kinprint verdict: size"]
    assert alone.run.methods == (verdict_id(),)
    assert "| a.noise | a | format | derived | derived |" in (tmp_path / "alone" / "table.md").read_text()
    without = bench(cases, zoo, tmp_path / "without", only="a.noise", methods=["pcs"], plots=False)
    assert [row.verdict for row in without.rows] == [None]
    both = bench(cases, zoo, tmp_path / "alone", only="a.noise", methods=["verdict", "pcs"], plots=False)
    assert [row.verdict for row in both.rows] == [row.verdict for row in alone.rows]
    assert {column.method for column in both.columns} == {"pcs", "kinprint verdict"}


def test_only_and_method_narrow_the_run(zoo: Path, cases: str, tmp_path: Path) -> None:
    result = bench(cases, zoo, tmp_path, only="a.noise", methods=["pcs"], plots=False)
    assert [row.case.name for row in result.rows] == ["a.noise / a"]
    assert {column.method for column in result.columns} == {"pcs"}
    assert result.rates[0].auc.value is None


def test_a_folder_without_a_zoo_says_how_to_make_one(cases: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make it with 'kinprint zoo build micro"):
        bench(cases, tmp_path / "nowhere", tmp_path / "out")


def test_a_model_with_other_bytes_than_the_manifest_says_is_named(zoo: Path, cases: str, tmp_path: Path) -> None:
    shutil.copytree(zoo, tmp_path / "zoo")
    shutil.copy(zoo / "b" / "model.safetensors", tmp_path / "zoo" / "a")
    shutil.copy(zoo / "b" / "config.json", tmp_path / "zoo" / "a")
    with pytest.raises(UsageError, match=r"zoo/a does not hold what .*zoo.json says: run 'kinprint zoo build' again"):
        bench(cases, tmp_path / "zoo", tmp_path / "out", methods=["pcs"], plots=False)


def test_a_file_where_the_results_must_go_is_a_usage_error(zoo: Path, cases: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="choose another folder"):
        bench(cases, zoo, tmp_path / "out", methods=["pcs"], plots=False)
    assert (tmp_path / "out").read_text() == "mine"
