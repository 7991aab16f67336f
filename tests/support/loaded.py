"""Models as transformers loads them from a folder, by what their config says, with not a tensor too many or too few."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kinprint.architecture import view
from kinprint.checkpoint import write_safetensors
from kinprint.transform import ModelState
from support.tiny import Model

TOKENS = np.random.default_rng(3).integers(0, 40, size=(2, 12))
"""Below 40, so that cut vocabularies have them too."""


def tiny(kind: str) -> ModelState:
    """Return one of the tiny models."""
    return ModelState.from_view(view(Model(kind).checkpoint))


def load(state: ModelState) -> Any:
    """Return a state as a module in float64."""
    import torch
    import transformers

    checkpoint = state.checkpoint(np.float64)
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(checkpoint.config))
        tensors = {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
        write_safetensors(Path(folder, "model.safetensors"), tensors)
        module, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, output_loading_info=True, attn_implementation="eager"
        )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    if hasattr(module.config, "_experts_implementation"):
        module.config._experts_implementation = "eager"  # the grouped kernel takes no float64
    return module.eval()


def logits(model: ModelState | Any) -> np.ndarray:
    """Return the logits of a state, or of a module, on fixed tokens."""
    import torch

    module = load(model) if isinstance(model, ModelState) else model
    with torch.no_grad():
        return module(torch.from_numpy(TOKENS), use_cache=False).logits.numpy()
