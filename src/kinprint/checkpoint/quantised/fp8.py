"""One byte an element, with scales in a tensor of their own: fp8 and int8.

``weight`` in E4M3 or E5M2 (or int8, with an optional ``weight_zero_point``) and its scales, which are multiplied
whatever they are called: ``weight_scale_inv`` (DeepSeek, Qwen), ``weight_scale`` (compressed-tensors, modelopt,
fbgemm), ``scale`` (DeepSeek's own files), ``qscale_weight`` (Mistral's). One for all, for each matrix of a stack, for
each row, or for each block, the last blocks cut where the block of the config does not divide the matrix. Scales of one
byte are powers of two (E8M0).

Source: DeepSeek-V3, inference/kernel.py, ``weight_dequant``; transformers 5.24, integrations/finegrained_fp8.py,
``Fp8Dequantize``; compressed-tensors 0.20, compressors/naive_quantized and mxfp8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.faults import fault, natural
from kinprint.checkpoint.quantised.grid import Grid, fitted
from kinprint.checkpoint.quantised.packed import Packed, lying_apart
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, FP8, Settings, Stored

SCALES = FLOATS | {"U8", "F8_E8M0"}
"""Dtypes of scales."""

DEFAULT_BLOCK = (128, 128)
"""Where no config states another."""


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    name: str
    scale: str
    grid: Grid
    zero: str | None = None

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        stored, grid = self.stored, self.grid
        values_MN = stored.run(stored.array, self.name, first, last, grid.columns).astype(np.float32)
        if self.zero is not None:
            values_MN -= grid.spread(grid.of(stored, stored.array, self.zero), first, last)
        values_MN *= grid.spread(grid.of(stored, stored.scale, self.scale), first, last)
        return values_MN


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every fp8 or int8 matrix with scales.

    Raises:
        CheckpointError: Scales do not fit, or contradict the config.
    """
    block = _block(settings)
    for name, info in stored.tensors.items():
        if len(info.shape) < 2 or info.dtype not in FP8 | {"I8"}:
            continue
        scale = _scale(stored, name)
        if scale is not None and not _two_to_a_byte(info, scale):
            yield _packed(stored, info, scale, block)


def scale_names(name: str) -> tuple[str, ...]:
    """Return what the scales of a tensor may be called."""
    module = name.removesuffix("weight")
    own = (module + "scale", module + "qscale_weight") if module != name else ()
    return (name + "_scale_inv", name + "_scale", *own)


def _scale(stored: Stored, name: str) -> TensorInfo | None:
    there = [stored.tensors[scale] for scale in scale_names(name) if scale in stored.tensors]
    if len(there) > 1:
        raise stored.fault(name, f"has two tensors of scales, {there[0].name} and {there[1].name}")
    return there[0] if there else None


def _two_to_a_byte(info: TensorInfo, scale: TensorInfo) -> bool:
    """Tell int8 from bytes that hold two fp4 each: those have one power of two for 16 bytes."""
    return (
        info.dtype == "I8"
        and scale.dtype in ("U8", "F8_E8M0")
        and scale.shape == (*info.shape[:-1], info.shape[-1] // 16)
    )


def _packed(stored: Stored, info: TensorInfo, scale: TensorInfo, block: tuple[int, int] | None) -> Packed:
    microscaled = scale.dtype in ("U8", "F8_E8M0") and (1, 32)
    grid = fitted(stored, scale.name, info.shape, block or DEFAULT_BLOCK) if 0 not in info.shape else None
    # One scale for all, or for each row, is no matter of blocks.
    wrong = grid is not None and block is not None and grid.block not in (
        (min(block[0], grid.rows), min(block[1], grid.columns)), (1, grid.columns), (grid.rows, grid.columns),
    )  # fmt: skip
    if grid is None or scale.dtype not in SCALES or (wrong and grid.block != microscaled):
        said = f" and the config says blocks of {list(block)}" if block else ""
        raise stored.fault(
            scale.name, f"is {scale.dtype} of shape {list(scale.shape)}, but the weight has {list(info.shape)}{said}"
        )
    if grid.across > 1 and info.name + "_g_idx" in stored.tensors:
        raise stored.fault(info.name, "has reordered groups of columns, which are not decoded", DEQUANTISE)
    zero = stored.first(info.name + "_zero_point")
    if zero is not None and (zero.dtype not in FLOATS | {"I8", "I32"} or zero.shape != scale.shape):
        raise stored.fault(zero.name, f"is {zero.dtype} of shape {list(zero.shape)}, but scales have {scale.shape}")
    zero = zero if info.dtype == "I8" else None
    members = tuple(part.name for part in (info, scale, zero) if part is not None)
    group = _Group(stored, info.name, scale.name, grid, zero.name if zero is not None else None)
    apart = lying_apart((part for part in (info, scale, zero) if part is not None), math.prod(info.shape[:-1]))
    codec = _codec(info, grid, grid.block == microscaled)
    return Packed(info.name, info.shape, codec, members, group.decode, apart=apart)


def _codec(info: TensorInfo, grid: Grid, microscaled: bool) -> Codec:
    along = grid.block[1] if grid.across > 1 else 0
    if info.dtype == "I8":
        return Codec("INT", 8, along)
    if info.dtype.startswith("F8_E5M2"):
        return Codec("FP8-E5M2", 8, along, exponent=True)
    return Codec("MXFP8" if microscaled else "FP8", 8, along, exponent=True)


def _block(settings: Settings) -> tuple[int, int] | None:
    """Return rows and columns of a block, as the config states them."""
    value = settings.table.get("weight_block_size")
    if value is None:
        return None
    pair = cast("list[object]", value) if isinstance(value, list) else []
    down, across = pair if len(pair) == 2 else (None, None)
    if not natural(down) or not natural(across) or 0 in (down, across):
        raise fault(
            settings.where, "its config's weight_block_size is no pair of lengths", "two whole numbers belong there"
        )
    return down, across
