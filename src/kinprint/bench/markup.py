"""Markdown that no name can break."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kinprint.report.terminal import clean

_ACTIVE = re.compile(r"([\\`*|<\[])")
"""Characters that mean something to Markdown inside a line or a table."""


def escaped(text: str) -> str:
    r"""Return text that Markdown shows as it is, on one line and inside one cell.

    Example:
        >>> print(escaped("a|b *c*"))
        a\|b \*c\*
    """
    return _ACTIVE.sub(r"\\\1", clean(" ".join(text.split())))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; every cell is escaped."""
    lines = [header, ["---"] * len(header)]
    shown = [f"| {' | '.join(escaped(cell) for cell in line)} |" for line in (*lines, *rows)]
    return "\n".join(shown)


def bullets(lines: Iterable[str]) -> str:
    """Return a list; its lines are Markdown already."""
    return "\n".join(f"- {line}" for line in lines)
