"""A calibration as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from kinprint.bench.calibration.records import CalibrationResult, CalibrationRow, Draw, Statistic
from kinprint.bench.tables import escaped

_HEADER = (
    *("test", "zoo", "models", "pairs", "independent", "disjoint", "few steps", "spread of z", "p <= .05"),
    *("KS p", "AD p", "dispersion p", "smallest after Holm", "spread found from", "calibrated"),
)


def markdown(result: CalibrationResult) -> str:
    """Return what was tested, the table and the run."""
    parts = blocks(result)
    what = "of the exact tests" if result.axis == "weights" else "of behavioural tests"
    sections = [f"# Calibration {what}", *(parts[name] for name in ("table", "rounds", "unused", "run"))]
    return "\n\n".join(sections) + "\n"


def blocks(result: CalibrationResult) -> dict[str, str]:
    """Return the tables that documents take over, by name."""
    return {
        "table": _table(_HEADER, (_cells(row) for row in result.rows)),
        "rounds": _table(
            ("test", "zoo", "rounds", "KS", "AD", "dispersion", "spread found from"),
            (_round_cells(row) for row in result.rows),
        ),
        "unused": "\n".join(f"- {escaped(line)}" for line in result.unused) or "Every test applied to some pair.",
        "run": _run(result),
    }


def csv_rows(draws: Iterable[Draw]) -> str:
    """Return one line for each test and pair, with every digit.

    ``p`` is the p-value between its steps; ``log10_p`` is what the test reports, which may be a bound.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("test", "zoo", "suspect", "base", "p", "count", "draws", "log10_p", "log10_floor", "reason"))
    for draw in draws:
        one = draw.outcome
        facts = (draw.p, one.count, one.draws, one.log10_p, one.log10_floor, one.reason)
        shown = ("" if fact is None else fact for fact in facts)
        writer.writerow((draw.test, draw.zoo, draw.suspect, draw.base, *shown))
    return out.getvalue()


def _cells(row: CalibrationRow) -> tuple[str, ...]:
    return (
        *(row.name, row.zoo, str(row.models), str(row.pairs), str(row.independent), str(row.disjoint)),
        *(str(row.enumerated), f"{row.spread:.3f}", f"{row.share_at_5:.3f}"),
        *(f"{_p(row, statistic):.3g}" for statistic in ("ks", "ad", "dispersion")),
        f"{min(check.adjusted for check in row.checks):.3g}",
        "-" if row.found_from is None else f"{row.found_from:.2f}",
        {True: "yes", False: "**no**", None: "too few to say"}[row.calibrated],
    )


def _p(row: CalibrationRow, statistic: Statistic) -> float:
    return next(check.p for check in row.checks if check.statistic == statistic)


def _round_cells(row: CalibrationRow) -> tuple[str, ...]:
    found = "-" if row.found_from_rounds is None else f"{row.found_from_rounds:.2f}"
    return (row.name, row.zoo, str(row.rounds), *(f"{check.p_rounds:.3g}" for check in row.checks), found)


def _run(result: CalibrationResult) -> str:
    lines = [
        f"kinprint: {result.kinprint}",
        f"versions: {', '.join(f'{name} {version}' for name, version in result.versions.items())}",
        f"level: {result.level:g} after Holm's correction; rows with fewer than {result.least} independent draws say "
        "nothing",
        f"seed: {result.seed}",
        *(f"zoo {suite}: {digest}; models {', '.join(result.models[suite])}" for suite, digest in result.zoos.items()),
        *result.notes,
        *(f"test: {test}" for test in dict.fromkeys(row.test for row in result.rows)),
    ]
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    bold = "**no**"
    shown = [[cell if cell == bold else escaped(cell) for cell in row] for row in rows]
    lines = [[escaped(cell) for cell in header], ["---"] * len(header), *shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
