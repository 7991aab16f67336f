"""Calibration of behavioural tests on a zoo of untrained models that run."""

from __future__ import annotations

import csv
import json
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from untrained import entry, manifest, untrained

from kinprint.behaviour import seedprint
from kinprint.bench.calibration import CalibrationResult, behaviour, calibrate
from kinprint.bench.calibration.behaviour import NAMES, ONE_CONTROL, RANK, Behaving
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.zoo.manifest import manifest_bytes
from kinprint.zoo.model import TOKENIZER_FILES, put

pytest.importorskip("torch", reason="the [torch] extra is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCS = Path(__file__).parents[2] / "docs"
MODELS = 10


def running(folder: Path, seed: int) -> str:
    """Write an untrained decoder with a tokenizer; return its content digest."""
    vocabulary = json.loads((EXAMPLES / "base" / "config.json").read_text("utf-8"))["vocab_size"]
    model = untrained(seed, vocab_size=vocabulary, max_position_embeddings=512)
    model.write(folder)
    for name in TOKENIZER_FILES:
        if (EXAMPLES / "base" / name).exists():
            shutil.copyfile(EXAMPLES / "base" / name, folder / name)
    return model.content_digest


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    digests = [running(folder / f"m{seed}", seed) for seed in range(MODELS)]
    held = [entry(f"m{seed}", digest, settings={"seed_init": seed}) for seed, digest in enumerate(digests)]
    put(folder / "zoo.json", manifest_bytes(manifest(*held)))
    return folder


@pytest.fixture(scope="module")
def made(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CalibrationResult, Path]:
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINPRINT_CACHE", str(out / "cache"))
        return calibrate([zoo], out, behave=True), out


def test_independent_starts_are_calibrated_where_the_test_permutes_what_they_are_exchangeable_in(
    made: tuple[CalibrationResult, Path],
) -> None:
    result, _ = made
    rows = {row.test: row for row in result.rows}
    assert list(rows) == list(NAMES)
    assert result.axis == "behaviour"
    assert {row.pairs for row in result.rows} == {MODELS * (MODELS - 1) // 2}
    assert rows[seedprint.METHOD.id].calibrated
    assert rows[RANK].enumerated == rows[RANK].pairs


def test_files_say_what_was_tested_and_every_p_value(made: tuple[CalibrationResult, Path]) -> None:
    result, out = made
    page = (out / "calibration.md").read_text("utf-8")
    assert page.startswith("# Calibration of behavioural tests\n")
    assert all(name in page for name in NAMES.values())
    assert (out / "qq.svg").exists()
    lines = list(csv.DictReader((out / "calibration.csv").read_text("utf-8").splitlines()))
    assert len(lines) == len(NAMES) * result.rows[0].pairs
    assert all(0 < float(line["p"]) < 1 for line in lines)


def test_a_second_run_takes_what_models_said_from_the_cache_and_gives_the_same(
    made: tuple[CalibrationResult, Path], zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINPRINT_CACHE", str(made[1] / "cache"))
    kinprint = Path(sys.executable).with_name("kinprint")
    command = [kinprint, "bench", "calibration", "--behave", "--zoo", zoo, "-o", tmp_path, "--no-plots", "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "calibration.csv").read_bytes() == (made[1] / "calibration.csv").read_bytes()
    assert not (tmp_path / "qq.svg").exists()


def test_the_page_on_behaviour_takes_its_table_and_the_package_takes_none(
    made: tuple[CalibrationResult, Path], tmp_path: Path
) -> None:
    make = runpy.run_path(str(DOCS / "reference" / "make_calibration.py"))
    page = (DOCS / "behaviour.md").read_text("utf-8")
    assert NAMES[RANK] in make["filled"](page, make["behaviour_blocks"](made[0]))


def test_a_copy_is_seen_by_every_test(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINPRINT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(zoo / "m0", tmp_path / "copy")
    places = [tmp_path / "copy", *(zoo / f"m{seed}" for seed in range(MODELS))]
    held = [Behaving(place, place.name, open_checkpoint(place).content_digest) for place in places]
    found = {
        draw.test: draw
        for draws in behaviour.draws("made", held, None)
        for draw in draws
        if (draw.suspect, draw.base) == ("m0", "copy")
    }
    assert found[seedprint.METHOD.id].outcome.count == 0
    assert (found[RANK].p or 1) <= 1 / MODELS
    assert (found[ONE_CONTROL].p or 1) < 1e-6


def told(name: str, tokens: str) -> behaviour._Told:
    return behaviour._Told(Behaving(Path(name), name, name), "", tuple(tokens))


def test_p_values_by_hand() -> None:
    suspect, base, control = told("s", "abcd"), told("b", "abcx"), told("c", "axxd")
    # The base alone agrees on b and c, the control alone on d: P(X >= 2) = 4/8 and P(X >= 3) = 1/8 of three throws.
    outcome, p = behaviour._one_control(suspect, base, [control])
    assert outcome.log10_p == pytest.approx(math.log10(0.5))
    assert p is not None
    assert 0.125 <= p <= 0.5
    # Of base and controls two agree three times or oftener.
    outcome, p = behaviour._rank(suspect, base, [control, told("d", "abxd"), told("e", "xxxx")])
    assert (outcome.count, outcome.draws) == (2, 4)
    assert p is not None
    assert 0.25 <= p <= 0.5


def test_without_a_control_of_the_same_shapes_agreement_says_nothing() -> None:
    for test in (behaviour._one_control, behaviour._rank):
        outcome, p = test(told("s", "ab"), told("b", "ab"), [])
        assert p is None
        assert "no third independent model" in (outcome.reason or "")


def test_bytes_that_are_not_those_of_the_manifest_are_refused(zoo: Path) -> None:
    with pytest.raises(UsageError, match="does not hold what its zoo's manifest says"):
        behaviour.draws("made", [Behaving(zoo / "m0", "m0", "sha256:0")], None)
