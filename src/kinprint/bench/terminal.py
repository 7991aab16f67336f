"""The verdicts and rates of a benchmark as short tables for a terminal."""

from __future__ import annotations

from typing import get_args

from rich import box
from rich.console import Console
from rich.table import Table

from kinprint.bench.records import BenchResult, Interval, Label, Rates
from kinprint.bench.verdicts_rates import CONCLUSIONS, accusations, counts, judged, layer_scores, misses, share_right
from kinprint.report.cells import clean, number, show


def print_rates(result: BenchResult, console: Console) -> None:
    """Print what kinprint concludes, and how each method's headline numbers separate derived from unrelated pairs."""
    if judged(result.rows):
        _print_verdicts(result, console)
    hard = {rates.column: rates for rates in result.rates_hard}
    headline = {column.name for column in result.columns if column.headline}
    table = _table(console, "number")
    for name in ("pairs", "AUC", "hard AUC", "TPR at 1% FPR", "hard TPR", "max F1", "held-out F1", "held-out FPR"):
        table.add_column(name, justify="right")
    for rates in result.rates:
        if rates.column in headline:
            table.add_row(rates.column, *_cells(rates, hard.get(rates.column)))
    show(table, console)


def _print_verdicts(result: BenchResult, console: Console) -> None:
    table = _table(console, "kinprint verdict")
    for conclusion in CONCLUSIONS:
        table.add_column(conclusion.replace("_", " "), justify="right")
    labels: tuple[Label, ...] = get_args(Label)
    for label in labels:
        kept = [row for row in result.rows if row.case.label == label]
        if kept:
            table.add_row(f"{len(kept)} {label}", *(str(count) for count in counts(kept)))
    show(table, console)
    for what, rows in (("missed", misses(result.rows)), ("accused", accusations(result.rows))):
        for row in rows:
            said = row.verdict.conclusion if row.verdict is not None else ""
            console.print(f"{what}: {clean(row.case.name)}: {said.replace('_', ' ')}", markup=False, highlight=False)
    share = share_right(layer_scores(result.rows))
    if share is not None:
        console.print(f"moved layers with their right partner: {share:.1%}", highlight=False)


def _table(console: Console, first: str) -> Table:
    table = Table(box=box.SIMPLE if console.is_terminal else box.MARKDOWN, title_justify="left")
    table.add_column(first)
    return table


def _cells(rates: Rates, hard: Rates | None) -> list[str]:
    none = Interval(value=None)
    return [
        f"{rates.derived}+{rates.unrelated}",
        _show(rates.auc),
        _show(hard.auc if hard else none),
        _show(rates.tpr_at_1_fpr),
        _show(hard.tpr_at_1_fpr if hard else none),
        _show(rates.max_f1),
        number(rates.held_out_f1),
        number(rates.held_out_fpr),
    ]


def _show(interval: Interval) -> str:
    return number(interval.value)
