"""The verdict in a terminal: first in at most ten lines for everybody, then the evidence that it stands on.

Computes nothing: sizes, p-values and sentences come from the record. What could carry a checkpoint's name (reasons,
notes, names of third models) is printed as text without control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.report.cells import clean, details_table, new_table, number, show
from kinprint.report.summary import print_summary
from kinprint.types import Cell, Evidence, LayerMapInfo, Table, Value, Verdict
from kinprint.verdict.words import probability, uncalibrated

NARROW = 100
"""Columns below which a terminal gets lists in place of wide tables."""

RUNGS = ("identity", "exact test", "matched", "invariant")


def print_verdict(verdict: Verdict, console: Console, *, details: bool = False) -> None:
    """Print the verdict.

    Args:
        verdict: What was decided, and why.
        console: Where to print.
        details: Whether to print the map of layers, and what each piece of evidence rests on and what defeats it.
    """
    print_summary(verdict, console)
    if verdict.evidence:
        console.print()
        _print_evidence(verdict, console)
        _print_controls(verdict, console)
        _print_third_models(verdict, console)
    if details:
        _print_details(verdict, console)


# -- the evidence --------------------------------------------------------------------------------------------------


def _print_evidence(verdict: Verdict, console: Console) -> None:
    title = f"Evidence (family-wise error rate of the {verdict.planned} planned exact tests: {verdict.alpha:g})"
    if _narrow(console):
        _print_list(
            title,
            (
                (one.name, "; ".join(f"{label} {cell}" if label else cell for label, cell in _facts(verdict, one)))
                for one in verdict.evidence
            ),
            console,
        )
        return
    columns = ("evidence", "rung", "size", "margin", "largest innocent", "p", "smallest possible p", "verdict")
    table = new_table(title, columns, text_columns=2)
    table.columns[0].no_wrap, table.columns[-1].justify = False, "left"
    for one in verdict.evidence:
        people = one.population
        table.add_row(
            clean(one.name),
            f"{one.rung} {RUNGS[one.rung]}",
            _decimal(one.size),
            _decimal(one.margin),
            _decimal(None if people is None else people.largest),
            _probability(one.log10_p),
            _probability(one.log10_floor),
            clean(standing(verdict, one)),
        )
    show(table, console)


def _facts(verdict: Verdict, one: Evidence) -> Iterator[tuple[str, str]]:
    """Yield what the table's row would say, without empty cells."""
    yield "", clean(standing(verdict, one))
    yield "", RUNGS[one.rung]
    people = one.population
    named = (
        ("size", one.size),
        ("margin", one.margin),
        ("largest innocent", None if people is None else people.largest),
    )
    yield from ((label, _decimal(value)) for label, value in named if value is not None)
    logs = (("p", one.log10_p), ("smallest possible p", one.log10_floor))
    yield from ((label, _probability(value)) for label, value in logs if value is not None)


def standing(verdict: Verdict, one: Evidence) -> str:
    """Return what a piece of evidence says for derivation, and whether it may carry the verdict.

    Args:
        verdict: The verdict, which names the evidence that carries it.
        one: One of its pieces of evidence.
    """
    if one.status == "not_applicable":
        return f"not applicable: {one.reason or 'no reason given'}"
    if one.name == verdict.decided_by:
        return "beyond; decides"
    if uncalibrated(one):
        return "shown only: not calibrated"
    if "embedding" in one.id:
        return f"{_against_margin(one)}; for the embedding only"
    if not one.carries:
        return "shown only"
    return _against_margin(one)


def _against_margin(one: Evidence) -> str:
    if one.beyond:
        return "beyond"
    if one.log10_p is None:
        return "below"
    # Too few relabellings: silence of a test that could say no more is no evidence against derivation.
    spent = one.log10_floor is not None and one.log10_p <= one.log10_floor + 1e-9
    return "not beyond: as extreme as it can be" if spent else "not beyond"


def _print_controls(verdict: Verdict, console: Console) -> None:
    controls = [(one, control) for one in verdict.evidence for control in one.controls]
    if not controls:
        return
    console.print()
    title = "Controls: what shuffles and layers that do not correspond give"
    if _narrow(console):
        told = (
            (f"{one.name}: {value.name}", "; ".join(filter(None, (_control(value), _reading(value)))))
            for one, value in controls
        )
        _print_list(title, told, console)
        return
    table = new_table(title, ("evidence", "control", "value", "how to read it"), text_columns=2)
    table.columns[0].no_wrap, table.columns[-1].justify = False, "left"
    for one, value in controls:
        table.add_row(clean(one.name), clean(value.name), _control(value), clean(_reading(value)))
    show(table, console)


def _reading(value: Value) -> str:
    return value.reason or value.note or ("" if value.kind == "statistic" else value.kind)


def _control(value: Value) -> str:
    """Return a control's number; counts are statistics without a fraction."""
    whole = value.kind == "statistic" and value.value is not None and value.value.is_integer()
    return number(int(value.value) if whole and value.value is not None else value.value)


def _print_third_models(verdict: Verdict, console: Console) -> None:
    if not verdict.third_models:
        return
    console.print()
    names = list(dict.fromkeys(name for third in verdict.third_models for name in third.sizes))
    table = new_table("Sizes against third models", ("pair", *(f"matched {name}" for name in names)), text_columns=1)
    table.columns[0].no_wrap = False
    # The record keys third models by a short name, which the id of the evidence on the pair itself ends in.
    own = {one.id.split("/")[0].removeprefix("matched-"): one.size for one in verdict.evidence if one.rung == 2}
    table.add_row("suspect vs base", *(_decimal(own.get(name)) or "-" for name in names))
    for third in verdict.third_models:
        sizes = (_decimal(third.sizes.get(name)) or "-" for name in names)
        table.add_row(f"{third.side} vs {clean(third.control)}", *sizes)
    show(table, console)


# -- details -------------------------------------------------------------------------------------------------------


def _print_details(verdict: Verdict, console: Console) -> None:
    if verdict.layer_map is not None:
        console.print()
        show(details_table(_layer_table(verdict.layer_map)), console)
    if verdict.power is not None:
        console.print()
        console.print(Text("Not excluded", style="bold"))
        for derivation in verdict.power.not_excluded:
            console.print(Text(f"  {clean(derivation)}"))
    for one in verdict.evidence:
        console.print()
        console.print(Text(f"{clean(one.name)}: {clean(standing(verdict, one))}", style="bold"))
        for label, text in _statements(one):
            console.print(Text(f"  {label}: {clean(text)}", style="dim"))
        for table in one.tables:
            show(details_table(table), console)


def _layer_table(layer_map: LayerMapInfo) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (one.suspect, one.base, one.similarity, one.heads, one.units, "yes" if one.derived else "no")
        for one in layer_map.layers
    ]
    order = {"same": "same places", "ordered": "in order", "free": "in any order"}[layer_map.kind]
    return Table(
        title=f"Map of layers: {order}, {layer_map.basis} basis",
        columns=("suspect layer", "base layer", "similarity", "heads", "units", "derived"),
        rows=tuple(rows),
    )


def _statements(one: Evidence) -> Iterator[tuple[str, str]]:
    yield "id", one.id
    yield "null", one.null
    yield "defeated by", one.defeats
    people = one.population
    if people is not None:
        yield (
            "innocents",
            f"{people.pairs} independent pairs of {people.models} models, {people.widths[0]} to {people.widths[1]} "
            f"wide: {people.passed} beyond the margin, so at most {people.bound:.2g} (by pairs that share no model "
            f"{people.bound_disjoint:.2g})" + (f"; {people.outside}" if people.outside else ""),
        )
    for note in one.notes:
        yield "note", note


# -- cells ---------------------------------------------------------------------------------------------------------


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:z.3f}"


def _probability(log10_p: float | None) -> str:
    return "" if log10_p is None else probability(log10_p)


def _narrow(console: Console) -> bool:
    return console.is_terminal and console.width < NARROW


def _print_list(title: str, rows: Iterable[tuple[str, str]], console: Console) -> None:
    """Print each row as a line with its name and an indented one with the rest."""
    console.print(Text(clean(title), style="bold"))
    for name, text in rows:
        console.print(Text(clean(name)))
        grid = RichTable.grid()
        grid.add_column(width=2)
        grid.add_column(overflow="fold")
        grid.add_row("", Text(clean(text)))
        console.print(grid)
