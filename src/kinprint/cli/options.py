"""What commands share: options, the console, and writing results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinprint.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from kinprint.types import Record

PLAIN_WIDTH = 1000
"""Columns of output that goes to a file or a pipe: enough that no cell of a table is broken."""

LEAST_WIDTH = 24
"""Columns of a terminal that says it has fewer."""

ComponentOption = Annotated[
    str | None,
    typer.Option(
        "--component",
        metavar="NAME",
        help="Look at this part (vision, encoder, mtp, ...) in place of the language model.",
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for stdout.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the result as a page for people to read.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors; files and --json are still written.")
]
PlainOption = Annotated[bool, typer.Option("--no-color", help="Print without colour.")]
MethodOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", metavar="NAME", help="Run only this method; repeatable.")
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes at work.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A checkpoint: a folder, a file, org/name[@revision] or an address.")
]


def console(no_color: bool) -> Console:
    """Return the console that results go to."""
    from rich.console import Console

    made = Console(no_color=no_color or None, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        made.width = PLAIN_WIDTH
    elif made.width < LEAST_WIDTH:
        made.width = LEAST_WIDTH
    return made


def write_json(record: Record, path: Path | None) -> None:
    """Write a result to a file, whole or not at all, or to stdout (``-``).

    Raises:
        UsageError: The file cannot be written.
    """
    if path is None:
        return
    text = record.model_dump_json(indent=2) + "\n"
    if str(path) == "-":
        typer.echo(text.encode(), nl=False)  # JSON is UTF-8, whatever the terminal is
        return
    write_text(text, path)


def write_text(text: str, path: Path) -> None:
    """Write a file of text, whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}: choose another place") from error
