"""A benchmark from a built zoo to rows, rates, tables and pictures. Goes on where an earlier run stopped."""

from __future__ import annotations

import platform
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Literal, cast

from kinprint import canonical, registry
from kinprint.bench import behaviours, verdicts
from kinprint.bench.cases import expand, read_cases
from kinprint.bench.lines import appended, model_path, read_lines
from kinprint.bench.measure import Measured, Opened, measure, method_by_id
from kinprint.bench.metrics import hard_rates, rates
from kinprint.bench.plots import write_plots
from kinprint.bench.records import BenchResult, Case, Cell, Column, Row, Run
from kinprint.bench.tables import csv_rows, markdown
from kinprint.bench.verdicts_layers import Lineage
from kinprint.errors import UsageError
from kinprint.linalg.threads import blas
from kinprint.version import __version__
from kinprint.zoo.manifest import MANIFEST_FILE, Manifest, ModelEntry, read_manifest
from kinprint.zoo.model import put
from kinprint.zoo.workers import workers

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

BOOTSTRAP_SEED = 0

MEASURED_FILE = "measured.jsonl"
"""Grows by one line per pair and method; a later run with the same output folder reads it."""

ALSO_HEADLINE: Mapping[str, tuple[str, ...]] = {
    "layernorm": ("norm.attn centred cosine",),
    "tensor-cosine": ("attn.q cosine",),
    "pcs": ("by role",),
}
"""Numbers that a method is known by besides the first that it reports."""

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "transformers")

_OPEN_MODELS = 24
"""Models that one process keeps open, with their fingerprints."""


def bench(
    suite: str,
    zoo: Path,
    out: Path,
    *,
    methods: Iterable[str] | None = None,
    behave: bool = False,
    only: str | None = None,
    jobs: int = 1,
    plots: bool = True,
    progress: Progress | None = None,
) -> BenchResult:
    """Run methods and the verdict on a suite's cases; write ``result.json``, ``table.md``, ``cases.csv`` and pictures.

    Args:
        suite: Suite whose cases come with kinprint, or a YAML file.
        zoo: Folder of the models, as ``kinprint zoo build`` writes it.
        out: Folder for the results.
        methods: Names in the registry, and ``verdict``; all by default.
        behave: Whether to run the models on texts too, with every behavioural method; needs the [torch] extra.
        only: Pattern on pairs, models or categories.
        jobs: Processes.
        plots: Whether to draw.
        progress: Called after every pair.

    Raises:
        UsageError: Unknown cases, or a zoo that is not there or does not fit.
        MissingExtraError: The [bench] extra is not installed.
        CheckpointError: A model cannot be read.
    """
    start, listed, ids = time.perf_counter(), read_cases(suite), _ids(methods, behave=behave)
    manifest = read_manifest(zoo)
    if manifest is None:
        raise UsageError(f"{zoo} holds no zoo: make it with 'kinprint zoo build {listed.suite} -o {zoo}'")
    cases = expand(listed, manifest, only=only)
    measured = _measure_all(cases, manifest, zoo, out, ids, jobs, progress)
    columns, rows = _rows(cases, manifest, measured, ids, Lineage(manifest, zoo))
    result = BenchResult(
        suite=listed.suite,
        cases_version=listed.version,
        columns=columns,
        rows=rows,
        rates=rates(columns, rows, seed=BOOTSTRAP_SEED),
        rates_hard=hard_rates(columns, rows, seed=BOOTSTRAP_SEED),
        run=_run_record(manifest, ids, jobs, time.perf_counter() - start),
        notes=listed.notes,
    )
    write(result, out, plots=plots)
    return result


def _ids(methods: Iterable[str] | None, *, behave: bool) -> list[str]:
    """Return the ids of the methods that were asked for, behavioural ones behind the others, the verdict's last.

    Raises:
        UsageError: A name that no method has.
    """
    asked = list(methods or (*registry.METHODS, verdicts.ASKED))
    named = [name for name in asked if name != verdicts.ASKED]
    ids = [method.id for method in registry.select(named)] if named else []
    ids += behaviours.ids() if behave else []
    return [*ids, verdicts.verdict_id()] if verdicts.ASKED in asked else ids


def write(result: BenchResult, out: Path, *, plots: bool = True) -> None:
    """Write a result's files, each whole or not at all."""
    put(out / "result.json", (result.model_dump_json(indent=1) + "\n").encode())
    put(out / "table.md", markdown(result).encode())
    put(out / "cases.csv", csv_rows(result).encode())
    if plots:
        write_plots(result, out)


# -- measuring ---------------------------------------------------------------------------------------------------------

_Task = tuple[Path, Path, list[str]]
"""What to open as suspect and as base, and the ids of the methods to run."""

Key = tuple[str, str, str]
"""Content digests of suspect and base, and the method's id."""


def _measure_all(
    cases: Sequence[Case],
    manifest: Manifest,
    zoo: Path,
    out: Path,
    ids: Sequence[str],
    jobs: int,
    progress: Progress | None,
) -> dict[Key, Measured]:
    entries = {entry.name: entry for entry in manifest.models}
    known = _read_measured(out / MEASURED_FILE)
    tasks: list[_Task] = []
    pairs: list[tuple[ModelEntry, ModelEntry]] = []
    for case in cases:
        suspect, base = entries[case.suspect], entries[case.base]
        missing = [i for i in ids if (suspect.content_digest, base.content_digest, i) not in known]
        if missing:
            tasks.append((model_path(zoo, suspect), model_path(zoo, base), missing))
            pairs.append((suspect, base))
    with appended(out / MEASURED_FILE) as file:
        for done, (found, pair) in enumerate(zip(_results(tasks, jobs), pairs, strict=True), start=1):
            _check_digests(found, pair, zoo)
            for one in found:
                known[one.suspect, one.base, one.id] = one
                file.write(one.model_dump_json() + "\n")
            file.flush()
            if progress is not None:
                progress(f"{done} of {len(tasks)} pairs", done, len(tasks))
    return known


def _check_digests(found: Sequence[Measured], pair: tuple[ModelEntry, ModelEntry], zoo: Path) -> None:
    """The manifest says which model has which origin; of other bytes it says nothing."""
    for entry, digests in zip(pair, ({one.suspect for one in found}, {one.base for one in found}), strict=True):
        if digests - {entry.content_digest}:
            raise UsageError(
                f"{zoo / entry.name} does not hold what {zoo / MANIFEST_FILE} says: run 'kinprint zoo build' again"
            )


def _read_measured(path: Path) -> dict[Key, Measured]:
    """Return what earlier runs measured. A line that a stopped run left half-written is measured again."""
    return {(one.suspect, one.base, one.id): one for one in read_lines(path, Measured)}


def _results(tasks: Sequence[_Task], jobs: int) -> Generator[list[Measured]]:
    if jobs == 1 or len(tasks) < 2:
        yield from map(_task, tasks)
        return
    with workers(jobs) as pool:
        yield from pool.map(_task, tasks, chunksize=4)


class _Shelf:
    """Models that this process has open, the longest unused closed first."""

    opened: ClassVar[OrderedDict[Path, Opened]] = OrderedDict()

    @classmethod
    def get(cls, path: Path) -> Opened:
        found = cls.opened.pop(path, None) or Opened.of(path)
        cls.opened[path] = found
        while len(cls.opened) > _OPEN_MODELS:
            cls.opened.popitem(last=False)
        return found


def _task(task: _Task) -> list[Measured]:
    suspect, base = (_Shelf.get(path) for path in task[:2])
    run = set(behaviours.ids()) & set(task[2])
    others = [i for i in task[2] if i != verdicts.verdict_id() and i not in run]
    found = measure(suspect, base, [method_by_id(i) for i in others])
    found += behaviours.measure(suspect, base, sorted(run)) if run else []
    return [*found, verdicts.measure(suspect, base)] if verdicts.verdict_id() in task[2] else found


# -- records -----------------------------------------------------------------------------------------------------------


def _rows(
    cases: Sequence[Case],
    manifest: Manifest,
    measured: Mapping[Key, Measured],
    ids: Sequence[str],
    lineage: Lineage,
) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    digest = {entry.name: entry.content_digest for entry in manifest.models}
    of_case = [[measured[digest[case.suspect], digest[case.base], i] for i in ids] for case in cases]
    columns: dict[str, Column] = {}
    for i in range(len(ids)):
        for found in of_case:
            for column in _columns(found[i]):
                columns.setdefault(column.name, column)
    ordered = tuple(columns.values())
    return ordered, tuple(_row(case, ordered, found, lineage) for case, found in zip(cases, of_case, strict=True))


def _row(case: Case, columns: Sequence[Column], found: Sequence[Measured], lineage: Lineage) -> Row:
    verdict = next((one.verdict for one in found if one.verdict is not None), None)
    return Row(
        case=case,
        cells={column.name: _cell(column, found) for column in columns},
        costs={one.method: one.cost for one in found},
        verdict=verdict,
        true_layers=None if verdict is None else lineage.true_layers(case.suspect, case.base),
    )


def _columns(one: Measured) -> list[Column]:
    first = one.values[0][0] if one.values else None
    return [
        Column(
            method=one.method,
            id=one.id,
            value=name,
            kind=cast('Literal["similarity", "distance"]', kind),
            identical=identical,
            headline=name == first or name in ALSO_HEADLINE.get(one.method, ()),
        )
        for name, kind, identical in one.values
    ]


def _cell(column: Column, found: Sequence[Measured]) -> Cell:
    one = next(measured for measured in found if measured.id == column.id)
    return one.cells.get(column.value) or Cell(value=None, reason=one.reason or "a model lacks the role")


def _run_record(manifest: Manifest, ids: Sequence[str], jobs: int, seconds: float) -> Run:
    commit = _git("rev-parse", "HEAD")
    return Run(
        kinprint=__version__,
        commit=commit,
        dirty=bool(_git("status", "--porcelain")) if commit is not None else None,
        versions={
            "python": platform.python_version(),
            **{library: found for library in _LIBRARIES if (found := _version(library))},
        },
        cpu=_cpu(),
        blas=f"{blas()}; one thread while measuring",
        seeds={"bootstrap": BOOTSTRAP_SEED},
        methods=tuple(ids),
        zoo=canonical.digest({entry.name: entry.content_digest for entry in manifest.models}),
        jobs=jobs,
        seconds=round(seconds, 1),
    )


def _git(*arguments: str) -> str | None:
    """Return what git says of the checkout that this code runs from; None where there is none."""
    try:
        ran = subprocess.run(  # noqa: S603
            ("git", *arguments),  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
