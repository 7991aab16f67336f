"""All premises in one go, and the files that say what came out."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kinprint.bench.premises import change, gains, gauges, plots, removal, sigma, text
from kinprint.bench.premises.models import SEED, Models, Real, Told, real_model
from kinprint.bench.premises.records import ROSTERS, TINY, Premise, PremisesResult, Roster
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint
from kinprint.errors import UsageError
from kinprint.version import __version__
from kinprint.zoo.manifest import read_manifest
from kinprint.zoo.model import put

_LIBRARIES = ("numpy", "torch", "transformers")


def measure(
    zoo: Path, out: Path, *, real: Path | None = None, roster: Roster | None = None, progress: Told | None = None
) -> PremisesResult:
    """Measure the premises of the papers and write numbers and pictures.

    Args:
        zoo: Folder with one folder per model.
        out: Where ``premises.json``, ``premises.md`` and every picture (SVG and PNG) are written.
        real: A real model (Hugging Face folder, or GGUF) for what needs no second one.
        roster: Which of the zoo's models are used for what, by default as the suite in the zoo's manifest has them.
            Those that are absent are named in the result.
        progress: Hears, in a few words, what is being measured.

    Raises:
        UsageError: ``zoo`` is no folder, or ``out`` cannot be written.
        CheckpointError: A model cannot be read.
        MissingExtraError: torch, transformers or matplotlib is not installed.
    """
    if not zoo.is_dir():
        raise UsageError(f"{zoo} is no folder: build a suite with `kinprint zoo build` first")
    start = time.perf_counter()
    tell: Told = progress if progress is not None else _silence
    models = Models(zoo, roster if roster is not None else _roster(zoo))
    given = None if real is None else real_model(real)
    found = [step() for step in _steps(models, given, tell)]
    result = PremisesResult(
        kinprint=__version__,
        versions={"python": platform.python_version(), **_versions()},
        models=_digests(models, given),
        seed=SEED,
        seconds=round(time.perf_counter() - start, 1),
        premises=tuple(found),
    )
    tell("writing")
    write(result, out)
    return result


def write(result: PremisesResult, out: Path) -> None:
    """Write a result's files, each whole or not at all.

    Raises:
        UsageError: ``out`` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    for premise in result.premises:
        for picture in (*premise.curves, *premise.heat_maps):
            for name, content in plots.draw(picture).items():
                put(out / name, content)
    put(out / "premises.md", text.markdown(result).encode())
    put(out / "premises.json", (result.model_dump_json(indent=1) + "\n").encode())


def _roster(zoo: Path) -> Roster:
    manifest = read_manifest(zoo)
    return TINY if manifest is None else ROSTERS.get(manifest.suite, TINY)


def _steps(models: Models, real: Real | None, tell: Told) -> list[Callable[[], Premise]]:
    steps: list[Callable[[], Premise]] = [
        lambda: change.measure(models, tell),
        lambda: removal.measure(models, tell),
        lambda: gains.measure(models, tell),
        lambda: sigma.measure(models, real, tell),
        lambda: gauges.measure(models, tell),
    ]
    if real is not None:
        steps += [
            lambda: change.measure_real(real, tell),
            lambda: removal.measure_real(real, models.text(), tell),
            lambda: gauges.measure_real(real, tell),
        ]
    return steps


def _digests(models: Models, real: Real | None) -> dict[str, str]:
    names = models.names()
    found = {name: open_checkpoint(models.folder / name).content_digest for name in models.present(names)}
    if real is not None:
        # Of the weights as they were measured, whatever file they came in.
        found[real.name] = MemoryCheckpoint(real.model.weights).content_digest
    return found


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _silence(_: str) -> None:
    """Hear nothing."""
