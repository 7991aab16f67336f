"""Cells, tables and paragraphs of a terminal: text without tricks, numbers as people read them.

A table is Markdown where nobody looks, and a list where it would not fit: no word of it is ever broken into letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.types import Cell, Table

_HARMFUL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

INDENT = 9
"""Columns of the labels at the left of paragraphs."""

LONG = 24
"""Columns that are enough for a cell: a longer text is broken at spaces, and a longer word (a name) inside."""

TALL = 2
"""Lines that a cell of up to twice that is broken into; what is taller is easier to read as a list."""


def clean(text: str) -> str:
    r"""Return text without control characters, marks of direction and characters that cannot be written.

    Example:
        >>> clean("a\x1b[31mb")
        'a?[31mb'
    """
    return _HARMFUL.sub("?", text)


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


# -- paragraphs ----------------------------------------------------------------------------------------------------


def heading(text: str, console: Console) -> None:
    """Print a line that stands over what follows."""
    console.print()
    hang("", text, console, indent=0, style="bold")


def hang(
    label: str, text: str, console: Console, *, indent: int = INDENT, label_style: str = "bold", style: str = ""
) -> None:
    """Print a label and a paragraph beside it; where nobody looks, on one line.

    Args:
        label: What stands at the left; one that is too long pushes the first line of the paragraph.
        text: The paragraph.
        console: Where to print.
        indent: Columns before the lines of the paragraph.
        label_style: Of the label.
        style: Of the paragraph.
    """
    label, text = clean(label), clean(text)
    before = label.ljust(indent) if cell_len(label) < indent or not label else f"{label}  "
    if not console.is_terminal:
        console.print(Text(before + text), soft_wrap=True)
        return
    pushed = max(0, cell_len(before) - indent)
    lines = Text("x" * pushed + text, style).wrap(console, max(8, console.width - indent), overflow="fold")
    for at, line in enumerate(lines):
        shown = Text.assemble(
            Text(before, label_style) if at == 0 else " " * indent, line[pushed:] if at == 0 else line
        )
        shown.rstrip()
        console.print(shown, soft_wrap=True)


# -- tables --------------------------------------------------------------------------------------------------------


def new_table(title: str, columns: tuple[str, ...], *, text_columns: int | None = None) -> RichTable:
    """Make an empty table; columns are text, or numbers from ``text_columns`` on (by default all between the ends)."""
    named = Text(clean(title), style="bold") if title else None
    table = RichTable(title=named, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for position, column in enumerate(columns):
        numeric = 0 < position < len(columns) - 1 if text_columns is None else position >= text_columns
        header = Text("\n".join(clean(line) for line in column.split("\n")))
        table.add_column(header, overflow="fold", justify="right" if numeric else "left")
    return table


def details_table(table: Table) -> RichTable:
    """Make a table of a record's rows, all as numbers where they are some."""
    shown = new_table(table.title, table.columns, text_columns=0)
    for row in table.rows:
        shown.add_row(*(number(cell) for cell in row))
    return shown


def show(table: RichTable, console: Console, *, told: Callable[[Sequence[str]], str] | None = None) -> None:
    """Print a table; where no terminal reads it, as Markdown, which is plain ASCII and pastes well.

    Args:
        table: The table.
        console: Where to print. One that is too narrow gets a list.
        told: What the list says of a row, beside its first cell; by default all cells with their columns' names.
    """
    if not console.is_terminal:
        table.box, table.pad_edge, table.collapse_padding = box.MARKDOWN, True, False
        for column in table.columns:
            column.header = Text(_one_line(column.header))
        console.print(table)
        return
    widths = _widths(table, console)
    if widths is None:
        _print_list(table, console, told)
        return
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    console.print(table)


def _widths(table: RichTable, console: Console) -> list[int] | None:
    """Return columns' widths at which no word is broken; None where the console is too narrow for it."""
    wanted: list[int] = []
    least: list[int] = []
    for column in table.columns:
        lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
        wanted.append(max(map(cell_len, lines), default=0))
        word = max((cell_len(word) for line in lines for word in line.split()), default=0)
        least.append(min(wanted[-1], LONG, max(word, -(-wanted[-1] // TALL))))
    unlimited = Measurement.get(console, console.options.update(width=1 << 16), table).maximum
    room = console.width - (unlimited - sum(wanted))
    if sum(least) > room:
        return None
    # What is left goes to the columns that need the most lines.
    widths = list(least)
    for _ in range(room - sum(least)):
        needy = max(range(len(widths)), key=lambda at: (wanted[at] / max(1, widths[at]), wanted[at]))
        if widths[needy] >= wanted[needy]:
            break
        widths[needy] += 1
    return widths


def _print_list(table: RichTable, console: Console, told: Callable[[Sequence[str]], str] | None) -> None:
    """Print each row as a line with its first cell and an indented paragraph with the rest."""
    if table.title is not None:
        hang("", str(table.title), console, indent=0, style="bold")
    names = [_one_line(column.header) for column in table.columns]
    last = None
    for row in zip(*(map(str, column.cells) for column in table.columns), strict=True):
        first = row[0] if re.search("[^\\W\\d]", row[0]) else f"{names[0]} {row[0]}".strip()
        if first != last and row[0]:
            hang("", first, console, indent=0)
            last = first
        rest = told(row) if told is not None else "; ".join(_named(names[1:], row[1:]))
        if rest:
            hang("", rest, console, indent=2)


def _named(names: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    for name, cell in zip(names, cells, strict=True):
        if cell:
            yield cell if not name else f"{name} {cell}" if re.match(r"-?\d", cell) else f"{name}: {cell}"


def _one_line(header: object) -> str:
    return str(header).replace("\n", ", ")
