"""Our merges, depth up-scaling and upcycling against mergekit's, tensor by tensor.

mergekit (LGPL-3.0) is called as a command and never imported or copied. It needs 1.6 GB, so it has an environment of
its own, outside CI::

    python -m venv .venv/mergekit
    .venv/mergekit/bin/pip install torch mergekit==0.1.5 -e .
    .venv/mergekit/bin/python benchmarks/mergekit/check.py

Prints for each method the largest difference of a weight as a share of the largest weight of its tensor, and exits with
1 where it is beyond the bar. Routers are left out: both sides draw them at random.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers
from kinprint.transform.damaging import disturbed
from kinprint.transform.merging import linear, slerp, task_arithmetic, ties
from kinprint.transform.upcycling import upcycled
from kinprint.zoo.model import Model

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("base", "child", "twin")

BAR = 1e-6
"""mergekit computes in float32, ours in float64: a sum of a few numbers keeps about 1e-7, a short arc less."""

JITTER = 1e-3
"""Noise on every tensor, as a share of its spread. Stored in bf16, many entries of a task vector are equally large, and
which of them TIES trims is left to the sort: no reference for anything."""

States = dict[str, ModelState]


@dataclass(frozen=True, slots=True)
class Case:
    """One recipe in both languages."""

    name: str
    recipe: dict[str, object]
    ours: Callable[[States], ModelState]
    command: str = "mergekit-yaml"
    options: tuple[str, ...] = ()


def merge(method: str, weights: dict[str, dict[str, float]], **more: object) -> dict[str, object]:
    """Return a mergekit recipe of whole models."""
    models = [{"model": name, "parameters": settings} for name, settings in weights.items()]
    return {"merge_method": method, "models": models, "dtype": "float32", **more}


def layers(first: int, last: int) -> dict[str, object]:
    """Return a slice of the base for a passthrough recipe."""
    return {"sources": [{"model": "base", "layer_range": [first, last]}]}


CASES = (
    Case(
        "linear",
        merge("linear", {"base": {"weight": 0.3}, "child": {"weight": 0.5}, "twin": {"weight": 0.8}}),
        lambda s: linear([s["base"], s["child"], s["twin"]], [0.3, 0.5, 0.8]),
    ),
    Case(
        "slerp, parent and child",
        merge("slerp", {"base": {}, "child": {}}, base_model="base", parameters={"t": 0.3}),
        lambda s: slerp(s["base"], s["child"], 0.3),
    ),
    Case(
        "slerp, strangers",
        merge("slerp", {"base": {}, "twin": {}}, base_model="base", parameters={"t": 0.5}),
        lambda s: slerp(s["base"], s["twin"], 0.5),
    ),
    Case(
        "ties, density 0.2",
        merge(
            "ties",
            {"child": {"weight": 1.0, "density": 0.2}, "twin": {"weight": 1.0, "density": 0.2}},
            base_model="base",
        ),
        lambda s: ties(s["base"], [s["child"], s["twin"]], density=0.2),
    ),
    Case(
        "ties, density 0.5, weights, lambda 0.7",
        merge(
            "ties",
            {"child": {"weight": 1.0, "density": 0.5}, "twin": {"weight": 0.4, "density": 0.5}},
            base_model="base",
            parameters={"lambda": 0.7},
        ),
        lambda s: ties(s["base"], [s["child"], s["twin"]], density=0.5, scale=0.7, weights=[1.0, 0.4]),
    ),
    Case(
        "task arithmetic",
        merge("task_arithmetic", {"child": {"weight": 0.6}, "twin": {"weight": 0.3}}, base_model="base"),
        lambda s: task_arithmetic(s["base"], [s["child"], s["twin"]], [0.6, 0.3]),
    ),
    Case(
        "passthrough, depth up-scaling",
        {"merge_method": "passthrough", "slices": [layers(0, 4), layers(2, 6)], "dtype": "float32"},
        lambda s: with_layers(s["base"], [0, 1, 2, 3, 2, 3, 4, 5]),
    ),
    Case(
        "passthrough, depth cut",
        {"merge_method": "passthrough", "slices": [layers(0, 2), layers(4, 6)], "dtype": "float32"},
        lambda s: with_layers(s["base"], [0, 1, 4, 5]),
    ),
    Case(
        "mixture of four copies",
        {
            "base_model": "base",
            "gate_mode": "random",
            "dtype": "float32",
            "experts": [{"source_model": "base", "positive_prompts": [""]}] * 4,
        },
        lambda s: upcycled(s["base"], experts=4, active=2, noise=0.0, rng=np.random.default_rng(0)),
        command="mergekit-moe",
        options=("--i-understand-this-is-not-useful-without-training",),
    ),
)


def jittered(name: str, seed: int) -> Model:
    """Return an example in float32 without ties."""
    state, rng = Model.read(EXAMPLES / name).state(), np.random.default_rng(seed)
    parts = {key: disturbed(array, JITTER, rng) for key, array in sorted(state.parts.items(), key=str)}
    return Model.read(EXAMPLES / name).with_state(state.updated(parts))


def write(model: Model, folder: Path) -> None:
    """Write a model in float32."""
    from safetensors.numpy import save_file

    model.write_settings(folder)
    save_file(dict(model.weights), folder / "model.safetensors", metadata={"format": "pt"})


def theirs(case: Case, folder: Path) -> Model:
    """Run mergekit in a folder that holds the models by name, and read what it wrote."""
    recipe, out = folder / "recipe.yaml", folder / "out"
    recipe.write_text(json.dumps(case.recipe))
    command = [str(Path(sys.executable).with_name(case.command)), recipe.name, out.name, "--quiet", *case.options]
    if case.command == "mergekit-yaml":
        # Layers that occur twice are otherwise shared, which safetensors refuses; a card asks the hub about each model.
        command += ["--clone-tensors", "--no-write-model-card"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{case.name}: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Model.read(out)


def largest_difference(ours: ModelState, reference: ModelState) -> tuple[float, str]:
    """Return the largest difference of a weight as a share of its matrix's largest, and the matrix.

    By role, for mergekit spells the experts of a mixture in another way.

    Raises:
        SystemExit: The two do not hold the same matrices.
    """
    if apart := sorted(str(key) for key in {*ours.parts} ^ {*reference.parts}):
        raise SystemExit(f"only one side has {', '.join(apart[:5])}")
    found = (0.0, "")
    for key, array in reference.parts.items():
        if key.role != "moe.router":
            gap = np.abs(ours.parts[key].astype(np.float32) - array).max() / np.abs(array).max()
            found = max(found, (float(gap), str(key)))
    return found


def main() -> int:
    """Run every case and print the table."""
    print(f"mergekit {version('mergekit')}, torch {version('torch')}, transformers {version('transformers')}\n")
    print("| case | largest difference | in |\n|---|---|---|")
    worst = 0.0
    models = {name: jittered(name, seed) for seed, name in enumerate(NAMES)}
    for case in CASES:
        with TemporaryDirectory() as scratch:
            for name, model in models.items():
                write(model, Path(scratch, name))
            reference = theirs(case, Path(scratch))
        states = {name: model.state() for name, model in models.items()}
        gap, where = largest_difference(case.ours(states), reference.state())
        print(f"| {case.name} | {gap:.1e} | {where if gap else 'nothing differs'} |", flush=True)
        worst = max(worst, gap)
    print(f"\nlargest {worst:.1e}, bar {BAR:.0e}")
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
