"""The rates of a benchmark as a short table for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from kinprint.bench.records import BenchResult, Interval, Rates
from kinprint.report.terminal import number


def print_rates(result: BenchResult, console: Console) -> None:
    """Print how each method's headline numbers separate derived from unrelated pairs."""
    hard = {rates.column: rates for rates in result.rates_hard}
    headline = {column.name for column in result.columns if column.headline}
    table = Table(box=box.SIMPLE if console.is_terminal else box.MARKDOWN, title_justify="left")
    table.add_column("number")
    for name in ("pairs", "AUC", "hard AUC", "TPR at 1% FPR", "hard TPR", "max F1", "held-out F1", "held-out FPR"):
        table.add_column(name, justify="right")
    for rates in result.rates:
        if rates.column in headline:
            table.add_row(rates.column, *_cells(rates, hard.get(rates.column)))
    console.print(table)


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
