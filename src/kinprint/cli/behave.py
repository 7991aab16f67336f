"""``kinprint behave``: what two models do on the same probes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinprint.cli.options import JsonOption, PlainOption, QuietOption, console, showing_progress, write_json


def behave(
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="A model folder whose origin is in question.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="A model folder that it may come from.")],
    control: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="MODEL", help="A third, unrelated model to measure against; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="NAME", help="Measure with this method alone; repeatable."),
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option("--probes", metavar="FILE", help="Texts of your own, in place of the shipped statements."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, metavar="N", help="Probes that are asked.")] = 200,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Where to run: cpu or cuda[:N].")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", metavar="NAME", help="float32, bfloat16 or float16.")] = "float32",
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Texts in one pass.")] = 16,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run everything again and keep nothing.")] = False,
    json: JsonOption = None,
    details: Annotated[bool, typer.Option("--details", help="Print every value and table.")] = False,
    quiet: QuietOption = False,
    no_color: PlainOption = False,
) -> None:
    """Run SUSPECT and BASE on the same texts and say how alike they behave. Needs the torch extra.

    Behaviour is an axis of its own and no evidence that weights were copied: distillation and shared data make
    strangers alike. A number means something only against its controls and third models.
    """
    from kinprint import api

    with showing_progress(quiet) as progress:
        found = api.behave(
            suspect,
            base,
            controls=control or (),
            methods=method,
            probes=probes,
            count=count,
            device=device,
            dtype=dtype,
            batch=batch,
            keep=not no_cache,
            progress=progress,
        )
    write_json(found, json)
    if not quiet and str(json) != "-":
        from kinprint.report.behaviour import print_behaviour

        print_behaviour(found, console(no_color), details=details)
