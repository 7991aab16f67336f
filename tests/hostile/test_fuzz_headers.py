"""Random damage to valid files: reading everything either works or gives the one-line error, in bounded memory.

The examples are the same on every run. Set ``KINPRINT_FUZZ_EXAMPLES`` to look further.
"""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf.quants  # noqa: F401 - so that its own memory is not counted as a file's
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import build
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError

EXAMPLES = int(os.environ.get("KINPRINT_FUZZ_EXAMPLES", "50"))
PEAK_BYTES = 3_000_000
SEEDS = {
    "model.safetensors": build.valid_safetensors(),
    "zip.pt": build.valid_zip(),
    "legacy.bin": build.valid_legacy(),
    "model.gguf": build.valid_gguf(),
}
NUMBERS = (
    0,
    1,
    2,
    31,
    33,
    127,
    128,
    255,
    1 << 15,
    (1 << 16) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)
Damage = Callable[[bytearray], None]

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def at(content: bytearray, place: float) -> int:
    return int(place * max(len(content) - 1, 0))


def flip(place: float, value: int) -> Damage:
    def damage(content: bytearray) -> None:
        if content:
            content[at(content, place)] ^= value

    return damage


def number(place: float, value: int, width: int) -> Damage:
    def damage(content: bytearray) -> None:
        start = at(content, place)
        content[start : start + width] = struct.pack("<Q", value)[:width]

    return damage


def cut(place: float) -> Damage:
    def damage(content: bytearray) -> None:
        del content[at(content, place) :]

    return damage


def remove(place: float, length: int) -> Damage:
    def damage(content: bytearray) -> None:
        del content[at(content, place) : at(content, place) + length]

    return damage


def insert(place: float, extra: bytes) -> Damage:
    def damage(content: bytearray) -> None:
        content[at(content, place) : at(content, place)] = extra

    return damage


places = st.floats(0, 1)
damages = st.lists(
    st.one_of(
        st.builds(flip, places, st.integers(1, 255)),
        st.builds(number, places, st.sampled_from(NUMBERS), st.sampled_from((1, 2, 4, 8))),
        st.builds(cut, places),
        st.builds(remove, places, st.integers(1, 16)),
        st.builds(insert, places, st.binary(min_size=1, max_size=16)),
    ),
    min_size=1,
    max_size=4,
)


def check(content: bytes, path: Path) -> bool:
    """Read everything; return whether the file was believed."""
    path.write_bytes(content)
    message = ""
    tracemalloc.start()
    try:
        checkpoint = open_checkpoint(path)
        for name, info in checkpoint.tensors.items():
            assert len(checkpoint.raw(name)) <= len(content)
            assert info.nbytes <= len(content)
            try:
                read = checkpoint.read(name)
            except CheckpointError:
                continue
            # The densest quantisation stores 256 values in 50 bytes and decodes to 20 times as many.
            assert read.nbytes <= 32 * len(content)
            assert read.shape == info.shape
        assert checkpoint.vocabulary is None or len(checkpoint.vocabulary) <= len(content)
        checkpoint.header_digest  # noqa: B018 - a name that cannot be digested would raise here
    except CheckpointError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < PEAK_BYTES
    assert message.isprintable()
    return not message


@pytest.mark.parametrize("seed", SEEDS)
@fuzzed
@given(changes=damages)
def test_damaged_bytes(seed: str, changes: list[Damage], tmp_path: Path) -> None:
    content = bytearray(SEEDS[seed])
    for change in changes:
        change(content)
    check(bytes(content), tmp_path / seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_cut_at_every_byte(seed: str, tmp_path: Path) -> None:
    for length in range(0, len(SEEDS[seed]), 7):
        assert not check(SEEDS[seed][:length], tmp_path / seed), f"believed when cut after {length} bytes"
    assert check(SEEDS[seed], tmp_path / seed)


names = st.sampled_from(["a", "b", "c"]) | st.text(max_size=4)
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.sampled_from([-1, *NUMBERS]), st.floats(), st.text(max_size=3)
)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
lengths = st.lists(st.sampled_from([0, 1, 2, 3, 4, -1, 1 << 32, 1 << 62]) | anything, max_size=4)
dtypes = (
    st.sampled_from(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "U8", "BOOL", "F4", "NEW"]) | anything
)
offsets = st.lists(st.sampled_from([0, 4, 8, 12, 16, 32]) | scalars, min_size=1, max_size=3) | anything
entries = st.fixed_dictionaries({"dtype": dtypes, "shape": lengths, "data_offsets": offsets}) | anything


@fuzzed
@given(header=st.dictionaries(names | st.just("__metadata__"), entries, max_size=3), data=st.integers(0, 40))
def test_random_safetensors_headers(header: dict[str, Any], data: int, tmp_path: Path) -> None:
    check(build.safetensors(json.dumps(header), bytes(data)), tmp_path / "model.safetensors")


numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 6, 1 << 30, 1 << 62])
small = st.lists(numbers, max_size=3)
instructions = st.lists(
    st.one_of(
        st.sampled_from([b"(", b"t", b"}", b"]", b")", b"u", b"s", b"a", b"e", b"R", b"b", b"Q", b"N", b"\x85"]),
        st.sampled_from([b"q\x00", b"h\x00", b"\x94", b"\x93", b"\x81", b"0", b"2", b"\x88", b"o", b"."]),
        st.builds(build.text, st.text(max_size=3)),
        st.builds(build.integer, numbers),
        st.builds(build.integers, small),
        st.sampled_from([build.named(*name) for name in (
            ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v3"), ("torch", "FloatStorage"),
            ("torch._tensor", "_rebuild_from_type_v2"), ("collections", "OrderedDict"), ("torch", "Size"),
            ("torch", "bfloat16"), ("torch._utils", "_rebuild_parameter"), ("torch", "device"), ("os", "system"),
        )]),
        st.builds(build.storage, st.sampled_from(["0", "1"]), st.integers(0, 9)),
    ),
    max_size=20,
)  # fmt: skip


@fuzzed
@given(parts=instructions, zipped=st.booleans())
def test_random_pickle_instructions(parts: list[bytes], zipped: bool, tmp_path: Path) -> None:
    make = build.torch_zip if zipped else build.torch_legacy
    check(make(b"".join(parts), {"0": build.FLOATS}), tmp_path / "model.bin")


@fuzzed
@given(shape=small, strides=small, offset=numbers, numel=numbers)
def test_random_tensor_geometry_stays_inside_its_storage(
    shape: list[int], strides: list[int], offset: int, numel: int, tmp_path: Path
) -> None:
    body = build.dict_of({"a": build.tensor(build.storage("0", numel), shape, strides, offset)})
    check(build.torch_zip(body, {"0": build.FLOATS}), tmp_path / "model.pt")


settings_pairs = st.builds(
    build.setting,
    st.sampled_from(["general.alignment", "llama.attention.head_count", "llama.attention.head_count_kv", "x"]),
    st.integers(0, 13),
    st.binary(max_size=24),
)
tensor_entries = st.builds(
    build.gguf_tensor,
    names,
    st.lists(st.sampled_from([0, 1, 2, 32, 256, 1 << 40, (1 << 64) - 1]), max_size=5),
    st.integers(0, 45) | st.just((1 << 32) - 1),
    st.sampled_from([0, 32, 64, 128, 1 << 63]),
)


@fuzzed
@given(
    pairs=st.lists(settings_pairs, max_size=3),
    tensors=st.lists(tensor_entries, max_size=3),
    data=st.binary(max_size=300),
    setting_count=st.none() | st.sampled_from(NUMBERS),
)
def test_random_gguf_headers(
    pairs: list[bytes], tensors: list[bytes], data: bytes, setting_count: int | None, tmp_path: Path
) -> None:
    content = build.gguf([build.ARCHITECTURE, *pairs], tensors, data, setting_count=setting_count)
    check(content, tmp_path / "model.gguf")
