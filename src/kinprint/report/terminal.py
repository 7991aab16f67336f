"""Comparisons and inspections as tables for a terminal, plain when piped.

Everything that comes from a checkpoint (names, reasons) is printed as text, never as markup, and without control
characters, so that a hostile name can neither colour nor move the cursor.
"""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.types import Cell, Comparison, ControlPair, Inspection, MethodResult, ModelInfo, Table, Value

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNMAPPED_SHOWN = 40
"""Unmapped tensors that ``inspect`` lists before it refers to ``--json``."""


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


def print_comparison(comparison: Comparison, console: Console, *, details: bool = False) -> None:
    """Print what was compared and one table per method; ``details`` adds the per-layer tables."""
    _print_models(comparison, console)
    if comparison.status == "not_comparable":
        console.print(Text(f"\nnot comparable: {clean(comparison.reason or '')}", style="bold"))
        return
    console.print(
        Text("Measurements and controls; no conclusion is drawn. A value means something only against its controls.")
    )
    for index, result in enumerate(comparison.methods):
        _print_method(result, index, comparison.control_pairs, console)
        if details:
            for table in result.tables:
                console.print()
                console.print(_details(table))


def _print_models(comparison: Comparison, console: Console) -> None:
    table = _table("", ("model", "name", "family", "size", "mapped", "content digest"))
    labelled = [("suspect", comparison.suspect), ("base", comparison.base)]
    labelled += [("control", model) for model in comparison.controls]
    for label, model in labelled:
        table.add_row(
            label,
            clean(model.name),
            clean(model.family),
            _size(model),
            f"{model.coverage:.1%}",
            (model.content_digest or "-").removeprefix("sha256:")[:16],
        )
    console.print(table)
    for label, model in labelled:
        for note in (*model.notes, *model.inferred):
            console.print(Text(f"  {label}: {clean(note)}", style="dim"))
        if model.unmapped:
            console.print(
                Text(f"  {label}: {len(model.unmapped)} tensors have no role (see kinprint inspect)", style="dim")
            )


def _size(model: ModelInfo) -> str:
    sizes = model.geometry
    shown = [f"{model.parameters:,} parameters"]
    if sizes.layers:
        shown.append(f"{sizes.layers} layers")
    if sizes.hidden:
        shown.append(f"d={sizes.hidden}")
    return ", ".join(shown)


def _print_method(result: MethodResult, index: int, pairs: tuple[ControlPair, ...], console: Console) -> None:
    console.print()
    if result.status == "not_applicable":
        console.print(Text(f"{result.id}: not applicable: {clean(result.reason or '')}"))
        return
    thirds = [f"{pair.side} vs {clean(pair.control)}" for pair in pairs]
    table = _table(result.id, ("", "suspect vs base", "same model", *thirds, "how to read it"))
    others = [{value.name: value for value in _values(pair.methods[index])} for pair in pairs]
    for style, values in (("", result.values), ("dim", result.controls)):
        for value in values:
            label = clean(value.name) if not style else f"control: {clean(value.name)}"
            third = [number(other[value.name].value if value.name in other else None) for other in others]
            table.add_row(label, number(value.value), number(value.identical), *third, _reading(value), style=style)
    console.print(table)
    for note in result.notes:
        console.print(Text(f"  {clean(note)}", style="dim"))


def _values(result: MethodResult) -> tuple[Value, ...]:
    return (*result.values, *result.controls)


def _reading(value: Value) -> str:
    return clean(value.reason or value.note or ("" if value.kind == "statistic" else value.kind))


def _details(table: Table) -> RichTable:
    shown = _table(table.title, table.columns)
    for row in table.rows:
        shown.add_row(*(number(cell) for cell in row))
    return shown


def _table(title: str, columns: tuple[str, ...]) -> RichTable:
    table = RichTable(
        title=Text(clean(title), style="bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD
    )
    for position, column in enumerate(columns):
        numeric = 0 < position < len(columns) - 1
        table.add_column(Text(clean(column)), overflow="fold", justify="right" if numeric and title else "left")
    return table


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
        ("compare reads", f"{found.bytes_compare:,} of {found.bytes_total:,} bytes"),
        ("header digest", model.header_digest),
    ]
    table = RichTable(box=None, show_header=False)
    for label, fact in facts:
        table.add_row(Text(label, style="bold"), Text(clean(fact), overflow="fold"))
    console.print(table)
    roles = _table("", ("role", "parts", "shape of the first", "dtypes", "parameters"))
    for role in found.roles:
        shape = " x ".join(str(length) for length in role.shape)
        roles.add_row(role.role, str(role.parts), shape, ", ".join(role.dtypes), number(role.parameters))
    if found.roles:
        console.print(roles)
    for sentence in (*model.notes, *model.inferred):
        console.print(Text(clean(sentence)))
    for name, reason in found.ignored.items():
        console.print(Text(f"ignored: {clean(name)} ({clean(reason)})", style="dim"))
    for name in model.unmapped[:UNMAPPED_SHOWN]:
        console.print(Text(f"no role: {clean(name)}"))
    if len(model.unmapped) > UNMAPPED_SHOWN:
        console.print(Text(f"no role: {len(model.unmapped) - UNMAPPED_SHOWN} more, all listed with --json"))
