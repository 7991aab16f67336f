"""compressed-tensors, ``pack-quantized``: integers of 1 to 8 bits in int32 words.

``weight_packed`` int32 [out, ceil(in * bits / 32)], ``weight_shape`` the two lengths, ``weight_scale`` [out, groups]
or one for each row or for all; ``weight_zero_point`` int32 [ceil(out * bits / 32), groups], packed along the rows.
Integers lie in a row as in a stream, raised by 2^(bits - 1), zero points too; without them the zero is that.
``weight_g_idx`` names the group of each column where they were reordered; -1 throughout means that they were not.

Old releases (0.10.2) padded widths that do not divide 32 to whole words; the shapes tell, and that is refused.

Source: compressed-tensors 0.20, compressors/pack_quantized/base.py and helpers.py (``pack_to_int32``); 0.10.2,
quantization/lifecycle/forward.py, for ``g_idx``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.quantised.bits import octets_of, unpack, words
from kinprint.checkpoint.quantised.grid import Grid, fitted
from kinprint.checkpoint.quantised.packed import Packed, lying_apart
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, Settings, Stored

METHODS = frozenset({None, "unnamed", "compressed-tensors", "sparseml"})
FORMATS = frozenset({None, "pack-quantized", "mixed-precision"})
"""Values of the config's ``format`` that go with this layout."""


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    prefix: str
    bits: int
    grid: Grid
    zeros: bool
    ordered: bool

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        stored, name = self.stored, self.prefix + "weight_packed"
        packed_MW = stored.run(stored.array, name, first, last, stored.tensors[name].shape[-1])
        values_MN = unpack(octets_of(packed_MW), self.bits, self.grid.columns).astype(np.float32)
        scales_MN = self.grid.spread(self.grid.of(stored, stored.array, self.prefix + "weight_scale"), first, last)
        zeros_MN = self._zeros(first, last) if self.zeros else np.float32(1 << (self.bits - 1))
        if self.ordered:
            group_N = self._group_of_column()
            scales_MN = scales_MN[:, group_N]
            zeros_MN = zeros_MN[:, group_N] if isinstance(zeros_MN, np.ndarray) else zeros_MN
        values_MN -= zeros_MN
        values_MN *= scales_MN
        return values_MN

    def _zeros(self, first: int, last: int) -> Array:
        start = first // 32 * 32
        rows = slice(words(start, self.bits), words(last, self.bits))
        words_WG = self.stored.array(self.prefix + "weight_zero_point", rows)
        zeros_GM = unpack(octets_of(words_WG.T), self.bits, last - start)[:, first - start :]
        zeros_MG = zeros_GM.T.reshape(-1, self.grid.across)
        grid = Grid(last - first, self.grid.columns, self.grid.block)
        return grid.spread(lambda start, end: zeros_MG[start:end], 0, last - first)

    def _group_of_column(self) -> Array:
        """Return for each column one that stands in its group."""
        name = self.prefix + "weight_g_idx"
        group_N = self.stored.array(name)
        if (group_N == -1).all():
            return np.arange(self.grid.columns)
        if group_N.min() < 0 or group_N.max() >= self.grid.across:
            raise self.stored.fault(name, f"points outside of the {self.grid.across} groups of scales")
        return group_N * self.grid.block[1]


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every module of packed integers.

    Raises:
        CheckpointError: Tensors are missing, or contradict each other or the config.
    """
    for prefix, info in stored.ending("weight_packed"):
        if info.dtype != "I32":
            continue
        layout = settings.text("format")
        if settings.method not in METHODS or layout not in FORMATS:
            raise stored.fault(info.name, f"is packed by {settings.method}, {layout}, which is not decoded", DEQUANTISE)
        scale = stored.first(prefix + "weight_scale")
        if scale is None or scale.dtype not in FLOATS:
            raise stored.fault(info.name, "is packed and has no weight_scale beside it")
        yield _packed(stored, prefix, info, scale, settings)


def _packed(stored: Stored, prefix: str, info: TensorInfo, scale: TensorInfo, settings: Settings) -> Packed:
    shape = _shape(stored, prefix, info)
    columns = shape[-1]
    widths = [bits for bits in range(1, 9) if words(columns, bits) == info.shape[-1]]
    grid = fitted(stored, scale.name, shape, None)
    stated = _stated(settings)
    fits = [
        bits
        for bits in widths
        if grid is not None and (not stated or any(_agrees(group, bits, grid) for group in stated))
    ]
    if grid is None or len(fits) != 1 or grid.block[0] not in (1, grid.rows):
        raise stored.fault(
            info.name,
            f"has shape {list(info.shape)} and scales {list(scale.shape)} for a weight of {list(shape)}, which "
            + ("the config contradicts" if len(widths) == 1 and grid is not None else "fits no number of bits"),
        )
    bits = fits[0]
    zero = stored.first(prefix + "weight_zero_point")
    fits_zero = zero is None or (zero.dtype == "I32" and zero.shape == (words(grid.rows, bits), grid.across))
    if zero is not None and (not fits_zero or grid.block[0] != 1):
        raise stored.fault(zero.name, f"is {zero.dtype} of shape {list(zero.shape)} for {list(shape)}")
    order = stored.first(prefix + "weight_g_idx")
    if order is not None and (order.dtype not in ("I32", "I64") or order.shape != (columns,)):
        raise stored.fault(order.name, f"is {order.dtype} of shape {list(order.shape)} for {columns} columns")
    ordered = order is not None and grid.across > 1
    group = _Group(stored, prefix, bits, grid, zero is not None, ordered)
    along = 0 if ordered or grid.across == 1 else grid.block[1]
    length = stored.tensors[prefix + "weight_shape"]
    members = tuple(part.name for part in (info, length, scale, zero, order) if part is not None)
    apart = lying_apart([info, scale], math.prod(shape[:-1]))
    return Packed(prefix + "weight", shape, Codec("INT", bits, along), members, group.decode, apart=apart)


def _shape(stored: Stored, prefix: str, info: TensorInfo) -> tuple[int, ...]:
    name = prefix + "weight_shape"
    length = stored.first(name)
    if length is None or length.dtype not in ("I32", "I64") or length.shape != (len(info.shape),):
        raise stored.fault(info.name, "is packed and has no weight_shape beside it")
    shape = tuple(int(value) for value in stored.array(name))
    if len(shape) < 2 or shape[:-1] != info.shape[:-1] or not 0 < shape[-1] <= 32 * info.shape[-1] or 0 in shape:
        raise stored.fault(name, f"states the shape {list(shape)}, but the packed tensor has {list(info.shape)}")
    return shape


def _stated(settings: Settings) -> list[Mapping[str, Any]]:
    """Return what the config's groups say about weights."""
    groups = settings.table.get("config_groups")
    found: list[Mapping[str, Any]] = []
    for group in cast("Mapping[str, object]", groups).values() if isinstance(groups, Mapping) else ():
        weights = cast("Mapping[str, object]", group).get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            found.append(cast("Mapping[str, Any]", weights))
    return found


def _agrees(stated: Mapping[str, Any], bits: int, grid: Grid) -> bool:
    size = stated.get("group_size")
    along = grid.block[1] if grid.across > 1 else grid.columns
    sized = not isinstance(size, int) or size <= 0 or size == along or (grid.across == 1 and size >= grid.columns)
    return stated.get("num_bits", bits) == bits and sized
