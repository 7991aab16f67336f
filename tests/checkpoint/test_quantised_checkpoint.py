"""A decoded checkpoint stands for the unquantised one: names, passing through, bytes for digests, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from checkpoint import packed
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.checkpoint.quantised import DecodedCheckpoint, decoded
from kinprint.checkpoint.quantised import packed as packing
from kinprint.errors import CheckpointError


def model() -> dict[str, np.ndarray[Any, Any]]:
    """Two GPTQ modules among tensors that are not packed."""
    tensors: dict[str, np.ndarray[Any, Any]] = {"model.embed_tokens.weight": np.ones((4, 32), np.float16)}
    for seed, name in enumerate(("q_proj", "k_proj")):
        module = packed.gptq(seed, 32, 32)
        prefix = f"model.layers.0.self_attn.{name}."
        tensors |= {key.replace("m.", prefix): array for key, array in module.tensors.items()}
        tensors[prefix + "bias"] = np.ones(32, np.float16)
        tensors[prefix + "k_scale"] = np.ones((), np.float32)
    tensors["model.norm.weight"] = np.ones(32, np.float16)
    return tensors


CONFIG = {"model_type": "llama", "quantization_config": packed.gptq(0, 32, 32).quantization}


def test_names_shapes_and_order_are_those_of_the_unquantised_model() -> None:
    read = decoded(MemoryCheckpoint(model(), config=CONFIG, vocabulary=("a", "b"), name="kin"))
    assert {name: info.shape for name, info in read.tensors.items()} == {
        "model.embed_tokens.weight": (4, 32),
        "model.layers.0.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.self_attn.q_proj.bias": (32,),
        "model.layers.0.self_attn.k_proj.weight": (32, 32),
        "model.layers.0.self_attn.k_proj.bias": (32,),
        "model.norm.weight": (32,),
    }
    assert (read.name, read.location, read.format, read.vocabulary) == ("kin", "memory:kin", "memory", ("a", "b"))
    assert read.config == CONFIG
    assert read.notes == (
        "decoded 2 tensors of GPTQ (4 bits)",
        "left out 2 tensors that scale activations or describe packed weights",
    )
    assert read.read("model.norm.weight").dtype == np.float16
    for hidden in ("model.layers.0.self_attn.q_proj.qweight", "model.layers.0.self_attn.q_proj.k_scale"):
        with pytest.raises(KeyError):
            read.read(hidden)
        with pytest.raises(KeyError):
            read.raw(hidden)


def test_scales_of_the_inputs_are_multiplied_in() -> None:
    """modelopt's AWQ divides the columns before it rounds them."""
    made = packed.nvfp4(3, (4, 48))
    plain = decoded(MemoryCheckpoint(made.tensors, config={"quantization_config": made.quantization}))
    scales = np.linspace(0.5, 2.0, 48, dtype=np.float32)
    tensors = {**made.tensors, "m.pre_quant_scale": scales}
    read = decoded(MemoryCheckpoint(tensors, config={"quantization_config": made.quantization}))
    np.testing.assert_array_equal(read.read("m.weight", slice(1, 3)), plain.read("m.weight")[1:3] * scales)
    assert "m.pre_quant_scale" not in read.tensors
    assert bytes(read.raw("m.weight")).endswith(scales.tobytes())


def test_scales_of_other_inputs_are_a_fault() -> None:
    made = packed.nvfp4(3, (4, 48))
    tensors = {**made.tensors, "m.pre_quant_scale": np.ones(47, np.float32)}
    with pytest.raises(CheckpointError, match="the packed matrix has 48 inputs"):
        decoded(MemoryCheckpoint(tensors, config={"quantization_config": made.quantization}))


def test_the_bytes_of_a_tensor_are_those_of_all_that_it_is_made_of() -> None:
    made = packed.gptq(0, 32, 32)
    read = made.open()
    stored = b"".join(made.tensors[f"m.{leaf}"].tobytes() for leaf in ("qweight", "qzeros", "scales", "g_idx"))
    assert bytes(read.raw("m.weight")) == stored
    assert read.tensors["m.weight"].nbytes == len(stored)
    shuffled = MemoryCheckpoint(dict(reversed(made.tensors.items())), config=made.config())
    assert decoded(shuffled).content_digest == read.content_digest
    made.tensors["m.scales"] = made.tensors["m.scales"] * np.float16(2)
    assert made.open().content_digest != read.content_digest
    assert made.open().header_digest == read.header_digest


@pytest.mark.parametrize("config", [{}, {"model_type": "llama"}, {"quantization_config": {"quant_method": "fp8"}}])
def test_a_checkpoint_without_packed_tensors_is_returned_as_it_is(config: dict[str, Any]) -> None:
    plain = MemoryCheckpoint({"w": np.ones((2, 2), np.float32), "ids": np.ones((1, 9), np.int64)}, config=config)
    assert decoded(plain) is plain


def test_masks_and_fp8_of_an_unquantised_model_are_left_alone() -> None:
    tensors = {
        "h.0.attn.bias": np.ones((1, 1, 4, 4), np.uint8),
        "table": np.ones((4, 4), np.int32),
        "w": np.ones((2, 2), ml_dtypes.float8_e4m3fn),
    }
    plain = MemoryCheckpoint(tensors)
    assert decoded(plain) is plain


def test_decoding_twice_changes_nothing() -> None:
    once = decoded(MemoryCheckpoint(model(), config=CONFIG))
    assert isinstance(once, DecodedCheckpoint)
    assert decoded(once) is once


@pytest.mark.parametrize("part", ["text_config", "llm_config"])
def test_the_settings_may_stand_in_the_part_for_text(part: str) -> None:
    made = packed.mlx(0, (4, 64), bits=3)
    nested = MemoryCheckpoint(made.tensors, config={part: {"quantization_config": made.quantization}})
    np.testing.assert_array_equal(decoded(nested).read("m.weight"), made.values)


def test_a_folder_decodes_and_closes(tmp_path: Path) -> None:
    made = packed.gptq(0, 32, 64)
    read = packed.saved(tmp_path, made.tensors, made.config())
    values = read.read("m.weight")
    assert read.tensors["m.weight"].file == "model.safetensors"
    read.close()
    np.testing.assert_array_equal(values, made.values)


def test_one_module_of_a_mixed_model_keeps_its_own_scheme() -> None:
    made = packed.nvfp4(0, (4, 32))
    fp8 = packed.fp8(1, (4, 32), block=(4, 32))
    tensors = made.tensors | {name.replace("m.", "n."): array for name, array in fp8.tensors.items()}
    read = packed.Made(tensors, made.values, {"quant_method": "modelopt"}).open()
    assert [info.dtype for info in read.tensors.values()] == ["NVFP4:4", "FP8:8"]
    np.testing.assert_array_equal(read.read("n.weight"), fp8.values)


def test_rows_cost_the_memory_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = packed.mlx(0, (512, 1024))
    read = made.open()
    monkeypatch.setattr(packing, "BLOCK_BYTES", 1 << 16)

    def peak(rows: slice | None) -> int:
        tracemalloc.start()
        try:
            read.read("m.weight", rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(slice(0, 8)) < 400_000
    # The whole is 2 MB, and temporaries come on top of it for a block of rows only.
    assert peak(None) < 2_097_152 + 400_000
    np.testing.assert_array_equal(read.read("m.weight"), made.values)
