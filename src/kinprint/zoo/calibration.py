"""What pruning measures a model on: a few rows of text, and the module's layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinprint.errors import UsageError
from kinprint.shapes import Int64
from kinprint.zoo.model import Model
from kinprint.zoo.train import training_tokens

BATCH_ROWS = 16
"""Rows that go through the module at once: bounds memory, changes nothing else."""


def calibration_rows(model: Model, text: bytes, *, rows: int, rng: np.random.Generator) -> Int64[np.ndarray, "B T"]:
    """Draw rows of tokens, each as long as the context, from all of a text but its held-out end."""
    tokens_N, context = training_tokens(model, text), model.context
    starts_B = rng.integers(0, tokens_N.size - context, size=rows)
    return np.stack([tokens_N[start : start + context] for start in starts_B])


def layers(module: Any) -> list[Any]:  # noqa: ANN401 - a transformers model
    """Return a decoder's layers, first to last.

    Raises:
        UsageError: The module does not keep them in one list.
    """
    count = module.config.num_hidden_layers
    for child in module.base_model.children():
        if type(child).__name__ == "ModuleList" and len(child) == count:
            return list(child)
    raise UsageError(f"{type(module).__name__} does not keep its {count} layers in one list: use a decoder")


def run(module: Any, rows_BT: Any) -> None:  # noqa: ANN401
    """Run a module on rows of tokens for what its hooks hear."""
    for rows in rows_BT.split(BATCH_ROWS):
        module(input_ids=rows, use_cache=False)
