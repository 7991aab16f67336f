"""Fill docs/tests.md and draw the pictures of docs/evidence.md: every test of the verdict on the shipped models.

Usage: python docs/reference/make_evidence.py

The shipped models ``child``, ``laundered`` and ``twin`` stand against ``base``. Pictures carry what they show as JSON
in their description, so that a test can hold them to the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kinprint import api
from kinprint.alignment.basis import Refusal
from kinprint.architecture import ModelView
from kinprint.evidence.exact_units import score_sum
from kinprint.evidence.pair import Pair
from kinprint.report.plots import BLUE, GREY, ORANGE, SHARED_STYLE, VERMILION
from kinprint.types import Evidence, Verdict

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "tests.md"
IMAGES = ROOT / "docs" / "images"
MARKED = re.compile(r"(<!-- begin: ladder -->\n).*?(<!-- end: ladder -->)", re.DOTALL)
SUSPECTS = ("child", "laundered", "twin")
COLOURS = {"child": BLUE, "laundered": ORANGE, "twin": VERMILION}
MARKS = {"child": "o", "laundered": "s", "twin": "^"}
APART = {"child": -0.2, "laundered": 0.0, "twin": 0.2}
"""Marks stand one above the other, so that equal numbers do not hide each other."""

DRAWS = 999
DIGITS = 3
"""Digits of what pictures show: enough to see, few enough that processors agree."""

Data = dict[str, Any]
Verdicts = Mapping[str, Verdict]


def verdicts() -> Verdicts:
    """Return the verdict on each suspect with all of its evidence."""
    found: dict[str, Verdict] = {}
    for suspect in SUSPECTS:
        verdict = api.compare(EXAMPLES / suspect, EXAMPLES / "base", methods=["layernorm"], mode="thorough").verdict
        assert verdict is not None
        found[suspect] = verdict
    return found


def ladder(found: Verdicts) -> str:
    """Return the table of every test on every suspect."""
    names = list(dict.fromkeys(one.name for verdict in found.values() for one in verdict.evidence))
    lines = [f"| test | rung | {' | '.join(found)} |", f"|---|---{'|---' * len(found)}|"]
    for name in names:
        cells = [_cell(_named(verdict, name)) for verdict in found.values()]
        rung = next(one.rung for verdict in found.values() if (one := _named(verdict, name)) is not None)
        lines.append(f"| {name} | {rung} | {' | '.join(cells)} |")
    lines.append(f"| **verdict** | | {' | '.join(f'**{verdict.conclusion}**' for verdict in found.values())} |")
    return "\n".join(lines)


def _named(verdict: Verdict, name: str) -> Evidence | None:
    return next((one for one in verdict.evidence if one.name == name), None)


def _cell(one: Evidence | None) -> str:
    if one is None:
        return "-"
    if one.status == "not_applicable":
        return "not applicable"
    size = "-" if one.size is None else f"{one.size:z.3f}"
    if one.log10_p is None:
        return size
    return f"{size}, p = {f'10^{one.log10_p:.0f}' if one.log10_p < -3 else f'{10**one.log10_p:.2f}'}"


# -- what pictures show ----------------------------------------------------------------------------------------------


def exact() -> Data:
    """Return the statistic of all units in stored order for each suspect, and what renumberings of it give."""
    return {suspect: _relabelled(suspect) for suspect in SUSPECTS}


def _relabelled(suspect: str) -> Data:
    models = [api.open_model(EXAMPLES / name) for name in (suspect, "base")]
    assert all(isinstance(model, ModelView) for model in models)
    pair = Pair.of(*models)  # pyright: ignore[reportArgumentType]
    basis = pair.basis("stored")
    assert not isinstance(basis, Refusal)
    scores, _, _ = score_sum(pair, basis)
    assert scores is not None
    rng, rows = np.random.default_rng(0), np.arange(len(scores))
    sums = [float(scores[rows, rng.permutation(len(scores))].sum()) for _ in range(DRAWS)]
    low, high = min(sums), max(sums)
    return {
        "statistic": _rounded(float(np.trace(scores))),
        "renumbered from": _rounded(low),
        "renumbered to": _rounded(high),
        "counts": np.histogram(sums, bins=20, range=(low, high))[0].tolist(),
    }


def sizes(found: Verdicts) -> Data:
    """Return matched sizes with their margins and the largest size of an independent pair."""
    names = [one.name for one in found["child"].evidence if one.population is not None]
    data: Data = {}
    for name in names:
        entries = {suspect: _named(verdict, name) for suspect, verdict in found.items()}
        first = next(one for one in entries.values() if one is not None and one.population is not None)
        assert first.population is not None
        data[name] = {
            "largest": _rounded(first.population.largest),
            "margin": _rounded(first.margin),
            **{suspect: None if one is None else _rounded(one.size) for suspect, one in entries.items()},
        }
    return data


def all_sizes(found: Verdicts) -> Data:
    """Return the size of every test on every suspect."""
    names = list(dict.fromkeys(one.name for verdict in found.values() for one in verdict.evidence))
    data = {
        name: {
            suspect: None if (one := _named(verdict, name)) is None else _rounded(one.size)
            for suspect, verdict in found.items()
        }
        for name in names
    }
    return {name: row for name, row in data.items() if any(size is not None for size in row.values())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


# -- pictures ------------------------------------------------------------------------------------------------------


def draw(
    paint: Callable[[Any, Data], None], data: Data, name: str, *, inches: tuple[float, float], across: int = 1
) -> None:
    """Draw one picture into the folder of images."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(SHARED_STYLE, after_reset=True):
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.subplots(1, across, squeeze=False)[0]
        paint(axes, data)
        metadata = {"Date": None, "Description": json.dumps(data, sort_keys=True)}
        figure.savefig(IMAGES / f"{name}.svg", format="svg", facecolor="white", metadata=metadata)


def _exact(axes: Any, data: Data) -> None:  # noqa: ANN401
    titles = {
        "child": "Fine-tuned: far beyond chance",
        "laundered": "Renumbered: as by chance",
        "twin": "Innocent: as by chance",
    }
    for at, (suspect, one) in zip(axes, data.items(), strict=True):
        low, high = one["renumbered from"], one["renumbered to"]
        width = (high - low) / len(one["counts"])
        middles = [low + width * (place + 0.5) for place in range(len(one["counts"]))]
        at.bar(middles, one["counts"], width, color="#BBBBBB")
        at.set_ylim(0, 1.25 * max(one["counts"]))
        at.axvline(one["statistic"], color=COLOURS[suspect], linewidth=2)
        at.annotate(
            f"{suspect}: {one['statistic']:g}", (one["statistic"], 1.0), xycoords=("data", "axes fraction"),
            xytext=(-4 if suspect == "child" else 4, -9), textcoords="offset points", color=COLOURS[suspect],
            fontsize=8, ha="right" if suspect == "child" else "left",
        )  # fmt: skip
        at.set_title(titles[suspect])
        at.set_xlabel("sum of cosines of facing units")
    axes[0].set_ylabel(f"of {DRAWS} renumberings")


def _sizes(axes: Any, data: Data) -> None:  # noqa: ANN401
    at = axes[0]
    for row, one in enumerate(data.values()):
        at.barh(
            row, one["largest"], 0.5, color="#BBBBBB", label="up to the largest independent pair" if not row else None
        )
        at.plot([one["margin"]] * 2, [row - 0.35, row + 0.35], "--", color="black", label="margin" if not row else None)
        for suspect in SUSPECTS:
            if one[suspect] is not None:
                label = suspect if not row else None
                place = row + APART[suspect]
                at.plot(one[suspect], place, MARKS[suspect], color=COLOURS[suspect], label=label, markersize=5)
    _rows(at, list(data))
    at.set_xlabel("size: 0 for strangers, 1 for the same")
    at.set_title("Copies lie far beyond every margin, the innocent twin below it")


def _ladder(axes: Any, data: Data) -> None:  # noqa: ANN401
    at = axes[0]
    for suspect in SUSPECTS:
        points = [
            (one[suspect], row + APART[suspect]) for row, one in enumerate(data.values()) if one[suspect] is not None
        ]
        at.plot(*zip(*points, strict=True), MARKS[suspect], color=COLOURS[suspect], label=suspect, markersize=4)
    _rows(at, list(data))
    at.axvline(0, color=GREY, linewidth=0.5)
    at.set_xlabel("size: 0 for strangers, 1 for the same")
    at.set_title("What each test sees: a laundered copy is found by matching, not by order")


def _rows(axes: Any, names: list[str]) -> None:  # noqa: ANN401
    axes.set_yticks(range(len(names)), [name.replace(", ", ",\n", 1) if len(name) > 36 else name for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def filled(page: str, found: Verdicts) -> str:
    """Return the page with its table replaced."""
    return MARKED.sub(lambda one: f"{one[1]}\n{ladder(found)}\n\n{one[2]}", page)


def main() -> None:
    """Fill the page and draw the pictures."""
    found = verdicts()
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    draw(_exact, exact(), "evidence-exact", inches=(8.4, 2.4), across=3)
    draw(_sizes, sizes(found), "evidence-sizes", inches=(7.6, 2.2))
    draw(_ladder, all_sizes(found), "evidence-ladder", inches=(7.6, 4.6))


if __name__ == "__main__":
    main()
