"""What is written reads back bit for bit, here and in the reference library, and a failure leaves nothing behind."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kinprint.checkpoint import open_checkpoint, write_safetensors
from kinprint.errors import UsageError

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((4, 6))
KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
ARRAYS = {name: (np.abs(VALUES) * 3).astype(kind) for name, kind in KINDS.items()}


def test_every_dtype_reads_back_here_and_in_torch(tmp_path: Path) -> None:
    assert write_safetensors(tmp_path / "m", ARRAYS) == (tmp_path / "m" / "model.safetensors",)
    ours = open_checkpoint(tmp_path / "m")
    theirs = load_file(tmp_path / "m" / "model.safetensors")
    assert set(theirs) == set(ARRAYS)
    for name, values in ARRAYS.items():
        assert ours.tensors[name].dtype == name
        np.testing.assert_array_equal(ours.read(name).view(np.uint8), values.view(np.uint8))
        np.testing.assert_array_equal(theirs[name].view(torch.uint8).numpy(), values.view(np.uint8))


def test_tensors_are_aligned_whatever_their_order(tmp_path: Path) -> None:
    write_safetensors(
        tmp_path / "m.safetensors", {"a": np.zeros(3, np.uint8), "b": np.zeros(2), "c": np.zeros((), np.float16)}
    )
    ours = open_checkpoint(tmp_path / "m.safetensors")
    assert all(ours.read(name).flags.aligned for name in ours.tensors)
    assert ours.read("c").shape == ()


def test_strided_and_big_endian_arrays_are_written_by_value(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m", {"t": VALUES.T, "big": VALUES.astype(">f4")})
    ours = open_checkpoint(tmp_path / "m")
    np.testing.assert_array_equal(ours.read("t"), VALUES.T)
    np.testing.assert_array_equal(ours.read("big"), VALUES.astype(np.float32))


def test_shards_hold_at_most_what_is_asked_and_the_index_agrees_with_them(tmp_path: Path) -> None:
    arrays = {f"w{number}": np.full((8, 4), number, np.float32) for number in range(5)}
    written = write_safetensors(tmp_path / "m", arrays, shard_bytes=256, prefix="part")
    assert [path.name for path in written] == [
        *(f"part-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)),
        "part.safetensors.index.json",
    ]
    ours = open_checkpoint(tmp_path / "m")
    assert ours.notes == ()
    for name, values in arrays.items():
        np.testing.assert_array_equal(ours.read(name), values)
    index = json.loads(written[-1].read_text())
    assert index["metadata"] == {"total_size": 640}
    for tensor, file in index["weight_map"].items():
        assert tensor in load_file(tmp_path / "m" / file)


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own(tmp_path: Path) -> None:
    arrays = {"a": np.zeros(1), "b": np.zeros(100), "c": np.zeros(1)}
    assert len(write_safetensors(tmp_path / "m", arrays, shard_bytes=64)) == 4


def test_config_vocabulary_and_metadata_are_written_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    write_safetensors(
        tmp_path / "m", ARRAYS, config={"x": 1}, vocabulary_file=tmp_path / "vocab.txt", metadata={"source": "test"}
    )
    ours = open_checkpoint(tmp_path / "m")
    assert (ours.config, ours.vocabulary) == ({"x": 1}, ("a", "b"))
    with safe_open(tmp_path / "m" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "source": "test"}


def test_an_iterator_is_consumed_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[Any]] = []

    def stream() -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        for number in range(6):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1, "the writer holds on to tensors"
            array = np.full(1000, number, np.float32)
            alive.append(weakref.ref(array))
            yield f"w{number}", array

    write_safetensors(tmp_path / "m", stream(), shard_bytes=8000)
    assert open_checkpoint(tmp_path / "m").read("w5")[0] == 5


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [True, False], ids=["old folder", "new folder"])
def test_a_failure_half_way_leaves_the_disk_as_it_was(error: type[BaseException], exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    if exists:
        write_safetensors(folder, {"old": VALUES})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stream() -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        yield "a", VALUES
        raise error

    with pytest.raises(error):
        write_safetensors(folder, stream(), shard_bytes=10)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert folder.exists() == exists
    assert len(list(tmp_path.iterdir())) == int(exists)


def test_a_model_of_the_same_file_name_is_replaced_and_another_one_is_not_mixed_in(tmp_path: Path) -> None:
    write_safetensors(tmp_path, {"old": VALUES})
    write_safetensors(tmp_path, {"new": VALUES})
    assert list(open_checkpoint(tmp_path).tensors) == ["new"]
    with pytest.raises(UsageError, match=r"already holds model\.safetensors"):
        write_safetensors(tmp_path, {"a": VALUES, "b": VALUES}, shard_bytes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([], "no tensors"),
        ([("a", VALUES), ("a", VALUES)], "given twice"),
        ([("__metadata__", VALUES)], "reserved"),
        ([("a\n", VALUES)], "no usable tensor name"),
        ([("a", VALUES.astype(np.complex64))], "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(pairs: list[tuple[str, Any]], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        write_safetensors(tmp_path / "m", pairs)
    assert list(tmp_path.iterdir()) == []


def test_one_file_cannot_be_sharded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be sharded"):
        write_safetensors(tmp_path / "m.safetensors", ARRAYS, shard_bytes=1)
