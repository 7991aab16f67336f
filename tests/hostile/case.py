"""What a hostile case is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARKER = "executed"
"""What a payload would leave behind if it ran."""


@dataclass(frozen=True)
class Case:
    name: str
    says: str
    make: Callable[[Path], Path]


def one_file(name: str, says: str, file: str, content: bytes) -> Case:
    def make(folder: Path) -> Path:
        (folder / file).write_bytes(content)
        return folder / file

    return Case(name, says, make)


def several(name: str, says: str, files: dict[str, bytes], target: str = "") -> Case:
    def make(folder: Path) -> Path:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder / target

    return Case(name, says, make)
