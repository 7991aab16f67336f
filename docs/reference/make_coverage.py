"""Bring what is read of every causal language model of the installed transformers into docs/architectures.md.

Between markers: how many classes passed which check, the exceptions, and every class. Needs the [torch] extra.

Usage: python docs/reference/make_coverage.py
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kinprint.architecture import families

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architectures.md"
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

sys.path.insert(0, str(ROOT / "tests" / "architecture"))

CHECKS: Any = import_module("test_every_causal_lm")
"""The tests' own lists and checks, so that the tables show what they found."""

COMPARED = {
    "qkv": "queries, keys and values",
    "o": "the output projection's order of heads",
    "mlp": "gate, up and down",
    "experts": "each expert",
}
"""The checks that compare parts with what modules compute."""

CHECKED = {
    "mapped": "every matrix has a role, a component or a reason to be left out",
    "saved": "what `save_pretrained` writes has the same parts",
}
"""The two others."""

HEAD = (
    "| class | model type | family | mapped | layouts | compared with the module | beside the language model, notes |\n"
    "|---|---|---|---|---|---|---|\n"
)


def passed(found: Any, check: str) -> bool:  # noqa: ANN401 - the tests' record
    """Return whether a check compared something and found nothing wrong."""
    return check in found.done and check not in found.complaints


def row(name: str) -> str:
    """Return one class as a row."""
    if name in CHECKS.EXCEPTIONS:
        return f"| `{name}` | - | - | - | - | - | an exception |\n"
    found = CHECKS.examine(name)
    notes = [", ".join(found.components)] if found.components else []
    notes += [f"{found.weak} projections compared with their own module only"] if found.weak else []
    notes += [f"fails {check}" for check in found.complaints]
    cells = (
        f"`{name}`",
        f"`{found.model_type}`",
        f"`{found.family}`",
        f"{found.coverage:.1%}",
        ", ".join(found.layouts) or "-",
        ", ".join(check for check in COMPARED if passed(found, check)) or "-",
        "; ".join(notes) or "-",
    )
    return f"| {' | '.join(cells)} |\n"


def every_class() -> str:
    """Return all classes."""
    return HEAD + "".join(row(name) for name in CHECKS.classes())


def exceptions() -> str:
    """Return the classes that fail a check, with the reasons."""
    lines = [f"| `{name}` | {reason} |\n" for name, reason in CHECKS.EXCEPTIONS.items()]
    return "| class | why |\n|---|---|\n" + "".join(lines)


def totals() -> str:
    """Return how many classes there are, how they were read, and which checks they passed."""
    found = [CHECKS.examine(name) for name in CHECKS.classes() if name not in CHECKS.EXCEPTIONS]
    tables = {family.name for family in families()}
    rows = [
        (f"causal language models of {installed()}", len(CHECKS.classes())),
        ("read through a table of `families/`", sum(one.family in tables for one in found)),
        ("read by the lexicon", sum(one.family not in tables for one in found)),
        ("exceptions", len(CHECKS.EXCEPTIONS)),
        *((said, sum(passed(one, check) for one in found)) for check, said in CHECKED.items()),
        *(
            (f"{COMPARED[check]} compared with the module", sum(passed(one, check) for one in found))
            for check in COMPARED
        ),
        ("some projections compared with their own module only", sum(one.weak > 0 for one in found)),
        ("with components beside the language model", sum(bool(one.components) for one in found)),
    ]
    return "| what | classes |\n|---|---|\n" + "".join(f"| {said} | {count} |\n" for said, count in rows)


def installed() -> str:
    """Return the name and version of transformers, by which a table is known to be of this one."""
    return f"transformers {version('transformers')}"


TABLES = {"totals": totals, "exceptions": exceptions, "classes": every_class}


def filled(page: str) -> str:
    """Return the page with every marked block replaced.

    Raises:
        ValueError: The page has no place for a table, or a place without a table.
    """
    places = [name for _, name, _ in MARKED.findall(page)]
    if wrong := sorted({*places} ^ {*TABLES}):
        raise ValueError(f"docs/architectures.md and make_coverage.py do not agree on {', '.join(wrong)}")
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
