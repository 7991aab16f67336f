"""Reading numbers out of the tables of a record, which may be of another release or of another hand."""

from __future__ import annotations

from collections.abc import Sequence

from kinprint.types import Cell, Comparison, Evidence, MethodResult, Table

MOST_ROWS = 2048
"""Rows of a table that are drawn: six norms of more layers than any model has."""

MOST_PANELS = 6
"""Panels of a figure that come from columns of a table: three rows of two, which a page of paper holds."""


def method(comparison: Comparison, name: str) -> MethodResult | None:
    """Return what a method measured, or None where it did not run."""
    return next((one for one in comparison.methods if one.method == name and one.status == "measured"), None)


def evidence(comparison: Comparison, name: str) -> Evidence | None:
    """Return a piece of evidence by the name that its id begins with, or None."""
    held = comparison.verdict.evidence if comparison.verdict is not None else ()
    return next((one for one in held if one.id.split("/")[0] == name), None)


def table(tables: Sequence[Table], title: str) -> Table | None:
    """Return a table by the beginning of its title, or None."""
    return next((one for one in tables if one.title.startswith(title)), None)


def column(held: Table, name: str) -> tuple[Cell, ...]:
    """Return a cell for each of the first rows; None where a row is too short, or the table has no such column."""
    rows = held.rows[:MOST_ROWS]
    at = held.columns.index(name) if name in held.columns else None
    return tuple(row[at] if at is not None and at < len(row) else None for row in rows)


def numbers(held: Table, name: str) -> tuple[float | None, ...]:
    """Return the same as numbers, None where a cell is none.

    Example:
        >>> numbers(Table(title="", columns=("a",), rows=((1,), ("x",), (None,), (0.5,))), "a")
        (1.0, None, None, 0.5)
    """
    return tuple(as_number(cell) for cell in column(held, name))


def as_number(cell: Cell) -> float | None:
    """Return a cell as a number, or None."""
    return float(cell) if isinstance(cell, int | float) else None


def named(title: str, at: int) -> str:
    """Return a cell's text for people, cut where it is too long for a picture.

    Example:
        >>> named("abcdef", 4)
        'abc\u2026'
    """
    return title if len(title) <= at else title[: at - 1] + "\u2026"
