"""Cells and tables of a terminal: text without tricks, numbers as people read them, Markdown where nobody looks."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.types import Cell, Table

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    r"""Return text without control characters and bidirectional overrides.

    Example:
        >>> clean("a\x1b[31mb")
        'a?[31mb'
    """
    return _CONTROL.sub("?", text)


def number(value: Cell) -> str:
    """Return a number as people read it: four significant digits or more, ``-`` for none.

    Example:
        >>> [number(v) for v in (0.97613, 1.0, 1234567, 1.23e-7, None, "x", -0.00004)]
        ['0.9761', '1.0000', '1,234,567', '1.230e-07', '-', 'x', '-4.000e-05']
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3e}"
    return f"{value:.4f}"


def new_table(title: str, columns: tuple[str, ...], *, text_columns: int | None = None) -> RichTable:
    """Make an empty table; columns are text, or numbers from ``text_columns`` on (by default all between the ends)."""
    named = Text(clean(title), style="bold") if title else None
    table = RichTable(title=named, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for position, column in enumerate(columns):
        numeric = 0 < position < len(columns) - 1 if text_columns is None else position >= text_columns
        heading = Text("\n".join(clean(line) for line in column.split("\n")))
        table.add_column(heading, overflow="fold", justify="right" if numeric else "left", no_wrap=position == 0)
    return table


def details_table(table: Table) -> RichTable:
    """Make a table of a record's rows, all as numbers where they are some."""
    shown = new_table(table.title, table.columns, text_columns=0)
    for row in table.rows:
        shown.add_row(*(number(cell) for cell in row))
    return shown


def show(table: RichTable, console: Console) -> None:
    """Print a table; where no terminal reads it, as Markdown, which is plain ASCII and pastes well."""
    if not console.is_terminal:
        table.box, table.pad_edge, table.collapse_padding = box.MARKDOWN, True, False
        for column in table.columns:
            column.header = Text(str(column.header).replace("\n", ", "))
    console.print(table)
