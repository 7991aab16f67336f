"""What is measured on which models, and what the measurement of the premises writes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from kinprint.types import Record, Table

PREMISES_VERSION = 1
"""Raised whenever a reader of ``premises.json`` could be misled by the change."""

Number = float | None


@dataclass(frozen=True, slots=True)
class Roster:
    """Which models of a zoo the premises are measured on: names of folders. One that is absent is reported.

    Attributes:
        base: The model in the middle: dense, gains initialised at 1.
        children: Models of the base's shape trained on from it.
        laundered: Models with a child's or the base's function, whose weights were rewritten.
        twins: Independent models of the base's shape and recipe.
        random_gains: Independent models whose gains were drawn at random before training.
        upcycled: A mixture made from the base.
        mixture: A mixture trained from scratch, which is nobody's child.
        families: Independent models of other families.
        gauged: Models on which every gauge is tried, because each has something that the others lack.
        text: Name of the text on which perplexity is measured.
    """

    base: str
    children: tuple[str, ...]
    laundered: tuple[str, ...]
    twins: tuple[str, ...]
    random_gains: tuple[str, ...]
    upcycled: tuple[str, ...]
    mixture: tuple[str, ...]
    families: tuple[str, ...]
    gauged: tuple[str, ...]
    text: str


TINY = Roster(
    base="base",
    children=("base.fine-tuned", "base.fine-tuned-long", "base.continued"),
    laundered=("base.laundered",),
    twins=("twin-1", "twin-2", "twin-3", "twin-4"),
    random_gains=("gains-1", "gains-2"),
    upcycled=("base.upcycled",),
    mixture=("moe",),
    families=("mha", "deep", "wide", "qwen2", "qwen3", "olmo2", "neox", "gpt2"),
    gauged=("base", "qwen3", "moe", "gpt2"),
    text="stdlib-code",
)

SMOKE = Roster(
    base="base",
    children=("base.fine-tuned",),
    laundered=("base.laundered",),
    twins=("twin",),
    random_gains=(),
    upcycled=("base.upcycled",),
    mixture=("moe",),
    families=("qwen3",),
    gauged=("base", "qwen3", "moe"),
    text="help-topics",
)

EXAMPLES = Roster(
    base="base",
    children=("child",),
    laundered=("laundered",),
    twins=("twin",),
    random_gains=(),
    upcycled=(),
    mixture=(),
    families=(),
    gauged=("base",),
    text="stdlib-code",
)

ROSTERS: Mapping[str, Roster] = {"tiny": TINY, "smoke": SMOKE, "examples": EXAMPLES}
"""By the name of the suite."""


class Series(Record):
    """One line of a picture.

    Attributes:
        panel: Title of the small picture that it belongs to.
        label: Its name in the legend; the same label has the same colour in every panel.
        x: Along.
        y: Up; None leaves a gap.
        style: How it is drawn; ``edge`` is a vertical line at ``x``.
    """

    panel: str
    label: str
    x: tuple[float, ...]
    y: tuple[Number, ...]
    style: Literal["line", "dashed", "marked", "points", "steps", "edge"] = "line"


class Curves(Record):
    """A picture of lines in panels. ``name`` is the stem of its files."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_log: bool = False
    y_log: bool = False
    series: tuple[Series, ...]


class Grid(Record):
    """One coloured table: ``values`` by row and column."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]


class HeatMap(Record):
    """A picture of coloured tables on one scale.

    Attributes:
        name: Stem of its files.
        title: Above everything.
        grids: The tables.
        low: Value of the palest colour.
        high: Value of the darkest.
        log: Whether the colour shows the decimal logarithm, which ``low`` and ``high`` then are.
    """

    name: str
    title: str
    grids: tuple[Grid, ...]
    low: float
    high: float
    log: bool = False


class Premise(Record):
    """One premise as measured.

    Attributes:
        name: Short name, also of its tables in the documentation.
        title: What is claimed, in one line.
        status: ``not measured`` when the zoo lacks what it takes.
        reason: Why nothing was measured.
        tables: By name.
        curves: Pictures of lines.
        heat_maps: Pictures of tables.
        notes: How the numbers were made, what was absent, and how small the models are.
    """

    name: str
    title: str
    status: Literal["measured", "not measured"]
    reason: str | None = None
    tables: dict[str, Table] = Field(default_factory=dict[str, Table])
    curves: tuple[Curves, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    notes: tuple[str, ...] = ()


class PremisesResult(Record):
    """All premises, with what they were measured on.

    Attributes:
        premises_version: Version of this record.
        kinprint: Version of the program.
        versions: Python and the libraries that decide the numbers.
        models: Content digest of every model that was there, by name.
        seed: Of everything that is drawn.
        seconds: Wall time.
        premises: In the order of the papers.
    """

    premises_version: int = PREMISES_VERSION
    kinprint: str
    versions: dict[str, str]
    models: dict[str, str]
    seed: int
    seconds: float
    premises: tuple[Premise, ...]


def unmeasured(name: str, title: str, reason: str) -> Premise:
    """Return a premise for which the zoo lacks what it takes."""
    return Premise(name=name, title=title, status="not measured", reason=reason)
