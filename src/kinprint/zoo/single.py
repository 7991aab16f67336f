"""One model derived from another outside any suite: what ``kinprint zoo derive`` does."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kinprint.architecture import view
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.zoo import corpus, networks
from kinprint.zoo.derive import Chain, derive
from kinprint.zoo.making import bytes_digest, same_function, versions
from kinprint.zoo.manifest import MANIFEST_FILE, Manifest, ModelEntry, SameFunction, manifest_bytes, text_entry
from kinprint.zoo.model import WEIGHTS_FILE, Model, put
from kinprint.zoo.recipes import Derived, recipe_digest, settings

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""


def derive_folder(
    model: Path, out: Path, kinds: Sequence[str], *, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Derive a model from a checkpoint and write it with a manifest of its own.

    Args:
        model: Folder or file of the checkpoint to start from. Other models that a kind needs are paths too.
        out: Folder to write; it must not exist yet, or be empty.
        kinds: Kinds with settings, in order.
        seed: Seed of everything drawn.
        progress: Hears of progress.

    Returns:
        The manifest's path.

    Raises:
        UsageError: An unknown kind, one that does not fit the model, or a folder that holds something.
        CheckpointError: A model cannot be read.
        MissingExtraError: A kind needs a package that is not installed.
        KinprintError: A function-preserving kind moved the logits.
    """
    start, chain = time.perf_counter(), Chain.parse(kinds)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already: choose another folder")
    parent = _read(model)

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(what, done, chain.work)

    outcome = derive(parent, chain, seed=seed, others=lambda path: _read(Path(path)), tell=tell)
    same = same_function(parent, outcome, chain)
    # Beside the target and renamed at the end: an interruption leaves nothing half-written.
    stage = out.parent / f".{out.name}-{secrets.token_hex(8)}.tmp"
    try:
        weights = outcome.model.write(stage)
        entry = _entry(model, out.name, kinds, seed, stage, weights, same, time.perf_counter() - start)
        put(stage / MANIFEST_FILE, manifest_bytes(_manifest(entry)))
        if out.exists():
            out.rmdir()
        stage.rename(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}: choose another folder") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return out / MANIFEST_FILE


def _read(path: Path) -> Model:
    """Load a model; one in a GGUF file as Hugging Face has it, since that is what is written."""
    stored = open_checkpoint(path)
    if stored.format != "gguf":
        return Model.read(path)
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if len(files) != 1:
        raise UsageError(f"{path} holds {len(files)} GGUF files: name the one to derive from")
    return networks.from_gguf(files[0])


def _entry(
    model: Path,
    name: str,
    kinds: Sequence[str],
    seed: int,
    folder: Path,
    weights: Path,
    same: SameFunction | None,
    seconds: float,
) -> ModelEntry:
    chain = Chain.parse(kinds)
    recipe = Derived(
        name=name,
        summary=" then ".join(kinds),
        parent=model.name,
        kinds=tuple(kinds),
        others=chain.others,
        seed=seed,
        corpus=None,
    )
    texts = {text: corpus.load(text).sha256 for text in chain.texts}
    needed = {str(path): open_checkpoint(path).content_digest for path in (model, *map(Path, chain.others))}
    stored = view(open_checkpoint(folder))
    sha256, size = bytes_digest(weights)
    roots = (*((model.name,) if chain.keeps_weights else (name,)), *(Path(other).name for other in chain.others))
    return ModelEntry(
        name=name,
        summary=recipe.summary,
        kind="derived",
        parent=model.name,
        roots=tuple(sorted(set(roots))),
        settings=settings(recipe),
        recipe_digest=recipe_digest(recipe, texts=texts, needed=needed),
        texts=texts,
        family=stored.family.name,
        parameters=stored.info().parameters,
        losses=None,
        same_function=same,
        weights_file=WEIGHTS_FILE,
        weights_bytes=size,
        weights_sha256=sha256,
        content_digest=stored.checkpoint.content_digest,
        license="unknown",
        seconds=round(seconds, 1),
        versions=versions(),
    )


def _manifest(entry: ModelEntry) -> Manifest:
    return Manifest(
        suite="derived",
        summary="one model derived from another",
        hours=round(entry.seconds / 3600, 3),
        texts=tuple(text_entry(corpus.load(name)) for name in sorted(entry.texts)),
        models=(entry,),
        notes=("its licence is that of the model that it was made from",),
    )
