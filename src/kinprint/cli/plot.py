"""``kinprint plot``: one figure of a comparison that was kept as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinprint.cli.options import write_bytes
from kinprint.cli.report import ResultArgument, drawn_from, kept
from kinprint.errors import UsageError

SUFFIXES = ("svg", "png")


def plot(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="place, layers, parts, sigmas, spectra or gains: see docs/report.md.")
    ],
    result: ResultArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .svg or .png to write.")],
) -> None:
    """Draw one figure of a comparison. Needs the plot extra."""
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise UsageError(f"{output}: figures are written as .svg or .png: name a file that ends so")
    from kinprint.report.figures import figure
    from kinprint.report.plots import image

    found = kept(result)
    with drawn_from(result):
        drawn = image(figure(kind, found), suffix)
    write_bytes(drawn, output)
