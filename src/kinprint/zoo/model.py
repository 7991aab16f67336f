"""A small model in memory: what kinds of derivation start from and return."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kinprint.architecture import view
from kinprint.checkpoint import Array, MemoryCheckpoint, open_checkpoint, write_safetensors
from kinprint.errors import UsageError
from kinprint.transform import ModelState

WEIGHTS_FILE = "model.safetensors"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Model:
    """Config, weights and tokenizer. Meant for small models: all of it is in memory.

    Attributes:
        config: What ``config.json`` says.
        weights: Tensors by the names that the checkpoint has, floating ones in float32.
        files: Tokenizer files by name, as bytes.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Array]
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Load a model from its folder.

        Raises:
            CheckpointError: It cannot be read.
        """
        stored = open_checkpoint(folder)
        weights = {name: _single(stored.read(name), stored.tensors[name].floating) for name in stored.tensors}
        there = [name for name in TOKENIZER_FILES if folder.is_dir() and (folder / name).is_file()]
        return cls(stored.config, weights, {name: (folder / name).read_bytes() for name in there})

    @property
    def tokenizer(self) -> dict[str, Any]:
        """What ``tokenizer.json`` says; empty without one."""
        return json.loads(self.files.get("tokenizer.json", b"{}"))

    @property
    def context(self) -> int:
        """Longest sequence that the model takes, at most 128: what it is trained and measured on here."""
        longest = self.config.get("max_position_embeddings", self.config.get("n_positions", 128))
        return min(int(longest), 128)

    def state(self) -> ModelState:
        """Return the parts by role, in float64.

        Raises:
            UsageError: A tensor has no role in a family table.
        """
        return ModelState.from_view(view(MemoryCheckpoint(self.weights, config=self.config, name="the model")))

    def with_state(self, state: ModelState) -> Model:
        """Return the model with other parts, and the config that belongs to them."""
        after = state.checkpoint(np.float32)
        weights = {name: np.array(after.read(name)) for name in after.tensors}
        return replace(self, config=after.config, weights=weights)

    def rounded(self) -> Model:
        """Return the model as it is stored, in bf16 (nearest, ties to even), widened to float32 again."""
        return replace(self, weights={name: _widened(array) for name, array in _stored(self.weights).items()})

    @property
    def content_digest(self) -> str:
        """Digest that ``kinprint inspect`` and ``compare`` give the stored model."""
        return MemoryCheckpoint(_stored(self.weights)).content_digest

    def write(self, folder: Path) -> Path:
        """Write the model's files in the usual Hugging Face layout, weights in bf16 and last; return their path.

        Raises:
            UsageError: They cannot be written.
        """
        self.write_settings(folder)
        weights = folder / WEIGHTS_FILE
        try:
            write_safetensors(weights, _stored(self.weights))
        except OSError as error:
            raise UsageError(f"cannot write {weights}: {error.strerror}: choose another folder") from error
        return weights

    def write_settings(self, folder: Path) -> None:
        """Write config and tokenizer.

        Raises:
            UsageError: They cannot be written.
        """
        put(folder / "config.json", as_json(self.config))
        for name, content in self.files.items():
            put(folder / name, content)


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a file that already says the same is left alone.

    Raises:
        UsageError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}: choose another folder") from error


def as_json(value: object) -> bytes:
    """Return a value as the JSON that model folders hold."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _stored(weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name: a.astype(ml_dtypes.bfloat16) if a.dtype == np.float32 else a for name, a in weights.items()}


def _widened(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def _single(array: Array, floating: bool) -> Array:
    return array.astype(np.float32) if floating else np.array(array)
