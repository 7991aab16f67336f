"""The dtypes that checkpoints store, under safetensors' spelling."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np

from kinprint.checkpoint.base import Array
from kinprint.checkpoint.faults import fault, shown

READABLE: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""What ``read`` returns for each dtype. Every format stores little-endian."""

OTHER_BITS = {
    "C64": 64,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
"""Bits per element of dtypes that are listed and size-checked but not read."""

_SPELLING = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


def bits(dtype: str) -> int | None:
    """Return the bits of one element, or None for a dtype that this version does not know.

    Example:
        >>> bits("BF16"), bits("F4"), bits("F3_NEW")
        (16, 4, None)
    """
    readable = READABLE.get(dtype)
    return 8 * readable.itemsize if readable is not None else OTHER_BITS.get(dtype)


def is_spelling(dtype: object) -> bool:
    """Tell whether a value could name a dtype, known or not."""
    return isinstance(dtype, str) and _SPELLING.fullmatch(dtype) is not None


def array(
    data: memoryview,
    dtype: str,
    shape: tuple[int, ...],
    where: str,
    name: str,
    *,
    strides: tuple[int, ...] | None = None,
) -> Array:
    """View bytes as an array, without a copy and without a demand on their alignment.

    Args:
        data: The bytes; numpy checks that the array fits inside them.
        dtype: safetensors' spelling.
        shape: Lengths of the axes.
        where: File, for the message.
        name: Tensor, for the message.
        strides: Bytes between neighbours on each axis; C order when None.

    Raises:
        CheckpointError: The dtype is one that is listed but not read.
    """
    target = READABLE.get(dtype)
    if target is None:
        raise fault(
            where,
            f"tensor {shown(name)} has dtype {dtype}, which is not decoded",
            "use a copy of the model in bf16, f16, f32, f64, f8_e4m3 or f8_e5m2",
        )
    # The bytes are read-only, and so is the array.
    return np.ndarray(shape, target, buffer=data, strides=strides)
