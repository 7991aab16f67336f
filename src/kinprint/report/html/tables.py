"""Lists of facts and tables of a record's rows, in boxes of their own that scroll where a page is narrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kinprint.report.cells import number
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.types import Cell, Table, Value

_DENSE = 8
"""Columns above which paper needs smaller print."""

MOST_ROWS = 240
"""Rows of one table; a page of a hundred layers and as many experts stays small, and the JSON holds the rest."""


def facts_list(facts: Iterable[tuple[str, Content]]) -> Markup:
    """Return names and what they stand for; what is None or empty is left out.

    Args:
        facts: In the order in which they are shown.
    """
    return tag("dl", [[tag("dt", name), tag("dd", fact)] for name, fact in facts if fact is not None and fact != ""])


def values_table(
    title: str, values: Sequence[Value], thirds: Mapping[str, Mapping[str, float | None]] | None = None
) -> Content:
    """Return named numbers of the pair beside those of third models.

    Args:
        title: What they are.
        values: One row each.
        thirds: Numbers by name of the value, by the pair's name.
    """
    if not values:
        return None
    others = thirds or {}
    fixed = any(one.identical is not None for one in values)
    header = ("value", "suspect and base", *(("same model",) if fixed else ()), *others, "how to read it")
    rows: list[list[Cell]] = [
        [
            *(one.name, whole(one), *((one.identical,) if fixed else ())),
            *(held.get(one.name) for held in others.values()),
            reading(one),
        ]
        for one in values
    ]
    return [tag("h4", title), table(header, rows, title)]


def whole(value: Value) -> float | int | None:
    """Return a value's number, a count as one: counts are statistics without a fraction.

    Args:
        value: Of a method or a control.
    """
    counted = value.kind == "statistic" and value.value is not None and value.value.is_integer()
    return int(value.value) if counted and value.value is not None else value.value


def reading(value: Value) -> str:
    """Return how to read a value.

    Args:
        value: Of a method or a control.
    """
    return value.reason or value.note or ("" if value.kind == "statistic" else value.kind)


def details_table(held: Table) -> Content:
    """Return rows of a record as a table, at most ``MOST_ROWS`` of them.

    Args:
        held: What the record holds.
    """
    left = len(held.rows) - MOST_ROWS
    more = tag("p", f"{left} more rows are in the JSON.", class_="soft") if left > 0 else None
    return [tag("h4", held.title), table(held.columns, held.rows[:MOST_ROWS], held.title), more]


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell | Markup]], label: str) -> Markup:
    """Return a table whose columns a reader with scripting may sort by.

    Args:
        columns: Headings.
        rows: One cell for each column.
        label: What the table is called by a reader that speaks.
    """
    held = [list(row) for row in rows]
    numeric = [_is_numeric([row[at] for row in held if at < len(row)]) for at in range(len(columns))]
    head = tag(
        "tr",
        [
            tag("th", column, scope="col", class_="number" if right else None)
            for column, right in zip(columns, numeric, strict=True)
        ],
    )
    body = [tag("tr", [_cell(cell) for cell in row]) for row in held]
    kinds = {"sortable": len(held) > 1, "numbers": all(numeric), "dense": len(columns) > _DENSE}
    kind = " ".join(name for name, given in kinds.items() if given) or None
    # Reached by keys, since it may have to be scrolled; so it has a role and a name.
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", body), class_=kind),
        class_="wide",
        tabindex="0",
        role="group",
        aria_label=label,
    )


def _is_numeric(cells: Sequence[Cell | Markup]) -> bool:
    """Return whether a column holds numbers alone, apart from gaps."""
    return any(isinstance(cell, int | float) for cell in cells) and not any(isinstance(cell, str) for cell in cells)


def _cell(cell: Cell | Markup) -> Markup:
    if isinstance(cell, str):
        return tag("td", cell)
    return tag("td", number(cell), class_="number")
