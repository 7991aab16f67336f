"""Print what is read of every causal language model of the installed transformers, and which checks it passed.

Usage: python docs/reference/make_coverage.py
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "architecture"))

CHECKS: Any = import_module("test_every_causal_lm")
"""The tests' own lists and checks, so that the table shows what they found."""

COMPARED = ("qkv", "o", "mlp", "experts")
"""The checks that compare parts with what modules compute; the two others stand in columns of their own."""

HEAD = (
    "| class | model type | family | mapped | layouts | compared with the module | beside the language model, notes |\n"
    "|---|---|---|---|---|---|---|\n"
)


def row(name: str) -> str:
    """Return one class as a row."""
    if name in CHECKS.EXCEPTIONS:
        return f"| `{name}` | - | - | - | - | - | {CHECKS.EXCEPTIONS[name]} |\n"
    found = CHECKS.examine(name)
    passed = [check for check in COMPARED if check in found.done and check not in found.complaints]
    notes = [", ".join(found.components)] if found.components else []
    notes += [f"{found.weak} projections compared with their own module only"] if found.weak else []
    notes += [f"fails {check}" for check in found.complaints]
    cells = (
        f"`{name}`",
        f"`{found.model_type}`",
        f"`{found.family}`",
        f"{found.coverage:.1%}",
        ", ".join(found.layouts) or "-",
        ", ".join(passed) or "-",
        "; ".join(notes) or "-",
    )
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """Return all classes."""
    return HEAD + "".join(row(name) for name in CHECKS.classes())


if __name__ == "__main__":
    sys.stdout.write(table())
