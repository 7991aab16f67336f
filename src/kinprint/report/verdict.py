"""The verdict in a terminal: first what everybody reads on one screen, then the evidence that it stands on.

Computes nothing: sizes, p-values and sentences come from the record. What could carry a checkpoint's name (reasons,
notes, names of third models) is printed as text without control characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from kinprint.report.cells import clean, details_table, hang, heading, new_table, number, show
from kinprint.report.summary import print_summary
from kinprint.types import Cell, Evidence, LayerMapInfo, Table, Value, Verdict
from kinprint.verdict.words import probability, uncalibrated

RUNGS = ("identity", "exact test", "matched", "invariant")

BEYOND_WEIGHTS = (
    "Weights do not say who copied from whom, when, or whether that was allowed; dates, licences and statements do."
)

_EXCLUDES = ("independent", "inconclusive")
"""Conclusions that say what they do not exclude."""


def print_verdict(
    verdict: Verdict, console: Console, *, details: bool = False, models: Sequence[tuple[str, str]] = ()
) -> None:
    """Print the verdict with its evidence and controls.

    Args:
        verdict: What was decided, and why.
        console: Where to print.
        details: Whether to print the map of layers, and what each piece of evidence rests on and what defeats it.
        models: What was compared, each with its label.
    """
    print_summary(verdict, console, models=models)
    if verdict.evidence:
        _print_evidence(verdict, console)
        _print_controls(verdict, console)
        _print_third_models(verdict, console)
    if details:
        _print_details(verdict, console)


def print_limits(verdict: Verdict, console: Console) -> None:
    """Print what the evidence allows beside the conclusion, and what it cannot say.

    Args:
        verdict: What was decided.
        console: Where to print.
    """
    heading("Limits and other explanations", console)
    for alternative in verdict.alternatives:
        hang("-", f"It may also be {alternative}.", console, indent=2)
    if verdict.power is not None and verdict.conclusion in _EXCLUDES:
        for missed in verdict.power.not_excluded:
            hang("-", f"Not excluded: {missed}.", console, indent=2)
    hang("-", BEYOND_WEIGHTS, console, indent=2)


# -- the evidence --------------------------------------------------------------------------------------------------


def _print_evidence(verdict: Verdict, console: Console) -> None:
    console.print()
    title = f"Evidence (family-wise error rate of the {verdict.planned} planned exact tests: {verdict.alpha:g})"
    columns = ("evidence", "null hypothesis", "p", "size", "margin", "verdict", "what could defeat it")
    table = new_table(title, columns, text_columns=2)
    for column in table.columns[-2:]:
        column.justify = "left"
    for one in verdict.evidence:
        table.add_row(*_row(verdict, one))
    show(table, console, told=_in_words)


def _row(verdict: Verdict, one: Evidence) -> Iterator[str]:
    yield clean(one.name)
    yield clean(one.null.partition(":")[0])
    yield _probability(one.log10_p)
    yield _decimal(one.size)
    yield _decimal(one.margin)
    yield clean(standing(verdict, one))
    yield "" if one.status == "not_applicable" else clean(one.defeats)


def _in_words(row: Sequence[str]) -> str:
    """Return what a row of the table says, without its empty cells."""
    _, null, p, size, margin, stands, defeats = row
    if not defeats:
        return stands
    numbers = [f"{label} {cell}" for label, cell in (("p", p), ("size", size), ("margin", margin)) if cell]
    return f"{'; '.join([stands, *numbers])}. Null: {null}. Defeated by: {defeats}."


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
    table = new_table(title, ("evidence", "control", "value", "how to read it"), text_columns=2)
    table.columns[-1].justify = "left"
    for one, value in controls:
        table.add_row(clean(one.name), clean(value.name), _control(value), clean(_reading(value)))
    show(table, console, told=lambda row: f"{row[1]}: {'; '.join(filter(None, row[2:]))}")


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
    if verdict.power is not None and verdict.conclusion not in _EXCLUDES:
        heading("Not excluded", console)
        for derivation in verdict.power.not_excluded:
            hang("", derivation, console, indent=2)
    for one in verdict.evidence:
        heading(f"{one.name}: {standing(verdict, one)}", console)
        for label, text in _statements(one):
            hang("", f"{label}: {text}", console, indent=2, style="dim")
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
    yield "rung", f"{one.rung} {RUNGS[one.rung]}"
    yield "null", one.null
    if one.log10_floor is not None:
        yield "smallest possible p", probability(one.log10_floor)
    yield "defeated by", one.defeats
    people = one.population
    if people is not None:
        yield (
            "innocents",
            f"{people.pairs} independent pairs of {people.models} models, {people.widths[0]} to {people.widths[1]} "
            f"wide: the largest at {people.largest:.3f}, {people.passed} beyond the margin, so at most "
            f"{people.bound:.2g} (by pairs that share no model {people.bound_disjoint:.2g})"
            + (f"; {people.outside}" if people.outside else ""),
        )
    for note in one.notes:
        yield "note", note


# -- cells ---------------------------------------------------------------------------------------------------------


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:z.3f}"


def _probability(log10_p: float | None) -> str:
    return "" if log10_p is None else probability(log10_p)
