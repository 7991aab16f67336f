"""What every task is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cost_parts.fixtures import Fixtures
from cost_parts.rows import Row


@dataclass(frozen=True, slots=True)
class Context:
    """Where models are, how often is measured, and what else is installed.

    Attributes:
        fixtures: The models.
        runs: Timed runs of what takes seconds.
        peers: Folder with the peers' environments; one that is missing there is made.
        torch: PyTorch as pip should get it for a peer's new environment; None for its CPU build.
    """

    fixtures: Fixtures
    runs: int
    peers: Path
    torch: str | None


class UnavailableError(Exception):
    """A task cannot be measured here; the message says why."""


Task = Callable[[Context], Iterator[Row]]
