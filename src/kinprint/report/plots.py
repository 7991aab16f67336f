"""Figures by matplotlib, as files and for notebooks: the records of ``report.figures`` with colours and places.

matplotlib is an extra and imported when first needed, without pyplot: nothing global changes. The same figure gives the
same bytes with the same matplotlib. Colours are Okabe and Ito's and viridis, told apart by the colour-blind; marks
differ by shape and lines by dash as well. A dollar in a model's name is a dollar.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from kinprint.errors import UsageError, optional
from kinprint.report.cells import clean
from kinprint.report.figures.records import Axis, Chart, Figure, Grid, Panel, Role, Series
from kinprint.report.figures.scales import ends, step, ticks
from kinprint.report.figures.tables import named

SHARED_STYLE: dict[str, Any] = {
    "svg.hashsalt": "kinprint",
    # Text stays text: it can be searched, and the file does not depend on the fonts of the machine that drew it.
    "svg.fonttype": "none",
    # A dollar in a model's name is a dollar.
    "text.parse_math": False,
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
}
"""What all pictures of kinprint have in common, those of benchmarks too."""

STYLE: dict[str, Any] = {
    **SHARED_STYLE,
    "text.usetex": False,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
DPI = 130

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"

COLOURS: dict[Role, str] = {
    "pair": VERMILION, "third": BLUE, "innocent": GREY, "related": GREEN,
    "suspect": VERMILION, "base": BLUE, "control": GREY,
}  # fmt: skip

MARKS: dict[Role, dict[str, Any]] = {
    "pair": {"marker": "D", "markersize": 8, "markeredgecolor": "black"},
    "third": {"marker": "^", "markersize": 8, "fillstyle": "none"},
    "innocent": {"marker": "o", "markersize": 3, "markeredgewidth": 0, "alpha": 0.5},
    "related": {"marker": "o", "markersize": 4.5, "fillstyle": "none"},
    "suspect": {"marker": "o", "markersize": 3.2, "markeredgewidth": 0},
    "base": {"marker": "s", "markersize": 3.2, "markeredgewidth": 0},
    "control": {"marker": "x", "markersize": 3.5, "alpha": 0.8},
}

DASHES: dict[Role, str] = {"suspect": "-", "base": "--", "control": ":", "innocent": "-."}

WIDTH, NARROW, PANEL, LINE, CELL = 7.4, 5.0, 2.3, 0.26, 0.3
"""Inches: of a figure across, and at least; of a chart and a line of names from top to bottom; most of a cell."""

TITLE_LETTERS, CAPTION_LETTERS = 12.4, 19.0
"""Letters to an inch."""

MOST_POINTS = 60
"""Points of a line up to which each has a mark."""

MOST_NAMES = 24
"""Names of cells along one side of a grid."""


def plot(made: Figure, axes: Any = None) -> Any:  # noqa: ANN401 - matplotlib's, an optional package
    """Draw a figure.

    Args:
        made: What to draw.
        axes: Axes of matplotlib to draw on, one for each panel; a figure of its own is made without.

    Returns:
        matplotlib's ``Figure``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: There are not as many axes as panels.
    """
    with _library("matplotlib").rc_context(STYLE):
        if axes is not None:
            return _on(made, _flat(axes))
        figure, own = _sheet(made)
        for axis, panel in zip(own, made.panels, strict=True):
            _panel(axis, panel)
        return figure


def image(made: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file.

    Args:
        made: What to draw.
        kind: ``svg`` or ``png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    content = io.BytesIO()
    # What a user's own settings would change is not the figure's.
    with _library("matplotlib.style").context(STYLE, after_reset=True):
        figure = plot(made)
        # Without a date, the same picture has the same bytes.
        metadata = {"Date": None, "Title": clean(made.title)} if kind == "svg" else {"Software": None}
        figure.savefig(content, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return content.getvalue()


def _library(module: str) -> Any:  # noqa: ANN401
    return optional(module, "plot", "drawing figures")


def _flat(axes: Any) -> list[Any]:  # noqa: ANN401
    """Return axes as a list, be they one, a list, or the array that ``subplots`` gives."""
    if hasattr(axes, "plot"):
        return [axes]
    return [one for row in axes for one in (row if hasattr(row, "__iter__") else (row,))]


def _on(made: Figure, axes: Sequence[Any]) -> Any:  # noqa: ANN401
    if len(axes) != len(made.panels):
        raise UsageError(
            f"{made.kind} has {len(made.panels)} panels and {len(axes)} axes were given: give one for each"
        )
    for axis, panel in zip(axes, made.panels, strict=True):
        _panel(axis, panel)
    if len(axes) == 1 and not made.panels[0].title:
        axes[0].set_title(_wrapped(made.title, 60), parse_math=False)
    return axes[0].get_figure()


def _sheet(made: Figure) -> tuple[Any, list[Any]]:
    """Return a figure with its title, its caption and axes for each panel."""
    abreast = max(1, min(made.abreast, len(made.panels)))
    rows = [made.panels[at : at + abreast] for at in range(0, len(made.panels), abreast)]
    heights = [max(_height(panel) for panel in row) for row in rows]
    wide = max(map(_width, made.panels))
    title = _wrapped(made.title, int(TITLE_LETTERS * wide))
    caption = _wrapped(made.caption, int(CAPTION_LETTERS * wide))
    high = sum(heights) + 0.19 * (title.count("\n") + 1) + 0.14 * (caption.count("\n") + 1) + 0.3
    figure = _library("matplotlib.figure").Figure(figsize=(wide, high), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left", parse_math=False)
    figure.supxlabel(caption, fontsize=7, color="#444444", x=0.01, ha="left", parse_math=False)
    grid = figure.add_gridspec(len(rows), abreast, height_ratios=heights)
    axes = [figure.add_subplot(grid[at // abreast, at % abreast]) for at in range(len(made.panels))]
    return figure, axes


def _width(panel: Panel) -> float:
    """Return the inches across of the figure that a panel is in."""
    if isinstance(panel, Chart) or not panel.square:
        return WIDTH
    return min(WIDTH, max(NARROW, 2.0 + CELL * len(panel.columns)))


def _height(panel: Panel) -> float:
    """Return the inches that a panel takes from top to bottom."""
    if isinstance(panel, Chart):
        return 0.9 + LINE * len(panel.y.named) if panel.y.named else PANEL
    if panel.square:
        cell = min(CELL * 1.2, (_width(panel) - 1.7) / max(1, len(panel.columns)))
        return 0.7 + min(9.0, max(1.6, cell * len(panel.rows)))
    return 0.8 + 0.2 * max(2, len(panel.rows))


def _wrapped(text: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(clean(text), letters))


def _panel(axis: Any, panel: Panel) -> None:  # noqa: ANN401
    if panel.title:
        axis.set_title(clean(panel.title), parse_math=False)
    if isinstance(panel, Chart):
        _chart(axis, panel)
    else:
        _grid(axis, panel)


# -- charts ------------------------------------------------------------------------------------------------------------


def _chart(axis: Any, chart: Chart) -> None:  # noqa: ANN401
    for rule in chart.rules:
        line = axis.axvline if rule.upright else axis.axhline
        colour = "black" if rule.upright else COLOURS[rule.role]
        dash = "--" if rule.upright else DASHES.get(rule.role, "--")
        line(rule.at, color=colour, linewidth=0.9, linestyle=dash, label=clean(rule.label))
    for at, one in enumerate(chart.series):
        _series(axis, one, known={other.label for other in chart.series[:at] if other.x})
    if chart.x.logarithmic:
        axis.set_xscale("log")
    for which, side, set_ends, set_ticks, set_label in (
        ("x", chart.x, axis.set_xlim, axis.set_xticks, axis.set_xlabel),
        ("y", chart.y, axis.set_ylim, axis.set_yticks, axis.set_ylabel),
    ):
        limits = ends(chart, "x" if which == "x" else "y")
        _ticks(side, limits, set_ticks, most=6 if which == "x" else 5)
        set_ends(*limits)
        set_label(clean(side.label), parse_math=False)
    if chart.x.logarithmic:
        axis.minorticks_off()
    axis.grid(color="#e4e4e4", linewidth=0.5)
    axis.set_axisbelow(True)
    handles, _ = axis.get_legend_handles_labels()
    if len(handles) > 1:
        legend = axis.legend(loc="best", handlelength=2.2)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _ticks(side: Axis, limits: tuple[float, float], set_ticks: Any, *, most: int) -> None:  # noqa: ANN401
    places = ticks(side, limits, most=most)
    set_ticks([at for at, _ in places], [named(clean(name), 32) for _, name in places], parse_math=False)


def _series(axis: Any, one: Series, known: set[str]) -> None:  # noqa: ANN401
    if not one.x:
        return
    heights = [float("nan") if value is None else value for value in one.y]
    # Names that begin with an underscore are left out of legends, so none may begin with one by chance.
    shown = one.label and one.label not in known and not one.label.startswith("_")
    label = {"label": clean(one.label)} if shown else {}
    style: dict[str, Any] = dict(MARKS[one.role])
    if one.joined:
        style = {"linestyle": DASHES.get(one.role, "-"), "linewidth": 1.5}
        style |= {"marker": ".", "markersize": 4} if len(one.x) <= MOST_POINTS else {}
    else:
        style["linestyle"] = "none"
    axis.plot(one.x, heights, color=COLOURS[one.role], zorder=3 if one.role == "pair" else 2, **label, **style)


# -- grids -------------------------------------------------------------------------------------------------------------


def _grid(axis: Any, grid: Grid) -> None:  # noqa: ANN401
    cells = [[float("nan") if value is None else value for value in row] for row in grid.cells]
    aspect = "equal" if grid.square else "auto"
    shown = axis.imshow(
        cells, vmin=grid.low, vmax=grid.high, cmap="viridis", aspect=aspect, interpolation="nearest", origin="upper"
    )
    rectangle = _library("matplotlib.patches").Rectangle
    axis.set_anchor("W")
    thin = min(1.0, 24 / max(len(grid.columns), len(grid.rows), 1))
    for one in grid.outlines:
        # Black on white is seen on every shade.
        edges = [("white", 2.6, "-"), ("black", 1.2, "-")] if one.sure else [("white", 0.9, ":")]
        for colour, width, dash in edges:
            box = (one.column - 0.44, one.row - 0.44), 0.88, 0.88
            axis.add_patch(rectangle(*box, fill=False, edgecolor=colour, linewidth=width * thin, linestyle=dash))
    _names(grid.columns, axis.set_xticks, MOST_NAMES)
    _names(grid.rows, axis.set_yticks, MOST_NAMES if grid.square else max(1, len(grid.rows)))
    axis.set_xlabel(clean(grid.across), parse_math=False)
    axis.set_ylabel(clean(grid.down), parse_math=False)
    axis.set_facecolor("#f4f4f4")
    for side in axis.spines.values():
        side.set_visible(False)
    bar = axis.get_figure().colorbar(shown, ax=axis, shrink=0.8, aspect=18)
    bar.set_label(clean(grid.scale), parse_math=False)
    bar.outline.set_visible(False)


def _names(names: Sequence[str], set_ticks: Any, most: int) -> None:  # noqa: ANN401
    places = range(0, len(names), step(len(names) / most) if names else 1)
    set_ticks(list(places), [named(clean(names[at]), 32) for at in places], parse_math=False)
