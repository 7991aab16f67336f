"""The builders make files that the formats' own libraries read, so a case fails for the lie in it and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from safetensors.numpy import load

from hostile import build
from kinprint.checkpoint import open_checkpoint

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_safetensors(tmp_path: Path) -> None:
    theirs = load(build.valid_safetensors())
    (tmp_path / "model.safetensors").write_bytes(build.valid_safetensors())
    ours = open_checkpoint(tmp_path / "model.safetensors")
    assert list(ours.tensors) == ["a", "b"]
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours.read(name), values)
    np.testing.assert_array_equal(ours.read("a"), A)


@pytest.mark.parametrize("content", [build.valid_zip(), build.valid_legacy()], ids=["zip", "legacy"])
def test_torch(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    np.testing.assert_array_equal(torch.load(tmp_path / "model.bin", weights_only=True)["a"].numpy(), A)
    np.testing.assert_array_equal(open_checkpoint(tmp_path / "model.bin").read("a"), A)


def test_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(build.valid_gguf())
    theirs = GGUFReader(tmp_path / "model.gguf").tensors[1]
    ours = open_checkpoint(tmp_path / "model.gguf")
    np.testing.assert_array_equal(ours.read("quantised"), dequantize(theirs.data, theirs.tensor_type))
    assert ours.vocabulary == ("a", "b", "\u0120c")
