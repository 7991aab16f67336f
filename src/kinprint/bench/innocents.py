"""The population of innocents that margins rest on: sizes of independent pairs, made by ``bench innocents``.

The models are trained from a random start of their own, or packaged without a known parent, and no two share one.
Every second model, in the order of the manifests, is of the half
that sets the margin, the others report; only pairs inside a half are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from kinprint.alignment.trunk import Trunk
from kinprint.architecture import view
from kinprint.bench.calibration.run import independent_models
from kinprint.bench.lines import model_path
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.evidence import embedding as embeddings
from kinprint.evidence import matched_tensors
from kinprint.evidence.matched import PROCEDURE, measure
from kinprint.evidence.pair import Pair
from kinprint.evidence.population import Innocent, InnocentPair, Innocents
from kinprint.linalg.threads import one_thread
from kinprint.zoo.manifest import read_manifest
from kinprint.zoo.workers import workers

FILE = "innocents.json"
VERSION = 1

Told = Callable[[str, int, int], None]


def innocents(zoos: Sequence[Path], output: Path, *, jobs: int = 1, progress: Told | None = None) -> Innocents:
    """Measure all pairs of each half and write ``innocents.json``.

    Args:
        zoos: Folders of built suites.
        output: Folder to write to.
        jobs: Processes at work.
        progress: Called after each pair.

    Raises:
        UsageError: A folder holds no built suite, or there are too few independent models.
    """
    models, paths = _models(zoos)
    pairs = [both for both in combinations(range(len(models)), 2) if len({models[at].half for at in both}) == 1]
    found: list[InnocentPair] = []
    with workers(jobs) as pool:
        sizes = pool.map(_measured, [(paths[first], paths[second]) for first, second in pairs], chunksize=4)
        for done, ((first, second), one) in enumerate(zip(pairs, sizes, strict=True), start=1):
            if one:
                found.append(InnocentPair(first=first, second=second, sizes=one))
            if progress is not None:
                progress(f"{models[first].name} and {models[second].name}", done, len(pairs))
    result = Innocents(version=VERSION, procedure=PROCEDURE, models=tuple(models), pairs=tuple(found))
    _write(result, output)
    return result


def _models(zoos: Sequence[Path]) -> tuple[list[Innocent], list[Path]]:
    models: list[Innocent] = []
    paths: list[Path] = []
    for zoo in zoos:
        manifest = read_manifest(zoo)
        if manifest is None:
            raise UsageError(f"{zoo} holds no built suite: run 'kinprint zoo build' first")
        for entry in independent_models(manifest, every_shape=True):
            path = model_path(zoo, entry)
            trunk = _trunk(path)
            if trunk.view.family.name == "unknown" or not trunk.width:
                continue
            models.append(
                Innocent(
                    name=entry.name,
                    source=manifest.suite,
                    family=trunk.view.family.name,
                    width=trunk.width,
                    layers=len(trunk.layers),
                    half=("margin", "report")[len(models) % 2],
                )
            )
            paths.append(path)
    if len(models) < 4:
        raise UsageError("fewer than 4 independent models: give a zoo that has more, such as the suite null")
    return models, paths


@lru_cache(maxsize=64)
def _trunk(path: Path) -> Trunk:
    return Trunk(view(open_checkpoint(path)))


def _measured(paths: tuple[Path, Path]) -> dict[str, float]:
    """Return the sizes of one pair, to six digits: more would differ between processors."""
    with one_thread():
        pair = Pair(*(_trunk(path) for path in paths))
        if pair.obstacle is not None or pair.best is None:
            return {}
        sizes = measure(pair).all()
        if (tensors := matched_tensors.measure(pair.suspect.view, pair.base.view)) is not None:
            sizes["tensors"] = tensors[0]
        if (embedding := embeddings.measure(pair)) is not None:
            sizes["embedding"] = embedding[0]
    return {name: round(size, 6) for name, size in sizes.items()}


def _write(result: Innocents, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f".{FILE}.partial"
    partial.write_text(result.model_dump_json(exclude_defaults=True) + "\n", encoding="utf-8")
    partial.replace(output / FILE)
