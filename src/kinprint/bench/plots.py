"""Pictures of a benchmark: ROC curves, method by category, and the values themselves.

matplotlib is imported when first needed and its figures are made without pyplot, so nothing global changes. The same
result gives the same bytes with the same matplotlib. Colours are Okabe and Ito's, told apart by the colour-blind;
classes differ by place or line style as well.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinprint.bench.metrics import accuses, area, measured, operating_points
from kinprint.bench.records import BenchResult, Category, Column, Label, Row, categories
from kinprint.errors import optional
from kinprint.report.plots import BLUE, DPI, GREY, ORANGE, SHARED_STYLE, VERMILION
from kinprint.report.terminal import clean

PANELS_WIDE = 4
"""Small multiples side by side."""

WIDE_RANGE = 100.0
"""Distances whose largest is this many times their median are drawn on an axis that is logarithmic above it."""


def write_plots(result: BenchResult, folder: Path) -> list[Path]:
    """Draw a benchmark's pictures, each as SVG and PNG.

    Args:
        result: What to draw; of each method the column that it is known by.
        folder: Where ``roc``, ``heatmap`` and ``distributions`` go; it is made if needed.

    Returns:
        The files, each of which is either as it was or complete. None without pairs or where no column is a headline.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    columns = [column for column in result.columns if column.headline]
    if not columns or not result.rows:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[BenchResult, Sequence[Column]], Any]] = {
        "roc": _roc,
        "heatmap": _heatmap,
        "distributions": _distributions,
    }
    written: list[Path] = []
    with _library("matplotlib.style").context(SHARED_STYLE, after_reset=True):
        for name, draw in pictures.items():
            figure = draw(result, columns)
            written += [_write(figure, folder / f"{name}.{kind}", kind) for kind in ("svg", "png")]
    return written


def _library(module: str) -> Any:  # noqa: ANN401 - an optional package without types here
    return optional(module, "bench", "drawing pictures")


def _write(figure: Any, path: Path, kind: str) -> Path:  # noqa: ANN401
    """Write beside the target and rename, so that no half picture is ever found under its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Without a date, the same picture has the same bytes.
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(partial, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _panels(count: int, *, width: float, height: float, title: str) -> tuple[Any, list[Any]]:
    """Return a figure with a title and one pair of axes for each of ``count`` columns; sizes in inches a panel."""
    across = min(PANELS_WIDE, count)
    down = math.ceil(count / across)
    # A lone panel still leaves room for the figure's title.
    figure = _library("matplotlib.figure").Figure(
        figsize=(max(2, across) * width, down * height + 0.9), layout="constrained"
    )
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def _title(column: Column, *, wide: int = 34) -> str:
    name = clean(column.name)
    return name if len(name) <= wide else name.replace(": ", ":\n", 1)


# -- ROC -----------------------------------------------------------------------------------------------------------


def _roc(result: BenchResult, columns: Sequence[Column]) -> Any:  # noqa: ANN401 - a figure
    """One panel a method. The false-positive axis is logarithmic: nobody would accuse at the rates right of 10%."""
    hard = [row for row in result.rows if row.case.label == "derived" or _kind(row) == "hard"]
    curves = (
        (result.rows, {rate.column: rate.auc.value for rate in result.rates}, "all unrelated", BLUE, "-", 0.16),
        (hard, {rate.column: rate.auc.value for rate in result.rates_hard}, "hard negatives", VERMILION, "--", 0.05),
    )
    unrelated = sum(row.case.label == "unrelated" for row in result.rows)
    # Left of one pair in N there is nothing to see.
    floor = min(0.05, 0.5 / max(1, unrelated))
    title = (
        f"Derived pairs found against unrelated pairs accused, suite {clean(result.suite)}\n"
        "at the left edge: found while nobody is accused; dotted: chance"
    )
    figure, axes = _panels(len(columns), width=2.6, height=2.3, title=title)
    chance = np.geomspace(floor, 1, 50)
    for axis, column in zip(axes, columns, strict=True):
        axis.plot(chance, chance, color=GREY, linewidth=0.8, linestyle=":")
        for rows, areas, name, colour, style, place in curves:
            points = operating_points(column, rows)
            label = f"{name}: "
            if points is None:
                label += "no curve"
            else:
                false_K, true_K = points
                # A step: between two thresholds there is none. To the right end: no threshold reaches missing values.
                axis.step(
                    np.append(np.maximum(false_K, floor), 1), np.append(true_K, true_K[-1]),
                    where="post", color=colour, linestyle=style, linewidth=1.5,
                )  # fmt: skip
                label += f"AUC {areas[column.name]:.3f}"
            axis.text(
                0.97, place, label, color=colour, ha="right", transform=axis.transAxes, fontsize=7.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(floor, 1)
        _plain_ticks(axis, percent=True)
        axis.set_ylim(-0.02, 1.02)
        axis.set_title(_title(column))
        axis.grid(color="#dddddd", linewidth=0.5)
    figure.supxlabel("false-positive rate (log scale)", fontsize=8.5)
    figure.supylabel("true-positive rate", fontsize=8.5)
    return figure


def _kind(row: Row) -> str:
    if row.case.label == "unrelated" and row.case.category == "hard negatives":
        return "hard"
    return row.case.label


# -- heat map ------------------------------------------------------------------------------------------------------


def _heatmap(result: BenchResult, columns: Sequence[Column]) -> Any:  # noqa: ANN401 - a figure
    """Area of each kind of derived pair against all unrelated; of the other kinds, the share called derived."""
    panels: list[tuple[Label, str, tuple[float, float], str]] = [
        ("derived", "AUC of these derived pairs\nagainst all unrelated pairs (0.5: chance)", (0.5, 1.0), "cividis"),
        # Reversed, so that the bright end is the good one; light grey passes no judgement.
        ("unrelated", "wrongly called\nderived, share", (0.0, 1.0), "cividis_r"),
        ("shown", "only shown: called\nderived, share", (0.0, 2.0), "Greys"),
    ]
    kinds = categories(result.rows)
    held_by_panel = [[kind for kind in kinds if kind[1] == label] for label, *_ in panels]
    present = [(panel, held) for panel, held in zip(panels, held_by_panel, strict=True) if held]
    names = [clean(column.name) for column in columns]
    widths = [max(2, len(held)) for _, held in present]
    figure = _library("matplotlib.figure").Figure(
        figsize=(
            max(6.0, 0.075 * max(len(name) for name in names) + 0.62 * sum(widths) + 2.4),
            0.27 * len(columns) + 2.9,
        ),
        layout="constrained",
    )
    figure.suptitle(
        f"Which kinds of pairs each method tells apart, suite {clean(result.suite)}\n"
        "called derived: by the threshold of the highest F1 on these same pairs",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    grid = figure.add_gridspec(1, max(1, len(present)), width_ratios=widths or None)
    for index, ((label, title, limits, colours), held) in enumerate(present):
        axis = figure.add_subplot(grid[index])
        measure = _category_area if label == "derived" else _category_share
        values_MC = [[measure(result, column, kind) for kind in held] for column in columns]
        _cells(axis, values_MC, limits=limits, colours=colours)
        axis.set_title(title)
        axis.set_xticks(
            range(len(held)), [category for category, _ in held], rotation=45, ha="right", rotation_mode="anchor"
        )
        axis.set_yticks(range(len(names)), names if index == 0 else [""] * len(names))
    figure.supylabel("method: value", fontsize=8.5)
    figure.supxlabel("kind of pair", fontsize=8.5)
    return figure


def _category_area(result: BenchResult, column: Column, kind: tuple[Category, Label]) -> float | None:
    kept = [row for row in result.rows if row.case.label == "unrelated" or (row.case.category, row.case.label) == kind]
    return area(column, kept)


def _category_share(result: BenchResult, column: Column, kind: tuple[Category, Label]) -> float | None:
    threshold = next(rate.max_f1_threshold for rate in result.rates if rate.column == column.name)
    kept = [row for row in result.rows if (row.case.category, row.case.label) == kind]
    if threshold is None:
        return None
    return sum(accuses(column, measured(column, row), threshold) for row in kept) / len(kept)


def _cells(axis: Any, values_MC: list[list[float | None]], *, limits: tuple[float, float], colours: str) -> None:  # noqa: ANN401
    """Draw numbers on colours; white where there is none."""
    shown_MC = np.array([[np.nan if value is None else value for value in row] for row in values_MC], np.float64)
    image = axis.imshow(shown_MC, aspect="auto", vmin=limits[0], vmax=limits[1], cmap=colours)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for row, values in enumerate(values_MC):
        for place, value in enumerate(values):
            text, dark = "-", False
            if value is not None:
                red, green, blue, _ = image.cmap(image.norm(value))
                # Brightness as televisions weigh it (ITU-R BT.601).
                text, dark = f"{value:.2f}", 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axis.text(place, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


# -- distributions -------------------------------------------------------------------------------------------------


def _distributions(result: BenchResult, columns: Sequence[Column]) -> Any:  # noqa: ANN401 - a figure
    """One panel a method, one strip a class, every pair a mark, spread by place in the list and not by chance."""
    strips = (
        ("derived", "derived", BLUE), ("unrelated", "unrelated", GREY),
        ("hard", "hard negatives", VERMILION), ("shown", "only shown", ORANGE),
    )  # fmt: skip
    groups = [(name, [row for row in result.rows if _kind(row) == kind], colour) for kind, name, colour in strips]
    groups = [group for group in groups if group[1]]
    thresholds = {rate.column: rate.max_f1_threshold for rate in result.rates}
    title = (
        f"What each method measured on related and unrelated pairs, suite {clean(result.suite)}\n"
        "one mark a pair, bar: median, blank: pairs without a value\n"
        "dashed: threshold of the highest F1 on these pairs; shaded: called derived"
    )
    figure, axes = _panels(len(columns), width=3.0, height=0.75 + 0.33 * len(groups), title=title)
    for index, (axis, column) in enumerate(zip(axes, columns, strict=True)):
        for place, (_, rows, colour) in enumerate(groups):
            _strip(axis, place, [measured(column, row) for row in rows], colour)
        first = index % min(PANELS_WIDE, len(columns)) == 0
        axis.set_yticks(range(len(groups)), [name if first else "" for name, _, _ in groups])
        axis.set_ylim(len(groups) - 0.5, -0.5)
        _scale(axis, [value for row in result.rows if (value := measured(column, row)) is not None], column)
        threshold = thresholds.get(column.name)
        _threshold(axis, column, threshold)
        axis.set_title(_title(column))
        limit = "no threshold" if threshold is None else f"threshold {threshold:.6g}"
        axis.set_xlabel(f"{column.kind}; {limit}", fontsize=7)
    return figure


def _strip(axis: Any, place: int, values: Sequence[float | None], colour: str) -> None:  # noqa: ANN401
    held = [value for value in values if value is not None]
    missing = len(values) - len(held)
    if missing:
        axis.text(1.02, place, f"{missing}\nblank", transform=axis.get_yaxis_transform(), fontsize=6, va="center")
    if not held:
        return
    # The golden ratio spreads neighbours in the list without a random number.
    shift_N = (np.arange(len(held)) * 0.618034) % 1 - 0.5
    axis.plot(held, place + 0.5 * shift_N, "o", markersize=2.6, markeredgewidth=0, color=colour, alpha=0.55)
    middle = float(np.median(held))
    axis.plot([middle, middle], [place - 0.34, place + 0.34], color="black", linewidth=1.4)


def _scale(axis: Any, values: Sequence[float], column: Column) -> None:  # noqa: ANN401
    """Let a few huge distances not squeeze the rest into one line."""
    positive = [value for value in values if value > 0]
    if column.kind != "distance" or not positive:
        return
    usual = float(np.median(positive))
    if max(positive) > WIDE_RANGE * usual:
        axis.set_xscale("symlog", linthresh=usual)
        axis.set_xlim(-usual / 4, 2 * max(positive))
        _plain_ticks(axis)


def _plain_ticks(axis: Any, *, percent: bool = False) -> None:  # noqa: ANN401
    """Write the ticks of a logarithmic axis as plain numbers: powers of ten need the mathematics that is off."""

    def written(value: float, _: int) -> str:
        return f"{100 * value:g}%" if percent else f"{value:g}"

    ticker = _library("matplotlib.ticker")
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(written))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _threshold(axis: Any, column: Column, threshold: float | None) -> None:  # noqa: ANN401
    """Mark the threshold, and the side of it that it calls derived."""
    if threshold is None:
        return
    low, high = axis.get_xlim()
    axis.axvline(threshold, color="black", linewidth=0.9, linestyle="--")
    inside = (low, threshold) if column.kind == "distance" else (threshold, high)
    axis.axvspan(*inside, color=BLUE, alpha=0.08, linewidth=0)
    axis.set_xlim(low, high)
