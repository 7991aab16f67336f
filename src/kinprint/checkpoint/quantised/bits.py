"""Unpacking: integers of any width from a stream of bits, two 4-bit floats from a byte.

Every framework here packs from the lowest bit of a little-endian word upwards, and across words where a width does not
divide 32; read as bytes, that is one stream, whatever the size of the words was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinprint.checkpoint.base import Array

_E2M1: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def unpack(octets_MB: Array, bits: int, count: int) -> Array:
    """Return the integers that rows of bytes hold, lowest bits first.

    Args:
        octets_MB: uint8; each row begins a stream of its own.
        bits: Width of one integer, 1 to 8.
        count: Integers in a row; bits beyond them are padding.

    Returns:
        uint8 [M, count].

    Example:
        >>> unpack(np.array([[0b10_001_000, 0b0]], np.uint8), 3, 3).tolist()
        [[0, 1, 2]]
    """
    if bits == 8:
        return octets_MB[:, :count]
    rows, mask = octets_MB.shape[0], np.uint8((1 << bits) - 1)
    if 8 % bits == 0:
        per_byte = 8 // bits
        values_MBK = np.empty((*octets_MB.shape, per_byte), np.uint8)
        for place in range(per_byte):
            values_MBK[..., place] = (octets_MB >> (bits * place)) & mask
        return values_MBK.reshape(rows, -1)[:, :count]
    # Eight integers fill exactly `bits` bytes.
    missing = -octets_MB.shape[1] % bits
    periods_MPB = np.pad(octets_MB, ((0, 0), (0, missing))).reshape(rows, -1, bits)
    values_MPK = np.empty((rows, periods_MPB.shape[1], 8), np.uint8)
    for place in range(8):
        octet, shift = divmod(place * bits, 8)
        value_MP = periods_MPB[..., octet] >> shift
        if shift + bits > 8:
            value_MP = value_MP | (periods_MPB[..., octet + 1] << (8 - shift))
        values_MPK[..., place] = value_MP & mask
    return values_MPK.reshape(rows, -1)[:, :count]


def words(count: int, bits: int) -> int:
    """Return how many 32-bit words hold so many integers."""
    return -(-count * bits // 32)


def octets_of(words_MN: Array) -> Array:
    """View rows of 32-bit words as bytes, lowest first; a copy only if the rows do not lie so."""
    return np.ascontiguousarray(words_MN).astype("<i4", copy=False).view(np.uint8)


def fp4(octets_MB: Array, dtype: np.dtype[Any] | type = np.float32) -> Array:
    """Return the E2M1 numbers of rows of bytes, the low half of each byte first.

    Source: OCP Microscaling Formats 1.0, section 5.3.3.
    """
    positive = np.array(_E2M1, dtype)
    table = np.concatenate([positive, -positive])
    return table[unpack(octets_MB, 4, 2 * octets_MB.shape[1])]
