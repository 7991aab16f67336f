"""Cold start of the command: medians of several runs in processes of their own, after one warm-up.

The bar is 0.3 s for ``kinprint --help``. The empty interpreter is printed beside it, since it is the floor.

Usage: python benchmarks/startup.py [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def median_seconds(command: list[str], runs: int) -> float:
    """Return the median wall time of a command."""
    seconds: list[float] = []
    for run in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if run:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print one row for each command; exit 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    kinprint = str(Path(sys.executable).parent / "kinprint")
    floor = median_seconds([sys.executable, "-c", "pass"], runs)
    commands = {"--help": [kinprint, "--help"], "compare examples": [kinprint, "compare", *pair("child", "base")]}
    print("| command | seconds | times an empty interpreter |\n|---|---|---|")
    measured = {label: median_seconds(command, runs) for label, command in commands.items()}
    for label, seconds in measured.items():
        print(f"| {label} | {seconds:.2f} | {seconds / floor:.1f} |")
    sys.exit(measured["--help"] > 0.3)


def pair(suspect: str, base: str) -> tuple[str, str]:
    """Return the folders of two examples."""
    return str(EXAMPLES / suspect), str(EXAMPLES / base)


if __name__ == "__main__":
    main()
