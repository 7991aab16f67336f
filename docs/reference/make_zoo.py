"""Bring the zoo's tables into docs/zoo.md, between markers, from the program itself. Needs no extra.

Usage: python docs/reference/make_zoo.py
"""

from __future__ import annotations

import inspect
import re
from itertools import groupby
from pathlib import Path

from kinprint.types import Record
from kinprint.zoo.corpus import CORPORA
from kinprint.zoo.derive import KINDS, Chain
from kinprint.zoo.kinds import Kind
from kinprint.zoo.manifest import Losses, Manifest, ModelEntry, SameFunction
from kinprint.zoo.recipes import Derived, Packaged, Recipe, Trained
from kinprint.zoo.suites import SUITES

PAGE = Path(__file__).parents[1] / "zoo.md"
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def suites() -> str:
    """Every suite: what for, how many models, and how much training."""
    rows = [
        (
            f"`{suite.name}`",
            suite.summary,
            *(str(sum(isinstance(recipe, kind) for recipe in suite.recipes)) for kind in (Trained, Derived, Packaged)),
            f"{sum(map(updates, suite.recipes)):,}",
        )
        for suite in SUITES.values()
    ]
    return table(("suite", "what for", "trained", "derived", "from PyPI", "updates"), rows)


def updates(recipe: Recipe) -> int:
    """Return how many steps of an optimiser a recipe takes."""
    match recipe:
        case Trained():
            return recipe.training.steps
        case Derived():
            return sum(getattr(step.settings, "steps", 0) for step in Chain.parse(recipe.kinds).steps)
        case Packaged():
            return 0


def trained() -> str:
    """What the suite ``tiny`` trains from random weights."""
    recipes = [recipe for recipe in SUITES["tiny"].recipes if isinstance(recipe, Trained)]
    rows = [
        (
            f"`{recipe.name}`",
            recipe.summary,
            str(recipe.shape.layers),
            str(recipe.shape.hidden),
            str(recipe.shape.heads),
            str(recipe.shape.ffn),
            f"`{recipe.training.corpus}`",
            str(recipe.seed_init),
            str(recipe.training.seed_data),
        )
        for recipe in recipes
    ]
    head = ("model", "what it is", "layers", "width", "heads", "MLP units", "text", "seed of weights", "of order")
    return table(head, rows)


def texts() -> str:
    """Every training text."""
    rows = [
        (f"`{text.name}`", text.summary, f"`{text.reference_sha256[:16]}` in CPython {text.reference_python}")
        for text in CORPORA.values()
    ]
    return table(("text", "what it is", "SHA-256 begins"), rows)


def kinds() -> str:
    """Every kind of derivation."""
    rows = [
        (f"`{kind.name}`", kind.summary, keeps(kind), f"`{said}`" if (said := kind.describe_settings()) else "-")
        for kind in KINDS.values()
    ]
    return table(("kind", "what it does", "keeps", "settings and defaults"), rows)


def keeps(kind: Kind) -> str:
    """Return what of a model is left after a kind."""
    if kind.preserving:
        return "function"
    return "weights" if kind.keeps_weights else "neither"


def packages() -> str:
    """Every package that real models come from."""
    recipes = [recipe for suite in SUITES.values() for recipe in suite.recipes if isinstance(recipe, Packaged)]
    rows: list[tuple[str, ...]] = []
    for (package, version), group in groupby(recipes, key=lambda recipe: (recipe.package, recipe.version)):
        models = list(group)
        names, licences = [f"`{model.name}`" for model in models], sorted({model.license for model in models})
        link = f"[`{package}`](https://pypi.org/project/{package}/{version}/) {version}"
        rows.append((link, f"`{models[0].sha256}`", ", ".join(licences), ", ".join(names)))
    return table(("package", "SHA-256 of the wheel", "licence", "models"), rows)


def fields(record: type[Record]) -> str:
    """Return a record's fields as its docstring explains them."""
    found = ATTRIBUTE.findall(inspect.getdoc(record) or "")
    rows = [(f"`{name}`", " ".join(said.replace("``", "`").split())) for name, said in found]
    return table(("field", "what it says"), rows)


TABLES = {
    "suites": suites,
    "trained": trained,
    "texts": texts,
    "manifest": lambda: fields(Manifest),
    "model": lambda: fields(ModelEntry),
    "losses": lambda: fields(Losses),
    "same-function": lambda: fields(SameFunction),
    "kinds": kinds,
    "packages": packages,
}


def filled(page: str) -> str:
    """Return the page with every marked block replaced.

    Raises:
        ValueError: The page has no place for a table, or a place without a table.
    """
    places = [name for _, name, _ in MARKED.findall(page)]
    if wrong := sorted({*places} ^ {*TABLES}):
        raise ValueError(f"docs/zoo.md and make_zoo.py do not agree on {', '.join(wrong)}")
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
