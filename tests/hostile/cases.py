"""Hostile and broken models. Each case builds one in a folder and says what the message must mention.

A case is a function that writes files and returns what to open. The files are small and made on the spot; none is kept
in the repository.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hostile import build
from hostile.build import entry, safetensors
from hostile.case import Case, one_file, several
from hostile.pickle_cases import pickles


def all_cases() -> list[Case]:
    groups = (paths, safetensors_files, sharded, pickles, zips, legacy, ggufs, configs)
    return [case for group in groups for case in group()]


# -- no model at all ---------------------------------------------------------------------------------------------------


def paths() -> Iterator[Case]:
    yield Case("missing file", "is no file or folder", lambda folder: folder / "absent.safetensors")
    yield Case("name with a null byte", "is no file or folder", lambda folder: folder / "a\0b")
    yield Case("path that does not end", "is no file or folder", lambda folder: folder / ("x" * 5000))
    yield Case("empty folder", "empty folder", lambda folder: folder)
    yield several("folder without a model", "no model file", {"README.md": b"#"})
    yield several("adapter alone", "adapter", {"adapter_model.safetensors": build.valid_safetensors()})
    yield several("optimizer alone", "no model file", {"optimizer.pt": build.valid_zip(), "training_args.bin": b"x"})
    yield one_file("empty file", "empty (0 bytes)", "model.safetensors", b"")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for file in ("model.safetensors", "pytorch_model.bin", "model.gguf"):
        yield one_file(f"Git LFS pointer as {file}", "git lfs pull", file, pointer)
    yield one_file("web page", "web page", "model.safetensors", b"<!DOCTYPE html><html>404</html>")
    yield one_file("text", "safetensors header", "model.safetensors", b"hello, this is a text file\n")
    yield one_file("unknown format", "no format", "model.bin", bytes(64))
    yield one_file("plain pickle", "did not write", "model.bin", build.pickled(b"]"))

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "model.safetensors")
        return folder / "model.safetensors"

    def loop(folder: Path) -> Path:
        (folder / "model.safetensors").symlink_to(folder / "model.safetensors")
        return folder

    yield Case("named pipe", "no regular file", pipe)
    yield Case("link to itself", "model.safetensors is missing", loop)
    yield several(
        "two models and no index", "several models", {"a.gguf": build.valid_gguf(), "b.gguf": build.valid_gguf()}
    )


# -- safetensors -------------------------------------------------------------------------------------------------------


def safetensors_files() -> Iterator[Case]:
    def case(name: str, says: str, content: bytes) -> Case:
        return one_file(f"safetensors: {name}", says, "model.safetensors", content)

    def header(name: str, says: str, value: dict[str, object] | str, data: bytes = bytes(16)) -> Case:
        return case(name, says, safetensors(value, data))

    yield case("seven bytes", "too few", bytes(7))
    yield case("length past the end", "truncated", safetensors("{}", b"", length=1000))
    yield case("length of 2^63", "claims a safetensors header", safetensors("{}", b"", length=1 << 63))
    yield case("length of 100 MB and one", "claims a safetensors header", safetensors("{}", b"", length=100_000_001))
    yield header("no JSON", "malformed JSON", "{nothing")
    yield header(
        "no UTF-8", "malformed JSON", '{"\udc80": 1}'.encode("utf-8", "surrogateescape").decode("latin-1") + "{"
    )
    yield header("a list", "does not start with {", "[1, 2]")
    yield header("nested without end", "nested too deeply", '{"a":' * 100_000)
    yield header("a number of 5000 digits", "malformed JSON", '{"a":' + "9" * 5000 + "}")
    yield header("one name twice", "twice", '{"a":1,"a":2}')
    yield header("one field twice", "twice", '{"a":{"dtype":"F32","dtype":"F64","shape":[4],"data_offsets":[0,16]}}')
    yield header("entry that is a number", "is no object", {"a": 1})
    yield header("metadata that is a list", "no map of text", {"__metadata__": [], "a": entry("F32", [4], 0, 16)})
    yield header("metadata with numbers", "no map of text", {"__metadata__": {"x": 1}, "a": entry("F32", [4], 0, 16)})
    yield header("no dtype", "dtype", {"a": {"shape": [4], "data_offsets": [0, 16]}})
    yield header("dtype that is code", "dtype", {"a": entry("__import__('os')", [4], 0, 16)})
    for shape in ([-4], [4.0], [True] * 4, ["4"], [[4]], [None], [1] * 33):
        yield header(f"shape {shape}", "no believable shape", {"a": entry("F32", shape, 0, 16)})
    yield header("shape that is a number", "no believable shape", {"a": {**entry("F32", [], 0, 16), "shape": 4}})
    yield header("axis of 2^62", "2^60 elements", {"a": entry("F32", [1 << 62], 0, 16)})
    yield header("axes that overflow 64 bits", "2^60 elements", {"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}, b"")
    yield header("huge axis beside an empty one", "2^60 elements", {"a": entry("F32", [0, 1 << 62], 0, 0)}, b"")
    yield header("size that does not fit the shape", "has 16 bytes, but", {"a": entry("F32", [5], 0, 16)})
    for offsets in ([0], [0, 16, 16], ["0", "16"], [0.0, 16.0], [-16, 0], [16, 0], [False, 16]):
        value = {"a": {**entry("F32", [4], 0, 0), "data_offsets": offsets}}
        yield header(f"offsets {offsets}", "no believable data_offsets", value)
    yield header("offsets past the end", "past the end", {"a": entry("F32", [8], 0, 32)})
    yield header("offsets of 2^63", "past the end", {"a": entry("F32", [4], 1 << 63, (1 << 63) + 16)})
    yield header("overlap", "overlaps", {"a": entry("F32", [3], 0, 12), "b": entry("F32", [2], 8, 16)})
    yield header("one place for two", "overlaps", {"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 0, 16)})
    yield header("gap", "gap", {"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 12, 16)})
    yield header("hidden bytes at the end", "belong to none", {"a": entry("F32", [1], 0, 4)})
    for bad in ("", "a\nb", "\x1b[2Ja", "x" * 2000, "\ud800"):
        yield header(f"tensor named {bad[:5]!r}", "no usable tensor name", {bad: entry("F32", [4], 0, 16)})
    whole = build.valid_safetensors()
    for length in (8, 9, 20, len(whole) - 33, len(whole) - 32, len(whole) - 8, len(whole) - 1):
        yield case(f"cut after {length} bytes", "", whole[:length])
    yield case("one byte more", "belong to none", whole + b"\0")


# -- folders of shards -------------------------------------------------------------------------------------------------


def sharded() -> Iterator[Case]:
    a = safetensors({"a": entry("F32", [4], 0, 16)}, bytes(16))
    b = safetensors({"b": entry("F32", [4], 0, 16)}, bytes(16))
    index_name = "model.safetensors.index.json"

    def index(name: str, says: str, weight_map: object, **files: bytes) -> Case:
        content = json.dumps({"weight_map": weight_map}).encode()
        given = {f"{key}.safetensors": value for key, value in files.items()}
        return several(f"index: {name}", says, {index_name: content, **given})

    for bad in (
        "../x.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "..",
        ".",
        "",
        "C:a",
        "a\\b",
        "a\0b",
        "\x1b[2J",
    ):
        yield index(f"names {bad!r}", "no name of a file beside it", {"a": bad}, a=a)
    yield index("names a number", "no name of a file beside it", {"a": 1}, a=a)
    yield index("missing shard", "b.safetensors is missing", {"a": "a.safetensors", "b": "b.safetensors"}, a=a)
    yield index("missing tensor", "no shard holds it", {"a": "a.safetensors", "c": "a.safetensors"}, a=a)
    yield index("tensor elsewhere", "it is in", {"a": "b.safetensors", "b": "a.safetensors"}, a=a, b=b)
    yield index("tensor in two shards", "is in", {"a": "a.safetensors", "x": "b.safetensors"}, a=a, b=a)
    yield index("empty map", "no weight_map", {}, a=a)
    yield index("list", "no weight_map", ["a"], a=a)
    broken = {"a.safetensors": a}
    yield several("index: one tensor twice", "twice", {index_name: b'{"weight_map":{"a":"x","a":"y"}}', **broken})
    yield several("index: no JSON", "malformed", {index_name: b"{", **broken})
    yield several(
        "shards without an index, one missing",
        "model 2 of 3 is missing",
        {"model-00001-of-00003.safetensors": a, "model-00003-of-00003.safetensors": b},
    )
    yield several("a series of 999999", "model 1 of 999999 is missing", {"model-00002-of-999999.safetensors": a})
    yield several(
        "one tensor in two numbered shards",
        "is in model-1-of-2.safetensors and in model-2-of-2.safetensors",
        {"model-1-of-2.safetensors": a, "model-2-of-2.safetensors": a},
    )
    yield several("index given as the model", "missing", {index_name: b'{"weight_map":{"a":"a.bin"}}'}, index_name)


# -- zip archives ------------------------------------------------------------------------------------------------------


def zips() -> Iterator[Case]:
    def case(name: str, says: str, content: bytes) -> Case:
        return one_file(f"zip: {name}", says, "model.pt", content)

    body, data = build.ONE_TENSOR, {"0": build.FLOATS}
    whole = build.valid_zip()
    yield case("compressed", "compressed", build.torch_zip(body, data, compression=zipfile.ZIP_DEFLATED))
    yield case("bomb", "compressed", build.torch_zip(body, {"0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED))
    yield case("TorchScript", "TorchScript", build.torch_zip(body, data, extra={"archive/constants.pkl": b"."}))
    yield case("big-endian", "not little-endian", build.torch_zip(body, data, extra={"archive/byteorder": b"big"}))
    for bad in ("archive/../../x", "/etc/x", "archive\\x"):
        yield case(f"entry {bad}", "bad path", build.torch_zip(body, data, extra={bad: b""}))
    yield case("two models", "no data.pkl", build.torch_zip(body, data, extra={"other/data.pkl": b"."}))
    yield case("no storage", "storage '0' is missing", build.torch_zip(body, {}))
    yield case("short storage", "has 23 bytes", build.torch_zip(body, {"0": build.FLOATS[:-1]}))
    yield case("not torch's", "no data.pkl", build.torch_zip(body, data).replace(b"data.pkl", b"date.pkl"))
    yield case("empty archive", "", b"PK\x05\x06" + bytes(18))
    # The local header and the directory each name and place an entry; a file where they differ means two things.
    yield case("names that differ", "not where", whole.replace(b"archive/data/0", b"archive/data/1", 1))
    at = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"archive/data/0"))
    for name, field, value in (("offset", 42, 1 << 31), ("size", 20, 1 << 31), ("size and size", 20, 1 << 31)):
        patched = bytearray(whole)
        struct.pack_into("<I", patched, at + field, value)
        if name == "size and size":
            struct.pack_into("<I", patched, at + field + 4, value)
        yield case(f"lying {name}", "", bytes(patched))
    longer = bytearray(whole)
    first = whole.index(b"PK\x01\x02")
    for field in (20, 24):
        struct.pack_into("<I", longer, first + field, struct.unpack_from("<I", whole, first + field)[0] + 10)
    yield case("entries that overlap", "not where", bytes(longer))
    encrypted = bytearray(whole)
    encrypted[at + 8] |= 1
    yield case("encrypted", "encrypted", bytes(encrypted))
    end = bytearray(whole)
    struct.pack_into("<II", end, whole.rindex(b"PK\x05\x06") + 12, 0xFFFFFFF0, 0xFFFFFFF0)
    yield case("directory of 4 GB", "damaged zip", bytes(end))
    for length in (4, 30, 100, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        yield case(f"cut after {length} bytes", "", whole[:length])


# -- the older torch format --------------------------------------------------------------------------------------------


def legacy() -> Iterator[Case]:
    def case(name: str, says: str, content: bytes) -> Case:
        return one_file(f"legacy: {name}", says, "model.bin", content)

    body, data = build.ONE_TENSOR, {"0": build.FLOATS}
    whole = build.valid_legacy()
    yield case("big-endian", "byte order", build.torch_legacy(body, data, little=False))
    yield case("another protocol", "another protocol", build.torch_legacy(body, data, protocol=1000))
    yield case("length that differs", "another length", build.torch_legacy(body, data, numel=5))
    yield case("length of 2^62", "another length", build.torch_legacy(body, data, numel=1 << 62))
    yield case("unused block", "no tensor uses", build.torch_legacy(body, {"0": build.FLOATS, "1": build.FLOATS}))
    yield case("missing block", "ends before", build.torch_legacy(body, {}))
    for length in (15, 16, 40, 120, len(whole) - 32, len(whole) - 25, len(whole) - 24, len(whole) - 1):
        yield case(f"cut after {length} bytes", "", whole[:length])


# -- GGUF --------------------------------------------------------------------------------------------------------------


def ggufs() -> Iterator[Case]:
    def case(name: str, says: str, content: bytes) -> Case:
        return one_file(f"gguf: {name}", says, "model.gguf", content)

    def tensor(name: str, says: str, *tensors: bytes, data: bytes = bytes(128)) -> Case:
        return case(name, says, build.gguf([build.ARCHITECTURE], tensors, data))

    def setting(name: str, says: str, *settings: bytes) -> Case:
        return case(name, says, build.gguf(settings, [build.gguf_tensor("a", (32,), 0, 0)], bytes(128)))

    good = build.gguf_tensor("a", (32,), 0, 0)
    yield case("version 1", "version 1", build.gguf([], [good], bytes(128), version=1))
    yield case("version 99", "version 99", build.gguf([], [good], bytes(128), version=99))
    yield case("big-endian", "big-endian", build.gguf([], [good], bytes(128), version=3 << 24))
    yield case("2^62 tensors", "more than it can hold", build.gguf([], [good], bytes(128), tensor_count=1 << 62))
    yield case("2^62 settings", "more than it can hold", build.gguf([], [good], bytes(128), setting_count=1 << 62))
    yield case("one setting too many", "", build.gguf([], [good], bytes(128), setting_count=1))
    yield case("no tensors", "no tensors", build.gguf([build.ARCHITECTURE], [], b""))
    yield tensor("name of 2^62 bytes", "needs", struct.pack("<Q", 1 << 62) + bytes(32))
    yield tensor("name with an escape", "no usable tensor name", build.gguf_tensor("\x1b[2J", (32,), 0, 0))
    yield tensor("five axes", "5 axes", build.gguf_tensor("a", (2, 2, 2, 2, 2), 0, 0))
    yield tensor("2^32 - 1 axes", "axes", build.string("a") + struct.pack("<I", (1 << 32) - 1) + bytes(64))
    yield tensor("axes that overflow", "2^60 elements", build.gguf_tensor("a", (1 << 33, 1 << 33), 0, 0))
    yield tensor("axis of 2^62", "2^60 elements", build.gguf_tensor("a", (1 << 62,), 0, 0))
    yield tensor("shape past the end", "past the end", build.gguf_tensor("a", (64,), 0, 0))
    yield tensor("offset past the end", "past the end", build.gguf_tensor("a", (32,), 0, 1 << 62))
    yield tensor("offset of 2^64 - 1", "past the end", build.gguf_tensor("a", (32,), 0, (1 << 64) - 1))
    yield tensor("one name twice", "one name", good, build.gguf_tensor("a", (0,), 0, 128))
    yield tensor("overlap", "overlaps", good, build.gguf_tensor("b", (32,), 0, 64), data=bytes(192))
    yield tensor("half a block", "no multiple", build.gguf_tensor("a", (33,), build.Q4_1, 0))
    heads = build.setting("llama.attention.head_count", build.U32, struct.pack("<I", 5))
    q = build.gguf_tensor("blk.0.attn_q.weight", (4, 8), 0, 0)
    yield case("heads that do not divide q", "5 heads", build.gguf([build.ARCHITECTURE, heads], [q], bytes(128)))
    none = build.setting("llama.attention.head_count", build.U32, struct.pack("<I", 0))
    yield case("no heads", "0 heads", build.gguf([build.ARCHITECTURE, none], [q], bytes(128)))
    yield setting("type 99", "unknown type", build.setting("a", 99, bytes(8)))
    yield setting("key of 2^62 bytes", "needs", struct.pack("<Q", 1 << 62) + bytes(16))
    yield setting("key with an escape", "bad name", build.setting("\x1b[2J", build.U32, bytes(4)))
    yield setting("key twice", "twice", build.ARCHITECTURE, build.ARCHITECTURE)
    yield setting("text of 2^62 bytes", "needs", build.setting("a", build.STRING, struct.pack("<Q", 1 << 62)))
    array = struct.pack("<IQ", build.U32, 1 << 62)
    yield setting("array of 2^62 numbers", "needs", build.setting("a", build.ARRAY, array))
    yield setting("array of 2^62 strings", "claims", build.strings("a", ["x"], count=1 << 62))
    yield setting(
        "array of arrays", "array of type", build.setting("a", build.ARRAY, struct.pack("<IQ", build.ARRAY, 9))
    )
    for value in (0, 3, 1 << 31):
        alignment = build.setting("general.alignment", build.U32, struct.pack("<I", value))
        yield setting(f"alignment {value}", "impossible alignment", alignment)
    whole = build.valid_gguf()
    for length in (4, 8, 23, 24, 60, 150, len(whole) - 148, len(whole) - 21, len(whole) - 1):
        yield case(f"cut after {length} bytes", "", whole[:length])
    first = build.gguf([build.ARCHITECTURE], [good], bytes(128))
    yield several("gguf: a split that lacks a part", "2 of 2 is missing", {"m-00001-of-00002.gguf": first})


# -- config ------------------------------------------------------------------------------------------------------------


def configs() -> Iterator[Case]:
    def case(name: str, says: str, content: bytes) -> Case:
        return several(
            f"config: {name}", says, {"config.json": content, "model.safetensors": build.valid_safetensors()}
        )

    yield case("no JSON", "config.json: holds malformed JSON", b"{")
    yield case("a list", "no object", b"[]")
    yield case("no UTF-8", "malformed", b'{"a": "\xff"}')
    yield case("nested without end", "nested too deeply", b'{"a":' * 100_000)
    yield case("17 MB", "longer than", b" " * 17_000_000)
