"""The picture of a calibration: observed against expected -log10 p, a panel for each test. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from kinprint.bench.calibration.records import CalibrationResult, CalibrationRow, Draw
from kinprint.errors import optional
from kinprint.report.plots import BLUE, DPI, GREY, ORANGE, SHARED_STYLE, VERMILION
from kinprint.report.terminal import clean

_COLOURS = (BLUE, VERMILION, ORANGE, GREY)
_MARKERS = ("o", "^", "s", "D")
_WIDE = 4
_PANEL_INCHES = (2.5, 2.5)
_BAND = 0.95


def qq(result: CalibrationResult, draws: Sequence[Draw]) -> dict[str, bytes]:
    """Return the picture as the contents of its files, by name; none without rows.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if not result.rows:
        return {}
    with _library("matplotlib.style").context(SHARED_STYLE, after_reset=True):
        figure = _figure(result, draws)
        return {
            f"qq.{kind}": _file(figure, kind, metadata)
            for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None}))
        }


def _library(module: str) -> Any:  # noqa: ANN401 - an optional package without types here
    return optional(module, "bench", "drawing pictures")


def _file(figure: Any, kind: str, metadata: dict[str, None]) -> bytes:  # noqa: ANN401
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return content.getvalue()


def _figure(result: CalibrationResult, draws: Sequence[Draw]) -> Any:  # noqa: ANN401
    tests = list(dict.fromkeys(row.test for row in result.rows))
    zoos = list(result.zoos)
    across = min(_WIDE, len(tests))
    down = math.ceil(len(tests) / across)
    size = (max(2, across) * _PANEL_INCHES[0], down * _PANEL_INCHES[1] + 1.0)
    figure = _library("matplotlib.figure").Figure(figsize=size, layout="constrained")
    figure.suptitle(
        "p-values of independent pairs against the uniform distribution\n"
        "shaded: pointwise 95% band of as many independent draws; above it a test accuses too often",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for spare in axes[len(tests) :]:
        spare.set_visible(False)
    for axis, test in zip(axes, tests, strict=False):
        rows = [row for row in result.rows if row.test == test]
        for row in rows:
            held = [draw.p for draw in draws if (draw.test, draw.zoo) == (test, row.zoo) and draw.p is not None]
            _panel(axis, row, held, zoos.index(row.zoo))
        axis.set_title(clean(rows[0].name).replace(" in stored order, ", ": ").replace(": ", ":\n", 1))
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        axis.legend(loc="upper left", frameon=False, fontsize=6.5, handletextpad=0.2)
        axis.grid(color="#dddddd", linewidth=0.5)
    figure.supxlabel("expected -log10 p", fontsize=8.5)
    figure.supylabel("observed -log10 p", fontsize=8.5)
    return figure


def _panel(axis: Any, row: CalibrationRow, p_values: Sequence[float], place: int) -> None:  # noqa: ANN401
    law = import_module("scipy.stats").beta
    count, colour = len(p_values), _COLOURS[place % len(_COLOURS)]
    rank_M = np.arange(1, count + 1)
    # The k-th smallest of M uniform draws has the law Beta(k, M + 1 - k).
    expected_M = -np.log10(rank_M / (count + 1))
    tail = (1 - _BAND) / 2
    high_M, low_M = (-np.log10(law.ppf(share, rank_M, count + 1 - rank_M)) for share in (tail, 1 - tail))
    axis.fill_between(expected_M, low_M, high_M, color=colour, alpha=0.13, linewidth=0, rasterized=True)
    axis.plot(expected_M, expected_M, color=GREY, linewidth=0.7, linestyle=":")
    axis.plot(
        expected_M, -np.log10(np.sort(p_values)), _MARKERS[place % len(_MARKERS)], markersize=2.4, markeredgewidth=0,
        color=colour, label=f"{clean(row.zoo)}: {row.pairs} pairs, {row.independent} independent",
        rasterized=True,  # thousands of points: as shapes they would make a picture of a megabyte
    )  # fmt: skip
