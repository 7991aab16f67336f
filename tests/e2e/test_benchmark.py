"""The smoke zoo and its benchmark by the installed command, as a person runs them: about two minutes on two cores."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinprint import api
from kinprint.bench.cases import expand, read_cases
from kinprint.bench.records import BenchResult, Row
from kinprint.types import Comparison
from kinprint.zoo.derive import KINDS
from kinprint.zoo.manifest import Manifest
from kinprint.zoo.recipes import Derived
from kinprint.zoo.suites import SUITES

for library in ("torch", "transformers", "peft", "sklearn", "matplotlib", "yaml"):
    pytest.importorskip(library)

COMMAND = Path(sys.executable).parent / "kinprint"
RECIPES = {recipe.name: recipe for recipe in SUITES["smoke"].recipes}
DISTANCE = "ghostspec-mse: distance"
PICTURES = {f"{name}.{ending}" for name in ("roc", "heatmap", "distributions") for ending in ("svg", "png")}


def run(*arguments: str | Path, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; the limit is for a machine that does much else."""
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=900, check=False, cwd=cwd)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def written(folder: Path) -> dict[str, int]:
    """When each file of a folder was last written."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@dataclass(frozen=True)
class Zoo:
    """A built zoo and the wall time that it took."""

    folder: Path
    seconds: float

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate_json((self.folder / "zoo.json").read_bytes())


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder, start = tmp_path_factory.mktemp("zoo") / "smoke", time.perf_counter()
    run("zoo", "build", "smoke", "-o", folder, "--jobs", "2", "--quiet")
    return Zoo(folder, time.perf_counter() - start)


@pytest.fixture(scope="module")
def results(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "smoke"
    done = run("bench", "smoke", "--zoo", zoo.folder, "-o", out, "--jobs", "2")
    assert str(out) in done.stdout
    return out


@pytest.fixture(scope="module")
def rows(results: Path) -> Mapping[str, Row]:
    result = BenchResult.model_validate_json((results / "result.json").read_bytes())
    return {row.case.name: row for row in result.rows}


# -- the zoo -----------------------------------------------------------------------------------------------------------


def test_every_model_of_the_suite_is_there_as_its_manifest_says_and_every_tensor_has_a_role(zoo: Zoo) -> None:
    entries = {entry.name: entry for entry in zoo.manifest.models}
    assert list(entries) == list(RECIPES)
    for name, entry in entries.items():
        weights = zoo.folder / name / entry.weights_file
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == entry.weights_sha256, name
        found = api.inspect(zoo.folder / name).model
        assert (found.coverage, found.unmapped) == (1.0, ()), name
        assert (found.family, found.parameters) == (entry.family, entry.parameters), name
        assert (zoo.folder / name / "README.md").is_file(), name
    folders = {path.name for path in zoo.folder.iterdir() if path.is_dir()}
    assert folders == set(RECIPES)  # and nothing half-made beside them


def test_the_manifest_tells_each_models_lineage_losses_and_texts(zoo: Zoo) -> None:
    manifest = zoo.manifest
    entries = {entry.name: entry for entry in manifest.models}
    texts = {text.name: text.sha256 for text in manifest.texts}
    for name, entry in entries.items():
        recipe = RECIPES[name]
        assert entry.parent == (recipe.parent if isinstance(recipe, Derived) else None)
        assert entry.texts.items() <= texts.items()
        assert entry.losses is not None
    assert entries["base.merged"].roots == ("base",)
    assert entries["base.student"].roots == ("base.student",)  # weights of its own
    assert len({entry.content_digest for entry in manifest.models}) == len(manifest.models)


def test_kinds_that_keep_the_function_keep_the_logits(zoo: Zoo) -> None:
    kept = {entry.name: entry.same_function for entry in zoo.manifest.models if entry.same_function is not None}
    assert set(kept) == {"base.laundered", "qwen3.laundered"}
    for name, same in kept.items():
        assert 0 < same.before_rounding <= 1e-4, name


def test_building_again_changes_nothing(zoo: Zoo) -> None:
    before, manifest, start = written(zoo.folder), zoo.manifest, time.perf_counter()
    run("zoo", "build", "smoke", "-o", zoo.folder, "--jobs", "2", "--quiet")
    assert time.perf_counter() - start < zoo.seconds
    assert zoo.manifest == manifest  # with the seconds that each model once took
    again = {name for name, when in written(zoo.folder).items() if before.get(name) != when}
    assert not {name for name in again if name.endswith(".safetensors")}
    assert set(written(zoo.folder)) == set(before)


# -- the benchmark -----------------------------------------------------------------------------------------------------


def test_the_benchmark_writes_a_row_for_every_case_and_all_its_files(
    zoo: Zoo, results: Path, rows: Mapping[str, Row]
) -> None:
    expected = [case.name for case in expand(read_cases("smoke"), zoo.manifest)]
    assert list(rows) == expected
    assert {path.name for path in results.iterdir()} == {
        "result.json", "table.md", "cases.csv", "measured.jsonl", *PICTURES,
    }  # fmt: skip
    for name in PICTURES:
        assert (results / name).stat().st_size > 1000, name
    with (results / "cases.csv").open(newline="") as file:
        assert {f"{line['suspect']} / {line['base']}" for line in csv.DictReader(file)} == set(expected)
    table = (results / "table.md").read_text()
    assert all(row.case.category in table and row.case.suspect in table for row in rows.values())


def test_ghostspec_measures_every_case_that_has_a_label(rows: Mapping[str, Row]) -> None:
    labelled = [row for row in rows.values() if row.case.label in ("derived", "unrelated")]
    assert {row.case.label for row in labelled} == {"derived", "unrelated"}
    assert [row.case.name for row in labelled if row.cells[DISTANCE].value is None] == []


def test_benching_again_measures_nothing(zoo: Zoo, results: Path) -> None:
    lines = [line for line in (results / "measured.jsonl").read_text().splitlines() if line]
    before = BenchResult.model_validate_json((results / "result.json").read_bytes())
    run("bench", "smoke", "--zoo", zoo.folder, "-o", results, "--jobs", "2", "--quiet", "--no-plots")
    assert [line for line in (results / "measured.jsonl").read_text().splitlines() if line] == lines
    after = BenchResult.model_validate_json((results / "result.json").read_bytes())
    assert (after.rows, after.rates) == (before.rows, before.rates)
    assert after.run.seconds < before.run.seconds


def test_a_laundered_copy_is_as_near_as_a_saved_one_in_folded_spectra(
    zoo: Zoo, rows: Mapping[str, Row], tmp_path: Path
) -> None:
    """By definition: folded, the spectra see through everything that keeps the function. Training changes nothing."""
    run("zoo", "derive", zoo.folder / "base", "-o", tmp_path / "saved", "-k", "resave", "--quiet")
    found = api.compare(tmp_path / "saved", zoo.folder / "base", methods=["ghostspec-mse"]).methods[0]
    saved = {value.name: value.value for value in found.values}["distance"]
    laundered = rows["base.laundered / base"].cells[DISTANCE].value
    twin = rows["base / twin"].cells[DISTANCE].value
    assert saved == pytest.approx(0, abs=1e-12)
    assert laundered == pytest.approx(saved, abs=1e-5)  # what rounding to bf16 leaves: 7e-8
    assert laundered is not None
    assert twin is not None
    assert laundered < twin / 100


def test_raw_norm_cosine_accuses_the_innocent_twin(rows: Mapping[str, Row]) -> None:
    """By definition: gains start at one, so those of strangers point the same way."""
    cells = rows["base / twin"].cells
    assert (cells["layernorm: norm.attn raw cosine"].value or 0) > 0.99
    assert (cells["layernorm: norm.mlp raw cosine"].value or 0) > 0.99


# -- one model ---------------------------------------------------------------------------------------------------------


def test_kinds_compose_in_order_and_compare_reads_what_they_make(zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "made"
    done = run("zoo", "derive", zoo.folder / "base", "-o", out, "-k", "prune-magnitude:share=0.3", "-k", "vo-gauge")
    assert done.stdout.strip() == str(out / "zoo.json")
    (entry,) = Manifest.model_validate_json((out / "zoo.json").read_bytes()).models
    assert entry.settings["kinds"] == ["prune-magnitude:share=0.3", "vo-gauge"]
    assert entry.same_function is not None
    assert entry.same_function.before_rounding <= 1e-4
    found = Comparison.model_validate_json(run("compare", out, zoo.folder / "base", "--json", "-").stdout)
    assert found.status == "measured"
    assert [result.method for result in found.methods if result.status != "measured"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_kinds_lists_every_kind_with_its_settings() -> None:
    listed = run("zoo", "kinds").stdout
    for name, kind in KINDS.items():
        assert any(line.split("|")[1].strip() == name for line in listed.splitlines() if line.count("|") > 2), name
        assert kind.summary in listed, name


# -- bad calls ---------------------------------------------------------------------------------------------------------

BAD_CALLS = {
    "unknown kind": (("zoo", "derive", "ZOO/base", "-o", "out", "-k", "magic"), "unknown kind 'magic'"),
    "unknown setting": (("zoo", "derive", "ZOO/base", "-o", "out", "-k", "noise:loud=1"), "kind 'noise:loud=1'"),
    "setting of a wrong type": (("zoo", "derive", "ZOO/base", "-o", "out", "-k", "noise:share=x"), "share"),
    "kind that does not fit": (("zoo", "derive", "ZOO/base", "-o", "out", "-k", "expert-permutation"), "expert"),
    "folder in use": (("zoo", "derive", "ZOO/base", "-o", "full", "-k", "resave"), "full is there already"),
    "unknown suite": (("zoo", "build", "magic", "-o", "out"), "unknown suite 'magic'"),
    "another suite's folder": (("zoo", "build", "null", "-o", "ZOO"), "holds the suite 'smoke'"),
    "unknown cases": (("bench", "magic", "--zoo", "ZOO", "-o", "out"), "no cases for 'magic'"),
    "no zoo": (("bench", "smoke", "--zoo", "nowhere", "-o", "out"), "kinprint zoo build smoke -o nowhere"),
    "pattern without a match": (("bench", "smoke", "--zoo", "ZOO", "-o", "out", "--only", "zz*"), "no case matches"),
    "unknown method": (("bench", "smoke", "--zoo", "ZOO", "-o", "out", "-m", "magic"), "unknown method 'magic'"),
    "cases of another suite": (("bench", "tiny", "--zoo", "ZOO", "-o", "out"), "the zoo has no model"),
    "label that is not true": (("bench", "lie.yaml", "--zoo", "ZOO", "-o", "out"), "by the manifest they share no"),
}
LIE = """
suite: smoke
version: 1
summary: an innocent model accused
cases: [{category: hard negatives, label: derived, suspects: [twin], bases: [base]}]
"""


@pytest.mark.parametrize("what", BAD_CALLS)
def test_a_bad_call_is_one_line_and_leaves_nothing_behind(what: str, zoo: Zoo, tmp_path: Path) -> None:
    arguments, says = BAD_CALLS[what]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "lie.yaml").write_text(LIE)
    before, models = written(tmp_path), written(zoo.folder)
    done = run(*(argument.replace("ZOO", str(zoo.folder)) for argument in arguments), code=2, cwd=tmp_path)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert (written(tmp_path), written(zoo.folder)) == (before, models)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "lie.yaml"]


def test_an_interrupted_derivation_leaves_nothing_half_written(zoo: Zoo, tmp_path: Path) -> None:
    command = [COMMAND, "zoo", "derive", zoo.folder / "base", "-o", tmp_path / "out", "-k", "fine-tune:steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGINT)  # -2: before Python could catch it
    assert errors in ("", "kinprint: interrupted\n")
    assert list(tmp_path.iterdir()) == []
