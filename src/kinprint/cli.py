"""The command line: parse, call one function, print, set the exit code.

Exit codes: 0 done; 1 internal error; 2 usage or a missing extra; 3 derived and 4 undecided, both only where
``compare --fail-on`` asks for them; 5 input unreadable; 130 interrupted.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from kinprint.errors import KinprintError, UsageError
from kinprint.version import __version__

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from kinprint.api import Progress
    from kinprint.types import Record, Verdict
    from kinprint.zoo.sparse import Dtype, Kind, Layout

PLAIN_WIDTH = 1000
"""Columns of output that goes to a file or a pipe: enough that no cell of a table is broken."""

app = typer.Typer(
    name="kinprint",
    help="Measure from weights whether one language model was derived from another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
zoo_app = typer.Typer(help="Train and derive the models that kinprint is tested on.", no_args_is_help=True)
app.add_typer(zoo_app, name="zoo")

ComponentOption = Annotated[
    str | None,
    typer.Option(
        "--component",
        metavar="NAME",
        help="Look at this part (vision, encoder, mtp, ...) in place of the language model.",
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no tables and no progress.")]
PlainOption = Annotated[bool, typer.Option("--no-color", help="Print without colour.")]
MethodOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", metavar="NAME", help="Run only this method; repeatable.")
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes at work.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A checkpoint: a folder, a file, org/name[@revision] or an address.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kinprint {__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction] - typer calls it
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


class FailOn(StrEnum):
    """What ``compare --fail-on`` takes."""

    derived = "derived"


@app.command()
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
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            "--fail-on",
            metavar="CONDITION",
            help="derived: exit with 3 if the models are identical or any part is derived, 4 if that is undecided.",
        ),
    ] = None,
    json: JsonOption = None,
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
    with _progress(quiet) as progress:
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
        )
    _write_json(result, json)
    if not quiet and str(json) != "-":
        from kinprint.report.terminal import print_comparison

        print_comparison(result, _console(no_color), details=details)
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


@app.command()
def inspect(
    model: ModelArgument, component: ComponentOption = None, json: JsonOption = None, no_color: PlainOption = False
) -> None:
    """Show family, geometry, roles, coverage and what a compare would read, from headers alone."""
    from kinprint import api

    result = api.inspect(model, component=component)
    _write_json(result, json)
    if str(json) != "-":
        from kinprint.report.terminal import print_inspection

        print_inspection(result, _console(no_color))


@app.command()
def fingerprint(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The fingerprint file to write.")],
    method: MethodOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a model's fingerprints to one self-describing file, which compare takes in place of the model."""
    from kinprint import api
    from kinprint.fingerprints import save

    with _progress(quiet) as progress:
        made = api.fingerprint(model, methods=method, progress=progress)
    save(made, output)


@zoo_app.command("build")
def zoo_build(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="Which models: examples, smoke, tiny, null, compositions, threes, small, real, real-llm.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write them.")],
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Train and derive a suite of small models; goes on where an earlier run stopped. Needs the torch extra.

    Prints the path of the manifest, which says what each model was made from.
    """
    from kinprint import zoo

    with _progress(quiet) as progress:
        manifest = zoo.build(suite, output, jobs=jobs, progress=progress)
    if not quiet:
        typer.echo(str(manifest))


@zoo_app.command("derive")
def zoo_derive(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")],
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="What to do, as NAME or NAME:setting=value,setting=value; repeatable, in order. See 'zoo kinds'.",
        ),
    ],
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything drawn.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Derive a model from another: fine-tune, prune, merge, upcycle, quantise, or rewrite it and keep its function.

    Function-preserving kinds are checked by logits. Writes the model and zoo.json, which says how it was made.
    """
    from kinprint.zoo.single import derive_folder

    with _progress(quiet) as progress:
        manifest = derive_folder(Path(model), output, kind, seed=seed, progress=progress)
    if not quiet:
        typer.echo(str(manifest))


@zoo_app.command("kinds")
def zoo_kinds(no_color: PlainOption = False) -> None:
    """List every kind of derivation with its settings and their defaults."""
    from kinprint.report.terminal import print_kinds
    from kinprint.zoo.derive import KINDS

    print_kinds(
        [(kind.name, kind.summary, kind.preserving, kind.describe_settings()) for kind in KINDS.values()],
        _console(no_color),
    )


@zoo_app.command("sparse")
def zoo_sparse(
    shape: Annotated[
        str,
        typer.Argument(
            metavar="SHAPE",
            help="glm-4.5-air, glm-4.5-air-dense, llama-3-8b, llama-3-70b, mistral-7b, tiny-moe or tiny-dense.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")],
    kind: Annotated[
        str,
        typer.Option("--kind", "-k", metavar="KIND", help="stranger, finetuned, upcycled or laundered."),
    ] = "stranger",
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="DIR", help="What it comes from; a stranger has data where this has."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything drawn.")] = 0,
    layers: Annotated[int | None, typer.Option("--layers", metavar="N", help="Only the first so many layers.")] = None,
    filled: Annotated[
        int, typer.Option("--filled", metavar="N", help="Layers that hold data, if no base says it.")
    ] = 6,
    filled_experts: Annotated[
        int, typer.Option("--filled-experts", metavar="N", help="Experts that do in each of them.")
    ] = 8,
    layout: Annotated[
        str, typer.Option("--layout", metavar="LAYOUT", help="Of experts: per-expert or fused.")
    ] = "per-expert",
    dtype: Annotated[str, typer.Option("--dtype", metavar="DTYPE", help="bf16 or fp8.")] = "bf16",
    change: Annotated[
        float, typer.Option("--change", metavar="FLOAT", help="Noise of a child, relative to the weights.")
    ] = 0.1,
    no_embeddings: Annotated[
        bool, typer.Option("--no-embeddings", help="Leave embedding and output matrix as holes.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint as long as a real one with data in a few layers and holes elsewhere, for tests of scale.

    The file system must know sparse files. Prints the folder, its apparent and its actual size in bytes.
    """
    from kinprint.zoo.sparse import folder_bytes, write_sparse

    with _progress(quiet) as progress:
        write_sparse(
            shape,
            output,
            seed=seed,
            kind=cast("Kind", kind),  # write_sparse refuses other words, here and below
            base=base,
            layers=layers,
            filled=filled,
            filled_experts=filled_experts,
            layout=cast("Layout", layout),
            dtype=cast("Dtype", dtype),
            change=change,
            embeddings=not no_embeddings,
            progress=progress,
        )
    if not quiet:
        apparent, actual = folder_bytes(output)
        typer.echo(f"{output}: {apparent} bytes long, {actual} on disk")


@app.command()
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
    sizes of independent pairs that margins rest on.
    """
    if suite in _OF_ALL_PAIRS:
        if method or only or real:
            raise UsageError(f"{suite} measures all independent pairs: leave out --method, --only and --real")
        with _progress(quiet) as progress:
            _OF_ALL_PAIRS[suite](zoo, output, jobs, not no_plots, progress)
    elif suite == "premises":
        from kinprint.bench.premises import measure

        with _progress(quiet) as progress:
            measure(
                _one_zoo(suite, zoo),
                output,
                real=real,
                progress=lambda what: progress(what, 0, 1) if progress else None,
            )
    else:
        from kinprint.bench.run import bench as run_bench

        with _progress(quiet) as progress:
            result = run_bench(
                suite,
                _one_zoo(suite, zoo),
                output,
                methods=method,
                only=only,
                jobs=jobs,
                plots=not no_plots,
                progress=progress,
            )
        if not quiet:
            from kinprint.bench.terminal import print_rates

            print_rates(result, _console(no_color))
    if not quiet:
        typer.echo(str(output))


def _one_zoo(suite: str, zoos: list[Path]) -> Path:
    if len(zoos) != 1:
        raise UsageError(
            f"{suite} takes exactly one --zoo, not {len(zoos)}: only {', '.join(_OF_ALL_PAIRS)} takes several"
        )
    return zoos[0]


def _calibration(zoos: list[Path], output: Path, jobs: int, plots: bool, progress: Progress | None) -> None:
    from kinprint.bench.calibration import calibrate

    calibrate(zoos, output, jobs=jobs, plots=plots, progress=progress)


def _innocents(zoos: list[Path], output: Path, jobs: int, plots: bool, progress: Progress | None) -> None:
    from kinprint.bench.innocents import innocents

    del plots
    innocents(zoos, output, jobs=jobs, progress=progress)


_OF_ALL_PAIRS: dict[str, Callable[[list[Path], Path, int, bool, Progress | None], None]] = {
    "calibration": _calibration,
    "innocents": _innocents,
}
"""Suites that measure the independent pairs of several zoos, as zoos, output, jobs, plots and progress."""


# -- edges ---------------------------------------------------------------------------------------------------------


def _console(no_color: bool) -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(no_color=no_color or None, highlight=False, width=width, emoji=False, markup=False)


@contextmanager
def _progress(quiet: bool) -> Generator[Progress | None]:
    """Show a bar on stderr while work goes on, if anybody is there to see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading headers", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)
            if not total:  # unknown; to update() None means "as it was"
                bar.tasks[0].total = None

        yield tell


def _write_json(record: Record, path: Path | None) -> None:
    if path is None:
        return
    text = record.model_dump_json(indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}: choose another place") from error


def main() -> None:
    """Run the command line; a fault that kinprint knows is one line on stderr and its exit code."""
    asked = _interrupts()
    # Plugins of pydantic are other packages' code, and looking for them reads the metadata of all that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # An interrupted import of a compiled library may end in any error.
        if asked or isinstance(error, KeyboardInterrupt):
            sys.stderr.write("kinprint: interrupted\n")
            sys.exit(130)
        if isinstance(error, KinprintError):
            line = " ".join(str(error).split())
            sys.stderr.write(f"kinprint: {''.join(c if c.isprintable() else '?' for c in line)}\n")
            sys.exit(error.exit_code)
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone (a pager was closed): nothing is left to say, or to say it to.
            sys.stdout = None
            sys.exit(0)
        raise


def _interrupts() -> list[int]:
    """Return a list that holds something as soon as the user interrupted, whatever becomes of the exception."""
    asked: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored, or is the caller's
        signal.signal(signal.SIGINT, interrupt)
    return asked
