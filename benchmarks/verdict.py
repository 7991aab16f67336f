"""How long a verdict takes, and how much memory: on shipped models, and on pairs that are given.

Usage: python benchmarks/verdict.py [SUSPECT BASE]...

Each pair is judged in a process of its own, as the command does it with its default settings, models opened and methods
of the literature measured included. The 8-layer models are the shipped 6-layer ones with two layers repeated.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
EIGHT = (0, 1, 2, 3, 4, 5, 1, 4)


def eight_layers(name: str, folder: Path) -> Path:
    """Write a shipped model with two of its layers repeated."""
    from kinprint.architecture import view
    from kinprint.checkpoint import open_checkpoint, write_safetensors
    from kinprint.transform import ModelState
    from kinprint.transform.cutting import with_layers

    state = with_layers(ModelState.from_view(view(open_checkpoint(EXAMPLES / name))), EIGHT)
    made = state.checkpoint()
    out = folder / name
    out.mkdir(parents=True)
    write_safetensors(out / "model.safetensors", {tensor: made.read(tensor) for tensor in made.tensors})
    (out / "config.json").write_text(json.dumps(dict(state.config)))
    return out


def judged(suspect: str, base: str) -> None:
    """Judge one pair in this process and print what it took."""
    start = time.perf_counter()
    from kinprint import api

    verdict = api.compare(suspect, base).verdict
    assert verdict is not None
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {Path(suspect).name} | {Path(base).name} | {verdict.conclusion} | {seconds:.2f} | {peak:.0f} |")


def main(pairs: list[str]) -> None:
    """Judge all pairs, one after the other."""
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n", flush=True)
    print("| suspect | base | verdict | seconds | peak MB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        made = {name: str(eight_layers(name, Path(folder))) for name in ("base", "child", "twin", "laundered")}
        chosen = [(made[name], made["base"]) for name in ("child", "laundered", "twin")]
        chosen += list(zip(pairs[::2], pairs[1::2], strict=True))
        for suspect, base in chosen:
            subprocess.run([sys.executable, __file__, "--one", suspect, base], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        judged(sys.argv[2], sys.argv[3])
    else:
        main(sys.argv[1:])
