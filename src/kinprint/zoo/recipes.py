"""What each model of a suite is made of, as data. Building is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kinprint import canonical

RECIPE_VERSION = 1
"""Raised whenever the same recipe would give other weights; models built before then count as out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Llama-form decoder over raw bytes: RMSNorm, rotary positions, gated MLP, untied embeddings."""

    hidden: int = 96
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 256
    vocab: int = 256
    context: int = 128
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How weights are trained: AdamW, linear warm-up, cosine decay to a tenth, gradients clipped to norm 1.

    Attributes:
        corpus: Name of the text.
        steps: Updates.
        batch: Sequences per update, each as long as the context.
        learning_rate: Highest rate. Norm gains have the same rate as matrices, as in common practice.
        warmup: Updates until that rate.
        weight_decay: Decoupled decay of matrices. Norm gains are not decayed: they start at 1, not 0, and pulling
            them to 0 would only rescale the matrices that read them.
        beta1: Decay of AdamW's mean of gradients.
        beta2: Decay of its mean of squared gradients.
        seed_data: Seed of the order in which the text is seen.
    """

    corpus: str
    steps: int
    batch: int = 8
    learning_rate: float
    warmup: int
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    seed_data: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model trained from its own random initialisation.

    Attributes:
        name: Its folder.
        summary: What it is to the others, in one line.
        shape: Sizes.
        seed_init: Seed of the initialisation.
        init_std: Standard deviation of initial matrices; o and down have it divided by sqrt(2 layers), so that
            the residual stream does not grow with depth (GPT-2). Norm gains start at 1.
        training: How it was trained.
    """

    name: str
    summary: str
    shape: Shape
    seed_init: int
    init_std: float = 0.06
    training: Training

    @property
    def parent(self) -> None:
        """Nothing: it starts from random weights."""
        return None

    @property
    def corpus(self) -> str:
        """The text on which its losses are measured."""
        return self.training.corpus

    @property
    def work(self) -> int:
        """Steps for a progress bar."""
        return self.training.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """A model trained further from the stored weights of another of the suite."""

    name: str
    summary: str
    shape: Shape
    parent: str
    training: Training

    @property
    def corpus(self) -> str:
        """The text on which its losses are measured."""
        return self.training.corpus

    @property
    def work(self) -> int:
        """Steps for a progress bar."""
        return self.training.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Laundered:
    """A model with the same function as its parent and other weights.

    Attributes:
        name: Its folder.
        summary: What it is to the others, in one line.
        shape: Sizes.
        parent: The model whose stored weights are transformed.
        transformations: Names from :data:`kinprint.transform.PRESERVING`, in order.
        seed: Seed of everything drawn.
        corpus: Text whose held-out part checks that the function is the same.
        tolerance: Largest difference of logits allowed before rounding, as a share of the largest logit.
    """

    name: str
    summary: str
    shape: Shape
    parent: str
    transformations: tuple[str, ...]
    seed: int
    corpus: str
    tolerance: float = 1e-4

    @property
    def work(self) -> int:
        """Steps for a progress bar."""
        return len(self.transformations)


Recipe = Trained | FineTuned | Laundered


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Models that belong together, parents first."""

    name: str
    summary: str
    recipes: tuple[Recipe, ...]


def recipe_digest(recipe: Recipe, *, corpus_sha256: str, parent_content: str | None) -> str:
    """Return the digest of all that decides a model's weights on one machine: settings, text, the parent's bytes."""
    return canonical.digest(
        {
            "version": RECIPE_VERSION,
            "kind": kind(recipe),
            "settings": settings(recipe),
            "corpus_sha256": corpus_sha256,
            "parent_content": parent_content,
        }
    )


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return every setting that can change a weight, for the digest and the manifest: no name, no prose."""
    plain = {name: value for name, value in asdict(recipe).items() if name not in {"name", "summary", "parent"}}
    # Through JSON: tuples become lists, as a manifest read back has them.
    return json.loads(canonical.canonical_json(plain))


def kind(recipe: Recipe) -> str:
    """Return ``trained``, ``fine-tuned`` or ``laundered``."""
    return {Trained: "trained", FineTuned: "fine-tuned", Laundered: "laundered"}[type(recipe)]


_FROM_SCRATCH = Training(corpus="stdlib-code", steps=2000, learning_rate=3e-3, warmup=100, seed_data=20)

_EXAMPLES = Suite(
    name="examples",
    summary="one lineage and an innocent bystander, to try kinprint on",
    recipes=(
        Trained(
            name="base",
            summary="trained from a random start",
            shape=Shape(),
            seed_init=1,
            training=_FROM_SCRATCH,
        ),
        FineTuned(
            name="child",
            summary="base, fine-tuned on other text",
            shape=Shape(),
            parent="base",
            training=Training(corpus="help-topics", steps=400, learning_rate=3e-4, warmup=20, seed_data=30),
        ),
        Trained(
            name="twin",
            summary="innocent: shape, text, order and settings of base, another random start",
            shape=Shape(),
            seed_init=2,
            training=_FROM_SCRATCH,
        ),
        Laundered(
            name="laundered",
            summary="child with its function kept and its weights rewritten",
            shape=Shape(),
            parent="child",
            transformations=(
                "residual-permutation",
                "ffn-permutation",
                "kv-group-permutation",
                "query-head-permutation",
                "ffn-rescaling",
                "vo-gauge",
                "qk-gauge",
                "residual-rotation",
                "norm-gain-replacement",
            ),
            seed=40,
            corpus="help-topics",
        ),
    ),
)

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (_EXAMPLES,)}
"""Every suite that can be built, by name."""
