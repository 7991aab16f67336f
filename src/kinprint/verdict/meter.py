"""How far a comparison is: steps done of those that are planned, and bytes read of those that will be.

Nothing is counted for the sake of being shown: steps are those of the plan, and bytes are those that checkpoints count
anyway. A plan says how much will be done at most; where a verdict falls early, what is left of it is taken off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kinprint.checkpoint import Checkpoint

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on.

Where ``what`` begins with ``READING`` the numbers are bytes, and the call comes from a thread of its own, also while a
step is under way; else they are steps."""

READING = "reading "

EVERY_SECONDS = 0.2
"""How often bytes are told."""


@dataclass
class Meter:
    """Counts steps for whoever looks on.

    Attributes:
        tell: Who looks on; None for nobody.
        planned: Steps that there are at most, as far as is known.
        begun: Steps that were begun, of which all but the last are done.
    """

    tell: Progress | None = None
    planned: int = 0
    begun: int = 0

    def step(self, what: str) -> None:
        """Begin the next step."""
        self.begun += 1
        self.planned = max(self.planned, self.begun)
        if self.tell is not None:
            self.tell(what, self.begun - 1, self.planned)

    def done(self) -> None:
        """Say that all is done."""
        self.planned = self.begun
        if self.tell is not None:
            self.tell("done", self.begun, self.planned)

    @contextmanager
    def at_most(self, count: int, *, of_plan: bool = False) -> Generator[None]:
        """Plan steps for the block; those that were not needed are taken off when it ends.

        Args:
            count: How many steps the block begins at most.
            of_plan: Whether an outer block has planned them already.
        """
        before, begun = self.planned - (count if of_plan else 0), self.begun
        self.planned = before + count
        try:
            yield
        finally:
            self.planned = before + self.begun - begun

    @contextmanager
    def reading(self, what: str, planned_bytes: int, checkpoints: Sequence[Checkpoint]) -> Generator[None]:
        """Tell how much of checkpoints is read while the block runs; nothing where nobody looks on.

        Args:
            what: What is read.
            planned_bytes: How much that is at most.
            checkpoints: They count what is read of them.
        """
        tell = self.tell
        if tell is None or planned_bytes <= 0:
            yield
            return
        before, ended = sum(one.bytes_read for one in checkpoints), threading.Event()

        def watch() -> None:
            while not ended.wait(EVERY_SECONDS):
                read = sum(one.bytes_read for one in checkpoints) - before
                if read > 0:
                    tell(f"{READING}{what}", min(read, planned_bytes), planned_bytes)

        watching = threading.Thread(target=watch, name="progress", daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()
            tell(f"{READING}{what}", planned_bytes, planned_bytes)
