"""MLX: ``weight`` uint32 [out, in * bits / 32], ``scales`` and ``biases`` [out, in / group].

Element [o, i] is scales[o, i // group] * q[o, i] + biases[o, i // group]; the integers lie in a row as in a stream,
lowest bits first. The modes without ``biases`` hold floats instead: ``mxfp4`` and ``mxfp8`` with one E8M0 byte for 32
elements, ``nvfp4`` with one E4M3 byte for 16. Metal kernels in transformers call the offsets ``qbiases``. Matrices of
experts are stacked in front. Bits and group size are not to be told from the shapes alone, so the config must state
them, for all modules or under a module's name.

Source: MLX 0.32, ``mlx.core.quantize`` and ``dequantize``; transformers 5.24, integrations/metal_quantization.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np

from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.faults import shown
from kinprint.checkpoint.quantised.bits import fp4, unpack
from kinprint.checkpoint.quantised.grid import Grid
from kinprint.checkpoint.quantised.packed import Packed, lying_apart
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, Settings, Stored

WIDTHS = (2, 3, 4, 5, 6, 8)
MODES = {"mxfp4": ("MXFP4", 4, 32), "mxfp8": ("MXFP8", 8, 32), "nvfp4": ("NVFP4", 4, 16)}
"""Scheme, bits and group of the modes that hold floats."""


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    weight: str
    scales: str
    biases: str | None
    codec: Codec
    grid: Grid

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        stored, grid = self.stored, self.grid
        octets_MB = stored.run(stored.octets, self.weight, first, last, grid.columns * self.codec.bits // 8)
        if self.codec.scheme == "MXFP8":
            values_MN = octets_MB.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
        elif self.codec.exponent:
            values_MN = fp4(octets_MB)
        else:
            values_MN = unpack(octets_MB, self.codec.bits, self.grid.columns).astype(np.float32)
        values_MN *= grid.spread(self._scales, first, last)
        if self.biases is not None:
            values_MN += grid.spread(grid.of(stored, stored.array, self.biases), first, last)
        return values_MN

    def _scales(self, first: int, last: int) -> Array:
        stored, across = self.stored, self.grid.across
        if self.codec.scheme == "NVFP4":
            return stored.run(stored.octets, self.scales, first, last, across).view(ml_dtypes.float8_e4m3fn)
        return stored.run(stored.scale, self.scales, first, last, across)


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every MLX module.

    Raises:
        CheckpointError: Tensors are missing, or contradict each other or the config.
    """
    for prefix, info in stored.ending("weight"):
        if info.dtype != "U32" or len(info.shape) < 2:
            continue
        scales = stored.first(prefix + "scales")
        if scales is None:
            raise stored.fault(info.name, "is packed as MLX does and has no scales beside it")
        table = _table(stored, prefix, settings)
        biases = stored.first(prefix + "biases", prefix + "qbiases")
        codec = _codec(stored, prefix, settings, table)
        if codec.exponent != (biases is None):
            raise stored.fault(info.name, f"has {'no' if biases is None else 'unexpected'} biases for {codec}")
        yield _packed(stored, prefix, info, scales, biases, codec)


def _packed(
    stored: Stored, prefix: str, info: TensorInfo, scales: TensorInfo, biases: TensorInfo | None, codec: Codec
) -> Packed:
    columns = info.shape[-1] * 32 // codec.bits
    fits = info.shape[-1] * 32 == columns * codec.bits and columns % codec.block == 0
    for part in (scales, biases):
        if part is None:
            continue
        right = part.dtype == "U8" if codec.exponent else part.dtype in FLOATS
        if not fits or part.shape != (*info.shape[:-1], columns // codec.block) or not right or 0 in info.shape:
            raise stored.fault(
                part.name,
                f"is {part.dtype} of shape {list(part.shape)}, but the weight holds {list(info.shape)} words of "
                f"{codec.bits} bits in groups of {codec.block}",
            )
    grid = Grid(math.prod(info.shape[:-1]), columns, (1, codec.block))
    group = _Group(stored, info.name, scales.name, biases.name if biases is not None else None, codec, grid)
    members = tuple(part.name for part in (info, scales, biases) if part is not None)
    apart = lying_apart((part for part in (info, scales, biases) if part is not None), grid.rows)
    return Packed(prefix + "weight", (*info.shape[:-1], columns), codec, members, group.decode, apart=apart)


def _table(stored: Stored, prefix: str, settings: Settings) -> Mapping[str, Any]:
    own = settings.table.get(prefix.removesuffix("."))
    table = cast("Mapping[str, Any]", own) if isinstance(own, Mapping) else settings.table
    if not table:
        raise stored.fault(
            prefix + "weight",
            "is packed by MLX, and no config states the bits and the group size",
            "put the model's config.json beside it",
        )
    return table


def _codec(stored: Stored, prefix: str, settings: Settings, table: Mapping[str, Any]) -> Codec:
    mode = table.get("mode", settings.table.get("mode", "affine"))
    bits, group = settings.integer("bits", table), settings.integer("group_size", table)
    if isinstance(mode, str) and mode in MODES:
        scheme, width, block = MODES[mode]
        if bits not in (None, width) or group not in (None, block):
            raise stored.fault(prefix + "weight", f"is said to be {mode} of {bits} bits in groups of {group}")
        return Codec(scheme, width, block, exponent=True)
    if mode != "affine":
        raise stored.fault(prefix + "weight", f"is packed in the mode {shown(mode)}, which is not decoded", DEQUANTISE)
    if bits not in WIDTHS or group is None or group <= 0:
        raise stored.fault(
            prefix + "weight", f"is said to have {shown(bits)} bits in groups of {shown(group)}", DEQUANTISE
        )
    return Codec("MLX", bits, group)
