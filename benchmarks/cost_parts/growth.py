"""The task of growth: time and bytes along one size at a time, with the fitted exponent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cost_parts.comparing import FailedError, compare, row
from cost_parts.context import Context
from cost_parts.fixtures import Made, small
from cost_parts.process import cold
from cost_parts.rows import Row
from kinprint.zoo.sparse import Kind

LAYERS = (4, 8, 16, 32)
WIDTHS = (256, 512, 1024, 2048)
EXPERTS = (4, 8, 16, 32)
PAIRS = (1, 2, 4)

MANY = """
import sys
from kinprint import api
base, suspects = sys.argv[1], sys.argv[2:]
for suspect in suspects:
    assert api.compare(suspect, base).verdict is not None
"""
"""Several suspects against one base in one process, as a caller of the library does it."""


def growth(context: Context) -> Iterator[Row]:
    """Children and twins of small models: more layers, more width, more experts; and more pairs in one process."""
    axes: Sequence[tuple[str, Sequence[int], Callable[[int], dict[str, int]]]] = (
        ("layers", LAYERS, lambda size: {"layers": size, "hidden": 256}),
        ("width", WIDTHS, lambda size: {"layers": 4, "hidden": size}),
        ("experts", EXPERTS, lambda size: {"layers": 4, "hidden": 256, "experts": size}),
    )
    for axis, sizes, settings in axes:
        kinds: tuple[Kind, ...] = ("finetuned", "stranger")
        for kind in kinds:
            rows = [_grown(context, axis, size, kind, settings(size)) for size in sizes]
            yield _fitted(f"growth with {axis}", kind, sizes, rows)
    yield _pairs(context)


def _pair(context: Context, axis: str, size: int, kind: Kind, settings: dict[str, int]) -> tuple[Path, Path]:
    name = f"growth-{axis}-{size}"
    shape = small(name, **settings)
    every = {"filled": None, "filled_experts": None}
    base = context.fixtures.make(f"{name}-base", Made(shape, 60, more=every))
    of_kind = Made(shape, 61, kind, f"{name}-base" if kind == "finetuned" else None, every)
    return context.fixtures.make(f"{name}-{kind}", of_kind), base


def _grown(context: Context, axis: str, size: int, kind: Kind, settings: dict[str, int]) -> Row:
    folders = _pair(context, axis, size, kind, settings)
    # A stranger takes long enough for one run to say it.
    runs = context.runs if kind == "finetuned" else 1
    return row(f"{axis} {size}", compare(*folders, runs=runs), folders)


def _fitted(what: str, kind: Kind, sizes: Sequence[int], rows: Sequence[Row]) -> Row:
    """Return one row for an axis: the columns are those of the largest size."""
    seconds = [one.cpu_seconds or 0.0 for one in rows]
    notes = [f"CPU s at {_listed(sizes)}: {', '.join(f'{value:.2f}' for value in seconds)}"]
    says = f"CPU time ~ size^{exponent(sizes, seconds):.2f}"
    counts = [(one.suspect_bytes or 0) + (one.base_bytes or 0) for one in rows]
    if all(counts):
        says += f", bytes ~ size^{exponent(sizes, counts):.2f}"
        notes.append(f"MB read: {', '.join(f'{count / 1e6:.1f}' for count in counts)}")
    verdicts = sorted({one.says for one in rows})
    last = rows[-1]
    return Row(
        what=f"{what}: {'child' if kind == 'finetuned' else 'stranger'}",
        seconds=last.seconds,
        cpu_seconds=last.cpu_seconds,
        limit_seconds=last.limit_seconds,
        suspect_bytes=last.suspect_bytes,
        base_bytes=last.base_bytes,
        share=last.share,
        peak_mb=max(one.peak_mb or 0.0 for one in rows),
        says=says,
        note="; ".join([*notes, ", ".join(verdicts)]),
    )


def _pairs(context: Context) -> Row:
    """Return the row of several suspects against one base."""
    settings = {"layers": LAYERS[0], "hidden": 256}
    suspect, base = _pair(context, "layers", LAYERS[0], "finetuned", settings)
    command = [sys.executable, "-c", MANY, str(base)]
    runs = [cold([*command, *[str(suspect)] * count]) for count in PAIRS]
    if any(run.code != 0 for run in runs):
        raise FailedError(f"growth with pairs: {runs[-1].err[-200:]}")
    seconds = [run.cpu_seconds for run in runs]
    return Row(
        what="growth with pairs, one process: child",
        seconds=runs[-1].seconds,
        cpu_seconds=seconds[-1],
        peak_mb=max(run.peak_mb for run in runs),
        says=f"CPU time ~ size^{exponent(PAIRS, seconds):.2f}",
        note=f"CPU s at {_listed(PAIRS)}: {', '.join(f'{value:.2f}' for value in seconds)}",
    )


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of log(value) over log(size), by least squares.

    Example:
        >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 12)
        2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(json.dumps, sizes))
