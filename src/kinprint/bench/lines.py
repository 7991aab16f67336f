"""Files of one record a line that grow while long work goes on, so that a later run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from pydantic import ValidationError

from kinprint.errors import UsageError
from kinprint.types import Record
from kinprint.zoo.manifest import ModelEntry

Kind = TypeVar("Kind", bound=Record)


@contextmanager
def appended(path: Path) -> Generator[IO[str]]:
    """Open a file to add lines to.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}: choose another folder") from error
    with file:
        file.write("\n" if file.tell() else "")  # an earlier run may have stopped in the middle of a line
        yield file


def read_lines(path: Path, kind: type[Kind]) -> list[Kind]:
    """Return the records of a file, none where there is no file. A line that was left half-written is left out."""
    found: list[Kind] = []
    if path.is_file():
        for line in filter(None, path.read_text(encoding="utf-8", errors="replace").splitlines()):
            try:
                found.append(kind.model_validate_json(line))
            except ValidationError:
                continue
    return found


def model_path(zoo: Path, entry: ModelEntry) -> Path:
    """Return what to open of a zoo's model: the folder, or the one file that was unpacked into it."""
    folder = zoo / entry.name
    return folder / entry.weights_file if entry.kind == "packaged" else folder
