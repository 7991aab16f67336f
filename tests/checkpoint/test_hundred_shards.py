"""A model in a hundred shards: what is read of it is what was asked for, and the headers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import Array, LocalFile, open_checkpoint, write_safetensors

SHARDS = 100
LAYERS = SHARDS - 1
HIDDEN, FFN, VOCAB, HEADS = 128, 1024, 64, 4
LAYER_BYTES = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN + 2 * HIDDEN)
CONFIG = {
    "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB, "tie_word_embeddings": False,
}  # fmt: skip


def tensors() -> Iterator[tuple[str, Array]]:
    """One layer after the other, then what stands outside of them."""
    ends = {"model.embed_tokens": (VOCAB, HIDDEN), "model.norm": (HIDDEN,), "lm_head": (VOCAB, HIDDEN)}
    of_layer = {
        "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        **{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
        "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN),
    }  # fmt: skip
    for layer in range(LAYERS):
        for name, shape in of_layer.items():
            yield f"model.layers.{layer}.{name}.weight", np.full(shape, layer, ml_dtypes.bfloat16)
    yield from ((f"{name}.weight", np.zeros(shape, ml_dtypes.bfloat16)) for name, shape in ends.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shards") / "model"
    *shards, _ = write_safetensors(made, tensors(), config=CONFIG, shard_bytes=LAYER_BYTES)
    assert len(shards) == SHARDS
    assert all(1e6 > file.stat().st_size > 0.9e6 for file in shards[:-1])
    return made


Handed = list[tuple[str, int, int]]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Handed:
    """File, first byte and byte after the last of every view that a local file hands out."""
    found: Handed = []
    own = LocalFile.view

    def noted(self: LocalFile, offset: int, length: int) -> memoryview:
        found.append((self.name, offset, offset + length))
        return own(self, offset, length)

    monkeypatch.setattr(LocalFile, "view", noted)
    return found


def read(handed: Handed) -> int:
    """Bytes handed out, those that are handed out twice counted twice."""
    return sum(end - start for _, start, end in handed)


def opened(folder: Path) -> ModelView:
    return view(open_checkpoint(folder))


def test_opening_reads_every_header_and_nothing_behind_it(folder: Path, handed: Handed) -> None:
    model = opened(folder)
    assert model.geometry.layers == LAYERS
    assert model.coverage == 1.0
    ends: dict[str, int] = {}
    for name, _, end in handed:
        ends[name] = max(end, ends.get(name, 0))
    for file in folder.glob("*.safetensors"):
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        assert ends.pop(file.name) == header <= 1024
    # Whatever else is read is small and no shard.
    assert set(ends) <= {"model.safetensors.index.json", "config.json"}


@pytest.mark.parametrize("layer", [0, 57, LAYERS - 1])
def test_reading_a_layer_reads_that_layer_once(layer: int, folder: Path, handed: Handed) -> None:
    model = opened(folder)
    handed.clear()
    keys = [key for key in model.parts if key.layer == layer]
    for key in keys:
        assert (model.array(key.role, layer) == layer).all()
    assert len(keys) == 9
    assert read(handed) == LAYER_BYTES
    assert {name for name, _, _ in handed} == {f"model-{layer + 1:05d}-of-{SHARDS:05d}.safetensors"}


def test_reading_the_embedding_reads_no_layer(folder: Path, handed: Handed) -> None:
    model = opened(folder)
    handed.clear()
    model.array("embed.token")
    ((name, start, end),) = handed
    assert (name, end - start) == ("model-00100-of-00100.safetensors", 2 * VOCAB * HIDDEN)


def test_a_fold_reads_the_gain_besides(folder: Path, handed: Handed) -> None:
    model = opened(folder)
    handed.clear()
    model.array("attn.q", 3, fold=True)
    assert read(handed) == 2 * HIDDEN * HIDDEN + 2 * HIDDEN


def test_every_other_shard_may_be_unreadable_while_one_layer_is_read(folder: Path, tmp_path: Path) -> None:
    """What was counted is all that is touched: the values of other layers may be gone from the disk."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for file in folder.iterdir():
        target = tmp_path / file.name
        if file.suffix != ".safetensors":
            target.write_bytes(file.read_bytes())
            continue
        head = file.read_bytes()[: 8 + int.from_bytes(file.read_bytes()[:8], "little")]
        whole = file.name == index["weight_map"]["model.layers.4.mlp.up_proj.weight"]
        with target.open("wb") as out:
            out.write(file.read_bytes() if whole else head)
            out.truncate(file.stat().st_size)  # a hole, which reads as zeros
    model = opened(tmp_path)
    assert (model.array("mlp.up", 4) == 4).all()
    assert (model.array("mlp.up", 5) == 0).all()
