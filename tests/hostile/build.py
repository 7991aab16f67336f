"""Model files put together byte by byte, so that every byte of them can be made to lie.

Each builder makes a valid file by default; ``test_valid_files.py`` proves that with the formats' own libraries.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# -- safetensors -------------------------------------------------------------------------------------------------------


def safetensors(header: Mapping[str, Any] | str, data: bytes, *, length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Sequence[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


VALID_HEADER = {"a": entry("F32", [2, 3], 0, 24), "b": entry("F16", [4], 24, 32), "__metadata__": {"format": "pt"}}
VALID_DATA = struct.pack("<6f4e", *range(10))


def valid_safetensors() -> bytes:
    return safetensors(VALID_HEADER, VALID_DATA)


# -- pickles, one instruction at a time --------------------------------------------------------------------------------


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return (
        b"\x8a" + bytes([len(encoded)]) + encoded
        if len(encoded) < 256
        else b"\x8b" + struct.pack("<i", len(encoded)) + encoded
    )


def named(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: Iterable[int]) -> bytes:
    return tuple_of(*(integer(value) for value in values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def dict_of(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def list_of(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(key: str, numel: int, kind: str = "FloatStorage", *, view: bytes | None = None) -> bytes:
    parts = [text("storage"), named("torch", kind), text(key), text("cpu"), integer(numel)]
    return tuple_of(*parts, *([] if view is None else [view])) + b"Q"


def tensor(stored: bytes, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> bytes:
    function = named("torch._utils", "_rebuild_tensor_v2")
    hooks = call(named("collections", "OrderedDict"))
    return call(function, stored, integer(offset), integers(shape), integers(strides), b"\x89", hooks)


# -- torch.save --------------------------------------------------------------------------------------------------------


def torch_zip(
    body: bytes,
    storages: Mapping[str, bytes],
    *,
    extra: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(body))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return target.getvalue()


def torch_legacy(
    body: bytes, storages: Mapping[str, bytes], *, numel: int = 6, little: bool = True, protocol: int = 1001
) -> bytes:
    magic = pickled(integer(0x1950A86A20F9469CFC6C))
    system = dict_of({"protocol_version": integer(1001), "little_endian": b"\x88" if little else b"\x89"})
    keys = list_of(*(text(key) for key in storages))
    blocks = b"".join(struct.pack("<q", numel) + data for data in storages.values())
    return magic + pickled(integer(protocol)) + pickled(system) + pickled(body) + pickled(keys) + blocks


FLOATS = struct.pack("<6f", *range(6))
ONE_TENSOR = dict_of({"a": tensor(storage("0", 6), (2, 3), (3, 1))})


def valid_zip() -> bytes:
    return torch_zip(ONE_TENSOR, {"0": FLOATS})


def valid_legacy() -> bytes:
    return torch_legacy(dict_of({"a": tensor(storage("0", 6, view=b"N"), (2, 3), (3, 1))}), {"0": FLOATS})


# -- GGUF --------------------------------------------------------------------------------------------------------------

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10


def string(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(encoded)) + encoded


def setting(key: str, kind: int, payload: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + payload


def strings(key: str, values: Sequence[str | bytes], *, count: int | None = None) -> bytes:
    head = struct.pack("<IQ", STRING, len(values) if count is None else count)
    return setting(key, ARRAY, head + b"".join(string(value) for value in values))


def gguf_tensor(name: str, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """``dims`` fastest first, as GGUF stores them."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(
    settings: Sequence[bytes],
    tensors: Sequence[bytes],
    data: bytes,
    *,
    version: int = 3,
    tensor_count: int | None = None,
    setting_count: int | None = None,
) -> bytes:
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(settings) if setting_count is None else setting_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(settings) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


ARCHITECTURE = setting("general.architecture", STRING, string("llama"))
HEADS = setting("llama.attention.head_count", U32, struct.pack("<I", 2))
TOKENS = strings("tokenizer.ggml.tokens", ["a", "b", "\u0120c"])
Q4_1, Q8_K = 3, 15
GGUF_DATA = struct.pack("<32f", *range(32)) + struct.pack("<2e", 0.5, -1.0) + bytes(range(16))


def valid_gguf() -> bytes:
    tensors = [gguf_tensor("blk.0.attn_q.weight", (4, 8), 0, 0), gguf_tensor("quantised", (32, 1), Q4_1, 128)]
    return gguf([ARCHITECTURE, HEADS, TOKENS], tensors, GGUF_DATA)
