"""GPTQ: ``qweight`` int32 [in * bits / 32, out], ``qzeros`` int32 [groups, out * bits / 32], ``scales`` [groups, out].

Element [o, i] is scales[g, o] * (q[i, o] - zero[g, o]) with g = g_idx[i], or i // group size where there is no
``g_idx``. Integers of 2, 3, 4 or 8 bits lie in the words as in a stream, lowest bits first, down the columns of
``qweight`` and along the rows of ``qzeros``. The first version of the format stores zero points minus one; the second
(``checkpoint_format`` = ``gptq_v2``) does not.

A zero point of 0 was written as -1 by the first version, which gptqmodel does by subtracting whole words, with a borrow
from the next field; adding whole words undoes that exactly. 3-bit fields cross words and are wrapped one by one.

Source: AutoGPTQ 0.7.1, nn_modules/qlinear/qlinear_cuda.py, ``pack`` and ``forward``; gptqmodel 7.7,
utils/model_dequant.py, ``_shift_gptq_qzeros``, and utils/model.py, ``convert_gptq_v1_to_v2_format_module``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint.base import Array, Codec
from kinprint.checkpoint.quantised.bits import octets_of, unpack, words
from kinprint.checkpoint.quantised.packed import Packed
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FLOATS, Settings, Stored

METHODS = frozenset({None, "unnamed", "gptq", "auto-round", "intel/auto-round"})
"""Values of ``quant_method`` that go with this layout."""

VERSIONS = {None: 1, "gptq": 1, "auto_round:auto_gptq": 1, "auto_round:gptq": 1, "gptq_v2": 2}
"""Version by ``checkpoint_format`` or ``packing_format``."""

WIDTHS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class _Group:
    """One module: its sizes, and how its zero points are stored."""

    stored: Stored
    prefix: str
    rows: int
    columns: int
    bits: int
    block: int
    version: int

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        array = self.stored.array
        packed_MB = octets_of(array(self.prefix + "qweight")[:, first:last].T)
        values_MN = unpack(packed_MB, self.bits, self.columns).astype(np.float32)
        scales_MG = array(self.prefix + "scales")[:, first:last].T.astype(np.float32)
        zeros_MG = self._zeros(first, last)
        group_N = self._group_of_column(scales_MG.shape[1])
        values_MN -= zeros_MG[:, group_N]
        values_MN *= scales_MG[:, group_N]
        return values_MN

    def _zeros(self, first: int, last: int) -> Array:
        # Fields start anew at a word every 32 integers, whatever their width.
        start = first // 32 * 32
        words_GW = self.stored.array(self.prefix + "qzeros")[:, words(start, self.bits) : words(last, self.bits)]
        words_GW = np.ascontiguousarray(words_GW).view("<u4")
        carried = self.version == 1 and self.bits != 3
        if carried:
            words_GW = words_GW + np.uint32(sum(1 << place for place in range(0, 32, self.bits)))
        zeros_GM = unpack(octets_of(words_GW), self.bits, last - start)[:, first - start :]
        if self.version == 1 and not carried:
            zeros_GM = (zeros_GM + 1) & np.uint8((1 << self.bits) - 1)
        return zeros_GM.T.astype(np.float32)

    def _group_of_column(self, groups: int) -> Array:
        name = self.prefix + "g_idx"
        if name not in self.stored.tensors:
            return np.arange(self.columns) // (self.block or self.columns)
        group_N = self.stored.array(name)
        if group_N.min() < 0 or group_N.max() >= groups:
            raise self.stored.fault(name, f"points outside of the {groups} groups of scales")
        return group_N


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every GPTQ module.

    Raises:
        CheckpointError: Tensors are missing, or contradict each other or the config.
    """
    for prefix, info in stored.ending("qweight"):
        if info.dtype != "I32" or len(info.shape) != 2:
            continue
        check_companions(stored, prefix)
        rows = stored.tensors[prefix + "scales"].shape[1]
        if info.shape[1] != rows:
            continue  # AWQ packs along the other axis
        version = _version(stored, prefix, settings)
        group = _sized(stored, prefix, settings, version)
        members = [prefix + leaf for leaf in ("qweight", "qzeros", "scales", "g_idx")]
        yield Packed(
            prefix + "weight",
            (group.rows, group.columns),
            Codec("GPTQ", group.bits, group.block),
            tuple(name for name in members if name in stored.tensors),
            group.decode,
        )


def check_companions(stored: Stored, prefix: str) -> None:
    """Refuse a ``qweight`` without what it needs.

    Raises:
        CheckpointError: ``qzeros`` or ``scales`` is missing or is no matrix of its kind.
    """
    for leaf, dtypes in (("qzeros", {"I32"}), ("scales", FLOATS)):
        info = stored.first(prefix + leaf)
        if info is None:
            raise stored.fault(prefix + "qweight", f"is packed and has no {leaf} beside it")
        if info.dtype not in dtypes or len(info.shape) != 2 or 0 in info.shape:
            raise stored.fault(prefix + leaf, f"is {info.dtype} of shape {list(info.shape)}, no {leaf} of GPTQ or AWQ")


def _version(stored: Stored, prefix: str, settings: Settings) -> int:
    stated = settings.text("checkpoint_format", "packing_format", "format")
    if settings.method not in METHODS or stated not in VERSIONS:
        named = f"{settings.method} with the layout {stated}" if stated else str(settings.method)
        raise stored.fault(prefix + "qweight", f"is packed by {named}, which is not decoded", DEQUANTISE)
    return VERSIONS[stated]


def _sized(stored: Stored, prefix: str, settings: Settings, version: int) -> _Group:
    packed = stored.tensors[prefix + "qweight"].shape[0]
    groups, rows = stored.tensors[prefix + "scales"].shape
    zeros = stored.tensors[prefix + "qzeros"].shape
    order = stored.first(prefix + "g_idx")
    if order is not None and (order.dtype not in ("I32", "I64") or len(order.shape) != 1):
        raise stored.fault(prefix + "g_idx", f"is {order.dtype} of shape {list(order.shape)}, no index of groups")
    # Narrow matrices fit several widths; the config tells which.
    fits = [
        b for b in WIDTHS if zeros == (groups, words(rows, b)) and (order is None or words(order.size, b) == packed)
    ]
    stated = settings.integer("bits")
    if not fits or packed == 0 or (order is not None and order.size == 0):
        sizes = f"qzeros {list(zeros)}, scales {[groups, rows]}" + (f", g_idx {order.size}" if order else "")
        raise stored.fault(prefix + "qweight", f"has {packed} rows of words, but there are {sizes}")
    bits = stated if stated in fits else fits[0]
    columns = order.size if order is not None else packed * 32 // bits
    block = group_size(stored, prefix, settings, columns, groups, bits)
    shuffled = order is not None and groups > 1 and _shuffled(stored, prefix, settings, block)
    return _Group(stored, prefix, rows, columns, bits, 0 if groups == 1 or shuffled else block, version)


def _shuffled(stored: Stored, prefix: str, settings: Settings, block: int) -> bool:
    """Tell whether neighbours may lie in different groups (``desc_act``)."""
    stated = settings.table.get("desc_act")
    if isinstance(stated, bool):
        return stated
    group_N = stored.array(prefix + "g_idx")
    return not np.array_equal(group_N, np.arange(group_N.size) // block)


def group_size(stored: Stored, prefix: str, settings: Settings, columns: int, groups: int, bits: int) -> int:
    """Return the length of a group, from the shapes, checked against the config.

    Raises:
        CheckpointError: The shapes contradict the config or each other.
    """
    # gptqmodel states other widths for some modules under ``dynamic``, auto-round under ``extra_config``.
    varied = bool(settings.table.get("dynamic") or settings.table.get("extra_config"))
    stated, width = settings.integer("group_size"), settings.integer("bits")
    if not varied and width is not None and width != bits:
        raise stored.fault(prefix + "qweight", f"holds {bits} bits per element, but the config says {width}")
    expected = columns if stated is None or stated <= 0 else stated
    if -(-columns // expected) == groups:
        return min(expected, columns)
    block = columns // groups if columns % groups == 0 else 0
    if block == 0 or (stated is not None and not varied):
        raise stored.fault(
            prefix + "scales",
            f"has {groups} groups for {columns} columns, but the config says groups of {stated}",
        )
    return block
