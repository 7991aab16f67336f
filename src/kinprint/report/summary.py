"""The verdict in at most ten lines, for a reader without statistics."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from kinprint.report.cells import clean
from kinprint.types import LayerMapInfo, Verdict

LINES = 10
"""Most lines of the summary, before a narrow terminal breaks them."""

REASONS = 5

STYLES = {
    "identical": "bold red",
    "derived": "bold red",
    "independent": "bold green",
    "inconclusive": "bold yellow",
    "not_comparable": "bold yellow",
}


def print_summary(verdict: Verdict, console: Console) -> None:
    """Print the verdict in at most ten lines, before a narrow terminal breaks them.

    Args:
        verdict: What was decided.
        console: Where to print.
    """
    word = verdict.conclusion.replace("_", " ").upper()
    lines = [(word, verdict.headline), *summary(verdict)]
    label_width = max(len(label) for label, _ in lines) + 2
    grid = RichTable.grid()
    grid.add_column(width=label_width)
    grid.add_column(overflow="fold")
    for position, (label, text) in enumerate(lines):
        style = "bold" if position else STYLES[verdict.conclusion]
        if console.is_terminal:
            grid.add_row(Text(label, style=style), Text(clean(text), style="" if position else "bold"))
        else:
            console.print(Text(label.ljust(label_width) + clean(text)), soft_wrap=True)
    if console.is_terminal:
        console.print(grid)


def summary(verdict: Verdict) -> list[tuple[str, str]]:
    """Return the lines under the headline, each with its label; nine of them at most, so reasons give way to the rest.

    Args:
        verdict: What was decided.
    """
    rest: list[tuple[str, str]] = []
    if verdict.contrary:
        rest.append(("against", verdict.contrary))
    if verdict.alternatives:
        rest.append(("or else", "; ".join(verdict.alternatives)))
    parts = [part for part in verdict.components if part.component != "trunk"]
    if parts:
        told = (f"{part.component} {part.conclusion.replace('_', ' ')} ({part.reason})" for part in parts)
        rest.append(("parts", "; ".join(told)))
    if verdict.conclusion == "derived" and verdict.layer_map is not None:
        rest.append(("layers", layer_line(verdict.layer_map)))
    if verdict.conclusion == "independent" and verdict.power is not None and verdict.power.not_excluded:
        rest.append(("not excluded", "; ".join(verdict.power.not_excluded)))
    new = [reason for reason in verdict.reasons if reason not in verdict.headline]
    reasons = new[: min(REASONS, LINES - 1 - len(rest))]
    return [("" if position else "because", reason) for position, reason in enumerate(reasons)] + rest


def layer_line(layer_map: LayerMapInfo) -> str:
    """Return which layers come from which, with ranges, and which come from none.

    Args:
        layer_map: The map; layers whose sizes are below the margins count as not derived.

    Example:
        >>> from kinprint.types import LayerMatch
        >>> pairs = ((0, 0), (1, 1), (2, 2), (3, 5), (4, None))
        >>> layers = tuple(
        ...     LayerMatch(suspect=a, base=b, similarity=0.9, heads=0.9, units=0.9, derived=b is not None)
        ...     for a, b in pairs
        ... )
        >>> layer_line(LayerMapInfo(kind="ordered", basis="tokens", layers=layers))
        '0-2 from 0-2, 3 from 5; not derived: 4'
    """
    pairs = [(one.suspect, one.base) for one in layer_map.layers if one.derived and one.base is not None]
    alone = [one.suspect for one in layer_map.layers if not one.derived or one.base is None]
    found = [f"{_range(run[0][0], run[-1][0])} from {_range(run[0][1], run[-1][1])}" for run in _runs(pairs)]
    others = [_range(run[0][0], run[-1][0]) for run in _runs([(layer, layer) for layer in alone])]
    said = [", ".join(found)] if found else []
    return "; ".join([*said, f"not derived: {', '.join(others)}"] if others else said)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _runs(pairs: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Cut into stretches in which both numbers go up by one, or the first does while the second stands still."""
    runs: list[list[tuple[int, int]]] = []
    for suspect, base in pairs:
        run = runs[-1] if runs else []
        step = base - run[-1][1] if run else None
        steady = len(run) < 2 or step == run[-1][1] - run[-2][1]
        if run and suspect == run[-1][0] + 1 and step in (0, 1) and steady:
            run.append((suspect, base))
        else:
            runs.append([(suspect, base)])
    return runs
