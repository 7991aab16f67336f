"""``kinprint behave``: what two models do on the same probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kinprint.cli.options import JsonOption, PlainOption, QuietOption, console, write_json
from kinprint.cli.progress import showing_progress
from kinprint.errors import UsageError


def behave(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[SUSPECT] BASE", help="Model folders; with --endpoint the one that the served model may come from."
        ),
    ],
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="Ask a server that speaks OpenAI's API; key: KINPRINT_API_KEY."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The server's name of the suspect.")
    ] = None,
    transcript: Annotated[
        Path | None,
        typer.Option("--transcript", metavar="FILE", help="Keep all answers here, and go on from those that it holds."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Send nothing: replay the transcript.")] = False,
    max_requests: Annotated[
        int | None, typer.Option("--max-requests", min=1, metavar="N", help="Requests that may be sent.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, metavar="X", help="What they may cost; needs --prices.")
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option("--prices", metavar="IN,OUT", help="Of a million tokens of prompts, and of answers."),
    ] = None,
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
    """Run two models on the same texts and say how alike they behave. Needs the torch extra.

    Behaviour is an axis of its own and no evidence that weights were copied: distillation and shared data make
    strangers alike. A number means something only against its controls and third models.
    """
    from kinprint.behaviour import entry

    _check(models, endpoint, model, method, served=(transcript, offline, max_requests, max_cost, prices))
    running = entry.Running(probes=probes, count=count, device=device, dtype=dtype, batch=batch, keep=not no_cache)
    with showing_progress(quiet, no_color=no_color) as progress:
        if endpoint is None:
            found = entry.behave(
                models[0], models[1], controls=control or (), methods=method, running=running, progress=progress
            )
        else:
            from kinprint.behaviour.budget import Budget

            found = entry.behave_served(
                endpoint,
                model or "",
                models[0],
                controls=control or (),
                transcript=transcript,
                offline=offline,
                budget=Budget(max_requests, max_cost, _prices(prices)),
                running=running,
                progress=progress,
            )
    write_json(found, json)
    if not quiet and str(json) != "-":
        from kinprint.report.behaviour import print_behaviour

        print_behaviour(found, console(no_color), details=details)


def _check(
    models: Sequence[str],
    endpoint: str | None,
    model: str | None,
    method: list[str] | None,
    *,
    served: Sequence[object],
) -> None:
    if endpoint is None:
        if model is not None or any(one not in (None, False) for one in served):
            raise UsageError("--model, --transcript, --offline and budgets go with --endpoint: give its URL")
        if len(models) != 2:
            raise UsageError(f"{len(models)} models given: name a suspect and a base, or one base with --endpoint")
        return
    if model is None:
        raise UsageError("--endpoint needs --model: the server's name of the model")
    if len(models) != 1:
        raise UsageError(f"{len(models)} models given: with --endpoint name the base alone")
    if method:
        raise UsageError("--method chooses among methods of local models: leave it out with --endpoint")


def _prices(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        first, second = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"--prices {text!r}: give two numbers such as 2.5,10") from error
    return first, second
