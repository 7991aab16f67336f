"""Reading GGUF: the values that the ``gguf`` package decodes, in the row order of the model that was converted."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

from hostile import build
from kinprint.checkpoint import Checkpoint, gguf_file, open_checkpoint
from kinprint.errors import CheckpointError

PLAIN = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32}
NOT_DECODED = {"Q8_1", "Q8_K", "Q1_0"}
QUANTISED = [kind for kind in GGMLQuantizationType if kind.name not in {*PLAIN, "I64", "BF16"}]


def converted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """What llama.cpp's converter does to q and k."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path, tensors: dict[str, Any], *, architecture: str = "llama", heads: int = 4, kv: int | Sequence[int] = 2
) -> Checkpoint:
    writer = GGUFWriter(path, architecture)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_checkpoint(path)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_dtypes_are_views_of_the_file(name: str, tmp_path: Path) -> None:
    values = (np.arange(24).reshape(2, 3, 4) - 5).astype(PLAIN[name])
    ours = write(tmp_path / "m.gguf", {"w": values})
    read = ours.read("w")
    assert (ours.tensors["w"].dtype, read.dtype, read.shape) == (name, values.dtype, (2, 3, 4))
    np.testing.assert_array_equal(read, values)
    assert read.base is not None
    assert bytes(ours.raw("w")) == values.tobytes()


def test_bf16_reads_as_bf16(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0, 0.0, 3.0]], np.float32)
    data = quantize(values, GGMLQuantizationType.BF16).tobytes()
    tensor = build.gguf_tensor("w", (4, 1), int(GGMLQuantizationType.BF16), 0)
    (tmp_path / "m.gguf").write_bytes(build.gguf([], [tensor], data))
    read = open_checkpoint(tmp_path).read("w")
    assert read.dtype.name == "bfloat16"
    np.testing.assert_array_equal(read.astype(np.float32), values)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_quantisation_decodes_as_the_package_decodes_it_or_is_refused(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(int(kind))
    blocks = rng.integers(0, 256, (2, 3, 2 * block_bytes), dtype=np.uint8)
    tensor = build.gguf_tensor("experts", (2 * block, 3, 2), int(kind), 0)
    (tmp_path / "m.gguf").write_bytes(build.gguf([], [tensor], blocks.tobytes()))
    ours = open_checkpoint(tmp_path)
    assert ours.tensors["experts"].dtype == f"GGUF:{kind.name}"
    assert ours.tensors["experts"].floating
    assert bytes(ours.raw("experts")) == blocks.tobytes()
    if kind.name in NOT_DECODED:
        with pytest.raises(CheckpointError, match=f"the quantisation {kind.name}, which is not decoded"):
            ours.read("experts")
        return
    with np.errstate(all="ignore"):
        theirs = dequantize(blocks, kind)
    assert ours.read("experts").dtype == np.float32
    np.testing.assert_array_equal(ours.read("experts"), theirs)
    np.testing.assert_array_equal(ours.read("experts", slice(1, 2)), theirs[1:2])
    assert ours.read("experts", slice(0, 0)).shape == (0, 3, 2 * block)


def test_a_quantisation_of_the_future_is_listed_and_only_its_values_are_refused(tmp_path: Path) -> None:
    tensors = [build.gguf_tensor("new", (32, 2), 199, 0), build.gguf_tensor("w", (2,), 0, 64)]
    (tmp_path / "m.gguf").write_bytes(build.gguf([], tensors, bytes(64) + struct.pack("<2f", 1, 2)))
    ours = open_checkpoint(tmp_path)
    assert (ours.tensors["new"].dtype, ours.tensors["new"].nbytes) == ("GGUF:TYPE_199", 64)
    np.testing.assert_array_equal(ours.read("w"), [1, 2])
    with pytest.raises(CheckpointError, match="TYPE_199"):
        ours.read("new")


def test_a_large_tensor_decodes_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((70, 64)).astype(np.float32)
    data = quantize(values, GGMLQuantizationType.Q4_1)
    tensor = build.gguf_tensor("w", (64, 70), build.Q4_1, 0)
    (tmp_path / "m.gguf").write_bytes(build.gguf([], [tensor], data.tobytes()))
    monkeypatch.setattr(gguf_file, "BLOCK_BYTES", 64 * 4 * 16)
    np.testing.assert_array_equal(open_checkpoint(tmp_path).read("w"), dequantize(data, GGMLQuantizationType.Q4_1))


@pytest.mark.parametrize("architecture", sorted(gguf_file.PERMUTED))
def test_the_row_order_of_q_and_k_is_undone_where_the_converter_changes_it(architecture: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    originals = {
        "blk.0.attn_q.weight": (rng.standard_normal((16, 8)).astype(np.float32), 4),
        "blk.0.attn_k.weight": (rng.standard_normal((8, 8)).astype(np.float32), 2),
        "blk.0.attn_q.bias": (rng.standard_normal(16).astype(np.float32), 4),
    }
    stored = {
        name: values if name.endswith("bias") and architecture not in gguf_file.BIASES_TOO else converted(values, heads)
        for name, (values, heads) in originals.items()
    }
    untouched = {
        name: np.arange(16, dtype=np.float32).reshape(4, 4)
        for name in ("blk.0.attn_v.weight", "blk.0.attn_output.weight")
    }
    ours = write(tmp_path / "m.gguf", {**stored, **untouched}, architecture=architecture)
    for name, (values, _) in originals.items():
        np.testing.assert_array_equal(ours.read(name), values)
        np.testing.assert_array_equal(ours.read(name, slice(3, 7)), values[3:7])
        assert bytes(ours.raw(name)) == stored[name].tobytes()
    for name, values in untouched.items():
        np.testing.assert_array_equal(ours.read(name), values)
    assert any("row order" in note for note in ours.notes)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "llama4", "gptneox", "command-r"])
def test_the_rows_of_other_architectures_are_left_alone(architecture: str, tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.float32).reshape(16, 4)
    ours = write(tmp_path / "m.gguf", {"blk.0.attn_q.weight": values}, architecture=architecture)
    np.testing.assert_array_equal(ours.read("blk.0.attn_q.weight"), values)
    assert ours.notes == ()


def test_head_counts_may_differ_between_layers(tmp_path: Path) -> None:
    values = np.arange(32, dtype=np.float32).reshape(8, 4)
    stored = {f"blk.{layer}.attn_k.weight": converted(values, heads) for layer, heads in enumerate((2, 1))}
    ours = write(tmp_path / "m.gguf", stored, architecture="deci", kv=[2, 1])
    for name in stored:
        np.testing.assert_array_equal(ours.read(name), values)


def test_without_a_head_count_rows_stay_as_stored_and_the_note_says_so(tmp_path: Path) -> None:
    tensor = build.gguf_tensor("blk.0.attn_q.weight", (4, 8), 0, 0)
    (tmp_path / "m.gguf").write_bytes(build.gguf([build.ARCHITECTURE], [tensor], bytes(128)))
    assert any("does not state the number of heads" in note for note in open_checkpoint(tmp_path).notes)


def test_settings_are_those_that_the_package_reads_without_the_long_lists(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_uint8("a", 200)
    writer.add_int64("b", -(1 << 40))
    writer.add_float64("c", 0.125)
    writer.add_bool("d", True)
    writer.add_string("e", "caf\u00e9")
    writer.add_array("f", [1, 2, 3])
    writer.add_key_value("nan", float("nan"), GGUFValueType.FLOAT32)
    writer.add_token_list([f"t{number}" for number in range(2000)])
    writer.add_tensor("w", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = open_checkpoint(tmp_path / "m.gguf")
    theirs = GGUFReader(tmp_path / "m.gguf")
    assert ours.config == {
        "general.architecture": "llama",
        "a": 200, "b": -(1 << 40), "c": 0.125, "d": True, "e": "caf\u00e9", "f": [1, 2, 3],
    }  # fmt: skip
    for key, value in ours.config.items():
        field = theirs.get_field(key)
        assert field is not None
        assert field.contents() == value
    vocabulary = ours.vocabulary
    assert vocabulary is not None
    assert (len(vocabulary), vocabulary[1999]) == (2000, "t1999")


def test_tokens_that_are_no_utf8_stay_distinct(tmp_path: Path) -> None:
    tokens = build.strings("tokenizer.ggml.tokens", [b"\xff", b"\xfe", b"ok"])
    tensor = build.gguf_tensor("w", (4,), 0, 0)
    (tmp_path / "m.gguf").write_bytes(build.gguf([tokens], [tensor], bytes(16)))
    assert open_checkpoint(tmp_path).vocabulary == ("\\xff", "\\xfe", "ok")


def test_a_split_model_is_read_whole_with_the_first_file_s_settings(tmp_path: Path) -> None:
    values = np.arange(32, dtype=np.float32).reshape(8, 4)
    first = build.gguf([build.ARCHITECTURE, build.HEADS], [build.gguf_tensor("w", (4,), 0, 0)], bytes(16))
    second = build.gguf([], [build.gguf_tensor("blk.0.attn_q.weight", (4, 8), 0, 0)], converted(values, 2).tobytes())
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(first)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(second)
    for target in (tmp_path, tmp_path / "m-00001-of-00002.gguf"):
        ours = open_checkpoint(target)
        assert list(ours.tensors) == ["w", "blk.0.attn_q.weight"]
        np.testing.assert_array_equal(ours.read("blk.0.attn_q.weight"), values)
