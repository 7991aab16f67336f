"""AWQ, version ``gemm``: ``qweight`` int32 [in, out / 8], ``qzeros`` int32 [groups, out / 8], ``scales`` [groups, out].

Element [o, i] is scales[i // group, o] * (q[i, o] - zero[i // group, o]), with 4 bits. Field k of a word, counted from
its lowest bits, holds the output 8 * word + (0, 2, 4, 6, 1, 3, 5, 7)[k].

Source: AutoAWQ 0.2.9, modules/linear/gemm.py, ``from_linear``, and utils/packing_utils.py, ``dequantize_gemm``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kinprint.checkpoint.base import Array, Codec
from kinprint.checkpoint.quantised.bits import octets_of, unpack
from kinprint.checkpoint.quantised.gptq import check_companions, group_size
from kinprint.checkpoint.quantised.packed import Packed
from kinprint.checkpoint.quantised.stored import DEQUANTISE, Settings, Stored

METHODS = frozenset({None, "unnamed", "awq", "auto-round", "intel/auto-round"})
"""Values of ``quant_method`` that go with this layout."""

VERSIONS = frozenset({None, "gemm", "auto_round:auto_awq", "auto_round:awq"})

PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Field of a word that holds each of its eight outputs."""


@dataclass(frozen=True, slots=True)
class _Group:
    stored: Stored
    prefix: str
    columns: int
    block: int

    def decode(self, first: int, last: int) -> Array:
        """Return rows first to last as float32."""
        values_MN = self._integers("qweight", first, last).T.astype(np.float32)
        scales_MG = self.stored.array(self.prefix + "scales")[:, first:last].T.astype(np.float32)
        zeros_MG = self._integers("qzeros", first, last).T.astype(np.float32)
        group_N = np.arange(self.columns) // self.block
        values_MN -= zeros_MG[:, group_N]
        values_MN *= scales_MG[:, group_N]
        return values_MN

    def _integers(self, leaf: str, first: int, last: int) -> Array:
        """Return some columns of a packed matrix."""
        start = first // 8
        words_NW = self.stored.array(self.prefix + leaf)[:, start : -(-last // 8)]
        fields_NWK = unpack(octets_of(words_NW), 4, 8 * words_NW.shape[1]).reshape(*words_NW.shape, 8)
        ordered_NM = fields_NWK[..., PLACES].reshape(words_NW.shape[0], -1)
        return ordered_NM[:, first - 8 * start : last - 8 * start]


def find(stored: Stored, settings: Settings) -> Iterator[Packed]:
    """Yield every AWQ module.

    Raises:
        CheckpointError: Tensors are missing, or contradict each other or the config.
    """
    for prefix, info in stored.ending("qweight"):
        if info.dtype != "I32" or len(info.shape) != 2:
            continue
        check_companions(stored, prefix)
        groups, rows = stored.tensors[prefix + "scales"].shape
        columns, packed = info.shape
        if packed == rows:
            continue  # GPTQ packs along the other axis
        stated = settings.text("version", "checkpoint_format", "packing_format")
        if settings.method not in METHODS or stated not in VERSIONS:
            raise stored.fault(
                prefix + "qweight", f"is packed by {settings.method}, {stated}, which is not decoded", DEQUANTISE
            )
        if 8 * packed != rows or stored.tensors[prefix + "qzeros"].shape != (groups, packed) or columns == 0:
            raise stored.fault(prefix + "qweight", f"has shape {list(info.shape)}, but scales have {[groups, rows]}")
        block = group_size(stored, prefix, settings, columns, groups, 4)
        members = (prefix + "qweight", prefix + "qzeros", prefix + "scales")
        decode = _Group(stored, prefix, columns, block).decode
        codec = Codec("AWQ", 4, 0 if groups == 1 else block)
        yield Packed(prefix + "weight", (rows, columns), codec, members, decode)
