"""Reading safetensors: every dtype bit for bit, only the bytes that are asked for, and what is not decoded is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as reference_load
from safetensors.torch import save_file

from hostile import build
from kinprint.checkpoint import open_checkpoint
from kinprint.checkpoint.local import ByteSource
from kinprint.checkpoint.safetensors_file import SafetensorsFile
from kinprint.errors import CheckpointError

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
INTEGERS = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Counted(ByteSource):
    """A source that writes down what was fetched."""

    def __init__(self, content: bytes) -> None:
        self.name = self.where = "counted.safetensors"
        self.size = len(content)
        self.fetched: list[tuple[int, int]] = []
        self._content = memoryview(content)

    def view(self, offset: int, length: int) -> memoryview:
        self.fetched.append((offset, length))
        return self._content[offset : offset + length]

    def close(self) -> None:
        self._content.release()


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_every_dtype_reads_as_torch_wrote_it(dtype: str, tmp_path: Path) -> None:
    kind = {**FLOATS, **INTEGERS}[dtype]
    values = torch.linspace(-3, 3, 24).reshape(4, 6).to(kind)
    save_file({"w": values}, tmp_path / "model.safetensors")
    ours = open_checkpoint(tmp_path / "model.safetensors")
    read = ours.read("w")
    assert (ours.tensors["w"].dtype, read.shape, read.flags.writeable) == (dtype, (4, 6), False)
    np.testing.assert_array_equal(read.astype(np.float64), values.to(torch.float64).numpy())
    np.testing.assert_array_equal(ours.read("w", slice(1, 3)).view(np.uint8), read[1:3].view(np.uint8))
    assert bytes(ours.raw("w")) == values.contiguous().view(torch.uint8).numpy().tobytes()
    assert ours.tensors["w"].floating == (dtype in FLOATS)


def test_every_bit_pattern_of_8_bit_floats_reads_as_torch_reads_it(tmp_path: Path) -> None:
    patterns = torch.arange(256, dtype=torch.uint8)
    kinds = {"a": torch.float8_e4m3fn, "b": torch.float8_e5m2}
    save_file({name: patterns.clone().view(kind) for name, kind in kinds.items()}, tmp_path / "model.safetensors")
    ours = open_checkpoint(tmp_path / "model.safetensors")
    for name, kind in kinds.items():
        np.testing.assert_array_equal(ours.read(name).astype(np.float32), patterns.view(kind).float().numpy())


def test_scalars_and_empty_tensors_read(tmp_path: Path) -> None:
    save_file({"scalar": torch.tensor(7.0), "empty": torch.zeros(0, 5)}, tmp_path / "model.safetensors")
    ours = open_checkpoint(tmp_path / "model.safetensors")
    assert ours.read("scalar").shape == ()
    assert ours.read("scalar") == 7.0
    assert ours.read("empty").shape == (0, 5)
    assert ours.tensors["empty"].size == 0


def test_a_tensor_at_an_odd_offset_reads(tmp_path: Path) -> None:
    header = {
        "a": build.entry("U8", [1], 0, 1),
        "b": build.entry("BF16", [4], 1, 9),
        "c": build.entry("F32", [2], 9, 17),
    }
    values = torch.tensor([1.5, -2.0, 0.0, 3.0])
    data = b"\x07" + values.bfloat16().view(torch.uint8).numpy().tobytes() + values[:2].numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(build.safetensors(header, data))
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("b").astype(np.float32), values.numpy())
    np.testing.assert_array_equal(ours.read("c"), values[:2].numpy())


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "F6_E2M3", "C64", "F3_OF_TOMORROW"])
def test_a_dtype_that_is_not_decoded_is_listed_and_only_its_values_are_refused(dtype: str, tmp_path: Path) -> None:
    nbytes = {"F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "C64": 64}.get(dtype, 5)
    header = {"a": build.entry(dtype, [8], 0, nbytes), "b": build.entry("F32", [1], nbytes, nbytes + 4)}
    (tmp_path / "model.safetensors").write_bytes(build.safetensors(header, bytes(nbytes + 4)))
    ours = open_checkpoint(tmp_path)
    assert ours.tensors["a"].dtype == dtype
    assert not ours.tensors["a"].floating
    assert len(ours.raw("a")) == nbytes
    assert ours.read("b") == 0
    with pytest.raises(CheckpointError, match="is not decoded"):
        ours.read("a")


def test_opening_fetches_the_header_and_reading_fetches_one_tensor() -> None:
    source = Counted(build.valid_safetensors())
    part = SafetensorsFile(source)
    header_bytes = source.size - len(build.VALID_DATA)
    assert sum(length for _, length in source.fetched) == header_bytes
    source.fetched.clear()
    part.read("b", None)
    assert source.fetched == [(header_bytes + 24, 8)]


@pytest.mark.parametrize(
    "header",
    [
        {"a": build.entry("F32", [1], 0, 4)},
        {"a": build.entry("F32", [1], 4, 8)},
        {"a": build.entry("F32", [2], 0, 8), "b": build.entry("F32", [1], 4, 8)},
        {"a": build.entry("F32", [3], 0, 8)},
        {"a": build.entry("F32", [3], 0, 12)},
        {"a": build.entry("F32", [-2], 0, 8)},
    ],
    ids=["bytes left over", "gap", "overlap", "wrong size", "past the end", "negative"],
)
def test_the_reference_library_refuses_what_we_refuse(header: dict[str, object], tmp_path: Path) -> None:
    content = build.safetensors(header, bytes(8))
    with pytest.raises(SafetensorError):
        reference_load(content)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)


def test_tensors_are_listed_in_file_order_whatever_the_order_of_the_header(tmp_path: Path) -> None:
    header = {
        "z": build.entry("F32", [1], 4, 8),
        "empty": build.entry("F32", [0], 4, 4),
        "y": build.entry("F32", [1], 0, 4),
    }
    (tmp_path / "model.safetensors").write_bytes(build.safetensors(json.dumps(header) + "   ", bytes(8)))
    assert list(open_checkpoint(tmp_path).tensors) == ["y", "empty", "z"]


def test_arrays_stay_valid_after_close_and_new_reads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(build.valid_safetensors())
    ours = open_checkpoint(tmp_path)
    read = ours.read("a")
    ours.close()
    assert read.sum() == 15
    with pytest.raises(CheckpointError, match="closed"):
        ours.read("b")
