"""A benchmark as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import get_args

from kinprint.behaviour.axis import METHODS as BEHAVIOUR
from kinprint.bench.claims import CLAIMS, reached
from kinprint.bench.markup import bullets, escaped, table
from kinprint.bench.metrics import accuses, area, base_group, judged, measured
from kinprint.bench.records import BenchResult, Category, Column, Interval, Label, Rates, Row, categories
from kinprint.bench.verdicts import NAME as VERDICT
from kinprint.bench.verdicts_rates import judged as with_verdict
from kinprint.bench.verdicts_tables import (
    claim_counts,
    conclusion_cell,
    verdict_blocks,
    verdict_lines,
    verdict_sections,
)
from kinprint.report.terminal import number

NOT_RUN = "not run"
"""Reason for a pair's cell that the result does not hold at all."""


def markdown(result: BenchResult) -> str:
    """Return rates, categories, cases, costs, the run and what the reader must know."""
    counts = ", ".join(f"{_labelled(result.rows, label)} {label}" for label in get_args(Label))
    parts = blocks(result)
    sections = [
        f"# Benchmark: {escaped(result.suite)}",
        f"{len(result.rows)} pairs ({counts}); cases version {result.cases_version}.",
        *verdict_sections(result),
        "## Rates",
        "### Derived against all unrelated pairs",
        parts["rates"],
        "### Derived against hard negatives alone",
        parts["hard"],
        "### By base model",
        "AUC on the pairs of each base model (derived + unrelated pairs with a value).",
        parts["bases"],
        "## At published levels",
        "How many pairs with a value are at least as similar as what a paper or a public claim calls derived.",
        parts["claims"],
        "## By category",
        "Mean (lowest to highest) of the measured values, and how many pairs are on the wrong side of the threshold "
        "that was chosen on these same pairs. A derived pair without a value is on the wrong side. For pairs that are "
        "only shown: how many the threshold calls derived.",
        parts["categories"],
        "## Case by case",
        *_case_tables(result),
        *_behaviour_sections(parts),
        "## Costs",
        parts["costs"],
        "## Every number that methods report",
        "### Derived against all unrelated pairs",
        _rates_table(result.columns, result.rates),
        "### Derived against hard negatives alone",
        _rates_table(result.columns, result.rates_hard),
        "## Run",
        parts["run"],
        "## How to read this",
        bullets((*_notes(result), *(escaped(note) for note in result.notes))),
    ]
    return "\n\n".join(sections) + "\n"


def blocks(result: BenchResult) -> dict[str, str]:
    """Return the tables that documents take over, by name."""
    return {
        "rates": _rates_table(_headline(result), result.rates),
        "hard": _rates_table(_headline(result), result.rates_hard),
        "bases": _base_table(result),
        "claims": _claims_table(result),
        "categories": _category_table(result, _headline(result)),
        **_behaviour_blocks(result),
        "cases": "\n\n".join(_case_tables(result)),
        "costs": _cost_table(result, list(dict.fromkeys(column.method for column in result.columns))),
        "run": _run_list(result),
        **verdict_blocks(result),
    }


def csv_rows(result: BenchResult) -> str:
    """Return one line per case and column, with every digit of the value, and two for each verdict.

    ``seconds`` is what the column's method took for the pair, the same for all columns of one method.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("suspect", "base", "category", "label", "column", "value", "reason", "seconds"))
    for row in result.rows:
        case = row.case
        for column in result.columns:
            value, cost = measured(column, row), row.costs.get(column.method)
            writer.writerow(
                (
                    *(case.suspect, case.base, case.category, case.label, column.name),
                    "" if value is None else value,
                    _reason(column, row) if value is None else "",
                    "" if cost is None else cost.seconds,
                )
            )
        for name, value, reason in verdict_lines(row):
            known = (case.suspect, case.base, case.category, case.label)
            writer.writerow((*known, f"{VERDICT}: {name}", value, reason, row.costs[VERDICT].seconds))
    return out.getvalue()


def headline_first(columns: Iterable[Column]) -> list[Column]:
    """Return the columns that methods are known by, then the others, each in the given order."""
    return sorted(columns, key=lambda column: not column.headline)


# -- sections ------------------------------------------------------------------------------------------------------


def _rates_table(columns: Sequence[Column], rates: Sequence[Rates]) -> str:
    header = (
        *("column", "derived", "unrelated", "measured", "AUC", "partial AUC (FPR to 1%)", "TPR at 1% FPR"),
        *("max F1, in-sample", "threshold", "held-out F1", "held-out FPR", "held-out TPR", "Mahalanobis"),
    )
    by_name = {rate.column: rate for rate in rates}
    rows: list[tuple[str, ...]] = []
    for column in headline_first(columns):
        rate = by_name[column.name]
        rows.append(
            (
                *(column.name, str(rate.derived), str(rate.unrelated), f"{rate.measured:.0%}"),
                *(_interval(held) for held in (rate.auc, rate.partial_auc, rate.tpr_at_1_fpr, rate.max_f1)),
                _threshold(column, rate.max_f1_threshold),
                *(_rate(held) for held in (rate.held_out_f1, rate.held_out_fpr, rate.held_out_tpr)),
                "-" if rate.mahalanobis is None else f"{rate.mahalanobis:.2f}",
            )
        )
    return table(header, rows)


def _base_table(result: BenchResult) -> str:
    columns = _headline(result)
    rows: list[tuple[str, ...]] = []
    for base in dict.fromkeys(base_group(row) for row in result.rows):
        held = [row for row in result.rows if base_group(row) == base]
        rows.append((" + ".join(base), *(_base_cell(column, held) for column in columns)))
    return table(("base", *(column.name for column in columns)), rows)


def _base_cell(column: Column, rows: Sequence[Row]) -> str:
    found = area(column, rows)
    if found is None:
        return "-"
    derived = _labelled(judged(column, rows), "derived")
    return f"{_rate(found)} ({derived} + {len(judged(column, rows)) - derived})"


def _claims_table(result: BenchResult) -> str:
    rows = [
        (claim.column, f"{claim.level:g}", claim.source, *counts)
        for claim in CLAIMS
        if (counts := reached(claim, result.columns, result.rows)) is not None
    ]
    if (said := claim_counts(result.rows)) is not None:
        rows.append((VERDICT, "derived", "its own conclusion: derived or identical, of all pairs", *said))
    header = ("number", "level", "source", "derived pairs that reach it", "unrelated pairs", "hard negatives")
    return table(header, rows)


def _category_table(result: BenchResult, columns: Sequence[Column]) -> str:
    thresholds = {rate.column: rate.max_f1_threshold for rate in result.rates}
    rows: list[tuple[str, ...]] = []
    for category, label in categories(result.rows):
        kept = [row for row in result.rows if (row.case.category, row.case.label) == (category, label)]
        cells = (_category_cell(column, kept, thresholds.get(column.name), label) for column in columns)
        rows.append((category, f"{len(kept)} {label}", *cells))
    rows.append(("threshold, in-sample", "", *(_threshold(column, thresholds.get(column.name)) for column in columns)))
    return table(("category", "pairs", *(column.name for column in columns)), rows)


def _behaviour_blocks(result: BenchResult) -> dict[str, str]:
    """Return the tables on behaviour, an axis of its own; none where no model was run."""
    columns = [column for column in result.columns if column.headline and column.method in BEHAVIOUR]
    if not columns:
        return {}
    return {
        "behaviour-rates": _rates_table(columns, result.rates),
        "behaviour-hard": _rates_table(columns, result.rates_hard),
        "behaviour-categories": _category_table(result, columns),
        "behaviour-students": _student_table(columns, result.rows),
        "behaviour-costs": _cost_table(result, [column.method for column in columns]),
        "behaviour-run": _run_list(result),
    }


def _behaviour_sections(parts: Mapping[str, str]) -> list[str]:
    if "behaviour-rates" not in parts:
        return []
    return [
        "## Behaviour",
        "An axis of its own: what models do on texts enters no verdict on weights.",
        "### Derived against all unrelated pairs, by behaviour",
        parts["behaviour-rates"],
        "### Derived against hard negatives alone, by behaviour",
        parts["behaviour-hard"],
        "### By category of behaviour",
        parts["behaviour-categories"],
        "### Students",
        parts["behaviour-students"],
    ]


def _student_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return how near distilled students are to their teachers, beside models of a random start of their own."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if row.case.category != "distillation":
            continue
        beside = [
            one
            for one in rows
            if one.case.category == "hard negatives"
            and one.case.base == row.case.base
            # What was made of a model has its name before a dot.
            and "." not in one.case.suspect
        ]
        for column in columns:
            value = measured(column, row)
            others = {one.case.suspect: other for one in beside if (other := measured(column, one)) is not None}
            nearest = max(others, key=lambda name: others[name], default=None)
            closer = value is not None and nearest is not None and value > others[nearest]
            lines.append(
                (
                    *(f"{row.case.suspect} / {row.case.base}", conclusion_cell(row), column.name),
                    "-" if value is None else number(value),
                    "-" if nearest is None else f"{number(others[nearest])} ({nearest}, of {len(others)})",
                    "yes" if closer else "no",
                )
            )
    header = ("student / teacher", "verdict on weights", "number", "value", "nearest innocent", "student is nearer")
    return table(header, lines)


def _category_cell(column: Column, rows: Sequence[Row], threshold: float | None, label: Label) -> str:
    values = [value for row in rows if (value := measured(column, row)) is not None]
    shown = f"{number(fmean(values))} ({number(min(values))} to {number(max(values))})" if values else "-"
    if threshold is None:
        return shown
    accused = sum(accuses(column, measured(column, row), threshold) for row in rows)
    if label == "shown":
        return f"{shown}; {accused}/{len(rows)} called derived"
    return f"{shown}; {len(rows) - accused if label == 'derived' else accused}/{len(rows)} wrong"


def _case_tables(result: BenchResult) -> list[str]:
    """One table for each base model, as thresholds and resamples are split by it; reasons for blanks below all."""
    columns = _headline(result)
    order = list(get_args(Category))
    told = (VERDICT,) if with_verdict(result.rows) else ()
    reasons: dict[str, int] = {}
    sections: list[str] = []
    for base in dict.fromkeys(base_group(row) for row in result.rows):
        held = [row for row in result.rows if base_group(row) == base]
        rows: list[tuple[str, ...]] = []
        for row in sorted(held, key=lambda row: order.index(row.case.category)):
            cells = (_case_cell(column, row, reasons) for column in columns)
            known = (row.case.suspect, row.case.base, row.case.category, row.case.label)
            rows.append((*known, *(conclusion_cell(row) for _ in told), *cells))
        header = ("suspect", "base", "category", "label", *told, *(column.name for column in columns))
        sections += [f"### Base {escaped(' + '.join(base))}", table(header, rows)]
    if reasons:
        blanks = "\n".join(f"{index}. {escaped(reason)}" for reason, index in reasons.items())
        sections += ["Why cells have a number in parentheses instead of a value:", blanks]
    return sections


def _case_cell(column: Column, row: Row, reasons: dict[str, int]) -> str:
    value = measured(column, row)
    if value is not None:
        return number(value)
    return f"({reasons.setdefault(_reason(column, row), len(reasons) + 1)})"


def _cost_table(result: BenchResult, methods: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = []
    for method in methods:
        costs = [row.costs[method] for row in result.rows if method in row.costs]
        seconds = [cost.seconds for cost in costs]
        peaks = [cost.peak_mb for cost in costs if cost.peak_mb is not None]
        rows.append(
            (
                *(method, str(len(costs))),
                *((f"{median(seconds):.3g}", f"{max(seconds):.3g}") if seconds else ("-", "-")),
                *((f"{median(peaks):.3g}", f"{max(peaks):.3g}") if peaks else ("-", "-")),
            )
        )
    header = ("method", "pairs", "seconds, median", "seconds, highest", "peak MB, median", "peak MB, highest")
    return table(header, rows)


def _run_list(result: BenchResult) -> str:
    run = result.run
    state = {True: ", with changes that are not committed", False: "", None: ""}[run.dirty]
    facts = {
        "kinprint": run.kinprint,
        "commit": "outside a checkout" if run.commit is None else run.commit + state,
        "versions": _joined(run.versions),
        "cpu": run.cpu,
        "BLAS": run.blas,
        "seeds": _joined(run.seeds),
        "zoo": run.zoo,
        "jobs": run.jobs,
        "seconds": f"{run.seconds:.1f}",
    }
    lines = [f"{name}: {escaped(str(value))}" for name, value in facts.items()]
    return bullets((*lines, *(f"method: {escaped(method)}" for method in run.methods)))


def _notes(result: BenchResult) -> list[str]:
    derived, unrelated = _labelled(result.rows, "derived"), _labelled(result.rows, "unrelated")
    hard = sum(row.case.label == "unrelated" and row.case.category == "hard negatives" for row in result.rows)
    notes = [
        "The in-sample F1 is the highest over all thresholds, chosen on the pairs it is reported for, as papers do; "
        "it is what the threshold did, not what it will do. Held out, each base model's pairs are judged by the "
        "threshold that was best on the pairs that share no training with that base.",
        "Abstaining earns nothing: a derived pair without a value counts as missed, as the least similar of all, and "
        "an unrelated one does not count, since a method that cannot look has acquitted nobody. The Mahalanobis "
        "distance alone uses measured values only: difference of the means by the pooled within-group deviation.",
        "Intervals: 95% percentiles of a bootstrap that draws whole base models, each with all its pairs.",
        "Partial AUC is McClish's: 0.5 is chance, 1 is perfect. With fewer than 100 unrelated pairs, TPR at 1% FPR "
        "allows no false positive at all.",
        "Pairs labelled shown enter no rate: whether they are related is a matter of definition.",
    ]
    if derived and unrelated:
        floor = 2 * derived / (2 * derived + unrelated)
        notes.append(
            f"Calling every pair derived gives F1 = 2P/(2P+N) = {floor:.3f} with P = {derived}, N = {unrelated}."
        )
    if derived and hard:
        floor = 2 * derived / (2 * derived + hard)
        notes.append(f"Against the {hard} hard negatives alone it gives {floor:.3f}.")
    notes += [
        f"{count} {name} bound the false-positive rate only to min(1, 3/{count}) = {min(1.0, 3 / count):.1%} even "
        "where none is accused (rule of three, 95%), and that if they were independent; pairs that share a model are "
        "not."
        for count, name in ((unrelated, "unrelated pairs"), (hard, "hard negatives"))
        if count
    ]
    return notes


# -- cells ---------------------------------------------------------------------------------------------------------


def _headline(result: BenchResult) -> list[Column]:
    """The numbers that methods on weights are known by; those on behaviour have tables of their own."""
    return [column for column in result.columns if column.headline and column.method not in BEHAVIOUR]


def _labelled(rows: Iterable[Row], label: Label) -> int:
    return sum(row.case.label == label for row in rows)


def _reason(column: Column, row: Row) -> str:
    cell = row.cells.get(column.name)
    return (cell.reason if cell is not None else None) or NOT_RUN


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(held: Interval) -> str:
    if held.low is None or held.high is None:
        return _rate(held.value)
    return f"{_rate(held.value)} ({_rate(held.low)} to {_rate(held.high)})"


def _threshold(column: Column, value: float | None) -> str:
    if value is None:
        return "-"
    # More digits than values have: between twins and children the threshold is often 0.999...
    return f"{'at most' if column.kind == 'distance' else 'at least'} {value:.6g}"


def _joined(facts: dict[str, str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
