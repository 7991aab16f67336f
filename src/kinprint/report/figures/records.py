"""What a figure is, before anything draws it: numbers, words and roles, and no colour, size or file.

Two renderers take these records: SVG for the page (``report.html.charts``) and matplotlib (``report.plots``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["pair", "third", "innocent", "related", "suspect", "base", "control"]
"""What a mark stands for. A renderer gives each a colour, and a shape or a dash that tells the same without colour."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: What is on it, with its unit.
        low: Where it begins; None for the smallest number that is drawn.
        high: Where it ends; None for the largest.
        named: Places with names, where they stand in place of numbers.
        whole: Whether only whole numbers are ticked: layers, ranks.
        logarithmic: Whether equal ratios are equally far apart; every number on it is then above 0.
    """

    label: str
    low: float | None = None
    high: float | None = None
    named: tuple[tuple[float, str], ...] = ()
    whole: bool = False
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Points, or a line through them.

    Attributes:
        label: What they are; empty where no legend is to name them.
        role: How they look.
        x: Places across.
        y: Heights; None leaves a gap.
        joined: Whether a line goes through them.
        told: What each says under a pointer, where that is more than its numbers.
    """

    label: str
    role: Role
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    joined: bool = False
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line through the whole chart at one number: upright, or level."""

    label: str
    at: float
    role: Role
    upright: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """Series and rules on two axes."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A cell with a frame round it: ``sure`` where the verdict rests on it, else a guess."""

    row: int
    column: int
    sure: bool
    told: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells in rows and columns, the fuller the larger their number; None is an empty cell.

    Attributes:
        title: Of the panel; may be empty.
        across: What columns are.
        down: What rows are; empty where their names say it.
        columns: Their names.
        rows: Their names, top first.
        cells: Numbers, one tuple a row.
        scale: What the numbers are.
        low: Number of an empty-looking cell.
        high: Number of a full one.
        outlines: Cells with frames.
        square: Whether cells are as high as wide: layers against layers.
    """

    title: str
    across: str
    down: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    scale: str
    low: float = 0.0
    high: float = 1.0
    outlines: tuple[Outline, ...] = ()
    square: bool = True


Panel = Chart | Grid


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        kind: Its name in ``KINDS``.
        title: A sentence that states the finding.
        caption: How to read it and what it is worth.
        panels: What is drawn.
        abreast: Panels side by side.
    """

    kind: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    abreast: int = 1


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a comparison has no figure of a kind, and what would give it one."""

    kind: str
    reason: str
