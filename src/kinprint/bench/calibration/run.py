"""From built zoos to a table that says which exact tests are calibrated. Goes on where an earlier run stopped."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

from kinprint import canonical
from kinprint.bench.calibration import behaviour
from kinprint.bench.calibration.measure import (
    ExactTest,
    Key,
    Progress,
    ToTest,
    exact_tests,
    measure_all,
    randomised_p,
)
from kinprint.bench.calibration.plots import qq
from kinprint.bench.calibration.records import CalibrationResult, Draw, Outcome
from kinprint.bench.calibration.rows import LEAST, LEVEL, SEED, judged, unused
from kinprint.bench.calibration.text import csv_rows, markdown
from kinprint.bench.lines import model_path
from kinprint.errors import UsageError
from kinprint.version import __version__
from kinprint.zoo.manifest import Manifest, ModelEntry, read_manifest
from kinprint.zoo.model import put

SCEPTR = (
    *("sceptr", "sceptr-a", "sceptr-average", "sceptr-b", "sceptr-blosum", "sceptr-cdr3", "sceptr-cdr3-mlm"),
    *("sceptr-dropout", "sceptr-left", "sceptr-mlm", "sceptr-shuffled", "sceptr-synthetic"),
)
"""Models of one shape in the suite ``real``, each trained from a start of its own."""

CHOSEN: Mapping[str, tuple[str, ...]] = {"real": SCEPTR}
"""Models that are used of a suite, where not all independent ones are."""


@dataclass(frozen=True, slots=True)
class Zoo:
    """A built suite with its independent models."""

    folder: Path
    suite: str
    models: tuple[ModelEntry, ...]

    @property
    def pairs(self) -> list[tuple[ModelEntry, ModelEntry]]:
        """Every pair, as suspect and base."""
        return [(suspect, base) for base, suspect in combinations(self.models, 2)]


def calibrate(
    zoos: Sequence[Path],
    out: Path,
    *,
    jobs: int = 1,
    behave: bool = False,
    plots: bool = True,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Run every exact test on all independent pairs and write table, p-values and picture.

    Writes ``calibration.json``, ``calibration.md``, ``calibration.csv``, ``qq.svg`` and ``qq.png``.

    Args:
        zoos: Folders of built suites.
        out: Folder for the results.
        jobs: Processes; behavioural tests take one.
        behave: Run the behavioural tests that give a p-value, in place of the exact tests on weights.
        plots: Whether to draw.
        progress: Called after every pair.

    Raises:
        UsageError: A folder holds no zoo or no two independent models, a suite is given twice, or a model's bytes are
            not those of the manifest.
        MissingExtraError: The [bench] extra is not installed, or the [torch] extra where models are run.
        CheckpointError: A model cannot be read.
    """
    start = time.perf_counter()
    found = [_zoo(folder) for folder in zoos]
    if twice := [suite for suite, count in Counter(zoo.suite for zoo in found).items() if count > 1]:
        raise UsageError(f"two zoos hold the suite {twice[0]}: give each suite once")
    if behave:
        names, notes = behaviour.NAMES, behaviour.NOTES
        tried = [draws for zoo in found for draws in behaviour.draws(zoo.suite, _behaving(zoo), progress)]
    else:
        names, notes = {test.statement.id: test.statement.name for test in exact_tests()}, ()
        pairs = [_to_test(zoo.folder, *pair) for zoo in found for pair in zoo.pairs]
        known = measure_all(pairs, out, jobs=jobs, progress=progress)
        tried = [_draws(test, zoo, known) for test in exact_tests() for zoo in found]
    result = CalibrationResult(
        level=LEVEL,
        least=LEAST,
        seed=SEED,
        zoos={zoo.suite: canonical.digest({one.name: one.content_digest for one in zoo.models}) for zoo in found},
        models={zoo.suite: tuple(one.name for one in zoo.models) for zoo in found},
        rows=tuple(judged([draws for draws in tried if any(draw.p is not None for draw in draws)], names)),
        unused=tuple(unused(draws, names) for draws in tried if all(draw.p is None for draw in draws)),
        axis="behaviour" if behave else "weights",
        notes=notes,
        kinprint=__version__,
        versions={"python": platform.python_version(), **{name: version(name) for name in ("numpy", "scipy")}},
        seconds=round(time.perf_counter() - start, 1),
    )
    write(result, [draw for draws in tried for draw in draws], out, plots=plots)
    return result


def write(result: CalibrationResult, draws: Sequence[Draw], out: Path, *, plots: bool = True) -> None:
    """Write a result's files, each whole or not at all."""
    put(out / "calibration.json", (result.model_dump_json(indent=1) + "\n").encode())
    put(out / "calibration.md", markdown(result).encode())
    put(out / "calibration.csv", csv_rows(draws).encode())
    for name, content in (qq(result, draws) if plots else {}).items():
        put(out / name, content)


# -- which pairs ---------------------------------------------------------------------------------------------------


def independent_models(manifest: Manifest, *, every_shape: bool = False) -> tuple[ModelEntry, ...]:
    """Return models of which no two share a training, a parent or the seed of a random start; the first of each.

    Args:
        manifest: What a suite holds.
        every_shape: Take models of all shapes, not only the suite's chosen ones, whose pairs every test applies to.

    Raises:
        UsageError: The suite's chosen models are not all there.
    """
    chosen = None if every_shape else CHOSEN.get(manifest.suite)
    kept: list[ModelEntry] = []
    origins: set[str] = set()
    for entry in manifest.models:
        own = {f"root {root}" for root in entry.roots}
        if (start := entry.settings.get("seed_init")) is not None:
            own.add(f"start {start}")
        if entry.parent is None and (chosen is None or entry.name in chosen) and not own & origins:
            kept.append(entry)
            origins |= own
    if chosen is not None and (absent := set(chosen) - {entry.name for entry in kept}):
        raise UsageError(f"the zoo of {manifest.suite} lacks {sorted(absent)[0]}: run 'kinprint zoo build' again")
    return tuple(kept)


def _zoo(folder: Path) -> Zoo:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} holds no zoo: make it with 'kinprint zoo build null -o {folder}'")
    models = independent_models(manifest)
    if len(models) < 2:
        raise UsageError(f"{folder} holds no two independent models: use a suite that does, such as null")
    return Zoo(folder, manifest.suite, models)


def _behaving(zoo: Zoo) -> list[behaviour.Behaving]:
    return [behaviour.Behaving(model_path(zoo.folder, one), one.name, one.content_digest) for one in zoo.models]


def _to_test(folder: Path, suspect: ModelEntry, base: ModelEntry) -> ToTest:
    return ToTest(model_path(folder, suspect), model_path(folder, base), suspect.content_digest, base.content_digest)


def _draws(test: ExactTest, zoo: Zoo, known: Mapping[Key, Outcome]) -> list[Draw]:
    found: list[Draw] = []
    for suspect, base in zoo.pairs:
        outcome = known[suspect.content_digest, base.content_digest, test.statement.id]
        p = randomised_p(outcome, SEED)
        found.append(Draw(test.statement.id, zoo.suite, suspect.name, base.name, outcome, p))
    return found
