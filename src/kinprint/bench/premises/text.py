"""Premises as Markdown. Computes nothing."""

from __future__ import annotations

from kinprint.bench.premises.records import Premise, PremisesResult
from kinprint.types import Cell, Table


def markdown(result: PremisesResult) -> str:
    """Return everything that was measured, with its pictures, as one document."""
    lines = [
        "# Premises, measured",
        "",
        _made(result),
        "",
        *(line for premise in result.premises for line in _section(premise)),
    ]
    return "\n".join(lines)


def blocks(result: PremisesResult, *, folder: str = "") -> dict[str, str]:
    """Return what a longer text includes, by name: each table, and each premise's notes and pictures."""
    found: dict[str, str] = {}
    for premise in result.premises:
        found |= {name: table(content) for name, content in premise.tables.items()}
        found[f"notes-{premise.name}"] = notes(premise)
        if images := pictures(premise, folder):
            found[f"pictures-{premise.name}"] = images
    digests = [f"| {name} | `{digest[:19]}` |" for name, digest in result.models.items()]
    found["models"] = "\n".join((_made(result), "", "| model | content digest |", "|---|---|", *digests, ""))
    return found


def table(content: Table) -> str:
    """Return a table as Markdown."""
    lines = [f"| {' | '.join(content.columns)} |", "|---" * len(content.columns) + "|"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in content.rows]
    return "\n".join(lines) + "\n"


def notes(premise: Premise) -> str:
    """Return how a premise was measured, or why it was not, as a list."""
    said = (*(() if premise.reason is None else (f"not measured: {premise.reason}",)), *premise.notes)
    return "".join(f"- {note}\n" for note in said)


def pictures(premise: Premise, folder: str = "") -> str:
    """Return a premise's pictures as links, relative to a folder that ends in a slash."""
    shown = (*premise.curves, *premise.heat_maps)
    return "\n".join(f"![{picture.title}]({folder}{picture.name}.svg)\n" for picture in shown)


def cell(value: Cell) -> str:
    """Return one cell: three significant digits, and a dash where there is nothing.

    Example:
        >>> [cell(value) for value in (0.12345, 1234.5, 0.0, 3, None, "q")]
        ['0.123', '1234', '0', '3', '-', 'q']
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _section(premise: Premise) -> list[str]:
    lines = [f"## {premise.title}", "", notes(premise)]
    for content in premise.tables.values():
        lines += [f"{content.title}:", "", table(content)]
    return [*lines, pictures(premise)]


def _made(result: PremisesResult) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return f"Written by `kinprint bench premises` (kinprint {result.kinprint}; {versions}; seed {result.seed})."
