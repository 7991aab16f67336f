"""Comparisons and inspections as tables for a terminal, plain when piped.

Everything that comes from a checkpoint (names, reasons) is printed as text, never as markup, and without control
characters, so that a hostile name can neither colour nor move the cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.report.behaviour import print_behaviour
from kinprint.report.cells import clean, details_table, hang, heading, new_table, number, show
from kinprint.report.models import model_lines, print_reproduction
from kinprint.report.summary import print_headline
from kinprint.report.verdict import print_limits, print_verdict
from kinprint.types import Comparison, ControlPair, Inspection, MethodResult, Value

GRID_FROM = 6
"""Values named "role measure" from which on they are shown as a grid."""

MEASURED_BESIDE = (
    "Methods of the literature: these measurements do not enter the verdict. A value means something only against its "
    "controls."
)

UNMAPPED_SHOWN = 40
"""Unmapped tensors that ``inspect`` lists before it refers to ``--json``."""


def print_comparison(comparison: Comparison, console: Console, *, details: bool = False) -> None:
    """Print the verdict with its evidence, one table per method of the literature, limits, and how to reproduce it.

    Args:
        comparison: What was found.
        console: Where to print.
        details: Whether to print layer by layer too, and what each piece of evidence rests on.
    """
    verdict, models = comparison.verdict, model_lines(comparison)
    if verdict is not None:
        print_verdict(verdict, console, details=details, models=models)
    else:
        for label, text in models:
            hang(label, text, console)
    if comparison.methods:
        _print_methods(comparison, console, details=details)
    if comparison.behaviour is not None:
        console.print()
        print_behaviour(comparison.behaviour, console, details=details)
    if verdict is not None:
        print_limits(verdict, console)
    print_reproduction(comparison, console)
    if verdict is not None and console.is_terminal:
        # Where the reader's eye is once all of it has run past.
        console.print()
        print_headline(verdict, console)


def _print_methods(comparison: Comparison, console: Console, *, details: bool) -> None:
    heading(MEASURED_BESIDE, console)
    if comparison.status == "not_comparable":
        hang("", f"not comparable: {comparison.reason or ''}", console, indent=0)
        return
    console.print()
    show(_summary(comparison), console)
    for index, result in enumerate(comparison.methods):
        _print_method(result, index, comparison.control_pairs, console)
        if details:
            for table in (one for one in result.tables if not one.plotted):
                console.print()
                show(details_table(table), console)


def _summary(comparison: Comparison) -> RichTable:
    """The first two values of every method, against themselves and against third models."""
    pairs = comparison.control_pairs
    thirds = _thirds(pairs)
    table = new_table("Summary", ("method", "value", "suspect vs base", "same model", *thirds), text_columns=2)
    for index, result in enumerate(comparison.methods):
        for value in result.values[:2] if result.status == "measured" else ():
            others = [number(_find(pair.methods[index], value.name)) for pair in pairs]
            table.add_row(_short(result.id), clean(value.name), number(value.value), number(value.identical), *others)
    return table


def _thirds(pairs: tuple[ControlPair, ...]) -> list[str]:
    """Short names of the pairs with third models; C1 is the first control in the list of models."""
    return [f"{pair.side} vs C{position // 2 + 1}" for position, pair in enumerate(pairs)]


def _short(method_id: str) -> str:
    """Name, version and what distinguishes rows of one method; the constants stand over the method's own table."""
    fold = re.search(r"fold=(true|false)", method_id)
    return method_id.split("[")[0] + (f" {fold[0]}" if fold else "")


def _print_method(result: MethodResult, index: int, pairs: tuple[ControlPair, ...], console: Console) -> None:
    console.print()
    if result.status == "not_applicable":
        hang("", f"{result.id}: not applicable: {result.reason or ''}", console, indent=0)
        return
    gridded = {value.name for value in _values(result) if _role(value)}
    if len(gridded) < GRID_FROM:
        gridded = set[str]()
    else:
        show(_grid(result, index, pairs), console)
    rest = [value for value in _values(result) if value.name not in gridded]
    if rest:
        show(_list(result, index, pairs, rest, "" if gridded else result.id), console)
    reasons = dict.fromkeys(f"{v.name}: {v.reason}" for v in _values(result) if v.name in gridded and v.reason)
    for note in (*reasons, *result.notes):
        hang("", note, console, indent=2, style="dim")


def _list(
    result: MethodResult, index: int, pairs: tuple[ControlPair, ...], values: list[Value], title: str
) -> RichTable:
    """One row for each value."""
    thirds = _thirds(pairs)
    table = new_table(title, ("", "suspect vs base", "same model", *thirds, "how to read it"))
    controls = {value.name for value in result.controls}
    for value in values:
        label = f"control: {value.name}" if value.name in controls else value.name
        others = [number(_find(pair.methods[index], value.name)) for pair in pairs]
        reading = value.reason or value.note or ("" if value.kind == "statistic" else value.kind)
        table.add_row(clean(label), number(value.value), number(value.identical), *others, clean(reading))
    return table


def _grid(result: MethodResult, index: int, pairs: tuple[ControlPair, ...]) -> RichTable:
    """Values that are named "role measure": the fewer of roles and measures become columns."""
    controls = {value.name for value in result.controls}
    named = [(*str(value.name).split(" ", 1), value.name) for value in _values(result) if _role(value)]
    roles = list(dict.fromkeys(role for role, _, _ in named))
    measures = list(dict.fromkeys((measure, name in controls) for _, measure, name in named))
    columns: list[tuple[MethodResult, str, str, str]] = []  # (result, label, role or measure, which of the two)
    by_role = len(roles) >= len(measures)
    others = zip(_thirds(pairs), pairs, strict=True)
    sides = [("", result), *((f"\n{name}", pair.methods[index]) for name, pair in others)]
    for label, side in sides:
        if by_role:
            kept = [(m, "control: " * c + m) for m, c in measures if side is result or not c]
            columns += [(side, shown + label, measure, "measure") for measure, shown in kept]
        else:
            columns += [(side, role + label, role, "role") for role in roles]
    table = new_table(result.id, ("", *(label for _, label, _, _ in columns)), text_columns=1)
    rows = [(role, role) for role in roles] if by_role else [(m, "control: " * c + m) for m, c in measures]
    for row, shown in rows:
        cells = [
            number(_find(side, f"{row} {other}" if which == "measure" else f"{other} {row}"))
            if side is result or by_role or (row, True) not in measures
            else ""
            for side, _, other, which in columns
        ]
        table.add_row(clean(shown), *cells)
    return table


def _role(value: Value) -> bool:
    return re.match(r"(unembed|[a-z]+(\.[a-z_]+)+) ", value.name) is not None


def _values(result: MethodResult) -> tuple[Value, ...]:
    return (*result.values, *result.controls)


def _find(result: MethodResult, name: str) -> float | None:
    return next((value.value for value in _values(result) if value.name == name), None)


def print_kinds(kinds: Iterable[tuple[str, str, bool, str]], console: Console) -> None:
    """Print kinds of derivation: name, summary, whether the function stays the same, settings with defaults."""
    table = new_table("", ("kind", "what it does", "function", "settings"), text_columns=4)
    for name, summary, preserving, settings in kinds:
        table.add_row(name, summary, "same" if preserving else "changes", settings or "-")
    show(table, console)


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what a checkpoint holds: family, geometry, roles, coverage, and every unmapped tensor."""
    model, sizes = found.model, found.model.geometry
    facts = [
        ("name", model.name),
        ("format", f"{model.format}, {len(found.files)} file(s)"),
        ("family", f"{model.family}: {found.summary}"),
        ("layers", number(sizes.layers)),
        ("width", number(sizes.hidden)),
        ("heads", f"{number(sizes.heads)} query, {number(sizes.kv_heads)} key/value, {number(sizes.head_dim)} wide"),
        ("FFN", f"{number(sizes.ffn)} units" + (f", {sizes.experts} experts" if sizes.experts else "")),
        ("vocabulary", number(sizes.vocab) + (" (output tied to the embedding)" if found.tied else "")),
        ("dtypes", ", ".join(f"{dtype} {count:,}" for dtype, count in found.dtypes.items())),
        ("parameters", number(model.parameters)),
        ("coverage", f"{model.coverage:.2%} of the parameters have a role"),
        ("compare --full reads", f"{found.bytes_compare:,} of {found.bytes_total:,} bytes"),
        ("compare reads", f"{found.bytes_look:,} bytes at first, while undecided {found.bytes_layer:,} a layer"),
        ("header digest", model.header_digest),
    ]
    table = RichTable(box=None, show_header=False)
    for label, fact in facts:
        table.add_row(Text(label, style="bold"), Text(clean(fact), overflow="fold"))
    console.print(table)
    roles = new_table("", ("role", "parts", "shape of the first", "dtypes", "parameters"), text_columns=4)
    for role in found.roles:
        shape = " x ".join(str(length) for length in role.shape)
        roles.add_row(role.role, str(role.parts), shape, ", ".join(role.dtypes), number(role.parameters))
    if found.roles:
        show(roles, console)
    for part in model.components:
        console.print(
            Text(
                f"beside the language model: {clean(part.name)}, {part.tensors} tensors, {part.parameters:,} parameters"
                f", read as {clean(part.family)}"
            )
        )
    for sentence in (*model.notes, *model.inferred):
        console.print(Text(clean(sentence)))
    for name, reason in found.ignored.items():
        console.print(Text(f"ignored: {clean(name)} ({clean(reason)})", style="dim"))
    for name in model.unmapped[:UNMAPPED_SHOWN]:
        console.print(Text(f"no role: {clean(name)}"))
    if len(model.unmapped) > UNMAPPED_SHOWN:
        console.print(Text(f"no role: {len(model.unmapped) - UNMAPPED_SHOWN} more, all listed with --json"))
