"""Figures as SVG: the records of ``report.figures`` with places and classes, and every number under a pointer.

Colours are classes of the page's style sheet, so that they follow light and dark; shapes and dashes tell what colours
tell. Marks that belong together are a ``series`` (see there), which the page's script can hide. A ``key`` of a legend
holds a sample, between 0 and 18 of its own space, and the name of its series; a switch takes its place. Nothing here
knows what a figure is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinprint.report.cells import number
from kinprint.report.figures.records import Axis, Chart, Figure, Grid, Outline, Panel, Rule, Series
from kinprint.report.figures.scales import ends, step, ticks
from kinprint.report.figures.tables import named
from kinprint.report.html.markup import Content, Markup, tag

_WIDTH, _GAP = 720.0, 16.0
_LEFT, _RIGHT, _NAMES = 60.0, 12.0, 172.0
"""Pixels left of what is drawn, for numbers; for names; and right of it."""

_HIGH, _LINE = 180.0, 20.0
"""Pixels of a chart from top to bottom; and of one name, where names stand in place of numbers."""

_CELL, _STRIP, _MOST_HIGH = 30.0, 20.0, 620.0
"""Most pixels of a cell's side, of a strip's height, and of a whole grid's."""

_MOST_POINTS, _MOST_TOLD = 100, 900
"""Points of one series, and cells of one grid, up to which each says its own number, where the figure has no words."""

_LEVELS = 20
"""Steps of shading."""

_TITLE_LETTERS, _NAME_LETTERS = 7.2, 28
"""Pixels of a letter of a title; letters of a name."""


def draw(made: Figure) -> Markup:
    """Return a figure: the finding, how to read it, and the picture."""
    caption = tag("figcaption", tag("strong", made.title), " ", made.caption)
    # Reached by keys, since it may have to be scrolled, and since keys step through its marks.
    held = tag("div", _picture(made), class_="wide", tabindex="0", role="group", aria_label=made.title)
    return tag("figure", caption, held)


def series(label: str, *marks: Content) -> Markup:
    """Return marks that belong together, such as one curve with its points.

    Args:
        label: What a reader calls them; the name of the switch that hides them, in every panel at once.
        marks: Their elements.
    """
    return tag("g", *marks, class_="series", data_label=label)


def _picture(made: Figure) -> Markup:
    abreast = max(1, min(made.abreast, len(made.panels)))
    width = (_WIDTH - _GAP * (abreast - 1)) / abreast
    drawn: list[Content] = []
    top = 0.0
    for first in range(0, len(made.panels), abreast):
        row = [_panel(panel, width) for panel in made.panels[first : first + abreast]]
        drawn += [
            tag("g", content, transform=f"translate({at * (width + _GAP):.0f} {top:.0f})")
            for at, (content, _) in enumerate(row)
        ]
        top += max(height for _, height in row) + _GAP
    return tag("svg", drawn, viewBox=f"0 0 {_WIDTH:.0f} {top:.0f}", role="img", aria_label=made.title)


def _panel(panel: Panel, width: float) -> tuple[list[Content], float]:
    """Return what is drawn of a panel of so many pixels, and how high it is."""
    top = 22.0 if panel.title else 4.0
    head: list[Content] = []
    if panel.title:
        head.append(tag("text", named(panel.title, int(width / _TITLE_LETTERS)), x=0, y=13, class_="strong"))
    content, height = _chart(panel, width, top) if isinstance(panel, Chart) else _grid(panel, width, top)
    return [*head, *content], height


# -- charts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """From numbers of an axis to pixels."""

    axis: Axis
    ends: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        """Return where a number stands; what is beyond an end stands at the end."""
        low, high = (self._place(end) for end in self.ends)
        share = (self._place(min(max(value, self.ends[0]), self.ends[1])) - low) / (high - low)
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])

    def _place(self, value: float) -> float:
        return math.log10(value) if self.axis.logarithmic else value


def _chart(chart: Chart, width: float, top: float) -> tuple[list[Content], float]:
    # Of those with one name the first stands for all.
    legend = list({one.label: one for one in reversed(chart.series) if one.label and one.x}.values())[::-1]
    key, keyed = _legend(legend, chart.rules, width, top)
    top += keyed
    left = _NAMES if chart.y.named else _LEFT
    high = _LINE * (len(chart.y.named) + 1) if chart.y.named else _HIGH
    x = _Scale(chart.x, ends(chart, "x"), (left, width - _RIGHT))
    y = _Scale(chart.y, ends(chart, "y"), (top + high, top))
    drawn: list[Content] = [key, _across(chart.x, x, top, top + high), _down(chart.y, y, left, width)]
    drawn += [_rule(rule, x, y) for rule in chart.rules]
    by_label: dict[str, list[Content]] = {}
    for one in chart.series:
        by_label.setdefault(one.label, []).append(_series(one, x, y))
    drawn += [series(label, marks) if label else marks for label, marks in by_label.items()]
    return drawn, top + high + 38


def _across(axis: Axis, x: _Scale, top: float, bottom: float) -> Markup:
    drawn: list[Content] = [tag("line", x1=x.pixels[0], x2=x.pixels[1], y1=bottom, y2=bottom, class_="axis")]
    for value, name in ticks(axis, x.ends, most=max(3, int((x.pixels[1] - x.pixels[0]) / (34 if axis.whole else 60)))):
        drawn.append(tag("line", x1=x(value), x2=x(value), y1=bottom, y2=bottom + 4, class_="axis"))
        drawn.append(tag("text", name, x=x(value), y=bottom + 16, class_="small middle"))
    drawn.append(tag("text", axis.label, x=sum(x.pixels) / 2, y=bottom + 31, class_="small middle"))
    return tag("g", drawn)


def _down(axis: Axis, y: _Scale, left: float, width: float) -> Markup:
    drawn: list[Content] = []
    for value, name in ticks(axis, y.ends, most=5):
        drawn.append(tag("line", x1=left, x2=width - _RIGHT, y1=y(value), y2=y(value), class_="grid"))
        drawn.append(tag("text", named(name, _NAME_LETTERS), x=left - 6, y=y(value) + 4, class_="small end"))
    if axis.label:
        middle = sum(y.pixels) / 2
        drawn.append(
            tag("text", axis.label, x=11, y=middle, transform=f"rotate(-90 11 {middle:.0f})", class_="small middle")
        )
    return tag("g", drawn)


def _legend(held: Sequence[Series], rules: Sequence[Rule], width: float, top: float) -> tuple[Markup, float]:
    """Return a line for each kind of mark, side by side as far as they go; nothing where a single one needs no name."""
    named_marks: list[tuple[str, Content]] = [(one.label, _sample(one)) for one in held]
    named_marks += [(one.label, tag("path", d="M0 12 h18", class_=f"rule {one.role}")) for one in rules if one.label]
    if len(named_marks) < 2:
        return Markup(""), 0.0
    drawn: list[Content] = []
    place, line = 0.0, 0
    for label, sample in named_marks:
        needed = 34 + 6.2 * len(label)
        if place and place + needed > width:
            place, line = 0.0, line + 1
        text = tag("text", label, x=23, y=16, class_="small")
        drawn.append(
            tag("g", sample, text, class_="key", transform=f"translate({place:.0f} {top - 6 + 16 * line:.0f})")
        )
        place += needed
    return tag("g", drawn), 16.0 * (line + 1) + 6


def _sample(one: Series) -> Markup:
    if one.joined:
        return tag("path", d="M0 12 h18", class_=f"curve {one.role}")
    return tag("path", d=_shape(one, 9.0, 12.0), class_=f"point {one.role}")


def _rule(rule: Rule, x: _Scale, y: _Scale) -> Markup:
    told = tag("title", f"{rule.label}: {number(rule.at)}")
    if rule.upright:
        x1 = x2 = x(rule.at)
        y1, y2 = y.pixels
    else:
        (x1, x2), y1 = x.pixels, y(rule.at)
        y2 = y1
    return tag("line", told, x1=x1, x2=x2, y1=y1, y2=y2, class_=f"rule {rule.role}")


def _series(one: Series, x: _Scale, y: _Scale) -> Markup:
    drawn: list[Content] = []
    if one.joined:
        drawn.append(tag("path", d=_line(one, x, y), class_=f"curve {one.role}"))
    points = [(at, a, b) for at, (a, b) in enumerate(zip(one.x, one.y, strict=True)) if b is not None]
    if len(points) > _MOST_POINTS and not one.told:
        shapes = "" if one.joined else "".join(_shape(one, x(a), y(b)) for _, a, b in points)
        drawn.append(tag("path", d=shapes, class_=f"point {one.role}") if shapes else None)
        return tag("g", drawn)
    for at, a, b in points:
        told = one.told[at] if at < len(one.told) else f"{one.label or one.role}, {number_at(a)}: {number(b)}"
        shape = _disc(x(a), y(b), 2.5) if one.joined else _shape(one, x(a), y(b))
        drawn.append(tag("path", tag("title", told), d=shape, class_=f"point {one.role}"))
    return tag("g", drawn)


def number_at(value: float) -> str:
    """Return a place on an axis: a layer as a whole number, anything else as numbers are written.

    Example:
        >>> number_at(3.0), number_at(0.25)
        ('3', '0.2500')
    """
    return f"{value:.0f}" if value == int(value) else number(value)


def _line(one: Series, x: _Scale, y: _Scale) -> str:
    """Return a path that is broken where a number is missing."""
    path: list[str] = []
    drawing = False
    for a, b in zip(one.x, one.y, strict=True):
        if b is not None:
            path.append(f"{'L' if drawing else 'M'}{x(a):.1f} {y(b):.1f}")
        drawing = b is not None
    return " ".join(path)


def _shape(one: Series, x: float, y: float) -> str:
    shapes: dict[str, Callable[[float, float], str]] = {
        "pair": lambda x, y: f"M{x:.1f} {y - 7:.1f} l7 7 l-7 7 l-7 -7 z",
        "third": lambda x, y: f"M{x:.1f} {y - 6:.1f} l6 11 h-12 z",
        "control": lambda x, y: f"M{x - 3:.1f} {y - 3:.1f} l6 6 m0 -6 l-6 6",
        "related": lambda x, y: _disc(x, y, 3.0),
        "innocent": lambda x, y: _disc(x, y, 2.0),
    }
    return shapes[one.role](x, y) if one.role in shapes else _disc(x, y, 2.5)


def _disc(x: float, y: float, radius: float) -> str:
    half = f"a{radius:g} {radius:g} 0 1 0"
    return f"M{x - radius:.1f} {y:.1f}{half} {2 * radius:g} 0{half} {-2 * radius:g} 0z"


# -- grids -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cells:
    """Where the cells of a grid stand."""

    left: float
    top: float
    wide: float
    high: float

    def box(self, row: int, column: int, *, inside: float = 0.0) -> dict[str, float]:
        """Return a cell as attributes of a rectangle, smaller by a frame."""
        return {
            "x": self.left + column * self.wide + inside,
            "y": self.top + row * self.high + inside,
            "width": max(self.wide - 2 * inside, 1.5),
            "height": max(self.high - 2 * inside, 1.5),
        }


def _grid(grid: Grid, width: float, top: float) -> tuple[list[Content], float]:
    across, down = max(1, len(grid.columns)), max(1, len(grid.rows))
    left = _LEFT if grid.square else _NAMES
    wide = min(_CELL, (width - left - _RIGHT) / across)
    high = min(wide, _MOST_HIGH / down) if grid.square else min(_STRIP, max(8.0, _MOST_HIGH / down))
    cells = _Cells(left, top + 20, wide, high)
    bottom = cells.top + down * high
    drawn: list[Content] = [
        _shades(grid, left, top),
        tag("rect", x=left, y=cells.top, width=across * wide, height=down * high, class_="ground"),
        *_shading(grid, cells),
        *_frames(grid, cells),
        *_names(grid, cells, bottom),
    ]
    return drawn, bottom + 38


def _shading(grid: Grid, cells: _Cells) -> list[Content]:
    """Return cells that say their number each, or where they are many one path for all of one shade."""
    shaded = [
        (row, column, value, _level(grid, value))
        for row, values in enumerate(grid.cells)
        for column, value in enumerate(values)
        if value is not None
    ]
    if len(shaded) <= _MOST_TOLD:
        return [
            tag("rect", tag("title", f"{grid.rows[row]}, {grid.columns[column]}: {number(value)}"),
                **cells.box(row, column, inside=0.5), fill_opacity=level / _LEVELS, class_="heat")
            for row, column, value, level in shaded
        ]  # fmt: skip
    by_level: dict[int, list[str]] = {}
    for row, column, _, level in shaded:
        x, y = cells.left + column * cells.wide, cells.top + row * cells.high
        by_level.setdefault(level, []).append(f"M{x:.1f} {y:.1f}h{cells.wide:.2f}v{cells.high:.2f}h-{cells.wide:.2f}z")
    return [
        tag("path", d="".join(paths), fill_opacity=level / _LEVELS, class_="heat")
        for level, paths in sorted(by_level.items())
    ]


def _level(grid: Grid, value: float) -> int:
    share = (value - grid.low) / ((grid.high - grid.low) or 1.0)
    return round(_LEVELS * max(0.0, min(1.0, share)))


def _frames(grid: Grid, cells: _Cells) -> list[Content]:
    named_frames = (("map: beyond the margin", True), ("map: nearest layer", False))
    frames = [
        (label, [_frame(one, cells) for one in grid.outlines if one.sure == sure]) for label, sure in named_frames
    ]
    return [series(label, held) for label, held in frames if held]


def _frame(one: Outline, cells: _Cells) -> Markup:
    box = cells.box(one.row, one.column, inside=1.0)
    # Of small cells the frame must leave the shade to be seen.
    width = min(2.0 if one.sure else 1.0, cells.wide / 6)
    kind = "framed sure" if one.sure else "framed guess"
    return tag("rect", tag("title", one.told), **box, stroke_width=width, class_=kind)


def _names(grid: Grid, cells: _Cells, bottom: float) -> list[Content]:
    step_across, step_down = step(26 / cells.wide), step(13 / cells.high)
    drawn: list[Content] = [
        tag("text", name, x=cells.left + (at + 0.5) * cells.wide, y=bottom + 14, class_="small middle")
        for at, name in enumerate(grid.columns)
        if at % step_across == 0
    ]
    drawn += [
        tag("text", named(name, _NAME_LETTERS), x=cells.left - 6, y=cells.top + (at + 0.5) * cells.high + 4,
            class_="small end")
        for at, name in enumerate(grid.rows)
        if at % step_down == 0
    ]  # fmt: skip
    middle = cells.left + len(grid.columns) * cells.wide / 2
    drawn.append(tag("text", grid.across, x=max(middle, 100.0), y=bottom + 30, class_="small middle"))
    if grid.down:
        half = (cells.top + bottom) / 2
        drawn.append(
            tag("text", grid.down, x=14, y=half, transform=f"rotate(-90 14 {half:.0f})", class_="small middle")
        )
    return drawn


def _shades(grid: Grid, left: float, top: float) -> Markup:
    """Return what the shades mean, above the grid."""
    drawn: list[Content] = [tag("text", f"{grid.scale} {grid.low:g}", x=left, y=top + 11, class_="small")]
    start = left + 6.5 * (len(grid.scale) + 3)
    drawn += [
        tag("rect", x=start + 10 * at, y=top + 2, width=10, height=10, fill_opacity=at / 10, class_="heat")
        for at in range(11)
    ]
    drawn.append(tag("text", f"{grid.high:g}", x=start + 116, y=top + 11, class_="small"))
    return tag("g", drawn)
