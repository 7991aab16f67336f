"""Write docs/reference/commands.md, the help of every command, from the program itself.

Usage: python docs/reference/make_commands.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from kinprint.cli import app

PAGE = Path(__file__).parent / "commands.md"
WIDTH = 98
"""Columns of the help, as a terminal of this width shows it."""

HEAD = """# Commands

What `kinprint COMMAND --help` says, for every command. The page is written by
`python docs/reference/make_commands.py`, and a test holds it to the program. Exit codes are listed at the end of the
[README](../../README.md#read-on).
"""


def commands() -> Iterator[tuple[str, str]]:
    """Yield the name of every command, groups before their commands, with its help as plain text of a fixed width."""
    yield from _of(get_command(app), None, "kinprint")


def _of(command: Any, parent: Any, word: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - typer's own click
    # Boxes and colours are for terminals.
    command.rich_markup_mode = None
    context = command.context_class(
        command, info_name=word, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name, inner in getattr(command, "commands", {}).items():
        yield from _of(inner, context, name)


def page() -> str:
    """Return the page."""
    parts = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in commands()]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
