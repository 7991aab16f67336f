"""Whatever packed tensors say of each other, the answer is their values or one line; never raw integers as weights."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint import packed
from checkpoint.packed import Made
from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.checkpoint.quantised import decoded
from kinprint.errors import CheckpointError

PEAK_BYTES = 3_000_000
Spoil = Callable[[Made], None]
STATE = "m.weight.quant_state.bitsandbytes__nf4"


def set_to(name: str, array: np.ndarray[Any, Any]) -> Spoil:
    return lambda made: made.tensors.update({name: array})


def without(name: str) -> Spoil:
    return lambda made: made.tensors.__delitem__(name)


def says(**settings: object) -> Spoil:
    return lambda made: (made.quantization or {}).update(settings)


def state(**values: object) -> Spoil:
    def spoil(made: Made) -> None:
        text = json.loads(made.tensors[STATE].tobytes()) | values
        made.tensors[STATE] = np.frombuffer(json.dumps(text).encode(), np.uint8)

    return spoil


def zeros(dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


def gptq() -> Made:
    return packed.gptq(0, 32, 64)


def awq() -> Made:
    return packed.awq(0, 16, 64)


def compressed() -> Made:
    return packed.compressed(0, 40, 64, zeros=True, order=True)


def mlx() -> Made:
    return packed.mlx(0, (4, 64))


def bnb() -> Made:
    return packed.bnb(0, (8, 64), nested=True)


def bnb8() -> Made:
    return packed.bnb8(0, 4, 8)


def fp8() -> Made:
    return packed.fp8(0, (6, 8), block=(4, 4))


def nvfp4() -> Made:
    return packed.nvfp4(0, (4, 32))


def nvfp4_compressed() -> Made:
    return packed.nvfp4(0, (4, 32), compressed_tensors=True)


def mxfp4() -> Made:
    return packed.mxfp4(0, 2, 4, 64)


BROKEN: list[tuple[Callable[[], Made], Spoil, str]] = [
    (gptq, without("m.scales"), "no scales beside it"),
    (gptq, without("m.qzeros"), "no qzeros beside it"),
    (gptq, set_to("m.scales", zeros(np.int32, 2, 32)), "no scales of GPTQ or AWQ"),
    (gptq, set_to("m.scales", zeros(np.float16, 0, 32)), "no scales of GPTQ or AWQ"),
    (gptq, set_to("m.qzeros", zeros(np.int32, 2, 7)), "rows of words"),
    (gptq, set_to("m.g_idx", zeros(np.int32, 20)), "rows of words"),
    (gptq, set_to("m.g_idx", zeros(np.float32, 64)), "no index of groups"),
    (gptq, set_to("m.g_idx", np.full(64, 2, np.int32)), "outside of the 2 groups"),
    (gptq, set_to("m.g_idx", np.full(64, -1, np.int32)), "outside of the 2 groups"),
    (gptq, says(group_size=16), "the config says groups of 16"),
    (gptq, says(group_size=1 << 70), "the config says groups of"),
    (gptq, says(bits=8), "the config says 8"),
    (gptq, says(bits="4"), "a whole number belongs there"),
    (gptq, says(checkpoint_format="marlin"), "marlin, which is not decoded"),
    (gptq, says(quant_method="paroquant"), "paroquant"),
    (awq, says(version="gemv"), "gemv, which is not decoded"),
    (awq, says(quant_method="paroquant"), "paroquant"),
    (awq, set_to("m.qzeros", zeros(np.int32, 2, 3)), "but scales have"),
    (awq, set_to("m.scales", zeros(np.float16, 2, 17)), "but scales have"),
    (awq, says(group_size=128), "the config says groups of 128"),
    (compressed, without("m.weight_scale"), "no weight_scale beside it"),
    (compressed, without("m.weight_shape"), "no weight_shape beside it"),
    (compressed, set_to("m.weight_shape", np.array([1 << 40, 64])), "states the shape"),
    (compressed, set_to("m.weight_shape", np.array([40, -64])), "states the shape"),
    (compressed, set_to("m.weight_shape", np.array([40, 1 << 40])), "states the shape"),
    (compressed, set_to("m.weight_shape", np.array([40, 60])), "which"),
    (compressed, set_to("m.weight_scale", zeros(np.float32, 40, 3)), "fits no number of bits"),
    (compressed, set_to("m.weight_zero_point", zeros(np.int32, 40, 2)), "weight_zero_point"),
    (compressed, set_to("m.weight_g_idx", np.full(64, 5, np.int32)), "outside of the 2 groups"),
    (compressed, set_to("m.weight_g_idx", zeros(np.int32, 3)), "for 64 columns"),
    (compressed, says(format="marlin-24"), "marlin-24, which is not decoded"),
    (compressed, says(config_groups={"g": {"weights": {"num_bits": 8, "group_size": 32}}}), "the config contradicts"),
    (compressed, says(config_groups={"g": {"weights": {"num_bits": 4, "group_size": 8}}}), "the config contradicts"),
    (mlx, without("m.scales"), "no scales beside it"),
    (mlx, without("m.biases"), "has no biases"),
    (mlx, says(bits=7), "7 bits"),
    (mlx, says(bits=8), "8 bits in groups of 32"),
    (mlx, says(group_size=128), "groups of 128"),
    (mlx, says(group_size=0), "groups of 0"),
    (mlx, says(mode="ternary"), "ternary"),
    (mlx, lambda made: setattr(made, "quantization", None), "no config states the bits"),
    (bnb, without("m.weight.absmax"), "absmax' is missing"),
    (bnb, without("m.weight.nested_absmax"), "nested_absmax' is missing"),
    (bnb, without("m.weight"), "no state of bitsandbytes"),
    (bnb, without(STATE), "bitsandbytes"),
    (bnb, state(shape=[1 << 50, 1 << 50]), "2^60"),
    (bnb, state(shape=[1 << 20, 1 << 20]), "states the shape"),
    (bnb, state(shape=[8, -64]), "no believable shape"),
    (bnb, state(shape="8x64"), "no believable shape"),
    (bnb, state(shape=[0, 1 << 59]), "states the shape"),
    (bnb, state(blocksize=0), "block size of 0"),
    (bnb, state(blocksize=128), "block size of 128"),
    (bnb, state(blocksize=1.5), "block size of 1.5"),
    (bnb, state(nested_blocksize=1), "nested_absmax"),
    (bnb, state(nested_offset="0"), "offset of '0'"),
    (bnb, set_to(STATE, np.frombuffer(b'{"shape": ', np.uint8)), "malformed JSON"),
    (bnb, set_to(STATE, np.frombuffer(b"[]", np.uint8)), "no object"),
    (bnb, set_to("m.weight.quant_map", zeros(np.float32, 15)), "16 values"),
    (bnb, set_to("m.weight.nested_quant_map", zeros(np.float32, 2)), "nested_absmax"),
    (bnb8, set_to("m.SCB", zeros(np.float32, 5)), "but the weight has"),
    (bnb8, set_to("m.weight_format", np.array(1, np.uint8)), "tiles"),
    (bnb8, without("m.SCB"), "bitsandbytes"),
    (fp8, without("m.weight_scale_inv"), "no scales beside it"),
    (fp8, set_to("m.weight_scale_inv", zeros(np.float32, 3, 2)), "blocks of [4, 4]"),
    (fp8, set_to("m.weight_scale_inv", zeros(np.float32, 5, 2)), "blocks of [4, 4]"),
    (fp8, set_to("m.weight_scale_inv", zeros(np.int32, 2, 2)), "I32"),
    (fp8, set_to("m.weight_scale", zeros(np.float32, 1)), "two tensors of scales"),
    (fp8, set_to("m.weight_g_idx", zeros(np.int32, 8)), "reordered"),
    (fp8, says(weight_block_size=[0, 4]), "no pair of lengths"),
    (fp8, says(weight_block_size=4), "no pair of lengths"),
    (nvfp4, without("m.weight_scale_2"), "no m.weight_scale_2 beside it"),
    (nvfp4, without("m.weight_scale"), "modelopt"),
    (nvfp4, set_to("m.weight_scale", zeros(ml_dtypes.float8_e4m3fn, 4, 3)), "for every 16"),
    (nvfp4, set_to("m.weight_scale_2", zeros(np.float32, 4)), "no scale of whole matrices"),
    (nvfp4_compressed, without("m.weight_global_scale"), "no weight_global_scale"),
    (nvfp4_compressed, without("m.weight_scale"), "no weight_scale"),
    (nvfp4_compressed, set_to("m.weight_packed", zeros(np.uint8, 4, 24)), "for every 16"),
    (nvfp4_compressed, set_to("m.weight_scale", zeros(np.uint8, 4, 2)), "m.weight_scale"),
    (mxfp4, without("m.gate_up_proj_scales"), "no m.gate_up_proj_scales"),
    (mxfp4, set_to("m.gate_up_proj_scales", zeros(np.uint8, 2, 4, 3)), "but the blocks have"),
    (mxfp4, set_to("m.gate_up_proj", zeros(np.float32, 2, 64, 4)), "packed and unpacked"),
]


def everything(checkpoint: Checkpoint) -> None:
    for name in checkpoint.tensors:
        checkpoint.read(name)


@pytest.mark.parametrize(
    ("make", "spoil", "text"), BROKEN, ids=[f"{make.__name__}: {text}" for make, _, text in BROKEN]
)
def test_tensors_that_contradict_each_other_give_one_line(make: Callable[[], Made], spoil: Spoil, text: str) -> None:
    made = make()
    everything(made.open())
    spoil(made)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            everything(made.open())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("memory:memory")
    assert text in message
    assert message.isprintable()
    assert message.count("; ") >= 1, "a message says what to do"
    assert peak < PEAK_BYTES


def test_a_block_longer_than_the_tensor_costs_no_memory() -> None:
    alone = packed.bnb(0, (2, 8), nested=True)
    state(blocksize=1 << 70, nested_blocksize=1 << 70)(alone)
    reordered = packed.gptq(0, 32, 64, group=64)
    says(group_size=1 << 70)(reordered)
    blocks = packed.fp8(0, (2, 3), block=(4, 4))
    says(weight_block_size=[1 << 70, 1 << 70])(blocks)
    for made in (alone, reordered, blocks):
        tracemalloc.start()
        try:
            read = made.read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_array_equal(read, made.values)
        assert peak < PEAK_BYTES


W8 = zeros(np.uint8, 4, 8)
FOREIGN: list[tuple[str | None, dict[str, np.ndarray[Any, Any]], str]] = [
    ("hqq", {"m.W_q": W8, "m.scale": zeros(np.float16, 4, 1), "m.zero": zeros(np.float16, 4, 1)}, "HQQ"),
    (None, {"m.W_q": W8}, "HQQ"),
    ("aqlm", {"m.codes": zeros(np.int8, 4, 4, 1), "m.codebooks": zeros(np.float16, 1, 256, 1, 8)}, "AQLM"),
    ("quanto", {"m.weight._data": zeros(np.int8, 4, 8), "m.weight._scale": zeros(np.float16, 4, 1)}, "quanto"),
    ("eetq", {"m.weight": zeros(np.int8, 8, 4), "m.weight_scales": zeros(np.float16, 4)}, "EETQ"),
    ("spqr", {"m.dense_weights": zeros(np.int64, 9)}, "SpQR"),
    ("vptq", {"m.indices": zeros(np.int32, 1, 4, 4), "m.centroids": zeros(np.float16, 1, 8)}, "vptq"),
    ("torchao", {"m._weight_qdata": zeros(ml_dtypes.float8_e4m3fn, 4, 8)}, "torchao"),
    (None, {"m.weight_qdata": zeros(np.int8, 4, 8)}, "torchao"),
    ("bitnet", {"m.weight": W8, "m.weight_scale": zeros(np.float16, 1)}, "bitnet"),
    ("higgs", {"m.weight": zeros(np.int16, 4, 8), "m.tables": zeros(np.float16, 16, 1)}, "HIGGS"),
    ("exl3", {"m.trellis": zeros(np.int16, 4, 4, 8)}, "EXL3"),
    ("fp_quant", {"m.qweight": W8, "m.scales": W8}, "fp_quant"),
    ("compressed-tensors", {"m.weight_packed": zeros(np.uint8, 4, 24), "m.weight_scale": zeros(np.uint8, 4, 1)}, "FP6"),
    ("compressed-tensors", {"m.compressed": zeros(np.float16, 9), "m.bitmask": W8}, "bitmask"),
    ("of the future", {"m.new": zeros(np.uint32, 4, 8)}, "of the future"),
    (None, {"m.weight": zeros(np.int32, 4, 8)}, "how is not known"),
    (None, {"mlp.mlp1_weight.blocks": zeros(np.uint8, 1, 4, 2, 16)}, "MXFP4"),
]


@pytest.mark.parametrize(("method", "tensors", "text"), FOREIGN, ids=[text for _, _, text in FOREIGN])
def test_a_scheme_that_is_not_decoded_is_named_and_refused(
    method: str | None, tensors: dict[str, np.ndarray[Any, Any]], text: str
) -> None:
    with pytest.raises(CheckpointError, match=text) as caught:
        Made(tensors, np.zeros(0), {"quant_method": method} if method else None).open()
    assert "dequantise it with its own framework" in str(caught.value)


fuzzed = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(data=st.data())
@fuzzed
def test_any_shape_and_dtype_gives_values_or_one_line(data: st.DataObject, tmp_path: Path) -> None:
    made = data.draw(st.sampled_from([make for make, _, _ in BROKEN]))()
    name = data.draw(st.sampled_from(sorted(made.tensors)))
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64]), max_size=4))
    kinds = [np.uint8, np.int8, np.int32, np.uint32, np.int64, np.float16, np.float32, np.bool_]
    kinds += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu]
    dtype = np.dtype(data.draw(st.sampled_from(kinds)))
    fill = data.draw(st.sampled_from([0, 1, 127, 255]))
    count = int(np.prod(shape)) * dtype.itemsize
    spelling = np.full(count, fill, np.uint8)
    if dtype != np.bool_:
        made.tensors[name] = spelling.view(dtype).reshape(shape)
    target = tmp_path / "model.safetensors"
    target.write_bytes(packed.safetensors_of(made.tensors))
    (tmp_path / "config.json").write_text(json.dumps(made.config()))
    answer = "; "
    tracemalloc.start()
    try:
        everything(decoded(open_checkpoint(tmp_path)))
    except CheckpointError as error:
        answer = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer.isprintable()
    assert "; " in answer
    assert peak < PEAK_BYTES
