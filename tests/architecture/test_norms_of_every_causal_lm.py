"""Norms against the modules: what each computes, and whether it feeds the matrices that are said to read it.

Gains are folded into those matrices, so a wrong norm there would make a copy with other gains look like a stranger.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from causal import build, classes, library

from kinprint.architecture import ModelView, PartKey, Place, view
from kinprint.checkpoint import MemoryCheckpoint

EXCEPTIONS = {
    "AXK2ForCausalLM": "a gate follows the norms",
    "Dots3NoteForCausalLM": "latent vectors are scaled behind their norm",
    "LongcatFlashForCausalLM": "latent vectors are scaled behind their norm",
    "RwkvForCausalLM": "each matrix reads a mixture with the token before",
}
"""Classes in which something stands between a norm and what reads it. An entry whose class passes is an error."""

EPSILON = 1e-6
CLOSE = 2e-2
"""Of the largest value: some norms have an epsilon of 1e-3."""


def recorded(module: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what every submodule was given and returned for one token."""
    torch = library("torch")
    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}

    def listening(path: str) -> Any:
        def hook(_: Any, given: Any, returned: Any) -> None:
            for kept, value in ((inputs, given), (outputs, returned)):
                tensor = value[0] if isinstance(value, tuple) and value else value
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dim():
                    kept.setdefault(path, tensor.reshape(-1, tensor.shape[-1])[0].numpy().copy())

        return hook

    for path, part in module.named_modules():
        part.register_forward_hook(listening(path))
    with torch.no_grad(), suppress(Exception):  # what lies behind the layers may need more than one token
        module(torch.tensor([[7]]))
    return inputs, outputs


def wrong(name: str) -> tuple[list[str], int]:
    """Return the norms that compute or feed something else, and how many were compared."""
    module, config = build(name)
    inputs, outputs = recorded(module)
    model = view(
        MemoryCheckpoint({key: value.numpy() for key, value in module.state_dict().items()}, config=config.to_dict())
    )
    found: list[str] = []
    compared = 0
    for key, place in model.parts.items():
        path = place.tensor.removesuffix(".weight")
        for claim, holds in (
            ("computes", _computes(model, key, inputs.get(path), outputs.get(path))),
            ("reads", _reads(model, key, place, inputs.get(path), outputs)),
        ):
            compared += holds is not None
            found += [f"{key} {claim} something else"] if holds is False else []
    return found, compared


def _computes(model: ModelView, key: PartKey, given: Any, made: Any) -> bool | None:
    """Return whether a norm of the stream gives what its gain says; None where that cannot be seen."""
    if not key.role.startswith("norm.") or key.role.endswith((".bias", "norm.q", "norm.k")) or given is None:
        return None
    gain = model.gain(key.role, key.layer)
    if made is None or not len(given) == len(made) == len(gain):
        return None
    values = given.astype(np.float64)
    if model.family.norm == "layer" and not key.role.endswith("_rank"):
        values = values - values.mean()
    bias = f"{key.role}.bias"
    shift = model.array(bias, key.layer) if model.has(bias, key.layer) else 0.0
    expected = values / np.sqrt((values**2).mean() + EPSILON) * gain + shift
    return bool(np.allclose(expected, made, atol=CLOSE * max(1.0, float(np.abs(expected).max()))))


def _reads(model: ModelView, key: PartKey, place: Place, given: Any, outputs: dict[str, np.ndarray]) -> bool | None:
    """Return whether a matrix was given what its norm returned; None where that cannot be seen."""
    norm = place.part.reads
    if not norm or key.expert is not None or key.layer is None or not model.has(norm, key.layer):
        return None
    returned = outputs.get(model.tensor_name(norm, key.layer).removesuffix(".weight"))
    if given is None or returned is None or given.shape != returned.shape:
        return None
    return bool(np.allclose(given, returned, atol=1e-4))


@pytest.mark.parametrize("name", [name for name in classes() if name not in EXCEPTIONS])
def test_norms_compute_and_feed_what_the_tables_say(name: str) -> None:
    assert wrong(name)[0] == []


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_still_is_one(name: str) -> None:
    assert wrong(name)[0] != []


def test_norms_are_seen_at_all() -> None:
    assert wrong("LlamaForCausalLM")[1] > 20
