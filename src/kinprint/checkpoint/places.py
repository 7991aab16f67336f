"""What a reference stands for: a folder of files or one of its files, on disk or elsewhere."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from kinprint.checkpoint.faults import fault
from kinprint.checkpoint.local import LocalFiles
from kinprint.checkpoint.remote.address import is_remote
from kinprint.checkpoint.source import Files

MAX_PARTS = 16
"""Most adapters in one reference."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model or an adapter lies.

    Attributes:
        files: The folder.
        file: The one file of it that was named; None for the folder itself.
        location: What was named, for messages and records; with the commit where there is one.
        name: Label for people.
    """

    files: Files
    file: str | None
    location: str
    name: str


def parts_of(ref: str | Path) -> tuple[str | Path, ...]:
    """Split ``model+adapter+adapter`` at every ``+`` that no existing path has in its name, the last one first.

    The parts may lie anywhere; a ``+`` in an address is written ``%2B``.
    """
    text = str(ref)
    if not on_disk(text):
        places = [place for place, character in enumerate(text) if character == "+"][-MAX_PARTS:]
        for place in reversed(places):
            if on_disk(text[place + 1 :]) or is_remote(text[place + 1 :]):
                parts = parts_of(text[:place])
                if on_disk(str(parts[0])) or is_remote(str(parts[0])):
                    return (*parts, text[place + 1 :])
    return (ref,)


def place_of(ref: str | Path) -> Place:
    """Find what one reference stands for: a path that exists, or else something on the Hub or another server.

    Raises:
        CheckpointError: There is nothing of that name, or it may not be read.
        NetworkError: A server cannot be reached.
    """
    path = Path(ref)
    if isinstance(ref, str) and not on_disk(ref) and is_remote(ref):
        from kinprint.checkpoint.remote.places import remote_place  # with the Hub's client, which takes its time

        files, file = remote_place(ref)
        if file is None:
            return Place(files, None, files.location, files.name)
        return Place(files, file, files.where(file), file)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - Path.is_dir() hides why it failed
    except (OSError, ValueError) as error:
        raise fault(
            str(ref), "is no file or folder here", "check the path; a model of the Hub is written org/name"
        ) from error
    if is_folder:
        files = LocalFiles(path)
        return Place(files, None, str(ref), files.name)
    return Place(LocalFiles(path.parent), path.name, str(ref), path.name)


def on_disk(path: str) -> bool:
    """Tell whether a path can be looked at; an empty one cannot."""
    try:
        os.stat(path)  # noqa: PTH116 - Path("") is the working folder
    except (OSError, ValueError):
        return False
    return True
