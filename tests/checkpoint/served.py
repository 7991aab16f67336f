"""A model of some megabytes in shards, and what it must be once it was served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kinprint.checkpoint import Checkpoint, open_checkpoint

ROWS, COLUMNS = 600, 1000
CONFIG = {"model_type": "llama", "hidden_size": COLUMNS}
TOKENS = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}, "added_tokens": []}


def model(folder: Path, *, seed: int = 0, shards: int = 2) -> Path:
    """Write a model in shards, with config and tokenizer."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    weight_map: dict[str, str] = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        tensors = {f"layers.{number}.{part}": draw.random((ROWS, COLUMNS), np.float32) for part in "ab"}
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENS))
    return folder


def same(ours: Checkpoint, folder: Path) -> None:
    """Hold a model against the folder that it was served from."""
    local = open_checkpoint(folder)
    assert (ours.content_digest, ours.config, ours.format) == (local.content_digest, local.config, local.format)
    assert ours.vocabulary == local.vocabulary
