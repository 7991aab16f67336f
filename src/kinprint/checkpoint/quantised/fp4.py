"""Two E2M1 numbers a byte, the low half first: NVFP4 and MXFP4.

* modelopt: ``weight`` uint8 [out, in / 2], ``weight_scale`` E4M3 for 16 elements, ``weight_scale_2`` float32, all
  multiplied.
* compressed-tensors: ``weight_packed`` instead, and ``weight_global_scale``, by which the others are divided; or
  ``weight_scale`` uint8, a power of two (E8M0) for 32 elements, alone.
* DeepSeek: ``weight`` int8 [out, in / 2] with ``scale`` or ``weight_scale_inv`` E8M0 for 32 elements.
* gpt-oss: ``*_blocks`` uint8 [experts, out, in / 32, 16] and ``*_scales`` E8M0 [experts, out, in / 32];
  transformers keeps these matrices as [experts, in, out].

Source: OCP Microscaling Formats 1.0; TensorRT Model Optimizer 0.47, qtensor/nvfp4_tensor.py; compressed-tensors 0.20,
compressors/nvfp4 and mxfp4; transformers 5.24, integrations/mxfp4.py, ``convert_moe_packed_tensors``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.quantised.bits import fp4
from kinprint.checkpoint.quantised.fp8 import scale_names
from kinprint.checkpoint.quantised.grid import Grid
from kinprint.checkpoint.quantised.packed import Packed, lying_apart
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, Settings, Stored, octet_shape

BYTES = frozenset({"U8", "I8", "F4"})
POWERS = frozenset({"U8", "F8_E8M0"})
NVFP4 = Codec("NVFP4", 4, 16, exponent=True)
MXFP4 = Codec("MXFP4", 4, 32, exponent=True)


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    name: str
    scale: str
    grid: Grid
    whole: str | None = None
    divided: bool = False

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        stored, grid = self.stored, self.grid
        values_MN = fp4(stored.run(stored.octets, self.name, first, last, grid.columns // 2))
        scales_MG = stored.run(stored.scale, self.scale, first, last, grid.across).astype(np.float32)
        if self.whole is not None:
            overall = self.stored.array(self.whole).astype(np.float32).reshape(-1)
            each_M1 = overall[np.arange(first, last) // grid.rows if overall.size > 1 else 0].reshape(-1, 1)
            scales_MG = scales_MG / each_M1 if self.divided else scales_MG * each_M1
        values_MN.reshape(*scales_MG.shape, -1)[...] *= scales_MG[:, :, None]
        return values_MN


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every tensor of packed E2M1 numbers.

    Raises:
        CheckpointError: Scales are missing, or contradict the weight.
    """
    del settings  # everything follows from the shapes
    for prefix, info in stored.ending("weight_packed"):
        if info.dtype in BYTES:
            yield _compressed(stored, prefix, info)
    for name, info in stored.tensors.items():
        if info.dtype not in BYTES or len(info.shape) < 2:
            continue
        scale = stored.first(*scale_names(name))
        whole = stored.first(name + "_scale_2")
        if scale is not None and scale.dtype == "F8_E4M3" and info.dtype != "I8":
            if whole is None:
                raise stored.fault(name, f"is packed as NVFP4 and has no {name}_scale_2 beside it")
            yield _packed(stored, name, info, scale, NVFP4, whole)
        elif scale is not None and scale.dtype in POWERS and 16 * math.prod(scale.shape) == info.nbytes:
            yield _packed(stored, name, info, scale, MXFP4, None)
        elif name.endswith("_blocks"):
            yield _experts(stored, name.removesuffix("_blocks"), info)


def _compressed(stored: Stored, prefix: str, info: TensorInfo) -> Packed:
    scale = stored.first(prefix + "weight_scale")
    whole = stored.first(prefix + "weight_global_scale")
    if scale is None:
        raise stored.fault(info.name, "is packed and has no weight_scale beside it")
    if scale.dtype == "U8" and 24 * math.prod(scale.shape) == info.nbytes:
        raise stored.fault(info.name, "is packed as FP6, which is not decoded", DEQUANTISE)
    if scale.dtype == "F8_E4M3" and whole is None:
        raise stored.fault(info.name, "is packed as NVFP4 and has no weight_global_scale beside it")
    if stored.first(prefix + "weight_zero_point") is not None:
        raise stored.fault(info.name, "is FP4 with zero points, which is not decoded", DEQUANTISE)
    codec = NVFP4 if scale.dtype == "F8_E4M3" else MXFP4
    return _packed(stored, prefix + "weight", info, scale, codec, whole, divided=True)


def _packed(
    stored: Stored,
    name: str,
    info: TensorInfo,
    scale: TensorInfo,
    codec: Codec,
    whole: TensorInfo | None,
    *,
    divided: bool = False,
) -> Packed:
    *stack, rows, octets = octet_shape(info)
    columns, items = 2 * octets, math.prod(stack)
    wanted = {"F8_E4M3"} if codec is NVFP4 else POWERS
    fits = scale.shape == (*stack, rows, columns // codec.block) and columns % codec.block == 0
    if not fits or scale.dtype not in wanted or 0 in info.shape:
        raise stored.fault(
            scale.name,
            f"is {scale.dtype} of shape {list(scale.shape)}, but {list(info.shape)} bytes of {codec.scheme} need "
            f"{' or '.join(sorted(wanted))} for every {codec.block} elements",
        )
    if whole is not None and (whole.dtype not in FLOATS or math.prod(whole.shape) not in (1, items)):
        raise stored.fault(whole.name, f"is {whole.dtype} of shape {list(whole.shape)}, no scale of whole matrices")
    grid = Grid(rows, columns, (1, codec.block))
    group = _Group(stored, info.name, scale.name, grid, whole.name if whole is not None else None, divided)
    members = tuple(part.name for part in (info, scale, whole) if part is not None)
    apart = lying_apart((info, scale), items * rows)
    return Packed(name, (*stack, rows, columns), codec, members, group.decode, apart=apart)


def _experts(stored: Stored, name: str, info: TensorInfo) -> Packed:
    scale = stored.first(name + "_scales")
    if scale is None:
        raise stored.fault(info.name, f"is packed and has no {name}_scales beside it")
    if len(info.shape) != 4 or info.shape[3] != 16 or scale.shape != info.shape[:3] or scale.dtype not in POWERS:
        raise stored.fault(
            scale.name, f"is {scale.dtype} of shape {list(scale.shape)}, but the blocks have {list(info.shape)}"
        )
    experts, rows, groups, _ = info.shape
    if 0 in info.shape:
        raise stored.fault(info.name, "has an axis of length 0")
    group = _Group(stored, info.name, scale.name, Grid(rows, 32 * groups, (1, 32)))
    shape, apart = (experts, 32 * groups, rows), lying_apart((info, scale), experts * rows)
    return Packed(name, shape, MXFP4, (info.name, scale.name), group.decode, transposed=True, apart=apart)
