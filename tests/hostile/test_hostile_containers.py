"""Containers that lie: ``.npz``, ONNX, CTranslate2, msgpack, and the formats that are not read at all."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile.containers import SCALES, W, ct2, ct2_variable, valid_ct2
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError

onnx = pytest.importorskip("onnx")
TensorProto = onnx.TensorProto

PEAK_BYTES = 5_000_000


def read_all(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for name in checkpoint.tensors:
        checkpoint.read(name)
        checkpoint.raw(name)


def refused(path: Path, says: str) -> None:
    """Read everything: one printable line that names the file and says what to do, in little memory and time."""
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_all(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable()
    assert says in message
    assert str(path) in message
    assert "; " in message
    assert len(message) < 700
    assert peak < PEAK_BYTES
    assert time.monotonic() - started < 10


# -- npz ---------------------------------------------------------------------------------------------------------------


def npy(header: str | bytes, data: bytes = b"", *, length: int | None = None, version: bytes = b"\1\0") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + struct.pack("<H", len(text) if length is None else length) + text + data


def header(descr: object = "<f4", shape: object = (2, 3), order: object = False) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return target.getvalue()


FLOATS = struct.pack("<6f", *range(6))
GOOD = npy(header(), FLOATS)
ONE = archive({"w.npy": GOOD})
DIRECTORY = ONE.index(b"PK\x01\x02")


def patched(place: int, value: int, layout: str = "<I", content: bytes = ONE) -> bytes:
    changed = bytearray(content)
    struct.pack_into(layout, changed, place, value)
    return bytes(changed)


NPZ: dict[str, tuple[str, bytes]] = {
    "objects": ("Python objects", archive({"w.npy": npy(header("|O", (1,)), b"cos\nsystem\n")})),
    "structured": ("dtype", archive({"w.npy": npy(header([("a", "<f4")]), FLOATS)})),
    "code in the header": ("malformed header", archive({"w.npy": npy("__import__('os').system('x')")})),
    "nested header": ("malformed header", archive({"w.npy": npy("(" * 3000 + ")" * 3000)})),
    "header of other fields": ("malformed header", archive({"w.npy": npy("{'descr': '<f4'}", FLOATS)})),
    "header that is no text": ("malformed header", archive({"w.npy": npy(b"\xff\xfe{}", FLOATS)})),
    "header without end": ("cut off", archive({"w.npy": npy(header(), FLOATS, length=60000)})),
    "version 9": ("no .npy array", archive({"w.npy": npy(header(), FLOATS, version=b"\x09\0")})),
    "no array": ("no .npy array", archive({"w.npy": b"x"})),
    "empty member": ("no .npy array", archive({"w.npy": b""})),
    "another member": ("is no .npy array", archive({"w.npy": GOOD, "x.txt": b"x"})),
    "shape below 0": ("no believable shape", archive({"w.npy": npy(header(shape=(-2, 3)), FLOATS)})),
    "shape of 2^62": ("2^60 elements", archive({"w.npy": npy(header(shape=(1 << 62,)), FLOATS)})),
    "shape that is text": ("no believable shape", archive({"w.npy": npy(header(shape="23"), FLOATS)})),
    "too few bytes": ("needs 24", archive({"w.npy": npy(header(), FLOATS[:-1])})),
    "too many bytes": ("needs 24", archive({"w.npy": GOOD + b"x"})),
    "order that is a number": ("refused", archive({"w.npy": npy(header(order=1), FLOATS)})),
    "name with an escape": ("no usable tensor name", archive({"\x1b[2J.npy": GOOD})),
    "name that is only an end": ("no usable tensor name", archive({".npy": GOOD})),
    "path up": ("bad path", archive({"../w.npy": GOOD})),
    "absolute path": ("bad path", archive({"/w.npy": GOOD})),
    "backslashes": ("bad path", archive({"a\\w.npy": GOOD})),
    "encrypted": ("encrypted", patched(DIRECTORY + 8, 1, "<H")),
    "another compression": ("encrypted or neither", archive({"w.npy": GOOD}, zipfile.ZIP_BZIP2)),
    "sizes that differ": ("another length", patched(DIRECTORY + 24, len(GOOD) + 1)),
    "name that differs": ("not where", ONE.replace(b"w.npy", b"v.npy", 1)),
    "offset past the end": ("", patched(DIRECTORY + 42, 1 << 30)),
    "bomb": ("refused", archive({"w.npy": npy(header(shape=(20_000_000,)), bytes(80_000_000))}, zipfile.ZIP_DEFLATED)),
    "small bomb that lies": ("needs 24", archive({"w.npy": GOOD + bytes(3_000_000)}, zipfile.ZIP_DEFLATED)),
    "cut": ("", ONE[:-30]),
}  # fmt: skip


@pytest.mark.parametrize(("says", "content"), NPZ.values(), ids=NPZ)
def test_npz(says: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(content)
    refused(tmp_path / "model.npz", says)


def test_npz_members_that_overlap(tmp_path: Path) -> None:
    content = bytearray(archive({"w.npy": GOOD, "v.npy": GOOD}))
    first = content.index(b"PK\x01\x02")
    longer = npy(header(shape=(2, 8)), FLOATS)
    assert len(longer) == len(GOOD)
    for field in (20, 24):
        struct.pack_into("<I", content, first + field, len(GOOD) + 40)
    (tmp_path / "model.npz").write_bytes(bytes(content).replace(GOOD, longer, 1))
    refused(tmp_path / "model.npz", "not where the directory says")


def test_npz_deflated_bytes_that_were_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = bytearray(archive({"w.npy": npy(header(shape=(5000,)), rng.bytes(20000))}, zipfile.ZIP_DEFLATED))
    content[15000] ^= 1
    (tmp_path / "model.npz").write_bytes(bytes(content))
    refused(tmp_path / "model.npz", "decompress")


# -- CTranslate2 -------------------------------------------------------------------------------------------------------

V = np.arange(6, dtype=np.float32).reshape(2, 3)
CT2: dict[str, tuple[str, bytes]] = {
    "version 3": ("layout 3", ct2([ct2_variable("w", V)], version=3)),
    "version 99": ("layout 99", ct2([ct2_variable("w", V)], version=99)),
    "2^32 variables": ("", ct2([ct2_variable("w", V)], count=0xFFFFFFFF)),
    "no variables": ("no weights", ct2([])),
    "only settings": ("no weights", ct2([ct2_variable("n", np.array(1, np.int8))])),
    "one too few": ("", ct2([ct2_variable("w", V), ct2_variable("v", V)], count=1)),
    "name twice": ("comes twice", ct2([ct2_variable("w", V), ct2_variable("w", V)])),
    "names that become one": ("differ in / and .", ct2([ct2_variable("a/w", V), ct2_variable("a.w", V)])),
    "name with an escape": ("no usable tensor name", ct2([ct2_variable("\x1b[2J", V)])),
    "empty name": ("no usable tensor name", ct2([ct2_variable("", V)])),
    "unknown dtype": ("unknown dtype 77", ct2([ct2_variable("w", V, kind=77)])),
    "bytes that do not fit": ("needs 24", ct2([ct2_variable("w", V, nbytes=20)])),
    "shape that overflows": ("2^60", ct2([ct2_variable("w", V, shape=[0xFFFFFFFF] * 3)])),
    "255 axes": ("no believable shape", ct2([ct2_variable("w", V, shape=[1] * 255)])),
    "past the end": ("truncated", ct2([ct2_variable("w", V, shape=[1 << 20, 3], nbytes=12 << 20)])),
    "scales that do not fit": ("do not fit", ct2([ct2_variable("w", W), ct2_variable("w_scale", V[0])])),
    "scales of integers": ("do not fit", ct2([ct2_variable("w", W), ct2_variable("w_scale", W[:, 0])])),
    "scales of floats": ("not quantised", ct2([ct2_variable("w", V), ct2_variable("w_scale", SCALES)])),
    "alias of nothing": ("is not there", ct2([ct2_variable("w", V)], {"v": "x"})),
    "alias of an alias of itself": ("is not there", ct2([ct2_variable("w", V)], {"v": "v"})),
    "alias that is there": ("is not there", ct2([ct2_variable("w", V)], {"w": "w"})),
    "bytes at the end": ("after the last", ct2([ct2_variable("w", V)]) + b"x"),
    "no UTF-8": ("no UTF-8", ct2([ct2_variable("w", V)]).replace(b"\2\0w\0", b"\2\0\xff\0")),
}


@pytest.mark.parametrize(("says", "content"), CT2.values(), ids=CT2)
def test_ctranslate2(says: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    refused(tmp_path / "model.bin", says)


@pytest.mark.parametrize("content", [b"{}", b"[1]", b'["a', b"[" * 100_000])
def test_ctranslate2_vocabularies_that_are_no_lists_of_tokens(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(valid_ct2())
    (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vocabulary\.json"):
        _ = open_checkpoint(tmp_path).vocabulary


# -- msgpack -----------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return bytes([0xA0 | len(value.encode())]) + value.encode()


def extension(content: bytes, kind: int = 1, length: int | None = None) -> bytes:
    return b"\xc9" + struct.pack(">IB", len(content) if length is None else length, kind) + content


def ndarray(shape: bytes, dtype: str, data: bytes, length: int | None = None) -> bytes:
    return b"\x93" + shape + text(dtype) + b"\xc6" + struct.pack(">I", len(data) if length is None else length) + data


PLAIN = ndarray(b"\x92\x02\x03", "float32", FLOATS)


def named(value: bytes) -> bytes:
    return b"\x81" + text("w") + value


CHUNK = text("__msgpack_chunked_array__") + b"\xc3"
MSGPACK: dict[str, tuple[str, bytes]] = {
    "nested without end": ("nested too deeply", (b"\x81" + text("a")) * 100_000),
    "lists without end": ("nested too deeply", named(b"\x91" * 100_000)),
    "map of 2^32": ("truncated", named(b"\xdf\xff\xff\xff\xff")),
    "list of 2^32": ("truncated", named(b"\xdd\xff\xff\xff\xff")),
    "text of 2^32": ("truncated", named(b"\xdb\xff\xff\xff\xff")),
    "bytes of 2^32": ("truncated", named(b"\xc6\xff\xff\xff\xff")),
    "array of 2^32": ("", named(extension(PLAIN, length=0xFFFFFFFF))),
    "array that ends early": ("does not fit", named(extension(PLAIN + b"\0"))),
    "array that ends late": ("does not fit", named(extension(PLAIN, length=len(PLAIN) - 1))),
    "data of 2^32": ("truncated", named(extension(ndarray(b"\x92\x02\x03", "float32", FLOATS, 0xFFFFFFFF)))),
    "data that does not fit": ("does not fit", named(extension(ndarray(b"\x92\x02\x04", "float32", FLOATS)))),
    "axis below 0": ("no believable shape", named(extension(ndarray(b"\x91\xff", "float32", FLOATS)))),
    "shape of 2^63": ("2^60", named(extension(ndarray(b"\x91\xcf" + b"\xff" * 8, "float32", FLOATS)))),
    "shape that is no list": ("no believable shape", named(extension(ndarray(b"\x02", "float32", FLOATS)))),
    "dtype of objects": ("dtype 'object'", named(extension(ndarray(b"\x91\x06", "object", FLOATS)))),
    "dtype that is a number": ("dtype 5", named(extension(b"\x93\x91\x06\x05\xc4\x00"))),
    "array of other parts": ("Flax did not write", named(extension(b"\x92\x91\x06"))),
    "name twice": ("comes twice", b"\x82" + (text("w") + extension(PLAIN)) * 2),
    "name that is a number": ("no text", b"\x82" + text("w") + b"\x01" + b"\x05\x01"),
    "two for one name": ("two arrays", b"\x82" + b"".join(text(x) + extension(PLAIN) for x in ("scale", "weight"))),
    "name with an escape": ("no usable tensor name", b"\x81" + text("\x1b[2J") + extension(PLAIN)),
    "no UTF-8": ("no UTF-8", b"\x81\xa1\xff" + extension(PLAIN)),
    "byte that starts nothing": ("starts no value", named(b"\xc1")),
    "bytes after the map": ("bytes after it", named(extension(PLAIN)) + b"\x01"),
    "no map": ("no msgpack map", b"\x91\x01"),
    "chunks without a shape": ("chunks", named(b"\x82" + CHUNK + text("chunks") + b"\x81\xa10" + extension(PLAIN))),
    "no chunks": ("does not fit its chunks", named(b"\x82" + CHUNK + text("shape") + b"\x81" + text("0") + b"\x02")),
    "cut": ("", named(extension(PLAIN))[:-1]),
}  # fmt: skip


@pytest.mark.parametrize(("says", "content"), MSGPACK.values(), ids=MSGPACK)
def test_msgpack(says: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    refused(tmp_path / "flax_model.msgpack", says)


def test_msgpack_of_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kinprint.checkpoint import msgpack_file

    monkeypatch.setattr(msgpack_file, "MAX_VALUES", 100)
    (tmp_path / "a.msgpack").write_bytes(named(b"\xdc\x10\x00" + b"\x01" * 4096))
    refused(tmp_path / "a.msgpack", "too many values")


# -- ONNX --------------------------------------------------------------------------------------------------------------


def tensor(name: str = "a.w", shape: tuple[int, ...] = (2, 3), data: bytes | None = FLOATS, kind: int = 1) -> Any:
    made = TensorProto(name=name, data_type=kind, dims=shape)
    if data is not None:
        made.raw_data = data
    return made


def external(location: str, **fields: str) -> Any:
    made = tensor(data=None)
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        made.external_data.add(key=key, value=value)
    return made


def graph(*tensors: Any, nodes: tuple[Any, ...] = ()) -> bytes:
    made = onnx.ModelProto(ir_version=8)
    made.graph.name = "g"
    made.graph.initializer.extend(tensors)
    made.graph.node.extend(nodes)
    return made.SerializeToString()


def nested(depth: int) -> bytes:
    """Graphs inside nodes of graphs, put together by hand: the package makes none that it could not parse."""

    def part(field: int, content: bytes) -> bytes:
        size = len(content)
        length = b""
        while size > 0x7F:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + content

    inner = b""
    for _ in range(depth):
        inner = part(1, part(5, part(6, inner)))
    return b"\x08\x08" + part(7, inner)


DATA = "model.onnx_data"
ONNX: dict[str, tuple[str, bytes]] = {
    "damaged": ("damaged", b"\x08\x08\x3a\xff\xff\xff\xff\x0f"),
    "no graph": ("without a graph", onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString()),
    "no weights": ("no weights", graph()),
    "too few bytes": ("needs 24", graph(tensor(data=FLOATS[:-1]))),
    "no bytes": ("needs 24", graph(tensor(data=None))),
    "axis below 0": ("no believable shape", graph(tensor(shape=(-1, 3)))),
    "shape of 2^62": ("2^60", graph(tensor(shape=(1 << 62,)))),
    "name twice": ("twice", graph(tensor(), tensor())),
    "name with an escape": ("no usable tensor name", graph(tensor("a.\x1b[2J"))),
    "name that is no UTF-8": ("where a name belongs", graph(tensor()).replace(b"a.w", b"a.\xff")),
    "place that is no UTF-8": ("where a name belongs", graph(external(DATA)).replace(b"onnx_d", b"onnx_\xff")),
    "path up": ("no file in its folder", graph(external("../secret"))),
    "absolute path": ("no file in its folder", graph(external("/etc/passwd"))),
    "path down": ("no file in its folder", graph(external("sub/data"))),
    "dots": ("no file in its folder", graph(external(".."))),
    "no name": ("no file in its folder", graph(external(""))),
    "backslash": ("no file in its folder", graph(external("a\\b"))),
    "null byte": ("no file in its folder", graph(external("a\0b"))),
    "link out of the folder": ("no file in its folder", graph(external("link"))),
    "missing file": ("absent, which is missing", graph(external("absent"))),
    "offset past the end": ("ends at byte", graph(external(DATA, offset="4", length="24"))),
    "offset of 2^63": ("ends at byte", graph(external(DATA, offset=str(1 << 62), length="24"))),
    "offset that is text": ("no believable offset", graph(external(DATA, offset="x"))),
    "offset below 0": ("no believable offset", graph(external(DATA, offset="-4"))),
    "offset of 5000 digits": ("no believable offset", graph(external(DATA, offset="9" * 5000))),
    "length that does not fit": ("needs 24", graph(external(DATA, length="20"))),
    "graphs without end": ("nests graphs too deeply", nested(20)),
    "more graphs than can be parsed": ("damaged", nested(200)),
}  # fmt: skip


@pytest.mark.parametrize(("says", "content"), ONNX.values(), ids=ONNX)
def test_onnx(says: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(FLOATS)
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / DATA).write_bytes(FLOATS)
    (inside / "model.onnx").write_bytes(content)
    refused(inside / "model.onnx", says)


# -- what is not read --------------------------------------------------------------------------------------------------

FOREIGN = {
    "tf_model.h5": "from_tf=True",
    "model.keras": "numpy.savez",
    "model.ckpt.index": "transformers-cli convert",
    "model.tflite": "converted from",
    "model.mlmodel": "converted from",
    "model.nemo": "tar -xf",
    "model.engine": "TensorRT",
    "openvino_model.xml": "OpenVINO",
    "rust_model.ot": "rust-bert",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n" + bytes(99), bytes(99), ONE], ids=["hdf5", "zeros", "zip"])
def test_another_framework_s_file_is_refused_with_the_way_out(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    by_content = content[:1] == b"\x89"
    refused(tmp_path / name, "HDF5" if by_content else FOREIGN[name])
    refused(tmp_path, FOREIGN[name])


# -- random damage -----------------------------------------------------------------------------------------------------

SEEDS = {
    "model.npz": archive({"w.npy": GOOD, "v.npy": GOOD}, zipfile.ZIP_DEFLATED),
    "stored.npz": ONE,
    "model.bin": valid_ct2(),
    "flax_model.msgpack": named(extension(PLAIN)),
    "model.onnx": graph(tensor(), tensor("b.w", (6,))),
}
fuzzed = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
changes = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), min_size=1, max_size=4)


@pytest.mark.parametrize("seed", SEEDS)
@fuzzed
@given(places=changes, end=st.floats(0.3, 1))
def test_random_damage_is_believed_or_gives_one_line(
    seed: str, places: list[tuple[float, int]], end: float, tmp_path: Path
) -> None:
    content = bytearray(SEEDS[seed])
    for place, value in places:
        content[int(place * (len(content) - 1))] = value
    if end < 0.9:
        del content[int(end * len(content)) :]
    (tmp_path / seed).write_bytes(bytes(content))
    message = ""
    tracemalloc.start()
    try:
        checkpoint = open_checkpoint(tmp_path / seed)
        for name, info in checkpoint.tensors.items():
            assert len(checkpoint.raw(name)) <= 32 * len(content)
            assert checkpoint.read(name).shape == info.shape
        checkpoint.header_digest  # noqa: B018 - a name that cannot be digested would raise here
    except CheckpointError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert message.isprintable()
    assert peak < PEAK_BYTES


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_cut_anywhere_is_refused_or_reads_what_it_still_holds(seed: str, tmp_path: Path) -> None:
    whole = SEEDS[seed]
    assert open_checkpoint(_written(tmp_path / seed, whole)).tensors
    for length in range(0, len(whole), 5):
        path = _written(tmp_path / seed, whole[:length])
        if seed == "model.onnx":
            # Protobuf has no end: a graph that was cut between two weights is a smaller graph.
            with contextlib.suppress(CheckpointError):
                read_all(path)
        else:
            with pytest.raises(CheckpointError):
                open_checkpoint(path)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
