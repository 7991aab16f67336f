"""Reading Flax's msgpack files: arrays that the ``msgpack`` package packs the way Flax does, under torch's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError

msgpack = pytest.importorskip("msgpack")

RNG = np.random.default_rng(0)


def packed(tree: Any) -> bytes:
    """Pack a tree as ``flax.serialization.msgpack_serialize`` does."""

    def extension(value: Any) -> Any:
        content = msgpack.packb((value.shape, value.dtype.name, value.tobytes("C")), use_bin_type=True)
        return msgpack.ExtType(3 if isinstance(value, np.generic) else 1, content)

    return msgpack.packb(tree, default=extension, strict_types=True)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(size=shape).astype(np.float32)


def test_names_and_axes_become_torch_s(tmp_path: Path) -> None:
    q, conv, odd = floats(3, 5), floats(2, 2, 3, 4), floats(3, 4, 5)
    tree = {
        "model": {"layers": {"0": {"q": {"kernel": q, "bias": floats(5)}, "norm": {"scale": floats(4)}}}},
        "embed": {"embedding": floats(7, 4)},
        "conv": {"kernel": conv},
        "odd": {"kernel": odd},
    }
    (tmp_path / "flax_model.msgpack").write_bytes(packed(tree))
    ours = open_checkpoint(tmp_path)
    assert ours.format == "msgpack"
    assert set(ours.tensors) == {
        "model.layers.0.q.weight", "model.layers.0.q.bias", "model.layers.0.norm.weight", "embed.weight",
        "conv.weight", "odd.kernel",
    }  # fmt: skip
    np.testing.assert_array_equal(ours.read("model.layers.0.q.weight"), q.T)
    np.testing.assert_array_equal(ours.read("model.layers.0.q.weight", slice(1, 3)), q.T[1:3])
    np.testing.assert_array_equal(ours.read("conv.weight"), conv.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(ours.read("odd.kernel"), odd)
    assert bytes(ours.raw("model.layers.0.q.weight")) == q.T.tobytes()
    assert ours.tensors["model.layers.0.q.weight"].shape == (5, 3)
    assert not ours.read("conv.weight").flags.writeable
    assert any("torch's" in note for note in ours.notes)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float64", "int32", "uint8", "bool"])
def test_every_dtype_reads_as_it_was_packed(kind: str, tmp_path: Path) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(kind)
    values = np.linspace(0, 9, 6).reshape(2, 3).astype(dtype)
    (tmp_path / "a.msgpack").write_bytes(packed({"w": values}))
    ours = open_checkpoint(tmp_path / "a.msgpack")
    np.testing.assert_array_equal(ours.read("w"), values)
    assert bytes(ours.raw("w")) == values.tobytes()


def test_a_train_state_gives_its_params_and_says_what_was_left_out(tmp_path: Path) -> None:
    tree = {"step": np.int32(3), "params": {"w": floats(2)}, "opt": {"mu": floats(2)}, "x": [1, -2.5, None, True, "a"]}
    (tmp_path / "flax_model.msgpack").write_bytes(packed(tree))
    ours = open_checkpoint(tmp_path)
    assert list(ours.tensors) == ["w"]
    assert any("under params" in note for note in ours.notes)


def test_arrays_in_chunks_are_joined(tmp_path: Path) -> None:
    whole = floats(11, 3)
    pieces = {str(place): whole.reshape(-1)[3 * place : 3 * place + 3] for place in range(11)}
    # Keys in another order than that of the pieces, which their numbers tell.
    chunks = dict(sorted(pieces.items()))
    tree = {"a": {"kernel": {"__msgpack_chunked_array__": True, "shape": {"0": 11, "1": 3}, "chunks": chunks}}}
    (tmp_path / "flax_model.msgpack").write_bytes(packed(tree))
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("a.weight"), whole.T)
    assert bytes(ours.raw("a.weight")) == whole.T.tobytes()


def test_shards_are_joined_by_an_index_with_flax_s_own_names(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b"), 1):
        (tmp_path / f"flax_model-0000{number}-of-00002.msgpack").write_bytes(packed({name: {"kernel": floats(2, 3)}}))
    places = {f"{name}/kernel": f"flax_model-0000{number}-of-00002.msgpack" for number, name in enumerate("ab", 1)}
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": places}))
    assert set(open_checkpoint(tmp_path).tensors) == {"a.weight", "b.weight"}


def test_a_file_without_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.msgpack").write_bytes(packed({"a": 1}))
    with pytest.raises(CheckpointError, match="no arrays"):
        open_checkpoint(tmp_path / "a.msgpack")
