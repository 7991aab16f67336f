"""The models that are measured. Each is made once, below one folder, and found again there by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kinprint.zoo.sparse import SHAPES, Kind, Shape, write_sparse


@dataclass(frozen=True, slots=True)
class Made:
    """How a model is made: arguments of ``write_sparse``.

    Attributes:
        shape: A published shape by name, or one of the benchmark's own.
        seed: Of everything drawn.
        kind: What it is to its base.
        base: Name of the model that it comes from.
        more: Further arguments.
    """

    shape: str | Shape
    seed: int
    kind: Kind = "stranger"
    base: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])


_EIGHT = {"layers": 8}
_WHOLE = {"filled": None}
_FOUR = {"filled": 4, "filled_experts": 4}
_TWO = {"layers": 2, **_WHOLE}

RELATED = (0.1, 0.3, 1.0)
"""Changes of the fine-tuned children that separation is measured on, relative to the weights."""

CHILDREN = 2
"""Children of each change: sizes fall with the change by design, which is no noise of a procedure."""

STRANGERS = 3


def child(change: float, number: int = 0) -> str:
    """Return the name of a fine-tuned child of the Mistral layer set."""
    return f"mistral-2L-child-{change:g}" + (f"-{number}" if number else "")


FIXTURES: Mapping[str, Made] = {
    "llama8b-8L-base": Made("llama-3-8b", 11, more={**_EIGHT, **_WHOLE}),
    "llama8b-8L-child": Made("llama-3-8b", 12, "finetuned", "llama8b-8L-base", _EIGHT),
    "llama8b-8L-twin": Made("llama-3-8b", 13, "stranger", "llama8b-8L-base", _EIGHT),
    "glm-base": Made("glm-4.5-air", 1),
    "glm-finetuned": Made("glm-4.5-air", 2, "finetuned", "glm-base"),
    "glm-twin": Made("glm-4.5-air", 5, "stranger", "glm-base"),
    "dense-base": Made("glm-4.5-air-dense", 3),
    "glm-upcycled": Made("glm-4.5-air", 4, "upcycled", "dense-base"),
    "llama65b-base": Made("llama-65b", 51, more=_FOUR),
    "llama65b-twin": Made("llama-65b", 52, "stranger", "llama65b-base"),
    "deepseek-base": Made("deepseek-v3", 53, more=_FOUR),
    "deepseek-twin": Made("deepseek-v3", 54, "stranger", "deepseek-base"),
    "mistral-2L-base": Made("mistral-7b", 21, more=_TWO),
    **{
        child(change, number): Made(
            "mistral-7b", 30 + place + 5 * number, "finetuned", "mistral-2L-base", {"layers": 2, "change": change}
        )
        for place, change in enumerate(RELATED)
        for number in range(CHILDREN)
    },
    **{f"mistral-2L-twin-{number}": Made("mistral-7b", 40 + number, more=_TWO) for number in range(STRANGERS)},
}
"""Every model of a published shape, by name."""


class Fixtures:
    """Models below a folder, made when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def get(self, name: str) -> Path:
        """Return the folder of one of :data:`FIXTURES`; its base is made first."""
        return self.make(name, FIXTURES[name])

    def make(self, name: str, made: Made) -> Path:
        """Return the folder of a model; one that is there already is taken as it is."""
        folder = self.work / name
        if folder.exists():
            return folder
        base = None
        if made.base is not None:
            base = self.get(made.base) if made.base in FIXTURES else self.work / made.base
        return write_sparse(made.shape, folder, seed=made.seed, kind=made.kind, base=base, **made.more)

    def smollm2(self, names: tuple[str, ...]) -> Path:
        """Return a folder with models of the suite ``real-llm``, made or found again; those need the torch extra."""
        from kinprint.zoo.suite import build_suite
        from kinprint.zoo.suites import SUITES

        folder = self.work / "zoo"
        if not all((folder / name / "config.json").exists() for name in names):
            suite = SUITES["real-llm"]
            chosen = tuple(recipe for recipe in suite.recipes if recipe.name in names)
            build_suite(replace(suite, recipes=chosen), folder)
        return folder


def small(name: str, *, layers: int, hidden: int, experts: int = 0) -> Shape:
    """Return a shape for the grid of growth: heads of 64 coordinates, a quarter as many for keys and values."""
    model = SHAPES["tiny-moe"] if experts else SHAPES["llama-3-8b"]
    heads = max(hidden // 64, 4)
    return replace(
        model,
        name=name,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads // 4,
        head_dim=64,
        intermediate=hidden * 3,
        vocab=4096,
        experts=experts,
        expert_intermediate=hidden if experts else 0,
    )
