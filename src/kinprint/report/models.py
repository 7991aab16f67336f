"""What was compared, in a line for each model, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console

from kinprint.report.cells import clean, hang, heading
from kinprint.types import Comparison, ModelInfo, ReadingSide
from kinprint.verdict.reading import size

SHOWN_DIGEST = 16
"""Hexadecimal digits of a digest that are shown; the JSON holds all."""

UNRECORDED = "Options that choose what is read (--quick, --thorough, --budget, --component, ...) are not in the record."


def model_lines(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what was compared, each model with its label.

    Args:
        comparison: What was found.
    """
    reading = comparison.verdict.reading if comparison.verdict is not None else None
    sides = (None, None) if reading is None else (reading.suspect, reading.base)
    lines = [
        (label, ", ".join(_facts(model, side)))
        for label, model, side in zip(("suspect", "base"), (comparison.suspect, comparison.base), sides, strict=True)
    ]
    return lines + [
        (f"C{index}", f"{', '.join(_facts(model, None))} (control)")
        for index, model in enumerate(comparison.controls, start=1)
    ]


def _facts(model: ModelInfo, side: ReadingSide | None) -> Iterator[str]:
    sizes = model.geometry
    yield f"{clean(model.name)}: {clean(model.family)}"
    yield f"{model.parameters:,} parameters"
    if sizes.layers and sizes.hidden:
        yield f"{sizes.layers} layers, d={sizes.hidden}"
    if sizes.experts:
        yield f"{sizes.experts} experts"
    if model.coverage < 1:
        yield f"{model.coverage:.1%} has a role"
    if side is not None:
        yield _read(side)


def _read(side: ReadingSide) -> str:
    if side.bytes_read >= side.bytes_total:
        return f"all {size(side.bytes_total)} read"
    return f"{size(side.bytes_read)} of {size(side.bytes_total)} read"


def print_reproduction(comparison: Comparison, console: Console) -> None:
    """Print the command, the version, digests of what was read, and what was noted while opening it.

    Args:
        comparison: What was found.
        console: Where to print.
    """
    heading(f"How to reproduce this (kinprint {comparison.kinprint_version})", console)
    hang("", shlex.join(_command(comparison)), console, indent=2)
    hang("", f"{UNRECORDED} Seeds are in the ids of tests and methods: --details, --json.", console, indent=2)
    for label, model in _labelled(comparison):
        digest = model.content_digest or model.header_digest
        kind = "content" if model.content_digest else "header"
        hang(label, f"{kind} {digest.removeprefix('sha256:')[:SHOWN_DIGEST]} at {model.location}", console)
        for note in (*model.notes, *model.inferred):
            hang("", note, console, style="dim")
        if model.unmapped:
            hang("", f"{len(model.unmapped)} tensors have no role (see kinprint inspect)", console, style="dim")


def _labelled(comparison: Comparison) -> Iterator[tuple[str, ModelInfo]]:
    yield "suspect", comparison.suspect
    yield "base", comparison.base
    yield from ((f"C{index}", model) for index, model in enumerate(comparison.controls, start=1))


def _command(comparison: Comparison) -> Iterator[str]:
    verdict = comparison.verdict
    reading = verdict.reading if verdict is not None else None
    revisions = (None, None) if reading is None else (reading.suspect.revision, reading.base.revision)
    yield from ("kinprint", "compare")
    for model, revision in zip((comparison.suspect, comparison.base), revisions, strict=True):
        # With the commit that was read, where it is a repository's: what it was named by may move.
        yield model.location if revision is None else f"{model.location.partition('@')[0]}@{revision}"
    for model in comparison.controls:
        yield from ("--control", model.location)
    if verdict is not None:
        yield from ("--alpha", f"{verdict.alpha:g}")
