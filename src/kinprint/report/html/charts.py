"""Pictures as SVG, drawn from numbers of a record alone; every mark says its value where a pointer rests on it.

Colours are classes of the page's style sheet, so that they follow light and dark; shapes tell what colours tell.
Marks that belong together are a ``series`` (see there), which the page's script can hide, where a picture has several.
A ``key`` of a legend holds a sample, between 0 and 18 of its own space, and the name of its series; a switch takes its
place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kinprint.report.cells import number
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.types import LayerMapInfo

_WIDTH = 720
_LEFT, _RIGHT = 56, 16
_TICKS = 5
_GOLDEN = 0.618034
_MOST_LAYERS, _MOST_POINTS = 1000, 200
"""Layers that are drawn, and up to which every one gets a point of its own with its number."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One number on an axis, with what to call it and how it looks (``pair`` or ``third``)."""

    label: str
    value: float
    kind: str


@dataclass(frozen=True, slots=True)
class Line:
    """Numbers over layers; None where there is none. ``kind`` is a class: ``suspect``, ``base`` or ``control``."""

    label: str
    values: Sequence[float | None]
    kind: str


def figure(title: str, picture: Markup, caption: Content = None) -> Markup:
    """Return a picture under a title that states the finding."""
    # Reached by keys, since it may have to be scrolled, and since keys step through its marks.
    held = tag("div", picture, class_="wide", tabindex="0", role="group", aria_label=title)
    return tag("figure", tag("figcaption", tag("strong", title), caption), held)


def series(label: str, *marks: Content) -> Markup:
    """Return marks that belong together, such as one curve with its points.

    Args:
        label: What a reader calls them; the name of the switch that hides them.
        marks: Their elements.
    """
    return tag("g", *marks, class_="series", data_label=label)


def strip(innocents: Sequence[float], marks: Sequence[Mark], margin: float | None, axis: str) -> Markup:
    """Return where numbers stand among those of independent models, on one axis from below 0 to 1."""
    low = min(-0.05, *innocents, *(mark.value for mark in marks))
    high = max(1.0, *(mark.value for mark in marks))
    height, base = 150, 96.0

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    drawn: list[Content] = [_axis_across(low, high, x, base + 18, axis)]
    # Heights that no two neighbours share, so that points do not hide each other.
    dots = [
        tag("circle", tag("title", f"independent pair: {value:.3f}"), cx=x(value), cy=base - (at * _GOLDEN % 1) * 56,
            r=2, class_="innocent")
        for at, value in enumerate(sorted(innocents))
    ]  # fmt: skip
    drawn.append(series("independent pairs", dots))
    thirds: list[Content] = []
    if margin is not None:
        drawn += [
            tag("line", x1=x(margin), x2=x(margin), y1=18, y2=base + 18, class_="margin"),
            tag("text", f"margin {margin:.2f}", x=x(margin) + 4, y=26, class_="small"),
        ]
    for at, mark in enumerate(marks):
        where, y = x(mark.value), base - 8 - 14 * (at % 3)
        end = where > _WIDTH * 0.7
        shape = (
            tag("path", tag("title", f"{mark.label}: {mark.value:.3f}"), d=_diamond(where, y, 7), class_="pair")
            if mark.kind == "pair"
            else tag("path", tag("title", f"{mark.label}: {mark.value:.3f}"), d=_triangle(where, y, 6), class_="third")
        )
        (thirds if mark.kind == "third" else drawn).append(shape)
        if mark.kind == "pair":
            place = {"x": where - 12 if end else where + 12, "y": y + 4, "text_anchor": "end" if end else "start"}
            drawn.append(tag("text", f"{mark.label} {mark.value:.3f}", class_="strong", **place))
    if thirds:
        drawn.insert(2, series("third models", thirds))
    return _svg(height, axis, drawn)


def layer_map(found: LayerMapInfo, base_layers: int) -> Markup:
    """Return the map of layers as a grid: across the suspect's layers, down the base's; what is derived is framed."""
    across = len(found.layers)
    cell = max(5.0, min(26.0, (_WIDTH - _LEFT - _RIGHT) / max(across, 1)))
    down = max(3.0, min(cell, 420 / max(base_layers, 1)))
    top, height = 10, round(10 + base_layers * down + 40)
    grid: list[Content] = [
        tag("rect", x=_LEFT, y=top, width=across * cell, height=base_layers * down, class_="ground"),
    ]
    cells: dict[str, list[Content]] = {"derived": [], "not derived": []}
    for column, one in enumerate(found.layers[:_MOST_LAYERS]):
        if one.base is None:
            continue
        size = max((value for value in (one.heads, one.units, one.similarity) if value is not None), default=0.0)
        told = (
            f"suspect {one.suspect} from base {one.base}: heads {number(one.heads)}, units {number(one.units)}, "
            f"similarity {number(one.similarity)}, {'derived' if one.derived else 'not derived'}"
        )
        cells["derived" if one.derived else "not derived"].append(
            tag(
                "rect",
                tag("title", told),
                x=_LEFT + column * cell,
                y=top + one.base * down,
                width=max(cell - 1, 2),
                height=max(down - 1, 2),
                fill_opacity=0.15 + 0.85 * max(0.0, min(1.0, size)),
                class_="heat derived" if one.derived else "heat",
            )
        )
    grid += [series(f"layers that are {name}", held) for name, held in cells.items() if held]
    step = max(1, round(across / 12))
    grid += [
        tag("text", one.suspect, x=_LEFT + (at + 0.5) * cell, y=top + base_layers * down + 14, class_="small middle")
        for at, one in enumerate(found.layers)
        if at % step == 0
    ]
    step = max(1, round(base_layers / 12))
    grid += [
        tag("text", at, x=_LEFT - 6, y=top + (at + 0.5) * down + 4, class_="small end")
        for at in range(0, base_layers, step)
    ]
    middle = _LEFT + across * cell / 2
    grid.append(tag("text", "layer of the suspect", x=middle, y=top + base_layers * down + 32, class_="small middle"))
    turned = f"rotate(-90 14 {top + base_layers * down / 2:.0f})"
    grid.append(
        tag("text", "layer of the base", x=14, y=top + base_layers * down / 2, transform=turned, class_="small middle")
    )
    return _svg(height, "map of layers", grid)


def layer_strips(rows: Mapping[str, Sequence[float | None]]) -> Markup:
    """Return one row of cells for each kind of part, one cell for each layer of the suspect; a dot where it is none."""
    across = max(map(len, rows.values()), default=1)
    left = 120
    cell = max(4.0, min(26.0, (_WIDTH - left - _RIGHT) / max(across, 1)))
    drawn: list[Content] = []
    for at, (name, values) in enumerate(rows.items()):
        y = 8 + 26 * at
        row: list[Content] = []
        drawn.append(tag("text", name, x=left - 8, y=y + 14, class_="small end"))
        for layer, value in enumerate(values[:_MOST_LAYERS]):
            told = tag("title", f"{name}, layer {layer}: {number(value)}")
            if value is None:
                row.append(tag("circle", told, cx=left + (layer + 0.5) * cell, cy=y + 10, r=1.5, class_="innocent"))
                continue
            opacity = 0.08 + 0.92 * max(0.0, min(1.0, value))
            row.append(
                tag("rect", told, x=left + layer * cell, y=y, width=max(cell - 1, 2), height=20, fill_opacity=opacity,
                    class_="heat")
            )  # fmt: skip
        drawn.append(series(name, row))
    y = 8 + 26 * len(rows) + 12
    step = max(1, round(across / 16))
    drawn += [
        tag("text", layer, x=left + (layer + 0.5) * cell, y=y, class_="small middle")
        for layer in range(0, across, step)
    ]
    return _svg(y + 10, "sizes by layer", drawn)


def curves(lines: Sequence[Line], axis: str) -> Markup:
    """Return numbers over layers as lines, a legend above them; nothing where there are no numbers."""
    lines = [Line(line.label, line.values[:_MOST_LAYERS], line.kind) for line in lines]
    held = [value for line in lines for value in line.values if value is not None]
    if not held:
        return Markup("")
    low, high = min(held), max(held)
    spread = (high - low) or abs(high) or 1.0
    low, high = low - 0.05 * spread, high + 0.05 * spread
    across = max(len(line.values) for line in lines)
    top, bottom = 30, 190

    def x(layer: int) -> float:
        return _LEFT + (layer + 0.5) / across * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    drawn: list[Content] = []
    for tick in range(_TICKS):
        value = low + (high - low) * tick / (_TICKS - 1)
        drawn.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(value), y2=y(value), class_="grid"))
        drawn.append(tag("text", f"{value:.4g}", x=_LEFT - 6, y=y(value) + 4, class_="small end"))
    step = max(1, round(across / 16))
    drawn += [tag("text", layer, x=x(layer), y=bottom + 16, class_="small middle") for layer in range(0, across, step)]
    drawn.append(tag("text", axis, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=bottom + 34, class_="small middle"))
    place = _LEFT
    for line in lines:
        points = [(x(layer), y(value)) for layer, value in enumerate(line.values) if value is not None]
        path = " ".join(f"{'L' if at else 'M'}{a:.1f} {b:.1f}" for at, (a, b) in enumerate(points))
        dots = [
            tag("circle", tag("title", f"{line.label}, layer {layer}: {number(value)}"), cx=x(layer), cy=y(value), r=3,
                class_=f"point {line.kind}")
            for layer, value in enumerate(line.values)
            if value is not None and across <= _MOST_POINTS
        ]  # fmt: skip
        drawn.append(series(line.label, tag("path", d=path, class_=f"curve {line.kind}"), dots))
        key = tag("path", d="M0 12 h18", class_=f"curve {line.kind}")
        text = tag("text", line.label, x=24, y=16, class_="small")
        drawn.append(tag("g", key, text, class_="key", transform=f"translate({place} 0)"))
        place += 44 + 7 * len(line.label)
    return _svg(bottom + 42, axis, drawn)


def _svg(height: int, label: str, content: list[Content]) -> Markup:
    return tag("svg", content, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=label)


def _axis_across(low: float, high: float, x: Callable[[float], float], y: float, label: str) -> Markup:
    ticks = [at / 10 for at in range(0, 11, 2) if low <= at / 10 <= high]
    drawn: list[Content] = [tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="axis")]
    for tick in ticks:
        drawn.append(tag("line", x1=x(tick), x2=x(tick), y1=y, y2=y + 4, class_="axis"))
        drawn.append(tag("text", f"{tick:g}", x=x(tick), y=y + 16, class_="small middle"))
    drawn.append(tag("text", label, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=y + 32, class_="small middle"))
    return tag("g", drawn)


def _diamond(x: float, y: float, size: int) -> str:
    return f"M{x:.1f} {y - size:.1f} l{size} {size} l{-size} {size} l{-size} {-size} z"


def _triangle(x: float, y: float, size: int) -> str:
    return f"M{x:.1f} {y - size:.1f} l{size} {2 * size} h{-2 * size} z"
