"""Verdicts of a benchmark as Markdown: conclusions by kind of pair, every error by name, and layer maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kinprint.bench.markup import table
from kinprint.bench.records import BenchResult, PairVerdict, Row, categories
from kinprint.bench.verdicts_rates import (
    CONCLUSIONS,
    LAYERS_BAR,
    accusations,
    acquittals,
    counts,
    judged,
    layer_scores,
    misses,
    share_right,
    undecided,
)
from kinprint.report.terminal import number

HARD = "hard negatives"


def verdict_blocks(result: BenchResult) -> dict[str, str]:
    """Return the texts that documents take over, by name; none where no pair has a verdict."""
    if not judged(result.rows):
        return {}
    return {"verdicts": _verdicts(result.rows), "layers": _layers(result.rows)}


def verdict_sections(result: BenchResult) -> list[str]:
    """Return the sections of a benchmark's document that are about verdicts."""
    parts = verdict_blocks(result)
    if not parts:
        return []
    return ["## Verdicts", parts["verdicts"], "### Layer maps", parts["layers"]]


def conclusion_cell(row: Row) -> str:
    """Return a pair's conclusion as tables print it."""
    return "-" if row.verdict is None else _said(row.verdict.conclusion)


def verdict_lines(row: Row) -> list[tuple[str, str, str]]:
    """Return what a table for programs tells of a verdict besides its size: name, value and reason of each line."""
    if row.verdict is None:
        return []
    log10_p = row.verdict.log10_p
    return [
        ("conclusion", row.verdict.conclusion, row.verdict.decided_by or row.verdict.contrary or ""),
        ("log10 p", "" if log10_p is None else str(log10_p), "no exact test ran" if log10_p is None else ""),
    ]


def claim_counts(rows: Sequence[Row]) -> tuple[str, str, str] | None:
    """Return how many derived, easy unrelated and hard unrelated pairs are called derived or identical, ``count/all``.

    None where no pair has a verdict.
    """
    held = judged(rows)
    if not held:
        return None
    derived = [row for row in held if row.case.label == "derived"]
    unrelated = [row for row in held if row.case.label == "unrelated"]
    hard = [row for row in unrelated if row.case.category == HARD]
    accused = accusations(held)
    among_hard = sum(row.case.category == HARD for row in accused)
    return (
        f"{len(derived) - len(misses(held))}/{len(derived)}",
        f"{len(accused) - among_hard}/{len(unrelated) - len(hard)}",
        f"{among_hard}/{len(hard)}",
    )


# -- conclusions ---------------------------------------------------------------------------------------------------


def _verdicts(rows: Sequence[Row]) -> str:
    held = judged(rows)
    derived, unrelated, shown = (
        [row for row in held if row.case.label == label] for label in ("derived", "unrelated", "shown")
    )
    missed, accused = misses(held), accusations(held)
    free, open_ = acquittals(held), undecided(held)
    hard = [row for row in unrelated if row.case.category == HARD]
    sections = [
        _counts_table(held),
        f"Misses, derived pairs called neither derived nor identical: {_of(len(missed), len(derived))}.",
        *([_pairs_table(missed)] if missed else []),
        f"Accusations, unrelated pairs called derived or identical: {_of(len(accused), len(unrelated))}.",
        *([_pairs_table(accused)] if accused else []),
        f"Unrelated pairs called independent: {_of(len(free), len(unrelated))}; of the hard negatives "
        f"{_of(sum(row.case.category == HARD for row in free), len(hard))}.",
        *(["The other unrelated pairs, of which nothing is concluded:", _pairs_table(open_)] if open_ else []),
    ]
    if shown:
        sections += ["Pairs that are only shown, and count neither way:", _pairs_table(shown)]
    return "\n\n".join(sections)


def _counts_table(rows: Sequence[Row]) -> str:
    lines: list[tuple[str, ...]] = []
    for category, label in categories(rows):
        kept = [row for row in rows if (row.case.category, row.case.label) == (category, label)]
        lines.append((category, f"{len(kept)} {label}", *(str(count) for count in counts(kept))))
    return table(("category", "pairs", *(_said(conclusion) for conclusion in CONCLUSIONS)), lines)


def _pairs_table(rows: Iterable[Row]) -> str:
    header = ("suspect", "base", "category", "conclusion", "heads", "units", "log10 p", "planted copies seen", "why")
    return table(header, (_pair_cells(row, row.verdict) for row in rows if row.verdict is not None))


def _pair_cells(row: Row, verdict: PairVerdict) -> tuple[str, ...]:
    return (
        *(row.case.suspect, row.case.base, row.case.category, _said(verdict.conclusion)),
        *(number(size) for size in (verdict.heads, verdict.units)),
        "-" if verdict.log10_p is None else f"{verdict.log10_p:.1f}",
        "-" if verdict.plantings is None else f"{verdict.seen} of {verdict.plantings}",
        verdict.headline if verdict.accuses else verdict.contrary or verdict.headline,
    )


def _said(conclusion: str) -> str:
    return conclusion.replace("_", " ")


def _of(count: int, total: int) -> str:
    return f"{count} of {total}" + (f" ({count / total:.1%})" if total else "")


# -- layers --------------------------------------------------------------------------------------------------------


def _layers(rows: Sequence[Row]) -> str:
    scores = layer_scores(rows)
    moved, still = ([score for score in scores if score.moved == wanted] for wanted in (True, False))
    lines = [
        (
            *(score.row.case.suspect, score.row.case.base, conclusion_cell(score.row)),
            spans([true[0] if true else None for true in score.row.true_layers or ()]),
            spans(score.row.verdict.layers if score.row.verdict is not None else None),
            f"{score.right} of {score.layers}",
        )
        for score in moved
    ]
    share = share_right(scores)
    right, layers = sum(score.right for score in moved), sum(score.layers for score in moved)
    said = (
        "No pair with a known recipe has layers that were moved."
        if share is None
        else f"Layers with their right partner, in pairs whose layers were moved: {_of(right, layers)}; at least "
        f"{LAYERS_BAR:.0%} are asked for, which is {'met' if share >= LAYERS_BAR else 'not met'}."
    )
    sections = [said]
    if lines:
        header = ("suspect", "base", "conclusion", "layers as they are", "layers as found", "right")
        sections.insert(0, table(header, lines))
    if still:
        right, layers = sum(score.right for score in still), sum(score.layers for score in still)
        sections.append(f"In {len(still)} pairs whose layers stand where they stood: {_of(right, layers)}.")
    return "\n\n".join(sections)


def spans(layers: Sequence[int | None] | None) -> str:
    """Return numbers of layers with runs drawn together.

    Example:
        >>> spans((0, 1, 2, 1, 2, 3, None, 7))
        '0-2, 1-3, none, 7'
        >>> spans(None)
        '-'
    """
    if not layers:
        return "-"
    runs: list[list[int]] = []
    for layer in layers:
        if layer is None:
            runs.append([])
        elif runs and runs[-1] and runs[-1][-1] + 1 == layer:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join("none" if not run else str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
