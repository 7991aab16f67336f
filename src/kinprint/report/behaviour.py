"""What two models do on the same probes, as text for a terminal."""

from __future__ import annotations

from rich.console import Console

from kinprint.report.cells import clean, details_table, hang, new_table, number, show
from kinprint.types import Behaviour, MethodResult, Spent

AXIS = "Behaviour is an axis of its own and enters no verdict: distillation and shared data make strangers alike."


def print_behaviour(found: Behaviour, console: Console, *, details: bool = False) -> None:
    """Print every method's numbers beside its controls and third models, what did not run, and a summary.

    Args:
        found: What was measured.
        console: Where to print.
        details: Whether to print every value and table.
    """
    hang("", AXIS, console, indent=0, style="bold")
    asked = f"{found.probes.asked} of {found.probes.given} probes of {found.probes.name}"
    hang("", f"{asked} ({found.probes.digest[:19]}), {found.suspect} and {found.base}", console, indent=0, style="dim")
    if found.spent is not None:
        hang("", _spent(found.spent), console, indent=0, style="dim")
    console.print()
    thirds = [f"{pair.side} vs {pair.control}" for pair in found.control_pairs]
    table = new_table("", ("method", "value", "suspect vs base", "same model", *map(clean, thirds)), text_columns=2)
    for index, result in enumerate(found.methods):
        for value in result.values if details else result.values[:2]:
            others = [
                next((one.value for one in pair.methods[index].values if one.name == value.name), None)
                for pair in found.control_pairs
            ]
            own = "" if value.identical is None else number(value.identical)
            table.add_row(clean(result.method), clean(value.name), number(value.value), own, *map(number, others))
        for control in result.controls:
            blank = ["" for _ in found.control_pairs]
            table.add_row("", clean(f"control: {control.name}"), number(control.value), "", *blank)
    show(table, console)
    for result in found.methods:
        for said in ([result.reason] if result.reason else []) + [f"note: {note}" for note in result.notes if details]:
            hang("", f"{result.method}: {said}", console, indent=2, style="dim")
    console.print()
    hang("", found.summary, console, indent=0)
    for result in found.methods if details else ():
        for detail in result.tables:
            console.print()
            show(details_table(detail), console)


def _spent(spent: Spent) -> str:
    """Return in one line what a run has sent and what that cost."""
    counted = f"{spent.prompt_tokens:,} tokens of prompts and {spent.answer_tokens:,} of answers"
    unknown = f", {spent.uncounted:,} answers not counted" if spent.uncounted else ""
    cost = "" if spent.cost is None else f", cost at most {spent.cost:.4g}"
    return f"sent {spent.requests:,} requests: {counted}{unknown}{cost}"


def print_result(result: MethodResult, console: Console, *, details: bool = False) -> None:
    """Print what one method found by itself: its values and controls, and its notes.

    Args:
        result: What was found.
        console: Where to print.
        details: Whether to print its tables too.
    """
    hang("", result.id, console, indent=0, style="bold")
    if result.reason:
        hang("", f"not applicable: {result.reason}", console, indent=0)
    table = new_table("", ("value", "", "note"), text_columns=1)
    for value in result.values:
        table.add_row(clean(value.name), number(value.value), clean(value.note or value.reason or ""))
    for control in result.controls:
        table.add_row(clean(f"control: {control.name}"), number(control.value), clean(control.note or ""))
    if result.values or result.controls:
        show(table, console)
    for note in result.notes:
        hang("", note, console, indent=2, style="dim")
    for detail in result.tables if details else ():
        console.print()
        show(details_table(detail), console)
