"""From a suite's recipes to folders and a manifest. Goes on where an earlier run stopped, model by model."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinprint.errors import UsageError
from kinprint.zoo import corpus, making
from kinprint.zoo.card import model_card, suite_card
from kinprint.zoo.manifest import MANIFEST_FILE, Manifest, ModelEntry, manifest_bytes, read_manifest, text_entry
from kinprint.zoo.model import Model, put
from kinprint.zoo.recipes import Recipe, Suite, Trained
from kinprint.zoo.shapes import untrained
from kinprint.zoo.suites import SUITES
from kinprint.zoo.workers import channel, workers

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

_POLL_SECONDS = 0.2


def build(suite: str, out: Path, *, jobs: int = 1, progress: Progress | None = None) -> Path:
    """Build a suite by name.

    Args:
        suite: Name in :data:`kinprint.zoo.suites.SUITES`.
        out: Folder that gets one folder per model and the manifest.
        jobs: Models made at the same time, each by a process of its own with one thread.
        progress: Called after every update.

    Returns:
        The manifest's path.

    Raises:
        UsageError: An unknown suite, a folder that holds something else or cannot be written, or a Python without the
            texts.
        MissingExtraError: Something must be trained and torch or transformers is not installed.
        KinprintError: A function-preserving kind moved the logits, or a package cannot be had.
    """
    if suite not in SUITES:
        raise UsageError(f"unknown suite {suite!r}: choose from {', '.join(SUITES)}")
    return build_suite(SUITES[suite], out, jobs=jobs, progress=progress)


def build_suite(suite: Suite, out: Path, *, jobs: int = 1, progress: Progress | None = None) -> Path:
    """Build a suite; see :func:`build`. A model whose recipe, parents and weights are unchanged is left alone."""
    before = read_manifest(out)
    if before is not None and before.suite != suite.name:
        raise UsageError(f"{out} holds the suite {before.suite!r}, not {suite.name!r}: choose another folder")
    earlier = {entry.name: entry for entry in before.models} if before is not None else {}
    meter = _Meter(progress, total=sum(making.work(recipe) for recipe in suite.recipes))
    known: dict[str, ModelEntry] = {}
    # What a stopped run has made stays in the manifest while this one comes to it.
    wanted = {recipe.name for recipe in suite.recipes}
    kept = {name: entry for name, entry in earlier.items() if name in wanted}
    for recipe, entry in _entries(suite.recipes, earlier, known, out, jobs, meter):
        known[recipe.name] = kept[recipe.name] = entry
        meter.finish(recipe)
        _write_manifest(_manifest(suite, kept), out)
    manifest = _manifest(suite, known)
    for recipe in suite.recipes:
        entry = next(entry for entry in manifest.models if entry.name == recipe.name)
        _restore_settings(recipe, out / recipe.name)
        put(out / entry.name / "README.md", model_card(entry, manifest.texts))
    put(out / "README.md", suite_card(manifest))
    return _write_manifest(manifest, out)


@dataclass
class _Meter:
    """Adds the work of all recipes up for one progress bar."""

    progress: Progress | None
    total: int
    finished: int = field(default=0, init=False)
    under_way: dict[str, int] = field(default_factory=dict[str, int], init=False)

    def tell(self, name: str, what: str, done: int) -> None:
        self.under_way[name] = done
        if self.progress is not None:
            self.progress(f"{name}: {what}", self.finished + sum(self.under_way.values()), self.total)

    def finish(self, recipe: Recipe) -> None:
        self.under_way.pop(recipe.name, None)
        self.finished += making.work(recipe)
        if self.progress is not None:
            self.progress(f"{recipe.name}: done", self.finished + sum(self.under_way.values()), self.total)


def _entries(
    recipes: Sequence[Recipe],
    earlier: Mapping[str, ModelEntry],
    known: Mapping[str, ModelEntry],
    out: Path,
    jobs: int,
    meter: _Meter,
) -> Generator[tuple[Recipe, ModelEntry]]:
    """Yield every recipe with its entry, parents first. ``known`` grows as the caller takes what is yielded."""
    waiting = list(recipes)
    running: dict[Future[ModelEntry], Recipe] = {}
    with _workers(jobs) as (start, listen):
        while waiting or running:
            for recipe in list(waiting):
                if not set(recipe.needs) <= set(known) or len(running) >= jobs:
                    continue
                waiting.remove(recipe)
                entry = earlier.get(recipe.name)
                if making.is_current(entry, making.digest_of(recipe, known), out):
                    assert entry is not None
                    yield recipe, entry
                else:
                    running[start(recipe, {name: known[name] for name in recipe.needs}, out, meter)] = recipe
            if running:
                listen(meter)
                done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()


_Start = Callable[[Recipe, Mapping[str, ModelEntry], Path, _Meter], "Future[ModelEntry]"]


@contextmanager
def _workers(jobs: int) -> Generator[tuple[_Start, Callable[[_Meter], None]]]:
    """Give a function that starts a recipe and one that passes on what the running ones tell."""
    if jobs == 1:
        yield _start_here, lambda _: None
        return
    told = channel()
    with workers(jobs, _begin, told) as pool:

        def start(recipe: Recipe, known: Mapping[str, ModelEntry], out: Path, meter: _Meter) -> Future[ModelEntry]:
            del meter
            return pool.submit(_make_there, recipe, known, out)

        def listen(meter: _Meter) -> None:
            while True:
                try:
                    name, what, done = told.get_nowait()
                except queue.Empty:
                    return
                meter.tell(name, what, done)

        yield start, listen


def _start_here(recipe: Recipe, known: Mapping[str, ModelEntry], out: Path, meter: _Meter) -> Future[ModelEntry]:
    done: Future[ModelEntry] = Future()
    done.set_result(making.make(recipe, known, out, lambda what, done: meter.tell(recipe.name, what, done)))
    return done


class _Line:
    """The worker's end of the queue; set once when the process starts."""

    told: Any = None


def _begin(told: Any) -> None:  # noqa: ANN401 - a multiprocessing queue
    _Line.told = told


def _make_there(recipe: Recipe, known: Mapping[str, ModelEntry], out: Path) -> ModelEntry:
    return making.make(recipe, known, out, lambda what, done: _Line.told.put((recipe.name, what, done)))


def _restore_settings(recipe: Recipe, folder: Path) -> None:
    """Write a trained model's config and tokenizer again, should they be lost: they follow from the recipe alone."""
    if isinstance(recipe, Trained):
        Model(untrained(recipe.shape).config, {}, untrained(recipe.shape).files).write_settings(folder)


def _manifest(suite: Suite, known: Mapping[str, ModelEntry]) -> Manifest:
    # The prose is today's; a change of words rebuilds nothing.
    models = tuple(
        known[recipe.name].model_copy(update={"summary": recipe.summary})
        for recipe in suite.recipes
        if recipe.name in known
    )
    texts = [corpus.load(name) for name in sorted({name for entry in models for name in entry.texts})]
    return Manifest(
        suite=suite.name,
        summary=suite.summary,
        hours=round(sum(entry.seconds for entry in models) / 3600, 3),
        texts=tuple(text_entry(text) for text in texts),
        models=models,
        notes=tuple(text.note for text in texts if text.note is not None),
    )


def _write_manifest(manifest: Manifest, out: Path) -> Path:
    path = out / MANIFEST_FILE
    put(path, manifest_bytes(manifest))
    return path
