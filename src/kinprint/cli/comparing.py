"""``compare``, ``inspect`` and ``fingerprint``."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinprint.cli.memory import return_large_blocks
from kinprint.cli.options import (
    ComponentOption,
    HtmlOption,
    JsonOption,
    MethodOption,
    ModelArgument,
    PlainOption,
    QuietOption,
    console,
    write_json,
    write_text,
)
from kinprint.cli.progress import showing_progress
from kinprint.errors import UsageError

if TYPE_CHECKING:
    from kinprint.types import Verdict


class FailOn(StrEnum):
    """What ``compare --fail-on`` takes."""

    derived = "derived"


def compare(
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="The model whose origin is in question.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model it may have been derived from.")],
    control: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="MODEL", help="A third, unrelated model to measure against; repeatable."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Stop at the first test that decides; no methods of the literature.")
    ] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Run every test and every method.")] = False,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="NAME", help="Measure with this method beside the verdict; repeatable."),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option("--alpha", metavar="FLOAT", help="Error rate of all exact tests together, between 0 and 1."),
    ] = 1e-6,
    component: ComponentOption = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="BYTES", help="Read at most this much of each model, such as 500MB."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, metavar="N", help="Read at most this many layers whole.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every layer and compare every value, however large the models are.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="NAME", help="Where to compute: cpu, or with the torch extra torch or cuda[:N]."
        ),
    ] = "cpu",
    behave: Annotated[
        bool,
        typer.Option("--behave", help="Run the models on texts too; shown beside the verdict. Needs the torch extra."),
    ] = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            "--fail-on",
            metavar="CONDITION",
            help="derived: exit with 3 if the models are identical or any part is derived, 4 if that is undecided.",
        ),
    ] = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    details: Annotated[
        bool, typer.Option("--details", help="Print layer by layer too, and what each piece of evidence rests on.")
    ] = False,
    quiet: QuietOption = False,
    no_color: PlainOption = False,
) -> None:
    """Say whether SUSPECT was derived from BASE, from the weights alone, with evidence and controls.

    The verdict is identical, derived, independent, inconclusive or not comparable. Beside it stand measurements by
    methods of the literature, which do not enter it: three by default, none with --quick, all with --thorough. Models
    are checkpoints (a folder, a file, org/name[@revision] on the Hub, or an address); fingerprint files hold what
    methods need, and too little for a verdict. Large models are read in part; --full reads all of them.
    """
    from kinprint import api

    if quick and thorough:
        raise UsageError("--quick and --thorough exclude each other: give one of them")
    if (full or thorough) and (budget is not None or layers is not None):
        raise UsageError("--full and --thorough read everything: leave out --budget and --layers")
    return_large_blocks()
    with showing_progress(quiet, no_color=no_color) as progress:
        result = api.compare(
            suspect,
            base,
            methods=method,
            controls=control or (),
            mode="quick" if quick else "thorough" if thorough else "default",
            alpha=alpha,
            component=component,
            limits=api.Limits(budget=_bytes(budget), layers=layers, full=full or thorough),
            progress=progress,
            device=device,
            announce=None if quiet else _announce,
            with_behaviour=behave,
        )
    write_json(result, json)
    if html is not None:
        from kinprint.report.html import page

        write_text(page(result), html)
    if not quiet and str(json) != "-":
        from kinprint.report.terminal import print_comparison

        print_comparison(result, console(no_color), details=details)
    if fail_on is not None and result.verdict is not None:
        raise typer.Exit(_exit_code(result.verdict))


_BYTES = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}


def _bytes(text: str | None) -> int | None:
    """Return a number of bytes as people write it."""
    if text is None:
        return None
    number = text.strip().rstrip("bBkKmMgGtTiI").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        value = float(number) * _BYTES[unit]
    except (KeyError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--budget {text!r} is no number of bytes: give one such as 500MB or 2GB")
    return round(value)


def _announce(sentence: str) -> None:
    sys.stderr.write(f"kinprint: {sentence}\n")


def _exit_code(verdict: Verdict) -> int:
    """Return 3 where the models are identical or any part is derived, 4 where that is undecided, else 0."""
    found = {verdict.conclusion, *(part.conclusion for part in verdict.components)}
    if found & {"derived", "identical"}:
        return 3
    return 4 if verdict.conclusion in ("inconclusive", "not_comparable") else 0


def inspect(
    model: ModelArgument, component: ComponentOption = None, json: JsonOption = None, no_color: PlainOption = False
) -> None:
    """Show family, geometry, roles, coverage and what a compare would read, from headers alone."""
    from kinprint import api

    result = api.inspect(model, component=component)
    write_json(result, json)
    if str(json) != "-":
        from kinprint.report.terminal import print_inspection

        print_inspection(result, console(no_color))


def fingerprint(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The fingerprint file to write.")],
    method: MethodOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a model's fingerprints to one self-describing file, which compare takes in place of the model."""
    from kinprint import api
    from kinprint.fingerprints import save

    return_large_blocks()
    with showing_progress(quiet) as progress:
        made = api.fingerprint(model, methods=method, progress=progress)
    save(made, output)
