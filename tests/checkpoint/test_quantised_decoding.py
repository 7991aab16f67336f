"""Every quantisation decodes to the values that it stands for: by hand, by random integers, and rows as the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import packed
from checkpoint.packed import Made
from kinprint.checkpoint import Codec

seeds = st.integers(0, 2**32 - 1)
some = settings(deadline=None, max_examples=12, derandomize=True)


def words(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.uint32).view(np.int32)


# -- worked out by hand --------------------------------------------------------------------------------------------


def test_gptq_subtracts_the_zero_point_that_was_stored_minus_one() -> None:
    # Eight inputs of output 0 are 0 to 7, the zero point is 6 + 1, the scale one half.
    outputs = np.zeros((1, 8), np.uint32)
    outputs[0, 0] = 0x76543210
    tensors = {
        "m.qweight": outputs.view(np.int32),
        "m.qzeros": words(0x66666666)[None],
        "m.scales": np.full((1, 8), 0.5, np.float16),
    }
    config = {"quant_method": "gptq", "bits": 4, "group_size": -1}
    first = [-3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0]
    assert Made(tensors, np.zeros(0), config).read()[0].tolist() == first
    second = Made(tensors, np.zeros(0), config | {"checkpoint_format": "gptq_v2"})
    assert second.read()[0].tolist() == [value + 0.5 for value in first]


def test_gptq_undoes_the_borrow_of_a_zero_point_of_zero() -> None:
    # gptqmodel subtracts 0x11111111 from 0x...0810: field 1 becomes 0, field 0 takes 1 from it and becomes 15.
    stored = (0x88888810 - 0x11111111) & 0xFFFFFFFF
    tensors = {
        "m.qweight": np.zeros((1, 8), np.int32),
        "m.qzeros": words(stored)[None],
        "m.scales": np.ones((1, 8), np.float16),
    }
    read = Made(tensors, np.zeros(0), {"quant_method": "gptq", "bits": 4, "group_size": -1}).read()
    assert read[:, 0].tolist() == [0, -1, -8, -8, -8, -8, -8, -8]


def test_three_bits_cross_words() -> None:
    # Input 10 begins at bit 30 of the first word: 5 = 0b101 leaves 01 there and 1 in the next word.
    tensors = {
        "m.qweight": np.repeat(words(1 << 30, 1, 0)[:, None], 32, axis=1),
        "m.qzeros": np.zeros((1, 3), np.int32),
        "m.scales": np.ones((1, 32), np.float16),
    }
    config = {"quant_method": "gptq", "bits": 3, "group_size": -1, "checkpoint_format": "gptq_v2"}
    read = Made(tensors, np.zeros(0), config).read()
    assert read[5].nonzero()[0].tolist() == [10]
    assert read[5, 10] == 5


def test_awq_fields_hold_the_even_outputs_first() -> None:
    tensors = {
        "m.qweight": words(0x76543210)[None],
        "m.qzeros": np.zeros((1, 1), np.int32),
        "m.scales": np.ones((1, 8), np.float16),
    }
    read = Made(tensors, np.zeros(0), {"quant_method": "awq", "bits": 4, "group_size": -1}).read()
    assert read[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_fp4_has_the_low_half_first_and_bitsandbytes_the_high_half() -> None:
    # Codes 1 and 15 are 0.5 and -6 in E2M1.
    tensors = {
        "m.weight": np.full((1, 8), 0xF1, np.uint8),
        "m.weight_scale": np.array([[2.0]], ml_dtypes.float8_e4m3fn),
        "m.weight_scale_2": np.array(0.5, np.float32),
    }
    assert Made(tensors, np.zeros(0)).read()[0].tolist() == [0.5, -6.0] * 8
    four_bits = packed.bnb(0, (2, 2), block=4)
    four_bits.tensors["m.weight"] = np.array([[0xF1], [0x00]], np.uint8)
    four_bits.tensors["m.weight.absmax"] = np.array([3.0], np.float32)
    assert four_bits.read().tolist() == [[3.0, pytest.approx(-2.6)], [-3.0, -3.0]]


def test_compressed_tensors_divides_by_the_global_scale() -> None:
    tensors = {
        "m.weight_packed": np.full((1, 8), 0x22, np.uint8),
        "m.weight_scale": np.array([[8.0]], ml_dtypes.float8_e4m3fn),
        "m.weight_global_scale": np.array([16.0], np.float32),
    }
    assert Made(tensors, np.zeros(0)).read()[0].tolist() == [0.5] * 16


def test_gpt_oss_experts_stand_transposed_and_scales_are_powers_of_two() -> None:
    blocks = np.zeros((1, 2, 1, 16), np.uint8)
    blocks[0, 1, 0, 0] = 0x72  # row 1 begins with 1.0 and 6.0
    made = Made(
        {"m.down_proj_blocks": blocks, "m.down_proj_scales": np.array([[[127], [130]]], np.uint8)},
        np.zeros(0),
        name="m.down_proj",
    )
    read = made.read()
    assert read.shape == (1, 32, 2)
    assert read[0, :3].tolist() == [[0, 8], [0, 48], [0, 0]]


def test_the_last_blocks_of_fp8_are_cut() -> None:
    weight = np.ones((3, 5), ml_dtypes.float8_e4m3fn)
    scale = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    tensors = {"m.weight": weight, "m.weight_scale_inv": scale}
    read = Made(tensors, np.zeros(0), {"quant_method": "fp8", "weight_block_size": [2, 2]}).read()
    assert read.tolist() == [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]


def test_mlx_scales_and_then_adds_the_bias() -> None:
    tensors = {
        "m.weight": np.array([[0x76543210] * 4], np.uint32),
        "m.scales": np.array([[2.0]], np.float16),
        "m.biases": np.array([[-1.0]], np.float16),
    }
    read = Made(tensors, np.zeros(0), {"bits": 4, "group_size": 32}, key="quantization").read()
    assert read[0, :8].tolist() == [-1, 1, 3, 5, 7, 9, 11, 13]


# -- random integers -----------------------------------------------------------------------------------------------

CASES = {
    "gptq": packed.gptq(0, 64, 96),
    "gptq 2 bits, second version": packed.gptq(1, 32, 64, bits=2, version=2),
    "gptq reordered": packed.gptq(2, 32, 96, bits=8, order=True),
    "awq": packed.awq(3, 24, 64),
    "compressed": packed.compressed(4, 40, 64),
    "compressed, zero points and order": packed.compressed(5, 40, 64, bits=3, zeros=True, order=True),
    "mlx": packed.mlx(6, (10, 64)),
    "mlx, stacked": packed.mlx(7, (3, 4, 64), bits=6),
    "nf4": packed.bnb(8, (8, 128)),
    "fp4 of bitsandbytes, nested, odd rows": packed.bnb(9, (7, 33), kind="fp4", nested=True),
    "int8 of bitsandbytes": packed.bnb8(10, 5, 7),
    "fp8 in blocks": packed.fp8(11, (200, 300)),
    "fp8, stacked": packed.fp8(12, (3, 5, 6), block=(2, 4), name="m.experts.gate_up_proj"),
    "nvfp4 of modelopt": packed.nvfp4(13, (4, 48)),
    "nvfp4, stacked": packed.nvfp4(14, (2, 4, 48)),
    "nvfp4 of compressed-tensors": packed.nvfp4(15, (4, 48), compressed_tensors=True),
    "mxfp4 of gpt-oss": packed.mxfp4(16, 3, 6, 64),
}


@pytest.mark.parametrize("made", CASES.values(), ids=CASES)
def test_a_module_becomes_one_float_tensor_under_its_unquantised_name(made: Made) -> None:
    checkpoint = made.open()
    assert list(checkpoint.tensors) == [made.name]
    info = checkpoint.tensors[made.name]
    assert info.floating
    assert info.codec is not None
    assert info.dtype == str(info.codec)
    assert info.shape == made.values.shape
    read = checkpoint.read(made.name)
    assert read.dtype == np.float32
    assert not read.flags.writeable
    np.testing.assert_array_equal(read, made.values)


@pytest.mark.parametrize("made", CASES.values(), ids=CASES)
@given(data=st.data())
@some
def test_rows_are_those_of_the_whole(made: Made, data: st.DataObject) -> None:
    bound = st.none() | st.integers(-2 * len(made.values), 2 * len(made.values))
    step = st.sampled_from([None, 1, 2, -1, -3])
    rows = slice(data.draw(bound), data.draw(bound), data.draw(step))
    np.testing.assert_array_equal(made.read(rows), made.values[rows])


@given(
    seed=seeds, rows=st.integers(1, 3), groups=st.integers(1, 4), bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([32, 64, 96]), version=st.sampled_from([1, 2]), order=st.booleans(),
)  # fmt: skip
@some
def test_gptq_of_any_size(seed: int, rows: int, groups: int, bits: int, group: int, version: int, order: bool) -> None:
    made = packed.gptq(seed, 32 * rows, group * groups, bits=bits, group=group, version=version, order=order)
    np.testing.assert_array_equal(made.read(), made.values)


@given(seed=seeds, rows=st.integers(1, 5), groups=st.integers(1, 4), group=st.sampled_from([16, 32, 128]))
@some
def test_awq_of_any_size(seed: int, rows: int, groups: int, group: int) -> None:
    made = packed.awq(seed, 8 * rows, group * groups, group=group)
    np.testing.assert_array_equal(made.read(), made.values)


@given(
    seed=seeds, rows=st.integers(1, 70), groups=st.integers(1, 4), bits=st.integers(1, 8), zeros=st.booleans(),
    order=st.booleans(),
)  # fmt: skip
@some
def test_compressed_tensors_of_any_size(seed: int, rows: int, groups: int, bits: int, zeros: bool, order: bool) -> None:
    made = packed.compressed(seed, rows, 32 * groups, bits=bits, zeros=zeros, order=order)
    np.testing.assert_array_equal(made.read(), made.values)


@given(
    seed=seeds, shape=st.lists(st.integers(1, 5), min_size=1, max_size=2), groups=st.integers(1, 4),
    bits=st.sampled_from([2, 3, 4, 5, 6, 8]), group=st.sampled_from([32, 64, 128]),
)  # fmt: skip
@some
def test_mlx_of_any_size(seed: int, shape: list[int], groups: int, bits: int, group: int) -> None:
    made = packed.mlx(seed, (*shape, group * groups), bits=bits, group=group)
    np.testing.assert_array_equal(made.read(), made.values)


@given(
    seed=seeds, shape=st.lists(st.integers(1, 40), min_size=2, max_size=3), kind=st.sampled_from(["nf4", "fp4"]),
    block=st.sampled_from([4, 64, 100]), nested=st.booleans(),
)  # fmt: skip
@some
def test_bitsandbytes_of_any_size(seed: int, shape: list[int], kind: str, block: int, nested: bool) -> None:
    made = packed.bnb(seed, tuple(shape), kind=kind, block=block, nested=nested)
    np.testing.assert_array_equal(made.read(), made.values)


@given(
    seed=seeds, shape=st.lists(st.integers(1, 40), min_size=2, max_size=3), down=st.integers(1, 20),
    across=st.integers(1, 20),
)  # fmt: skip
@some
def test_fp8_of_any_size(seed: int, shape: list[int], down: int, across: int) -> None:
    made = packed.fp8(seed, tuple(shape), block=(down, across))
    np.testing.assert_array_equal(made.read(), made.values)


# -- variants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.int8])
def test_one_byte_takes_one_scale_or_one_for_each_row(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-8, 8, (6, 4)).astype(dtype)
    scale = packed.scales(rng, shape, ml_dtypes.bfloat16)
    tensors = {"m.weight": weight, "m.weight_scale": scale, "m.input_scale": np.ones(1, np.float32)}
    made = Made(tensors, np.zeros(0), {"quant_method": "compressed-tensors"})
    wide = scale.astype(np.float32).reshape(-1, 1)
    np.testing.assert_array_equal(made.read(), weight.astype(np.float32) * wide)
    assert list(made.open().tensors) == ["m.weight"]


def test_stacked_experts_take_one_scale_each_or_one_for_each_output() -> None:
    weight = np.arange(24).reshape(2, 3, 4).astype(ml_dtypes.float8_e4m3fn)
    for shape in ((2,), (2, 1, 1), (2, 3, 1), (2, 1, 4)):
        scale = np.arange(1, np.prod(shape) + 1).reshape(shape).astype(np.float32)
        read = Made({"m.e": weight, "m.e_scale": scale}, np.zeros(0), name="m.e").read()
        wide = scale.reshape(2, 1, 1) if shape == (2,) else scale
        np.testing.assert_array_equal(read, weight.astype(np.float32) * wide)


def test_int8_subtracts_its_zero_point() -> None:
    tensors = {
        "m.weight": np.array([[3, -1], [5, 7]], np.int8),
        "m.weight_scale": np.array([[2.0], [0.5]], np.float32),
        "m.weight_zero_point": np.array([[1], [-1]], np.int8),
    }
    assert Made(tensors, np.zeros(0), {"quant_method": "compressed-tensors"}).read().tolist() == [[4, -4], [3, 4]]


@pytest.mark.parametrize("name", ["uint8", "float8_e8m0fnu"])
def test_powers_of_two_are_read_from_bytes_and_from_their_own_dtype(name: str, tmp_path: Path) -> None:
    weight = np.ones((2, 64), ml_dtypes.float8_e4m3fn)
    powers = np.array([[127, 128], [126, 130]], np.uint8)
    scale = powers if name == "uint8" else powers.view(ml_dtypes.float8_e8m0fnu)
    tensors = {"m.weight": weight, "m.weight_scale_inv": scale, "e.weight": np.full((2, 32), 0x22, np.int8)}
    tensors["e.scale"] = scale
    read = packed.saved(tmp_path, tensors, {"quantization_config": {"quant_method": "fp8"}})
    assert [info.dtype for info in read.tensors.values()] == ["MXFP8:8", "MXFP4:4"]
    for key in ("m.weight", "e.weight"):
        np.testing.assert_array_equal(read.read(key), np.repeat([[1, 2], [0.5, 8]], 32, axis=1))


def test_four_bits_may_be_stored_as_another_dtype(tmp_path: Path) -> None:
    made = packed.bnb(3, (8, 64))
    made.tensors["m.weight"] = made.tensors["m.weight"].reshape(-1).view(ml_dtypes.bfloat16)[:, None]
    np.testing.assert_array_equal(packed.saved(tmp_path, made.tensors, made.config()).read("m.weight"), made.values)


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_the_modes_of_mlx_hold_floats(mode: str) -> None:
    scale = {"mxfp4": 128, "mxfp8": 128, "nvfp4": np.array(2, ml_dtypes.float8_e4m3fn).view(np.uint8)}[mode]
    one = 0x38 if mode == "mxfp8" else 0x22
    groups = {"mxfp4": 2, "mxfp8": 1, "nvfp4": 4}[mode]
    tensors = {
        "m.weight": np.full((1, 32), one, np.uint8).view(np.uint32),
        "m.scales": np.full((1, groups), scale, np.uint8),
    }
    read = Made(tensors, np.zeros(0), {"mode": mode, "bits": 8 if mode == "mxfp8" else 4}, key="quantization").read()
    assert set(read.ravel()) == {2.0}


def test_mlx_modules_may_have_settings_of_their_own() -> None:
    first, second = packed.mlx(0, (4, 64), bits=4, group=64), packed.mlx(1, (4, 64), bits=8, group=32)
    tensors = {name.replace("m.", "a."): array for name, array in first.tensors.items()}
    tensors |= {name.replace("m.", "b."): array for name, array in second.tensors.items()}
    config = {"bits": 4, "group_size": 64, "b": {"bits": 8, "group_size": 32}}
    read = Made(tensors, np.zeros(0), config, key="quantization").open()
    np.testing.assert_array_equal(read.read("a.weight"), first.values)
    np.testing.assert_array_equal(read.read("b.weight"), second.values)


def test_scales_that_are_not_finite_decode_to_nan_without_a_word() -> None:
    made = packed.compressed(0, 4, 32)
    made.tensors["m.weight_scale"][0] = np.nan
    made.tensors["m.weight_scale"][1] = np.inf
    read = made.read()
    assert np.isnan(read[0]).all()
    assert not np.isfinite(read[1]).any()
    assert np.isfinite(read[2:]).all()


@pytest.mark.parametrize(
    ("made", "codec"),
    [
        (packed.gptq(0, 32, 64), Codec("GPTQ", 4, 32)),
        (packed.gptq(0, 32, 64, order=True), Codec("GPTQ", 4, 0)),
        (packed.gptq(0, 32, 64, group=64), Codec("GPTQ", 4, 0)),
        (packed.awq(0, 8, 64), Codec("AWQ", 4, 32)),
        (packed.compressed(0, 8, 64, bits=8), Codec("INT", 8, 32)),
        (packed.mlx(0, (8, 64), bits=5), Codec("MLX", 5, 32)),
        (packed.bnb(0, (8, 64), block=32), Codec("NF4", 4, 32)),
        (packed.bnb(0, (8, 48), block=32), Codec("NF4", 4, 16)),
        (packed.bnb8(0, 4, 4), Codec("INT8", 8, 0)),
        (packed.fp8(0, (8, 256)), Codec("FP8", 8, 128, exponent=True)),
        (packed.nvfp4(0, (8, 32)), Codec("NVFP4", 4, 16, exponent=True)),
        (packed.mxfp4(0, 1, 2, 32), Codec("MXFP4", 4, 32, exponent=True)),
    ],
    ids=lambda value: str(value) if isinstance(value, Codec) else "",
)
def test_the_header_says_how_values_were_rounded(made: Made, codec: Codec) -> None:
    assert made.open().tensors[made.name].codec == codec
