"""From a suite's recipes to folders and a manifest. Goes on where an earlier run stopped, model by model."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from kinprint.architecture import view
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import KinprintError, UsageError
from kinprint.transform import ModelState, preserve
from kinprint.version import __version__
from kinprint.zoo import corpus, folder, train
from kinprint.zoo.card import model_card, suite_card
from kinprint.zoo.manifest import (
    MANIFEST_FILE,
    Losses,
    Manifest,
    ModelEntry,
    SameFunction,
    TextEntry,
    manifest_bytes,
    read_manifest,
)
from kinprint.zoo.recipes import SUITES, FineTuned, Laundered, Recipe, Suite, Trained, kind, recipe_digest, settings

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

_LIBRARIES = ("numpy", "torch", "transformers")


def build(suite: str, out: Path, *, progress: Progress | None = None) -> Path:
    """Build a suite by name.

    Args:
        suite: Name in :data:`kinprint.zoo.SUITES`.
        out: Folder that gets one folder per model and the manifest.
        progress: Called after every update.

    Returns:
        The manifest's path.

    Raises:
        UsageError: An unknown suite, a folder that holds something else or cannot be written, or a Python without the
            texts.
        MissingExtraError: Something must be trained and torch or transformers is not installed.
        KinprintError: A laundered model's function differs from its parent's.
    """
    if suite not in SUITES:
        raise UsageError(f"unknown suite {suite!r}: choose from {', '.join(SUITES)}")
    return build_suite(SUITES[suite], out, progress=progress)


def build_suite(suite: Suite, out: Path, *, progress: Progress | None = None) -> Path:
    """Build a suite; see :func:`build`. A model whose recipe, parent and weights are unchanged is left alone."""
    before = read_manifest(out)
    if before is not None and before.suite != suite.name:
        raise UsageError(f"{out} holds the suite {before.suite!r}, not {suite.name!r}: choose another folder")
    texts = {name: corpus.load(name) for name in dict.fromkeys(recipe.corpus for recipe in suite.recipes)}
    meter = _Meter(progress, total=sum(recipe.work for recipe in suite.recipes))
    wanted = {recipe.name for recipe in suite.recipes}
    known = {entry.name: entry for entry in before.models if entry.name in wanted} if before is not None else {}
    for recipe in suite.recipes:
        text = texts[recipe.corpus]
        parent = known[recipe.parent].content_digest if recipe.parent is not None else None
        digest = recipe_digest(recipe, corpus_sha256=text.sha256, parent_content=parent)
        if _up_to_date(known.get(recipe.name), digest, out):
            folder.write_settings(out / recipe.name, recipe.shape)
        else:
            known[recipe.name] = _make(recipe, digest, text, out, meter)
            _write_manifest(_manifest(suite, known, texts), out)
        meter.finish(recipe)
    manifest = _manifest(suite, known, texts)
    for entry in manifest.models:
        text_entry = next(text for text in manifest.texts if text.name == entry.text)
        folder.put(out / entry.name / "README.md", model_card(entry, text_entry))
    folder.put(out / "README.md", suite_card(manifest))
    return _write_manifest(manifest, out)


@dataclass
class _Meter:
    """Adds the work of all recipes up for one progress bar."""

    progress: Progress | None
    total: int
    finished: int = field(default=0, init=False)

    def tell(self, what: str, done: int) -> None:
        if self.progress is not None:
            self.progress(what, self.finished + done, self.total)

    def finish(self, recipe: Recipe) -> None:
        self.finished += recipe.work
        self.tell(f"{recipe.name}: done", 0)


@dataclass(frozen=True, slots=True)
class _Made:
    """Weights in float32, and what is known about them only while they are made."""

    weights: train.Weights
    training_loss: float | None = None
    moved_logits: float | None = None


def _up_to_date(entry: ModelEntry | None, digest: str, out: Path) -> bool:
    if entry is None or entry.recipe_digest != digest:
        return False
    weights = out / entry.name / folder.WEIGHTS_FILE
    return weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest() == entry.weights_sha256


def _make(recipe: Recipe, digest: str, text: corpus.Text, out: Path, meter: _Meter) -> ModelEntry:
    start = time.perf_counter()
    parent = folder.read(out / recipe.parent) if recipe.parent is not None else None
    match recipe:
        case Trained():
            initial = train.initial_weights(recipe.shape, seed=recipe.seed_init, std=recipe.init_std)
            made = _train(recipe, initial, text, meter)
        case FineTuned():
            assert parent is not None
            made = _train(recipe, parent, text, meter)
        case Laundered():
            assert parent is not None
            made = _launder(recipe, parent, text, out, meter)
    stored = folder.rounded(made.weights)
    file_bytes = folder.write(out / recipe.name, stored, recipe.shape).read_bytes()
    widened = {name: array.astype(np.float32) for name, array in stored.items()}
    shape, content = recipe.shape, text.content
    return ModelEntry(
        name=recipe.name,
        summary=recipe.summary,
        kind=kind(recipe),
        parent=recipe.parent,
        settings=settings(recipe),
        recipe_digest=digest,
        text=text.name,
        text_sha256=text.sha256,
        parameters=sum(array.size for array in stored.values()),
        losses=Losses(
            training=made.training_loss,
            held_out=train.held_out_loss(widened, shape, content),
            parent_held_out=train.held_out_loss(parent, shape, content) if parent is not None else None,
        ),
        same_function=_same_function(recipe, made, parent, widened, content),
        weights_bytes=len(file_bytes),
        weights_sha256=hashlib.sha256(file_bytes).hexdigest(),
        content_digest=folder.content_digest(stored),
        seconds=round(time.perf_counter() - start, 1),
        versions={
            "python": platform.python_version(),
            "kinprint": __version__,
            **{library: version(library) for library in _LIBRARIES},
        },
    )


def _train(recipe: Trained | FineTuned, initial: train.Weights, text: corpus.Text, meter: _Meter) -> _Made:
    def tell(step: int, loss: float) -> None:
        meter.tell(f"{recipe.name}: step {step} of {recipe.training.steps}, loss {loss:.2f}", step)

    weights, loss = train.train(initial, recipe.shape, recipe.training, text.content, tell=tell)
    return _Made(weights, training_loss=loss)


def _launder(recipe: Laundered, parent: train.Weights, text: corpus.Text, out: Path, meter: _Meter) -> _Made:
    rng = np.random.default_rng(recipe.seed)
    state = ModelState.from_view(view(open_checkpoint(out / recipe.parent)))
    for done, name in enumerate(recipe.transformations):
        meter.tell(f"{recipe.name}: {name}", done)
        state = preserve(state, [name], rng)
    after = state.checkpoint(np.float32)
    weights = {name: np.array(after.read(name)) for name in after.tensors}
    moved = _logit_distance(parent, weights, recipe, text.content)
    if not moved <= recipe.tolerance:
        raise KinprintError(
            f"{recipe.name} moved its parent's logits by {moved:.1e} of the largest, more than {recipe.tolerance:.0e}: "
            "a transformation does not preserve the function; report this"
        )
    return _Made(weights, moved_logits=moved)


def _same_function(
    recipe: Recipe, made: _Made, parent: train.Weights | None, stored: train.Weights, text: bytes
) -> SameFunction | None:
    if not isinstance(recipe, Laundered) or made.moved_logits is None or parent is None:
        return None
    return SameFunction(
        before_rounding=made.moved_logits,
        after_rounding=_logit_distance(parent, stored, recipe, text),
        tolerance=recipe.tolerance,
    )


def _logit_distance(a: train.Weights, b: train.Weights, recipe: Recipe, text: bytes) -> float:
    """Return the largest difference of two models' logits over the largest logit of the first."""
    logits_a = train.held_out_logits(a, recipe.shape, text)
    logits_b = train.held_out_logits(b, recipe.shape, text)
    return float(np.abs(logits_a - logits_b).max() / np.abs(logits_a).max())


def _manifest(suite: Suite, known: Mapping[str, ModelEntry], texts: Mapping[str, corpus.Text]) -> Manifest:
    return Manifest(
        suite=suite.name,
        summary=suite.summary,
        texts=tuple(_text_entry(text) for text in texts.values()),
        # The prose is today's; a change of words rebuilds nothing.
        models=tuple(
            known[recipe.name].model_copy(update={"summary": recipe.summary})
            for recipe in suite.recipes
            if recipe.name in known
        ),
        notes=tuple(text.note for text in texts.values() if text.note is not None),
    )


def _text_entry(text: corpus.Text) -> TextEntry:
    held_out = np.frombuffer(text.content, np.uint8)[-train.HELD_OUT_BYTES :]
    return TextEntry(
        name=text.name,
        summary=corpus.CORPORA[text.name].summary,
        sha256=text.sha256,
        size_bytes=len(text.content),
        unigram_entropy=train.unigram_entropy(held_out),
    )


def _write_manifest(manifest: Manifest, out: Path) -> Path:
    path = out / MANIFEST_FILE
    folder.put(path, manifest_bytes(manifest))
    return path
