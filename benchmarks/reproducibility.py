"""Same seeds, same bits; another processor, nearly the same numbers.

Builds the suite ``smoke`` twice on this machine and once with the kernels of an older processor, which add up in
another order, and runs the benchmark on both kinds. Prints the largest difference of each method's headline number, and
exits with 1 where two builds here differ in a bit, or a similarity by more than the bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BAR = 0.02
"""Largest difference of a headline similarity that docs/zoo.md promises for another processor."""

OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
"""Makes torch, MKL, oneDNN and numpy's OpenBLAS use no instruction that is newer than 2008."""

Json = dict[str, Any]


def kinprint(*words: str, **environment: str) -> None:
    """Run the command."""
    command = [str(Path(sys.executable).with_name("kinprint")), *words]
    subprocess.run(command, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)


def weights(zoo: Path) -> dict[str, str]:
    """Return the digest of every model's weights, by name."""
    return {model["name"]: model["weights_sha256"] for model in json.loads((zoo / "zoo.json").read_bytes())["models"]}


def largest_differences(here: Json, there: Json) -> dict[str, tuple[float, str]]:
    """Return the largest difference of each headline similarity, and the pair on which it was seen.

    Raises:
        SystemExit: A number is there in one result only.
    """
    found: dict[str, tuple[float, str]] = {}
    names = [f"{c['method']}: {c['value']}" for c in here["columns"] if c["headline"] and c["kind"] == "similarity"]
    for ours, theirs in zip(here["rows"], there["rows"], strict=True):
        pair = f"{ours['case']['suspect']} / {ours['case']['base']}"
        for name in names:
            a, b = (row["cells"][name]["value"] for row in (ours, theirs))
            if (a is None) != (b is None):
                raise SystemExit(f"{name} of {pair} is measured in one result only")
            if a is not None:
                found[name] = max(found.get(name, (0.0, "")), (abs(a - b), pair))
    return found


def main() -> int:
    """Build, compare, print."""
    with TemporaryDirectory() as scratch:
        here, again, older = (Path(scratch, name) for name in ("here", "again", "older"))
        kinprint("zoo", "build", "smoke", "--quiet", "-o", str(here))
        kinprint("zoo", "build", "smoke", "--quiet", "-o", str(again))
        kinprint("zoo", "build", "smoke", "--quiet", "-o", str(older), **OLDER)
        results: list[Json] = []
        for zoo in (here, older):
            out = zoo.with_name(f"{zoo.name}-bench")
            kinprint("bench", "smoke", "--zoo", str(zoo), "-o", str(out), "--no-plots", "--quiet")
            results.append(json.loads((out / "result.json").read_bytes()))
        first, second, other = (weights(zoo) for zoo in (here, again, older))
    unlike = [name for name in first if first[name] != second[name]]
    moved = sum(first[name] != other[name] for name in first)
    print(f"built twice here: {len(first) - len(unlike)} of {len(first)} models equal to the bit")
    print(f"built with older kernels: {moved} of {len(first)} models differ\n")
    print("| headline similarity | largest difference | pair |\n|---|---|---|")
    found = largest_differences(*results)
    for name, (gap, pair) in found.items():
        print(f"| {name} | {gap:.4f} | {pair} |")
    worst = max(gap for gap, _ in found.values())
    print(f"\nlargest {worst:.4f}, bar {BAR}")
    return int(bool(unlike) or worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
