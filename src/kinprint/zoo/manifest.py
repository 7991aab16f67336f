"""What the manifest of a suite says: where every model came from, and the digests by which it is found again."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue, ValidationError

from kinprint.errors import UsageError
from kinprint.types import Record

MANIFEST_FILE = "zoo.json"

MANIFEST_VERSION = 1
"""Raised whenever a reader of the manifest could be misled by the change."""


class TextEntry(Record):
    """A training text.

    Attributes:
        name: Its name in recipes.
        summary: What it is.
        sha256: Hex digest of the bytes trained on.
        size_bytes: Their number.
        unigram_entropy: Entropy of single bytes in the held-out end, in nats: the loss of knowing frequencies only.
    """

    name: str
    summary: str
    sha256: str
    size_bytes: int
    unigram_entropy: float


class Losses(Record):
    """Cross-entropies in nats per byte. Those on held-out text are of the weights as stored, in bf16.

    Attributes:
        training: Mean over the last 100 updates; None for a model that was not trained.
        held_out: On the end of the text that is never trained on.
        parent_held_out: The parent's, on the same text.
    """

    training: float | None
    held_out: float
    parent_held_out: float | None


class SameFunction(Record):
    """How far a laundered model's logits are from its parent's: largest difference over the parent's largest logit.

    Attributes:
        before_rounding: In float32, before the weights are rounded to bf16.
        after_rounding: As stored.
        tolerance: What ``before_rounding`` may be at most.
    """

    before_rounding: float
    after_rounding: float
    tolerance: float


class ModelEntry(Record):
    """One model of the suite.

    Attributes:
        name: Its folder, beside the manifest.
        summary: What it is to the others.
        kind: ``trained``, ``fine-tuned`` or ``laundered``.
        parent: The model that it was made from.
        settings: Every setting of its recipe: shape, seeds, training or transformations.
        recipe_digest: Digest of the settings, the text and the parent's bytes. Equal means: nothing to rebuild.
        text: Name of the text that it was trained or measured on.
        text_sha256: Hex digest of that text.
        parameters: Number of them.
        losses: How well it predicts.
        same_function: For a laundered model, how well its function was kept.
        weights_bytes: Size of ``model.safetensors``.
        weights_sha256: Hex digest of ``model.safetensors``.
        content_digest: Digest of the tensors, as ``kinprint inspect`` and ``compare`` give it.
        seconds: Wall time that it took, beside whatever else the machine was doing.
        versions: Releases of what made it. Only the same ones, on a like processor, give the same bits.
    """

    name: str
    summary: str
    kind: str
    parent: str | None
    settings: dict[str, JsonValue]
    recipe_digest: str
    text: str
    text_sha256: str
    parameters: int
    losses: Losses
    same_function: SameFunction | None
    weights_bytes: int
    weights_sha256: str
    content_digest: str
    seconds: float
    versions: dict[str, str]


class Manifest(Record):
    """A suite as built.

    Attributes:
        manifest_version: Version of this record.
        suite: Name of the suite.
        summary: What it is for.
        license: Of the models.
        texts: What was trained on.
        models: Parents first.
        notes: What a reader must know, such as a text that differs from that of the shipped examples.
    """

    manifest_version: int = MANIFEST_VERSION
    suite: str
    summary: str
    license: str = "Apache-2.0"
    texts: tuple[TextEntry, ...]
    models: tuple[ModelEntry, ...]
    notes: tuple[str, ...] = ()


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None where it has none.

    Raises:
        UsageError: There is one, and it is not one of this version.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        return None
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"{path} is no manifest that this version reads: remove it or choose another folder"
        ) from error
    if found.manifest_version != MANIFEST_VERSION:
        raise UsageError(f"{path} has version {found.manifest_version}, not {MANIFEST_VERSION}: choose another folder")
    return found


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as the JSON that is written."""
    return (manifest.model_dump_json(indent=2) + "\n").encode()
