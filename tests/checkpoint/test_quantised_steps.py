"""The half-width of rounding intervals, from decoded values: what it ignores, what it notices, answers by hand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

from checkpoint.packed import E2M1
from kinprint.checkpoint import Codec
from kinprint.checkpoint.quantised import gguf_codec, rounding_error
from kinprint.checkpoint.quantised.steps import NF4_LEVELS

Array = np.ndarray[Any, np.dtype[Any]]
NVFP4 = Codec("NVFP4", 4, 16, exponent=True)
FP8 = Codec("FP8", 8, 0, exponent=True)


def weights(columns: int = 512) -> Array:
    return np.random.default_rng(0).standard_normal((64, columns)).astype(np.float32)


def nearest(values: Array, levels: Array) -> Array:
    return levels[np.abs(values[..., None] - levels).argmin(-1)]


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_equal_steps_are_the_range_of_a_block_over_its_levels() -> None:
    values = np.array([[0.0, 30.0, 15.0, 0.0, 1.0, 1.0]])
    assert rounding_error(Codec("INT", 4, 4), values).tolist() == [[1.0] * 4 + [0.0] * 2]
    assert rounding_error(Codec("INT", 4, 0), values).tolist() == [[1.0] * 6]


def test_steps_of_floats_grow_with_the_value_down_to_the_smallest() -> None:
    values = np.zeros((1, 16))
    values[0, :3] = [8.0, -4.0, 0.5]
    # A quarter of the value, but at least a sixteenth of the block's largest.
    assert rounding_error(NVFP4, values)[0, :4].tolist() == [2.0, 1.0, 0.5, 0.5]
    assert rounding_error(FP8, np.array([[448.0, 16.0, 0.0]])).tolist() == [[28.0, 1.0, 2**-10]]
    wide = Codec("FP8-E5M2", 8, 0, exponent=True)
    assert rounding_error(wide, np.array([[16.0]])).tolist() == [[2.0]]


def test_normal_floats_have_the_wider_of_the_gaps_beside_them() -> None:
    values = 2 * np.array([NF4_LEVELS])
    got = rounding_error(Codec("NF4", 4, 16), values)[0]
    assert got[0] == pytest.approx(1 - 0.6961928)
    assert got[7] == pytest.approx(0.09105004)
    assert got[15] == pytest.approx(1 - 0.72295684)


# -- what it ignores, and what it notices --------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [Codec("INT", 4, 32), Codec("NF4", 4, 32), NVFP4, FP8], ids=str)
def test_scales_with_the_values_and_not_with_their_sign(codec: Codec) -> None:
    values = weights()
    once = rounding_error(codec, values)
    assert (once >= 0).all()
    np.testing.assert_allclose(rounding_error(codec, 8 * values), 8 * once, rtol=1e-6)
    if codec.scheme != "NF4":  # whose levels are not symmetric
        np.testing.assert_array_equal(rounding_error(codec, -values), once)


def test_equal_steps_ignore_an_offset_of_the_block() -> None:
    codec, values = Codec("INT", 4, 32), weights()
    np.testing.assert_allclose(rounding_error(codec, values + 4), rounding_error(codec, values), rtol=1e-5)


def test_nan_stays_in_its_block_and_nothing_gives_nothing() -> None:
    values = weights(64)
    values[0, 0] = np.nan
    got = rounding_error(Codec("INT", 4, 32), values)
    assert np.isnan(got[0, :32]).all()
    assert np.isfinite(got[0, 32:]).all()
    assert rounding_error(FP8, np.zeros((0, 8))).shape == (0, 8)


def quantised(codec: Codec, values: Array) -> Array:
    """Round by the grid itself, with the largest of a block at its end."""
    blocks = values.reshape(64, -1, codec.block or values.shape[1])
    if codec.scheme == "INT":
        low = blocks.min(-1, keepdims=True)
        step = (blocks.max(-1, keepdims=True) - low) / (2**codec.bits - 1)
        return ((blocks - low) / step).round().__mul__(step).__add__(low).reshape(values.shape)
    largest = np.abs(blocks).max(-1, keepdims=True)
    if codec.scheme == "FP8":
        return ((blocks / largest * 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * largest / 448).reshape(
            values.shape
        )
    levels = np.array(NF4_LEVELS if codec.scheme == "NF4" else np.array(E2M1) / 6, np.float32)
    return (nearest(blocks / largest, levels) * largest).reshape(values.shape)


@pytest.mark.parametrize("codec", [Codec("INT", 3, 64), Codec("INT", 8, 0), Codec("NF4", 4, 64), NVFP4, FP8], ids=str)
def test_rounding_stays_inside_and_a_change_of_two_steps_does_not(codec: Codec) -> None:
    values = weights()
    rounded = quantised(codec, values)
    width = rounding_error(codec, rounded)
    assert (np.abs(rounded - values) <= width * (1 + 1e-4)).all()
    # The estimate is no more than a few times what rounding does.
    assert width.mean() < 8 * np.abs(rounded - values).mean()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"])
def test_the_error_of_a_gguf_is_inside_for_nearly_all(name: str) -> None:
    kind = GGMLQuantizationType[name]
    values = weights()
    read = dequantize(quantize(values, kind), kind)
    codec = gguf_codec(name)
    assert codec is not None
    # Symmetric kinds leave a part of the range out, so the estimate of their step is too small by up to a sixth.
    inside = np.abs(read - values) <= 1.2 * rounding_error(codec, read)
    assert inside.mean() > 0.97


def test_every_quantised_kind_of_gguf_has_a_codec_and_no_other() -> None:
    plain = {"F32", "F16", "F64", "BF16", "I8", "I16", "I32", "I64"}
    for kind, (stored, size) in GGML_QUANT_SIZES.items():
        codec = gguf_codec(kind.name)
        assert (codec is None) == (kind.name in plain)
        if codec is not None:
            assert codec.scheme == kind.name
            assert stored % codec.block == 0
            assert codec.bits <= 8 * size / stored
    assert gguf_codec("Q9_Z") is None
