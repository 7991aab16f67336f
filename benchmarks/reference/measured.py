"""Run a published procedure on folders and print what it found and took, as JSON.

Usage: python benchmarks/reference/measured.py {awm,ghostspec} BASE SUSPECT...

Each pair is charged for all that it needs alone: reading and measuring both models. GhostSpec's spectra are made once a
model and charged to every pair that the model is in.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cost_parts.streaming import Array, tensors

from reference import awm, ghostspec

PENALTY = 0.0
"""Of a skipped layer; models of one depth skip none."""


def main() -> None:
    """Measure the base with each suspect."""
    procedure, base, *suspects = sys.argv[1:]
    run: Callable[[Path, list[Path]], list[dict[str, object]]] = {"awm": _awm, "ghostspec": _ghostspec}[procedure]
    json.dump(run(Path(base), list(map(Path, suspects))), sys.stdout)


def _awm(base: Path, suspects: list[Path]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for suspect in suspects:
        started = time.perf_counter()
        score = awm.similarity(_awm_weights(suspect), _awm_weights(base))
        found.append(_entry(suspect, score, time.perf_counter() - started))
    return found


def _awm_weights(folder: Path) -> awm.Weights:
    found = tensors(folder)
    layers = range(_config(folder)["num_hidden_layers"])
    return awm.Weights(
        _single(found["model.embed_tokens.weight"]),
        [_single(found[f"model.layers.{layer}.self_attn.q_proj.weight"]) for layer in layers],
        [_single(found[f"model.layers.{layer}.self_attn.k_proj.weight"]) for layer in layers],
    )


def _ghostspec(base: Path, suspects: list[Path]) -> list[dict[str, object]]:
    base_seconds, base_spectra = _timed(partial(_spectra, base))
    found: list[dict[str, object]] = []
    for suspect in suspects:
        seconds, spectra = _timed(partial(_spectra, suspect))
        score = -ghostspec.distance(spectra, base_spectra, penalty=PENALTY)
        found.append(_entry(suspect, score, seconds + base_seconds))
    return found


def _spectra(folder: Path) -> list[tuple[Array, Array]]:
    found, config = tensors(folder), _config(folder)
    spectra: list[tuple[Array, Array]] = []
    for layer in range(config["num_hidden_layers"]):
        matrices = (_single(found[f"model.layers.{layer}.self_attn.{name}_proj.weight"]) for name in "qkvo")
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        spectra.append(ghostspec.layer_spectra(*matrices, heads=heads, kv_heads=kv_heads))
    return spectra


def _timed(work: Callable[[], list[tuple[Array, Array]]]) -> tuple[float, list[tuple[Array, Array]]]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _entry(suspect: Path, score: float, seconds: float) -> dict[str, object]:
    return {"suspect": suspect.name, "score": score, "seconds": seconds}


def _config(folder: Path) -> dict[str, int]:
    return json.loads((folder / "config.json").read_text("utf-8"))


def _single(weight: Array) -> Array:
    return weight.astype(np.float32)


if __name__ == "__main__":
    main()
