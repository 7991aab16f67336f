"""The first screen, for a reader without statistics: the verdict, why, and how the pair stands at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from kinprint.evidence.population import innocents
from kinprint.report.cells import INDENT, hang
from kinprint.report.strips import Marks, heat, marks_for, place
from kinprint.types import Evidence, LayerMapInfo, LayerMatch, Verdict

LINES = 10
"""Most lines of the verdict and its reasons, before a narrow terminal breaks them."""

REASONS = 5

MOST_RUNS = 12
"""Stretches of layers that are named at a glance; ``--details`` names every layer."""

MOST_MARKS = 48
"""Longest line of marks."""

STYLES = {
    "identical": "bold red",
    "derived": "bold red",
    "independent": "bold green",
    "inconclusive": "bold yellow",
    "not_comparable": "bold yellow",
}

_UNMAPPED = "{} stand beside those most like them, which is a guess where nothing was copied"

PLACES = {"matched-heads": "heads", "matched-units": "units", "matched-tensors": "tensors"}
"""Sizes that unrelated pairs have too, by how the id of the evidence starts."""


def print_summary(verdict: Verdict, console: Console, *, models: Sequence[tuple[str, str]] = ()) -> None:
    """Print the verdict, its reasons, what was compared, where the pair falls, and layers and parts at a glance.

    Args:
        verdict: What was decided.
        console: Where to print.
        models: What was compared, each with its label.
    """
    print_headline(verdict, console)
    for label, text in (*summary(verdict), *models, *_place(verdict, console), *_glance(verdict, console)):
        hang(label, text, console)


def print_headline(verdict: Verdict, console: Console) -> None:
    """Print the verdict in one sentence.

    Args:
        verdict: What was decided.
        console: Where to print.
    """
    word = verdict.conclusion.replace("_", " ").upper()
    hang(word, verdict.headline, console, label_style=STYLES[verdict.conclusion], style="bold")


def summary(verdict: Verdict) -> list[tuple[str, str]]:
    """Return the lines under the headline, each with its label; nine of them at most.

    Args:
        verdict: What was decided.
    """
    rest: list[tuple[str, str]] = []
    if verdict.contrary:
        rest.append(("against", verdict.contrary))
    if verdict.alternatives:
        # In full they stand among the limits.
        rest.append(("or else", "; ".join(one.partition(":")[0] for one in verdict.alternatives)))
    new = [reason for reason in verdict.reasons if reason not in verdict.headline]
    reasons = new[: min(REASONS, LINES - 1 - len(rest))]
    return [("" if position else "because", reason) for position, reason in enumerate(reasons)] + rest


# -- where the pair falls --------------------------------------------------------------------------------------------


def _place(verdict: Verdict, console: Console) -> Iterator[tuple[str, str]]:
    """Yield the pair among the unrelated pairs that its margins are reported on, a line of marks for each size."""
    found = [
        (statistic, one, one.size)
        for one in verdict.evidence
        if (statistic := PLACES.get(one.id.split("/")[0])) is not None and one.size is not None
    ]
    if not found:
        if verdict.conclusion == "derived":
            yield "place", "nothing was matched by size, since an exact test decided first"
        return
    marks = marks_for(console)
    named = max(len(statistic) for statistic, _, _ in found)
    cells = min(MOST_MARKS, console.width - INDENT - named - len(" -0.000  0  1"))
    reached: dict[str, int] = {}
    for at, (statistic, one, size) in enumerate(found):
        strangers = innocents().sizes(statistic, "report")
        thirds = [value for third in verdict.third_models if (value := third.sizes.get(statistic)) is not None]
        line = place(strangers, size, thirds, one.margin, max(1, cells), marks)
        yield "" if at else "place", f"{statistic.ljust(named)} {size:z6.3f}  0 {line} 1"
        if strangers:
            reached[f"{max(strangers):.3f}"] = len(strangers)
    yield "", _legend([one for _, one, _ in found], reached, marks, thirds=bool(verdict.third_models))


def _legend(found: Sequence[Evidence], reached: Mapping[str, int], marks: Marks, *, thirds: bool) -> str:
    """Return what the marks mean; ``reached`` is how many unrelated pairs there are by the largest size among them."""
    told = [f"{marks.pair} this pair"]
    if thirds:
        told.append(f"{marks.third} third models")
    margins = dict.fromkeys(f"{one.margin:.2f}" for one in found if one.margin is not None)
    if margins:
        told.append(f"{marks.margin} margin {' and '.join(margins)}")
    if reached:
        heights = marks.heights[1] + marks.heights[4] + marks.heights[7]
        told.append(f"{heights} {max(reached.values())} unrelated pairs, up to {' and '.join(reached)}")
    return f"{'; '.join(told)} (scale of square roots)"


# -- layers and parts ------------------------------------------------------------------------------------------------


def _glance(verdict: Verdict, console: Console) -> Iterator[tuple[str, str]]:
    """Yield which layers come from which, how much of each is left, and the verdicts on parts."""
    layers = verdict.layer_map
    if layers is not None and layers.layers:
        derived = verdict.conclusion == "derived"
        yield "layers", layer_line(layers, most=MOST_RUNS) if derived else _UNMAPPED.format(len(layers.layers))
        yield from (("", line) for line in _strips(layers.layers, console))
    for at, part in enumerate(verdict.components):
        yield "" if at else "parts", f"{part.component} {part.conclusion.replace('_', ' ')}: {part.reason}"


def _strips(layers: Sequence[LayerMatch], console: Console) -> Iterator[str]:
    marks = marks_for(console)
    rows = (
        ("heads", [one.heads for one in layers]),
        ("units", [one.units for one in layers]),
        ("alike", [one.similarity for one in layers]),
    )
    cells = max(1, min(2 * MOST_MARKS, console.width - INDENT - len("heads -0.00 to -0.00  ")))
    each = 1
    for name, values in rows:
        known = [value for value in values if value is not None]
        if known:
            line, each = heat(values, cells, marks)
            yield f"{name} {min(known):z5.2f} to {max(known):z5.2f}  {line}"
    for_each = "for each layer" if each == 1 else f"for {each} layers, the least of them"
    yield f"a mark {for_each}, {marks.heights[0]} is 0 and {marks.heights[-1]} is 1"


def layer_line(layer_map: LayerMapInfo, *, most: int | None = None) -> str:
    """Return which layers come from which, with ranges, and which come from none.

    Args:
        layer_map: The map; layers whose sizes are below the margins count as not derived.
        most: Ranges of each kind that are named; None for all.

    Example:
        >>> from kinprint.types import LayerMatch
        >>> pairs = ((0, 0), (1, 1), (2, 2), (3, 5), (4, None))
        >>> layers = tuple(
        ...     LayerMatch(suspect=a, base=b, similarity=0.9, heads=0.9, units=0.9, derived=b is not None)
        ...     for a, b in pairs
        ... )
        >>> found = LayerMapInfo(kind="ordered", basis="tokens", layers=layers)
        >>> layer_line(found), layer_line(found, most=1)
        ('0-2 from 0-2, 3 from 5; not derived: 4', '0-2 from 0-2 and 1 more; not derived: 4')
    """
    pairs = [(one.suspect, one.base) for one in layer_map.layers if one.derived and one.base is not None]
    alone = [one.suspect for one in layer_map.layers if not one.derived or one.base is None]
    found = [f"{_range(run[0][0], run[-1][0])} from {_range(run[0][1], run[-1][1])}" for run in _runs(pairs)]
    others = [_range(run[0][0], run[-1][0]) for run in _runs([(layer, layer) for layer in alone])]
    said = [_some(found, most)] if found else []
    return "; ".join([*said, f"not derived: {_some(others, most)}"] if others else said)


def _some(said: Sequence[str], most: int | None) -> str:
    shown = ", ".join(said[:most])
    return shown if most is None or len(said) <= most else f"{shown} and {len(said) - most} more"


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
