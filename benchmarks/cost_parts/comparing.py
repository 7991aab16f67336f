"""Cold runs of the installed command, as rows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cost_parts.process import Run, cold, kinprint
from cost_parts.rows import Check, Row
from cost_parts.streaming import limit_seconds

SUFFIXES = (".safetensors", ".bin", ".gguf")


class FailedError(Exception):
    """A command that is measured failed; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair through ``kinprint compare``.

    Attributes:
        run: The timed run whose seconds are the median.
        found: What it wrote as JSON.
    """

    run: Run
    found: Mapping[str, Any]

    @property
    def says(self) -> str:
        """The conclusion."""
        return str(self.found["verdict"]["conclusion"])

    @property
    def size(self) -> float | None:
        """The largest size among the evidence that may carry the verdict."""
        evidence = self.found["verdict"]["evidence"]
        return max((one["size"] for one in evidence if one["carries"] and one["size"] is not None), default=None)

    @property
    def strength(self) -> float:
        """Minus log10 of the least p-value among the evidence that may carry the verdict, which is decided by it."""
        evidence = self.found["verdict"]["evidence"]
        return -min((one["log10_p"] for one in evidence if one["carries"] and one["log10_p"] is not None), default=0.0)

    def read(self, side: str) -> int | None:
        """Return the bytes read of ``suspect`` or ``base``; None where the command does not say."""
        reading: dict[str, dict[str, Any]] = self.found["verdict"].get("reading") or {}
        return (reading.get(side) or {}).get("bytes_read")


def compare(
    suspect: str | Path,
    base: str | Path,
    *options: str,
    runs: int = 3,
    warm: bool = True,
    env: Mapping[str, str] | None = None,
) -> Compared:
    """Compare a pair in cold processes.

    Args:
        suspect: Folder or name.
        base: Folder or name.
        options: Further options of the command.
        runs: Timed runs; the one with the median seconds is returned.
        warm: Run once untimed before, which brings what is read into the page cache.
        env: Variables on top of the caller's.

    Raises:
        FailedError: The command failed or took too long.
    """
    command = [kinprint(), "compare", str(suspect), str(base), *options, "--json", "-"]
    done = [checked(cold(command, env=env), command) for _ in range(runs + warm)][warm:]
    middle = sorted(done, key=lambda run: run.seconds)[(len(done) - 1) // 2]
    return Compared(middle, json.loads(middle.out))


def judged(
    what: str,
    folders: tuple[Path, Path],
    bars: Callable[[Row], tuple[Check, ...]],
    *options: str,
    runs: int,
    warm: bool = True,
) -> Row:
    """Return the row of a pair, bars included; a command that fails misses them, and says why.

    Args:
        what: Name of the row.
        folders: Suspect and base.
        bars: Gives the bars of what was measured.
        options: Further options of the command.
        runs: Timed runs.
        warm: Run once untimed before.
    """
    try:
        found = row(what, compare(*folders, *options, runs=runs, warm=warm), folders)
    except FailedError as error:
        return Row(what=what, note=str(error), checks=(Check("runs", met=False),))
    return replace(found, checks=bars(found))


def checked(run: Run, command: list[str]) -> Run:
    """Return a run that went well.

    Raises:
        FailedError: It did not.
    """
    if run.code != 0:
        last = (run.err.strip().splitlines() or ["no message"])[-1]
        state = "took too long" if run.code is None else f"exit {run.code}"
        raise FailedError(f"{Path(command[0]).name} {command[1]}: {state}: {last[:200]}")
    return run


def row(what: str, compared: Compared, folders: tuple[Path, Path]) -> Row:
    """Return the measured columns of a pair of folders; bars are the caller's."""
    counts = compared.read("suspect"), compared.read("base")
    limit = share = None
    if counts[0] is not None and counts[1] is not None:
        limit = limit_seconds(list(zip(folders, (counts[0], counts[1]), strict=True)))
        share = (counts[0] + counts[1]) / sum(map(apparent_bytes, folders))
    return Row(
        what=what,
        seconds=compared.run.seconds,
        cpu_seconds=compared.run.cpu_seconds,
        limit_seconds=limit,
        suspect_bytes=counts[0],
        base_bytes=counts[1],
        share=share,
        peak_mb=compared.run.peak_mb,
        says=compared.says,
        note="" if limit is not None else "bytes read not reported",
    )


def apparent_bytes(folder: Path) -> int:
    """Return how long the weight files of a folder are together, holes included."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in SUFFIXES)


def d_prime(related: list[float], unrelated: list[float]) -> float:
    """Return the distance of two means in units of the pooled standard deviation (unbiased variances, equal weight).

    Example:
        >>> d_prime([4.0, 6.0], [0.0, 2.0])
        2.8284271247461903
    """
    pooled = ((statistics.variance(related) + statistics.variance(unrelated)) / 2) ** 0.5
    return (statistics.mean(related) - statistics.mean(unrelated)) / pooled
