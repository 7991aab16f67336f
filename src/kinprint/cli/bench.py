"""``kinprint bench``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinprint.cli.options import JobsOption, MethodOption, PlainOption, QuietOption, console
from kinprint.cli.progress import showing_progress
from kinprint.errors import UsageError

if TYPE_CHECKING:
    from kinprint.api import Progress


def bench(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="Whose cases: smoke, tiny, null, compositions, small, real, real-llm, a YAML file; or premises, "
            "calibration.",
        ),
    ],
    zoo: Annotated[
        list[Path],
        typer.Option("--zoo", metavar="DIR", help="The models, as 'zoo build' wrote them; calibration takes several."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write the results.")],
    method: MethodOption = None,
    behave: Annotated[
        bool,
        typer.Option("--behave", help="Run the models on texts too; with calibration, in place of weights."),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="PATTERN", help="Only pairs, models or categories that match, such as 'base.*'."
        ),
    ] = None,
    real: Annotated[
        Path | None, typer.Option("--real", metavar="MODEL", help="For premises: a real Llama to measure too.")
    ] = None,
    jobs: JobsOption = 1,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Draw nothing.")] = False,
    quiet: QuietOption = False,
    no_color: PlainOption = False,
) -> None:
    """Run every method on pairs of known lineage; goes on where an earlier run stopped. Needs the bench extra.

    Writes tables (Markdown, CSV, JSON), pictures (SVG, PNG) and a record of what ran. 'premises' measures what the
    papers take for granted instead, 'calibration' whether exact tests are exact on independent models, 'innocents' the
    sizes of independent pairs that margins rest on, 'related' those of related pairs that are shown beside them.
    """
    if suite in _OF_ALL_PAIRS:
        if method or only or real:
            raise UsageError(f"{suite} measures all independent pairs: leave out --method, --only and --real")
        if behave and suite != "calibration":
            raise UsageError(f"{suite} is about weights: leave out --behave")
        with showing_progress(quiet, no_color=no_color) as progress:
            _OF_ALL_PAIRS[suite](zoo, output, _How(jobs, behave, not no_plots, progress))
    elif suite == "related":
        from kinprint.bench.related import related

        with showing_progress(quiet) as progress:
            related(_one_zoo(suite, zoo), output, progress=progress)
    elif suite == "premises":
        from kinprint.bench.premises import measure

        with showing_progress(quiet, no_color=no_color) as progress:
            measure(
                _one_zoo(suite, zoo),
                output,
                real=real,
                progress=lambda what: progress(what, 0, 0) if progress else None,
            )
    else:
        from kinprint.bench.run import bench as run_bench

        with showing_progress(quiet, no_color=no_color) as progress:
            result = run_bench(
                suite,
                _one_zoo(suite, zoo),
                output,
                methods=method,
                behave=behave,
                only=only,
                jobs=jobs,
                plots=not no_plots,
                progress=progress,
            )
        if not quiet:
            from kinprint.bench.terminal import print_rates

            print_rates(result, console(no_color))
    if not quiet:
        typer.echo(str(output))


def _one_zoo(suite: str, zoos: list[Path]) -> Path:
    if len(zoos) != 1:
        raise UsageError(
            f"{suite} takes exactly one --zoo, not {len(zoos)}: only {', '.join(_OF_ALL_PAIRS)} takes several"
        )
    return zoos[0]


@dataclass(frozen=True, slots=True)
class _How:
    """Options of the suites that measure all independent pairs."""

    jobs: int
    behave: bool
    plots: bool
    progress: Progress | None


def _calibration(zoos: list[Path], output: Path, how: _How) -> None:
    from kinprint.bench.calibration import calibrate

    calibrate(zoos, output, jobs=how.jobs, behave=how.behave, plots=how.plots, progress=how.progress)


def _innocents(zoos: list[Path], output: Path, how: _How) -> None:
    from kinprint.bench.innocents import innocents

    innocents(zoos, output, jobs=how.jobs, progress=how.progress)


_OF_ALL_PAIRS: dict[str, Callable[[list[Path], Path, _How], None]] = {
    "calibration": _calibration,
    "innocents": _innocents,
}
"""Suites that measure the independent pairs of several zoos."""
