"""CTranslate2 files and ONNX graphs put together piece by piece, so that every piece can be made to lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CT2_KINDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


def ct2_text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<H", len(encoded) + 1) + encoded + b"\0"


def ct2_variable(
    name: str,
    values: np.ndarray[Any, Any],
    *,
    kind: int | None = None,
    nbytes: int | None = None,
    shape: Sequence[int] | None = None,
) -> bytes:
    lengths = values.shape if shape is None else shape
    head = ct2_text(name) + struct.pack(f"<B{len(lengths)}I", len(lengths), *lengths)
    stored = CT2_KINDS[values.dtype.name] if kind is None else kind
    return head + struct.pack("<BI", stored, values.nbytes if nbytes is None else nbytes) + values.tobytes()


def ct2(
    variables: Sequence[bytes], aliases: Mapping[str, str] | None = None, *, version: int = 6, count: int | None = None
) -> bytes:
    head = struct.pack("<I", version) + ct2_text("TransformerDecoderSpec") + struct.pack("<I", 8)
    body = struct.pack("<I", len(variables) if count is None else count) + b"".join(variables)
    pairs = aliases or {}
    return head + body + struct.pack("<I", len(pairs)) + b"".join(ct2_text(a) + ct2_text(b) for a, b in pairs.items())


W = np.array([[127, -64, 0], [1, 2, 3]], np.int8)
SCALES = np.array([2, 4], np.float32)


def valid_ct2() -> bytes:
    variables = [
        ct2_variable("decoder/embeddings/weight", np.arange(6, dtype=np.float32).reshape(2, 3)),
        ct2_variable("decoder/layer_0/ffn/linear_0/weight", W),
        ct2_variable("decoder/layer_0/ffn/linear_0/weight_scale", SCALES),
        ct2_variable("decoder/num_heads", np.array(2, np.int16)),
    ]
    return ct2(variables, {"decoder/projection/weight": "decoder/embeddings/weight"})
