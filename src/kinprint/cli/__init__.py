"""The command line: parse, call one function, print, set the exit code.

Exit codes: 0 done; 1 internal error; 2 usage or a missing extra; 3 derived and 4 undecided, both only where
``compare --fail-on`` asks for them; 5 input unreadable; 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from kinprint.cli import zoo
from kinprint.cli.behave import behave
from kinprint.cli.bench import bench
from kinprint.cli.comparing import compare, fingerprint, inspect
from kinprint.cli.memory import keep_garbage
from kinprint.cli.plot import plot
from kinprint.cli.report import report
from kinprint.cli.watermark import watermark
from kinprint.errors import KinprintError
from kinprint.version import __version__

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["app", "compare", "main"]

app = typer.Typer(
    name="kinprint",
    help="Measure from weights whether one language model was derived from another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo.app, name="zoo")


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


for command in (compare, report, plot, inspect, fingerprint, behave, watermark, bench):
    app.command()(command)


def main() -> None:
    """Run the command line; a fault that kinprint knows is one line on stderr and its exit code."""
    asked = _interrupts()
    keep_garbage()
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the terminal's encoding lacks is written in escapes, and is no reason to fail.
        cast("TextIOWrapper[BinaryIO]", sys.stdout).reconfigure(errors="backslashreplace")
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
