"""Print the tables of the documentation from the program itself: declarations, families, and the case study's numbers.

Usage: python docs/reference/make_tables.py declarations|families|case-study|verdicts|readme
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from kinprint import api
from kinprint.architecture import families
from kinprint.registry import METHODS
from kinprint.report.models import model_lines
from kinprint.report.summary import print_summary
from kinprint.transform import PRESERVING
from kinprint.types import Comparison, Verdict

EXAMPLES = Path(__file__).parents[2] / "examples"
SUSPECTS = ("child", "twin", "laundered")
WIDTH = 98
"""Columns of the README's terminal."""

CASE_STUDY = (
    ("layernorm", "norm.attn raw cosine"),
    ("layernorm", "norm.attn shuffled raw cosine"),
    ("layernorm", "norm.attn expected raw cosine"),
    ("layernorm", "norm.attn centred cosine"),
    ("layernorm", "norm.attn bit-equal fraction"),
    ("layernorm", "norm.mlp raw cosine"),
    ("layernorm", "norm.mlp shuffled raw cosine"),
    ("layernorm", "norm.mlp centred cosine"),
    ("layernorm", "norm.mlp bit-equal fraction"),
    ("layernorm", "norm.attn adjacent layers raw cosine, suspect"),
    ("layernorm", "norm.attn layer-0 baseline raw cosine, suspect"),
    ("tensor-cosine", "attn.k cosine"),
    ("tensor-cosine", "embed.token cosine"),
    ("intrinsic", "similarity"),
    ("ghostspec-mse", "similarity"),
    ("ghostspec-mse[fold=false]", "similarity"),
    ("pcs", "by name"),
)
"""Numbers that the case study shows, by method and value."""


def declarations() -> str:
    """What each method ignores and notices."""
    names = list(METHODS)
    lines = ["| transformation | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for change in PRESERVING:
        cells = [
            "ignores" if change in METHODS[name].ignores else "notices" if change in METHODS[name].notices else "-"
            for name in names
        ]
        lines.append(f"| {change} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def family_table() -> str:
    """Every shipped family table."""
    lines = ["| family | names | what it is |", "|---|---|---|"]
    for family in sorted(families(), key=lambda family: (bool(family.archs), family.name)):
        names = f"GGUF: {', '.join(family.archs)}" if family.archs else family.names
        lines.append(f"| `{family.name}` | {names} | {family.summary} |")
    return "\n".join(lines) + "\n"


def case_study() -> str:
    """The example models against their base."""
    chosen = list(dict.fromkeys(method for method, _ in CASE_STUDY))
    found: list[dict[tuple[str, str], float | None]] = []
    for suspect in SUSPECTS:
        comparison = api.compare(EXAMPLES / suspect, EXAMPLES / "base", methods=chosen)
        found.append(
            {
                (result.method, v.name): v.value
                for result in comparison.methods
                for v in (*result.values, *result.controls)
            }
        )
    lines = ["| method | number | " + " | ".join(SUSPECTS) + " |", "|---|---" + "|---" * len(SUSPECTS) + "|"]
    for method, value in CASE_STUDY:
        numbers = ["-" if (n := side[method, value]) is None else f"{n:.4f}" for side in found]
        lines.append(f"| `{method}` | {value} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def _compared(suspect: str) -> tuple[Comparison, Verdict]:
    found = api.compare(EXAMPLES / suspect, EXAMPLES / "base", methods=["layernorm"])
    assert found.verdict is not None
    return found, found.verdict


def verdicts() -> str:
    """The verdicts on the example models."""
    lines = [
        "| suspect | verdict | decided by | matched heads | matched units | exact tests beyond alpha |",
        "|---|---|---|---|---|---|",
    ]
    for suspect in SUSPECTS:
        verdict = _compared(suspect)[1]
        sizes = {one.id.split("/")[0]: one.size or 0.0 for one in verdict.evidence if one.rung == 2}
        exact = [one.beyond for one in verdict.evidence if one.carries and one.log10_p is not None]
        lines.append(
            f"| {suspect} | {verdict.conclusion} | {verdict.decided_by or '-'} | {sizes['matched-heads']:.4f} | "
            f"{sizes['matched-units']:.4f} | {sum(exact)} of {len(exact)} |"
        )
    return "\n".join(lines) + "\n"


def readme() -> str:
    """The first screen on the laundered model, as a terminal shows it."""
    out = io.StringIO()
    found, verdict = _compared("laundered")
    console = Console(file=out, width=WIDTH, force_terminal=True, color_system=None, highlight=False)
    print_summary(verdict, console, models=model_lines(found))
    return out.getvalue()


TABLES = {
    "declarations": declarations,
    "families": family_table,
    "case-study": case_study,
    "verdicts": verdicts,
    "readme": readme,
}

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in TABLES:
        sys.exit(f"give one of: {', '.join(TABLES)}")
    sys.stdout.write(TABLES[sys.argv[1]]())
