"""Pictures of premises, as bytes. Nothing is computed here but places and colours.

matplotlib is used through its objects, never through pyplot, whose figures are global state. SVG comes out the same
every time: ids are salted with a fixed word and no date is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from kinprint.bench.premises.records import Curves, Grid, HeatMap, Series
from kinprint.errors import optional

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b", "#7f7f7f", "#bcbd22",
    "#6a3d9a", "#b15928", "#33a02c", "#e31a1c", "#17becf",
)  # fmt: skip
"""Okabe and Ito's colours, which colour-blind people can tell apart, and a few for crowded pictures."""

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "kinprint",
    "text.parse_math": False,  # a name with dollar signs is a name
    "svg.fonttype": "none",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
}

_PANEL_INCHES = (2.5, 1.9)
_CELL_INCHES = (0.5, 0.26)
_DPI = 120


def draw(picture: Curves | HeatMap) -> dict[str, bytes]:
    """Return a picture as the contents of its files, by name.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib, figure = _library("matplotlib"), _library("matplotlib.figure")
    with matplotlib.rc_context(SETTINGS):
        made = _curves(figure, picture) if isinstance(picture, Curves) else _heat_map(figure, picture)
        return {
            f"{picture.name}.svg": _file(made, "svg", {"Date": None}),
            f"{picture.name}.png": _file(made, "png", {"Software": None}),
        }


def _library(module: str) -> Any:  # noqa: ANN401 - an optional package
    return optional(module, "bench", "drawing pictures")


def _file(figure: Any, kind: str, metadata: dict[str, Any]) -> bytes:  # noqa: ANN401
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=_DPI, metadata=metadata)
    return content.getvalue()


# -- lines ---------------------------------------------------------------------------------------------------------


def _curves(library: Any, picture: Curves) -> Any:  # noqa: ANN401
    panels = list(dict.fromkeys(series.panel for series in picture.series))
    labels = list(dict.fromkeys(series.label for series in picture.series))
    wide = min(len(panels), 4)
    tall = -(-len(panels) // wide)
    scale = 2.3 if len(panels) == 1 else 1.3 if len(panels) == 2 else 1.0
    size = (_PANEL_INCHES[0] * wide * scale + 0.4, _PANEL_INCHES[1] * tall * scale + 0.9)
    figure = library.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(tall, wide, squeeze=False)
    handles: dict[str, Any] = {}
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_visible(False)
            continue
        axes.set_title(panels[place])
        for series in picture.series:
            if series.panel == panels[place]:
                handles.setdefault(series.label, _line(axes, series, labels.index(series.label)))
        _dress(axes, picture, labels, place=place, wide=wide, last=place + wide >= len(panels))
    figure.suptitle(picture.title, fontsize=10)
    if not _names_rows(picture):
        columns = min(len(handles), max(1, round(size[0] / 1.7)))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    return figure


def _line(axes: Any, series: Series, number: int) -> Any:  # noqa: ANN401
    colour = COLOURS[number % len(COLOURS)]
    y = [np.nan if value is None else value for value in series.y]
    match series.style:
        case "edge":
            return axes.axvline(series.x[0], color=colour, linewidth=1.2, linestyle=":")
        case "steps":
            return axes.fill_between(series.x, y, step="post", color=colour, alpha=0.45, linewidth=0)
        case "points":
            return axes.plot(series.x, y, ".", color=colour, markersize=3.5)[0]
        case "marked":
            return axes.plot(series.x, y, "o-", color=colour, markersize=3.5, linewidth=1.3)[0]
        case "dashed":
            return axes.plot(series.x, y, "--", color=colour, linewidth=1.0)[0]
        case "line":
            return axes.plot(series.x, y, color=colour, linewidth=1.3)[0]


def _dress(axes: Any, picture: Curves, labels: Sequence[str], *, place: int, wide: int, last: bool) -> None:  # noqa: ANN401
    if picture.x_log:
        axes.set_xscale("log")
    if picture.y_log:
        axes.set_yscale("log")
    if last:
        axes.set_xlabel(picture.x_label)
    if place % wide == 0:
        axes.set_ylabel(picture.y_label)
    if _names_rows(picture):
        # Points stand in bands, one for each label, which the axis then names.
        axes.set_yticks(range(len(labels)), labels if place % wide == 0 else [""] * len(labels))
        axes.set_ylim(len(labels) - 0.5, -0.5)


def _names_rows(picture: Curves) -> bool:
    return all(series.style == "points" for series in picture.series)


# -- coloured tables -----------------------------------------------------------------------------------------------


def _heat_map(library: Any, picture: HeatMap) -> Any:  # noqa: ANN401
    rows = max(len(grid.rows) for grid in picture.grids)
    columns = max(len(grid.columns) for grid in picture.grids)
    # Two beside each other only where both are narrow: pages are.
    wide = min(len(picture.grids), 2 if columns <= 8 else 1)
    tall = -(-len(picture.grids) // wide)
    size = (wide * (columns * _CELL_INCHES[0] + 1.6), tall * (rows * _CELL_INCHES[1] + 1.5) + 0.4)
    figure = library.Figure(figsize=size, layout="constrained")
    subplots = figure.subplots(tall, wide, squeeze=False)
    for place, axes in enumerate(subplots.flat):
        if place < len(picture.grids):
            _cells(axes, picture.grids[place], picture)
        else:
            axes.set_visible(False)
    figure.suptitle(picture.title, fontsize=10)
    return figure


def _cells(axes: Any, grid: Grid, picture: HeatMap) -> None:  # noqa: ANN401
    values = np.array([[np.nan if value is None else value for value in row] for row in grid.values], np.float64)
    shown = np.log10(values) if picture.log else values
    colours = "YlOrRd" if picture.log else "RdBu_r"
    axes.pcolormesh(shown, cmap=colours, vmin=picture.low, vmax=picture.high, edgecolor="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_title(grid.title)
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, grid.rows)
    axes.set_xticks(np.arange(len(grid.columns)) + 0.5, grid.columns, rotation=45, ha="right")
    axes.tick_params(length=0)
    middle, reach = (picture.low + picture.high) / 2, (picture.high - picture.low) / 2
    for (row, column), value in np.ndenumerate(shown):
        if np.isfinite(value):
            # White on the dark ends: both of a two-sided scale, the upper one of a one-sided scale.
            dark = (value - middle) / reach if picture.log else abs(value - middle) / reach
            # Below a hundredth only the order of magnitude counts. Adding 0 turns -0 into 0.
            text = f"{value:.2f}" if not picture.log else f"{value:.0f}" if value < -2 else f"{round(value, 1) + 0:.1f}"
            colour = "white" if dark > 0.6 else "black"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=6.5)
