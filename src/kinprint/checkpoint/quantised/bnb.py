"""bitsandbytes: int8 with a scale for each row, and 4-bit codes (nf4, fp4) with a scale for each run of elements.

int8: ``weight`` int8 [out, in] and ``SCB`` float32 [out]; an element is q * SCB / 127.

4 bits: ``weight`` holds two codes a byte, the high half first, over the flattened matrix, as [bytes, 1] of uint8 or of
any other dtype. ``weight.quant_map`` has the 16 values, ``weight.absmax`` a scale for each ``blocksize`` elements, and
``weight.quant_state.bitsandbytes__nf4`` (or ``__fp4``) JSON as bytes: shape, blocksize, dtype. With double
quantisation ``absmax`` is uint8: nested_quant_map[absmax] * nested_absmax[i // nested_blocksize] + nested_offset.

Source: bitsandbytes 0.50, functional.py, ``QuantState`` and ``dequantize_4bit``; backends/default/ops.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinprint.checkpoint.base import Array, Codec
from kinprint.checkpoint.faults import checked_shape, natural, shown
from kinprint.checkpoint.jsonfile import parse_object
from kinprint.checkpoint.quantised.bits import unpack
from kinprint.checkpoint.quantised.packed import Packed, lying_apart
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, Settings, Stored

STATE = ".quant_state.bitsandbytes__"
STATE_BYTES = 1 << 16
"""Longest JSON state that is read; real ones have about 200 bytes."""

KINDS = {"nf4": Codec("NF4", 4, 0), "fp4": Codec("FP4", 4, 0, exponent=True)}


@dataclass(frozen=True, slots=True)
class _Nested:
    """How the scales are themselves quantised."""

    block: int
    offset: float


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    name: str
    columns: int
    block: int
    nested: _Nested | None

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        start, end = first * self.columns, last * self.columns
        octets_B = self.stored.run(self.stored.octets, self.name, start // 2, -(-end // 2), 1).reshape(-1)
        halves_BK = unpack(octets_B[None], 4, 2 * octets_B.size).reshape(-1, 2)
        codes = halves_BK[:, ::-1].reshape(-1)[start % 2 :][: end - start]
        values = self.stored.array(self.name + ".quant_map").astype(np.float32).reshape(-1)[codes]
        head = start // self.block
        scales = self._scales(head, -(-end // self.block))
        values *= np.repeat(scales, self.block)[start - head * self.block :][: end - start]
        return values.reshape(last - first, self.columns)

    def _scales(self, first: int, last: int) -> Array:
        scales = self.stored.run(self.stored.array, self.name + ".absmax", first, last, 1).reshape(-1)
        if self.nested is None:
            return scales.astype(np.float32)
        levels = self.stored.array(self.name + ".nested_quant_map").astype(np.float32).reshape(-1)
        outer = self.stored.array(self.name + ".nested_absmax").astype(np.float32).reshape(-1)
        of_each = outer[np.arange(first, last) // self.nested.block]
        return levels[scales] * of_each + np.float32(self.nested.offset)


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every tensor that bitsandbytes packed.

    Raises:
        CheckpointError: Tensors are missing, or contradict each other or their state.
    """
    for kind, codec in KINDS.items():
        for name, _ in stored.ending(STATE + kind):
            yield _four_bits(stored, name, name + STATE + kind, codec)
    for prefix, info in stored.ending("SCB"):
        weight = stored.first(prefix + "weight")
        if weight is not None and weight.dtype == "I8":
            yield _eight_bits(stored, prefix, weight.shape, info.shape)
    # All else is beside the tensor; the config only tells that something was there and is gone.
    for prefix, info in stored.ending("weight") if settings.method == "bitsandbytes" else ():
        beside = (prefix + "SCB", *(info.name + STATE + kind for kind in KINDS))
        if info.dtype in ("I8", "U8") and len(info.shape) == 2 and stored.first(*beside) is None:
            raise stored.fault(info.name, "is packed by bitsandbytes and has neither SCB nor quant_state beside it")


def _eight_bits(stored: Stored, prefix: str, shape: tuple[int, ...], scales: tuple[int, ...]) -> Packed:
    if len(shape) != 2 or math.prod(scales) != shape[0] or stored.tensors[prefix + "SCB"].dtype not in FLOATS:
        raise stored.fault(prefix + "SCB", f"has shape {list(scales)}, but the weight has {list(shape)}")
    layout = stored.first(prefix + "weight_format")
    if layout is not None and stored.octets(layout.name).any():
        raise stored.fault(prefix + "weight", "lies in tiles for a GPU, which is not decoded", DEQUANTISE)

    def decode(first: int, last: int) -> Array:
        values_MN = stored.array(prefix + "weight", slice(first, last)).astype(np.float32)
        scales_M1 = stored.run(stored.array, prefix + "SCB", first, last, 1).astype(np.float32)
        values_MN *= scales_M1 * np.float32(1 / 127)
        return values_MN

    members = (prefix + "weight", prefix + "SCB")
    apart = lying_apart((stored.tensors[member] for member in members), shape[0])
    return Packed(prefix + "weight", shape, Codec("INT8", 8, 0), members, decode, apart=apart)


def _four_bits(stored: Stored, name: str, state_name: str, codec: Codec) -> Packed:
    parts = [name, name + ".absmax", name + ".quant_map"]
    state = _state(stored, name, state_name)
    if "nested_blocksize" in state or "nested_offset" in state:
        parts += [name + ".nested_absmax", name + ".nested_quant_map"]
    missing = next((part for part in parts if part not in stored.tensors), None)
    if missing is not None:
        raise stored.fault(name, f"is packed by bitsandbytes and {shown(missing)} is missing")
    shape = checked_shape(state.get("shape"), stored.where, state_name)
    count, block = math.prod(shape), state.get("blocksize")
    if len(shape) < 2 or count == 0 or not 0 <= stored.tensors[name].nbytes - -(-count // 2) < 8:
        raise stored.fault(
            state_name, f"states the shape {list(shape)}, but the tensor has {stored.tensors[name].nbytes} bytes"
        )
    if not natural(block) or block == 0 or _length(stored, parts[1]) != -(-count // block):
        raise stored.fault(
            state_name, f"states a block size of {shown(block)}, which {_length(stored, parts[1])} scales contradict"
        )
    if _length(stored, parts[2]) != 16 or stored.tensors[parts[2]].dtype not in FLOATS:
        raise stored.fault(parts[2], "does not hold the 16 values of 4-bit codes")
    nested = _nested(stored, name, state, -(-count // block)) if len(parts) > 3 else None
    if nested is None and stored.tensors[parts[1]].dtype not in FLOATS:
        raise stored.fault(parts[1], "is quantised, and the state does not say how")
    # A run that does not divide a row crosses it; neighbours share a scale at least so far.
    along = block if shape[-1] % block == 0 else math.gcd(block, shape[-1])
    group = _Group(stored, name, shape[-1], min(block, count), nested)
    codec = Codec(codec.scheme, 4, along, codec.exponent)
    apart: dict[str, tuple[int, int]] = {}
    if len(stored.tensors[parts[1]].shape) == 1:
        apart[parts[1]] = (shape[-1], group.block)
    if stored.tensors[name].shape[0] == stored.tensors[name].nbytes:
        apart[name] = (shape[-1], 2)
    return Packed(name, shape, codec, (*parts, state_name), group.decode, apart=apart)


def _state(stored: Stored, name: str, state_name: str) -> Mapping[str, Any]:
    info = stored.tensors[state_name]
    if info.dtype != "U8" or info.nbytes > STATE_BYTES or name not in stored.tensors:
        raise stored.fault(state_name, f"is {info.dtype} of {info.nbytes} bytes, no state of bitsandbytes")
    return parse_object(bytes(stored.raw(state_name)), f"{stored.where}: tensor {shown(state_name)}", unique=True)


def _nested(stored: Stored, name: str, state: Mapping[str, Any], scales: int) -> _Nested:
    block, offset = state.get("nested_blocksize"), state.get("nested_offset")
    outer, levels = name + ".nested_absmax", name + ".nested_quant_map"
    fits = natural(block) and block > 0 and _length(stored, outer) == -(-scales // block)
    kinds = [stored.tensors[part].dtype for part in (name + ".absmax", outer, levels)]
    if not fits or kinds[0] != "U8" or not set(kinds[1:]) <= FLOATS or _length(stored, levels) != 256:
        raise stored.fault(outer, f"does not hold the scales of {scales} scales in blocks of {shown(block)}")
    if not isinstance(offset, int | float) or isinstance(offset, bool) or abs(offset) > 1e30:
        raise stored.fault(name, f"has scales with an offset of {shown(offset)}")
    assert isinstance(block, int)
    return _Nested(min(block, scales), float(offset))


def _length(stored: Stored, name: str) -> int:
    return math.prod(stored.tensors[name].shape)
