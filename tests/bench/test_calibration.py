"""Calibration on a zoo of untrained models: p-values, rows, resuming, the command, and what the package keeps."""

from __future__ import annotations

import csv
import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from untrained import MODELS, entry, manifest, untrained, write_zoo

from kinprint.bench.calibration import CalibrationResult, calibrate, measure
from kinprint.bench.calibration.measure import TESTED_FILE, exact_tests, randomised_p
from kinprint.bench.calibration.plots import qq
from kinprint.bench.calibration.records import CalibrationRow, Draw, Outcome
from kinprint.bench.calibration.rows import judged
from kinprint.bench.calibration.run import SCEPTR, independent_models
from kinprint.bench.calibration.text import blocks
from kinprint.errors import UsageError
from kinprint.evidence.calibration import calibrated, calibrations
from kinprint.linalg import permutation
from kinprint.zoo.manifest import ModelEntry, manifest_bytes
from kinprint.zoo.model import put
from kinprint.zoo.suites import SUITES

DOCS = Path(__file__).parents[2] / "docs"
MAKE = runpy.run_path(str(DOCS / "reference" / "make_calibration.py"))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def made(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CalibrationResult, Path]:
    out = tmp_path_factory.mktemp("out")
    return calibrate([zoo], out), out


# -- one p-value -------------------------------------------------------------------------------------------------------


def outcome(count: int, draws: int, *, log10_floor: float = -80.0, **changed: str) -> Outcome:
    names = {"suspect": "a", "base": "b", "id": "t"} | changed
    return Outcome.model_validate({**names, "draws": draws, "count": count, "log10_p": 0, "log10_floor": log10_floor})


def test_each_count_has_a_step_of_its_own_and_the_steps_fill_the_unit_interval() -> None:
    found = [randomised_p(outcome(count, 9)) for count in range(10)]
    assert [int(10 * p) for p in found if p is not None] == list(range(10))
    exact = [randomised_p(outcome(count, 6, log10_floor=-np.log10(6))) for count in range(1, 7)]
    assert [int(6 * p) for p in exact if p is not None] == list(range(6))


def test_the_place_between_steps_depends_on_the_pair_and_the_seed_alone_and_is_uniform() -> None:
    assert randomised_p(outcome(3, 9)) == randomised_p(outcome(3, 9))
    assert randomised_p(outcome(3, 9)) != randomised_p(outcome(3, 9), seed=1)
    places = [(randomised_p(outcome(0, 9, suspect=f"m{at}")) or 0.0) * 10 for at in range(500)]
    assert np.mean(places) == pytest.approx(0.5, abs=0.04)
    assert np.std(places) == pytest.approx(12**-0.5, abs=0.02)


def test_a_test_that_does_not_apply_has_no_p_value() -> None:
    assert randomised_p(Outcome(suspect="a", base="b", id="t", reason="no experts")) is None


def test_relabellings_are_all_tried_up_to_the_number_that_the_test_says() -> None:
    assert permutation._ENUMERATED_PAIRINGS == measure.ENUMERATED


def test_counts_give_the_p_values_that_the_tests_report(made: tuple[CalibrationResult, Path]) -> None:
    lines = list(csv.DictReader((made[1] / "calibration.csv").read_text().splitlines()))
    assert len(lines) == len(exact_tests()) * MODELS * (MODELS - 1) // 2
    kinds: set[str] = set()
    for line in lines:
        if not line["p"]:
            assert line["reason"]
            continue
        count, draws = int(line["count"]), int(line["draws"])
        # Two layers of two groups have 4 relabellings, one layer of them 2.
        p = count / draws if draws in (2, 4) else (1 + count) / (1 + draws)
        kinds.add("few" if draws in (2, 4) else "many")
        if count:
            assert 10 ** float(line["log10_p"]) == pytest.approx(p)
        assert p - 1 / min(draws, 999) <= float(line["p"]) <= p
    assert kinds == {"few", "many"}


# -- rows --------------------------------------------------------------------------------------------------------------


def draws_of(spread: float, models: int = 33, seed: int = 0, test: str = "t") -> list[Draw]:
    rng = np.random.default_rng(seed)
    return [
        Draw(test, "made", f"m{a}", f"m{b}", outcome(1, 999), float(norm.sf(spread * rng.standard_normal())))
        for a, b in itertools.combinations(range(models), 2)
    ]


@pytest.mark.parametrize(("spread", "expected"), [(1.0, True), (1.3, False), (0.7, False)])
def test_a_test_whose_z_spread_too_far_or_too_little_is_not_calibrated(spread: float, expected: bool) -> None:
    row, other = judged([draws_of(spread), draws_of(1.0, seed=1, test="other")])
    assert row.calibrated is expected
    assert other.calibrated is True
    assert (row.models, row.pairs, row.independent, row.disjoint, row.rounds) == (33, 528, 32, 16, 33)
    assert row.spread == pytest.approx(spread, rel=0.1)


def test_a_test_that_accuses_more_often_is_found_where_its_spread_is_right() -> None:
    shifted = [
        Draw(
            one.test, one.zoo, one.suspect, one.base, one.outcome, (one.p or 0.0) / 4 if at % 2 else 1 - (one.p or 0.0)
        )
        for at, one in enumerate(draws_of(1.0))
    ]
    (row,) = judged([shifted])
    assert row.calibrated is False


def test_few_models_say_nothing_and_cost_the_others_nothing() -> None:
    few, many = judged([draws_of(3.0, models=8), draws_of(1.0, test="other")])
    assert (few.independent, few.calibrated, few.found_from) == (7, None, None)
    (alone,) = judged([draws_of(1.0, test="other")])
    assert many == alone


def test_pairs_to_which_a_test_does_not_apply_are_counted_and_enter_nothing() -> None:
    absent = Outcome(suspect="a", base="b", id="t", reason="no experts")
    held = [Draw("t", "made", "m0", "z", absent, None), *draws_of(1.0)]
    (row,) = judged([held])
    (without,) = judged([draws_of(1.0)])
    assert (row.not_applicable, row.reasons) == (1, ("no experts",))
    assert row.model_copy(update={"not_applicable": 0, "reasons": ()}) == without


# -- which models ------------------------------------------------------------------------------------------------------


def names(models: Sequence[ModelEntry]) -> list[str]:
    return [one.name for one in models]


def test_models_that_share_a_training_a_parent_or_a_random_start_are_never_a_pair() -> None:
    held = manifest(
        entry("a", settings={"seed_init": 1}),
        entry("a.child", parent="a", roots=("a",), kind="derived"),
        entry("a-again", roots=("a",)),
        entry("same-start", settings={"seed_init": 1}),
        entry("merged", roots=("a", "z")),
        entry("b", settings={"seed_init": 2}),
        entry("packaged", kind="packaged"),
    )
    assert names(independent_models(held)) == ["a", "b", "packaged"]


def test_of_the_suite_real_the_models_of_one_shape_are_used_and_all_must_be_there() -> None:
    made_there = {recipe.name for recipe in SUITES["real"].recipes}
    assert set(SCEPTR) <= made_there
    entries = [entry(name, kind="packaged") for name in (*SCEPTR, "bert-pretrained", "sceptr-tiny")]
    assert names(independent_models(manifest(*entries, suite="real"))) == list(SCEPTR)
    with pytest.raises(UsageError, match="zoo of real lacks sceptr: run 'kinprint zoo build' again"):
        independent_models(manifest(*entries[1:], suite="real"))


# -- runs --------------------------------------------------------------------------------------------------------------


def test_untrained_models_are_calibrated_in_every_test_that_applies(made: tuple[CalibrationResult, Path]) -> None:
    result, _ = made
    assert len(result.rows) == 1 + 2 * 4 + 3
    for row in result.rows:
        assert (row.pairs + row.not_applicable, row.calibrated) == (45, True), row.name
    assert len(result.unused) == 4
    assert all("no routed experts" in line for line in result.unused)
    assert result.models == {"made": tuple(f"m{seed}" for seed in range(MODELS))}


def test_files_hold_the_result_the_table_and_the_picture(made: tuple[CalibrationResult, Path]) -> None:
    result, out = made
    assert CalibrationResult.model_validate_json((out / "calibration.json").read_bytes()) == result
    page = (out / "calibration.md").read_text()
    assert all(f"| {row.name} | made | {row.models} | {row.pairs} |" in page for row in result.rows)
    assert (out / "qq.png").read_bytes().startswith(b"\x89PNG")
    panels = re.findall(r"<text[^>]*>(made: [^<]*)</text>", (out / "qq.svg").read_text())
    assert panels == [f"made: {row.pairs} pairs, {row.independent} independent" for row in result.rows]


def test_a_second_run_tests_only_what_a_half_written_line_lost(
    made: tuple[CalibrationResult, Path], zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (made[1] / TESTED_FILE).read_text().splitlines(keepends=True)
    (tmp_path / TESTED_FILE).write_text("".join(lines[:-1]) + lines[-1][:40])
    asked: list[list[str]] = []
    real = measure._task

    def watched(task: tuple[Path, Path, list[str]]) -> list[Outcome]:
        asked.append(task[2])
        return real(task)

    monkeypatch.setattr(measure, "_task", watched)
    again = calibrate([zoo], tmp_path, plots=False)
    assert asked == [[exact_tests()[-1].statement.id]]
    assert again.rows == made[0].rows
    calibrate([zoo], tmp_path, plots=False)
    assert len(asked) == 1


def test_two_processes_find_the_same(made: tuple[CalibrationResult, Path], zoo: Path, tmp_path: Path) -> None:
    lines = (made[1] / TESTED_FILE).read_text().splitlines(keepends=True)
    (tmp_path / TESTED_FILE).write_text("".join(lines[: -2 * len(exact_tests())]))
    told: list[tuple[str, int, int]] = []
    result = calibrate(
        [zoo], tmp_path, jobs=2, plots=False, progress=lambda what, done, total: told.append((what, done, total))
    )
    assert told == [("1 of 2 pairs", 1, 2), ("2 of 2 pairs", 2, 2)]
    assert result.rows == made[0].rows


def test_other_bytes_than_the_manifest_says_are_named(zoo: Path, tmp_path: Path) -> None:
    untrained(99).write(tmp_path / "m0")
    untrained(1).write(tmp_path / "m1")
    entries = [entry(name, untrained(seed).content_digest) for seed, name in enumerate(("m0", "m1"))]
    put(tmp_path / "zoo.json", manifest_bytes(manifest(*entries)))
    with pytest.raises(UsageError, match=r"m0 does not hold what its zoo's manifest says: run 'kinprint zoo build'"):
        calibrate([tmp_path], tmp_path / "out", plots=False)


def test_folders_without_pairs_and_suites_given_twice_are_refused(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no zoo: make it with 'kinprint zoo build null"):
        calibrate([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="two zoos hold the suite made: give each suite once"):
        calibrate([zoo, zoo], tmp_path / "out")
    put(tmp_path / "zoo.json", manifest_bytes(manifest(entry("alone"))))
    with pytest.raises(UsageError, match="holds no two independent models"):
        calibrate([tmp_path], tmp_path / "out")


def test_the_same_result_gives_the_same_picture(made: tuple[CalibrationResult, Path]) -> None:
    result, _ = made
    draws = [draw for at, row in enumerate(result.rows) for draw in draws_of(1.0, 4, at, row.test)]
    assert qq(result, draws) == qq(result, draws)
    assert qq(result.model_copy(update={"rows": ()}), draws) == {}


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    words = [Path(sys.executable).parent / "kinprint", "bench", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_command_takes_several_zoos_and_prints_where_the_results_are(
    made: tuple[CalibrationResult, Path], zoo: Path, tmp_path: Path
) -> None:
    (tmp_path / TESTED_FILE).write_bytes((made[1] / TESTED_FILE).read_bytes())
    other = tmp_path / "other"
    entries = [entry(f"o{seed}", untrained(seed).content_digest) for seed in range(50, 52)]
    for seed in range(50, 52):
        untrained(seed).write(other / f"o{seed}")
    put(other / "zoo.json", manifest_bytes(manifest(*entries, suite="other")))
    done = command("calibration", "--zoo", zoo, "--zoo", other, "-o", tmp_path, "--no-plots")
    assert done.stdout == f"{tmp_path}\n"
    result = CalibrationResult.model_validate_json((tmp_path / "calibration.json").read_bytes())
    assert set(result.zoos) == {"made", "other"}
    assert {row.calibrated for row in result.rows if row.zoo == "other"} == {None}
    assert not (tmp_path / "qq.svg").exists()


@pytest.mark.parametrize("suite", ["tiny", "premises"])
def test_other_suites_take_one_zoo(suite: str, tmp_path: Path) -> None:
    done = command(suite, "--zoo", "a", "--zoo", "b", "-o", tmp_path / "out", code=2)
    assert done.stderr.startswith(f"kinprint: {suite} takes exactly one --zoo, not 2: only calibration")
    assert done.stderr.count("\n") == 1


def test_calibration_refuses_what_would_leave_pairs_out(zoo: Path, tmp_path: Path) -> None:
    done = command("calibration", "--zoo", zoo, "-o", tmp_path / "out", "--only", "a*", code=2)
    assert "calibration measures all independent pairs: leave out" in done.stderr
    assert not (tmp_path / "out").exists()


# -- what the page and the package keep --------------------------------------------------------------------------------


def test_the_page_has_a_place_for_every_table_and_refuses_others(made: tuple[CalibrationResult, Path]) -> None:
    page = (DOCS / "calibration.md").read_text()
    updated = MAKE["filled"](page, blocks(made[0]))
    assert all(table in updated for table in blocks(made[0]).values())
    assert MAKE["filled"](updated, blocks(made[0])) == updated
    with pytest.raises(ValueError, match="do not agree on table"):
        MAKE["filled"](page.replace("begin: table", "begin: tables"), blocks(made[0]))


def test_the_package_keeps_a_test_that_failed_in_one_zoo_as_failed(made: tuple[CalibrationResult, Path]) -> None:
    row = made[0].rows[0]

    def kept(*held: CalibrationRow) -> bool | None:
        result = made[0].model_copy(update={"rows": held})
        return MAKE["packaged"](result).tests[row.test].calibrated

    bad, silent = (row.model_copy(update={"calibrated": said}) for said in (False, None))
    assert (kept(row), kept(row, silent), kept(silent), kept(row, bad)) == (True, True, None, False)
    entry_made = MAKE["packaged"](made[0].model_copy(update={"rows": (row, row)})).tests[row.test]
    assert (entry_made.pairs, entry_made.independent, entry_made.disjoint) == (90, 18, 10)


def test_what_ships_is_what_the_page_says() -> None:
    page = (DOCS / "calibration.md").read_text()
    shipped = calibrations()
    assert shipped.tests
    for test, one in shipped.tests.items():
        assert calibrated(test) is one.calibrated
        assert "- test: " + test.replace("[", r"\[") in page
    assert all(digest in page for digest in shipped.zoos.values())
    assert calibrated("exact-units/v0") is None
