"""``kinprint report``: a comparison that was kept as JSON, as a page."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinprint.cli.options import write_text
from kinprint.errors import CheckpointError

if TYPE_CHECKING:
    from kinprint.types import Comparison

MOST_BYTES = 1 << 28
"""Longest JSON that is read: hundreds of layers and experts with every table are a few megabytes."""


ResultArgument = Annotated[Path, typer.Argument(metavar="RESULT", help="What compare --json wrote.")]


def report(
    result: ResultArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")],
) -> None:
    """Turn the JSON of a comparison into one page of HTML that needs no network."""
    from kinprint.report.html import page

    found = kept(result)
    with drawn_from(result):
        made = page(found)
    write_text(made, output)


@contextmanager
def drawn_from(result: Path) -> Generator[None]:
    """Tell which file holds numbers that nothing can be drawn with: a forged record may.

    Raises:
        CheckpointError: The block ran into such numbers.
    """
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise CheckpointError(f"{result}: holds numbers that no comparison gives; make it again with --json") from error


def kept(result: Path) -> Comparison:
    """Return a comparison that was written as JSON.

    Raises:
        CheckpointError: It cannot be read, or is no comparison, or of another layout.
    """
    from pydantic import ValidationError

    from kinprint.types import SCHEMA_VERSION, Comparison

    try:
        with result.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{result}: cannot be read ({error.strerror}); give what compare --json wrote") from error
    if len(content) > MOST_BYTES:
        raise CheckpointError(f"{result}: is longer than {MOST_BYTES >> 20} MiB; give what compare --json wrote")
    try:
        found = Comparison.model_validate_json(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deep"}
        where = ".".join(map(str, first["loc"])) or "its beginning"
        raise CheckpointError(
            f"{result}: is no result of compare (at {where[:80]}: {first['msg'][:80]}); make it again with --json"
        ) from error
    if found.schema_version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{result}: has layout {found.schema_version} and this kinprint reads {SCHEMA_VERSION}; make it again"
        )
    return found
