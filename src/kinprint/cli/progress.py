"""What is shown on stderr while work goes on: bars for steps and for bytes, if anybody is there to see them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from kinprint.cli.memory import collect_garbage

if TYPE_CHECKING:
    from rich.progress import ProgressColumn as _Column

    from kinprint.api import Progress

WIDE_COLUMNS = 60
"""From here on there is room for a bar and for the time that is left."""


@contextmanager
def showing_progress(quiet: bool, *, no_color: bool = False) -> Generator[Progress | None]:
    """Show what is done of what is planned, with the time that it took and takes; nothing where no terminal is.

    Each bar is one line, however narrow the terminal is, and is wiped out at the end. Here the work of a command
    begins, and with it the search for garbage.

    Args:
        quiet: Show nothing.
        no_color: Without colour.
    """
    collect_garbage()
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    from kinprint.report.cells import clean
    from kinprint.verdict import READING, size

    console = Console(stderr=True, no_color=no_color or None, highlight=False, emoji=False, markup=False)
    with Progress(*_columns(console.width), console=console, transient=True, expand=True) as bars:
        steps = bars.add_task("reading headers", total=None, count="")
        reading = bars.add_task("", total=None, count="", visible=False)

        def tell(what: str, done: int, total: int) -> None:
            in_bytes = what.startswith(READING)
            count = "" if not total else f"{size(done)} of {size(total)}" if in_bytes else f"{done:,} of {total:,}"
            task = reading if in_bytes else steps
            visible = not in_bytes or done < total
            bars.update(
                task, description=clean(what), completed=done, total=total or None, count=count, visible=visible
            )
            if not total:  # unknown; to update() None means "as it was"
                bars.tasks[0].total = None

        yield tell


def _columns(width: int) -> list[_Column]:
    """Return the columns of a bar: what is done gives way to the rest where there is little room."""
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class Left(ProgressColumn):
        """Time that is left if what is to be done takes as long as what was; longer with every second of a step."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            done, total, elapsed = task.completed, task.total, task.elapsed
            if not total or not done or elapsed is None or done >= total:
                return Text("")
            return Text(f"{timedelta(seconds=round(elapsed * (total - done) / done))} left")

    text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    fixed = [Column(no_wrap=True) for _ in range(4)]
    what = TextColumn("{task.description}", markup=False, table_column=text)
    count = TextColumn("{task.fields[count]}", markup=False, table_column=fixed[0])
    elapsed = TimeElapsedColumn(table_column=fixed[1])
    if width < WIDE_COLUMNS:
        return [what, count, elapsed]
    bar = BarColumn(bar_width=width // 5, table_column=fixed[2])
    return [what, bar, count, elapsed, Left(table_column=fixed[3])]
