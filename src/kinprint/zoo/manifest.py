"""What the manifest of a suite says: where every model came from, and the digests by which it is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import JsonValue, ValidationError

from kinprint.errors import UsageError
from kinprint.types import Record
from kinprint.zoo import corpus
from kinprint.zoo.train import HELD_OUT_BYTES, unigram_entropy

MANIFEST_FILE = "zoo.json"

MANIFEST_VERSION = 2
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
    """Cross-entropies in nats per token. Those on held-out text are of the weights as stored, in bf16.

    Attributes:
        training: Mean over the last 100 updates of training from scratch; None for any other model.
        held_out: On the end of the text that is never trained on.
        parent_held_out: The parent's, on the same text.
    """

    training: float | None
    held_out: float
    parent_held_out: float | None


class SameFunction(Record):
    """How far function-preserving kinds moved the logits: largest difference over the largest logit before.

    Attributes:
        before_rounding: In float32, before the weights are rounded to bf16.
        after_rounding: After it; None where other kinds changed the function too.
        tolerance: Largest value that ``before_rounding`` may have.
    """

    before_rounding: float
    after_rounding: float | None
    tolerance: float


class ModelEntry(Record):
    """One model of the suite.

    Attributes:
        name: Its folder, beside the manifest.
        summary: What it is to the others.
        kind: ``trained``, ``derived`` or ``packaged``.
        parent: The model that it was made from.
        roots: The independent trainings from which its weights came, sorted. Models that share none are innocent.
        settings: Every setting of its recipe: shape, seeds, training or kinds.
        recipe_digest: Digest of the settings, the texts and the bytes of the models it was made from. Equal means:
            nothing to rebuild.
        texts: SHA-256 of each text that it was trained or measured on, by name.
        family: Name of its family table.
        parameters: Number of them.
        losses: How well it predicts; None where it was not measured.
        same_function: How well function-preserving kinds kept the function; None where there were none.
        weights_file: The file or folder that holds its weights, inside its own.
        weights_bytes: Size of that.
        weights_sha256: Hex digest of its bytes.
        content_digest: Digest of the tensors, as ``kinprint inspect`` and ``compare`` give it.
        license: Of the weights.
        seconds: Wall time that it took, beside whatever else the machine was doing.
        versions: Releases of what made it. Only the same ones, on a like processor, give the same bits.
    """

    name: str
    summary: str
    kind: Literal["trained", "derived", "packaged"]
    parent: str | None
    roots: tuple[str, ...]
    settings: dict[str, JsonValue]
    recipe_digest: str
    texts: dict[str, str]
    family: str
    parameters: int
    losses: Losses | None
    same_function: SameFunction | None
    weights_file: str
    weights_bytes: int
    weights_sha256: str
    content_digest: str
    license: str = "Apache-2.0"
    seconds: float
    versions: dict[str, str]


class Manifest(Record):
    """A suite as built.

    Attributes:
        manifest_version: Version of this record.
        suite: Name of the suite.
        summary: What it is for.
        hours: Wall time of all models, in hours.
        texts: What was trained on.
        models: Parents first.
        notes: What a reader must know, such as a text that differs from that of the shipped examples.
    """

    manifest_version: int = MANIFEST_VERSION
    suite: str
    summary: str
    hours: float
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


def text_entry(text: corpus.Text) -> TextEntry:
    """Return what the manifest says of a text."""
    held_out = np.frombuffer(text.content, np.uint8)[-HELD_OUT_BYTES:]
    return TextEntry(
        name=text.name,
        summary=corpus.CORPORA[text.name].summary,
        sha256=text.sha256,
        size_bytes=len(text.content),
        unigram_entropy=unigram_entropy(held_out),
    )
