"""Print the table of what each method ignores and notices, from the registry itself."""

from __future__ import annotations

import sys

from kinprint.registry import METHODS
from kinprint.transform import PRESERVING


def table() -> str:
    """Return the table as Markdown."""
    names = list(METHODS)
    lines = ["| transformation | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for change in PRESERVING:
        cells = [
            "ignores" if change in METHODS[name].ignores else "notices" if change in METHODS[name].notices else "-"
            for name in names
        ]
        lines.append(f"| {change} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
