"""Pickles that ask for code, break the machine, or lie about tensors, in both formats of torch.save."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from hostile import build
from hostile.case import MARKER, Case, one_file

COMMAND = build.text(f"touch {MARKER}")


def pickles() -> Iterator[Case]:
    def case(name: str, says: str, body: bytes) -> Iterator[Case]:
        for kind, content in (("zip", build.torch_zip), ("legacy", build.torch_legacy)):
            yield one_file(f"pickle in {kind}: {name}", says, "model.bin", content(body, {"0": build.FLOATS}))

    system = build.named("os", "system")
    yield from case("os.system", "asks for os.system", build.call(system, COMMAND))
    yield from case("posix.system", "asks for posix.system", build.call(build.named("posix", "system"), COMMAND))
    for name in ("eval", "exec", "__import__", "getattr", "open"):
        yield from case(name, "asks for", build.call(build.named("builtins", name), COMMAND))
    hidden = build.dict_of({"a": build.tensor(build.storage("0", 6), (2, 3), (3, 1)), "x": build.call(system, COMMAND)})
    yield from case("code beside tensors", "asks for os.system", hidden)
    yield from case("code by stack", "asks for os.system", build.text("os") + build.text("system") + b"\x93(t R")
    yield from case("attribute of an allowed module", "asks for", build.named("torch._utils", "os.system") + b"(tR")
    yield from case("torch.load", "asks for torch.load", build.call(build.named("torch", "load"), COMMAND))
    yield from case("old-style object", "uses INST", b"(" + COMMAND + b"ios\nsystem\n")
    yield from case("object", "asks for os.system", b"(" + system + COMMAND + b"o")
    yield from case("new object", "asks for", build.named("subprocess", "Popen") + build.tuple_of(COMMAND) + b"\x81")
    yield from case("extension registry", "uses EXT1", b"\x82\x01")
    yield from case("out-of-band buffer", "uses NEXT_BUFFER", b"\x97")
    yield from case("calling a storage", "malformed", build.call(build.storage("0", 6), COMMAND))
    yield from case("calling text", "malformed", build.call(build.text("x"), COMMAND))
    yield from case("calling a dtype", "malformed", build.call(build.named("torch", "float32"), COMMAND))
    ordered = build.named("collections", "OrderedDict")
    yield from case("state set on a class", "malformed", ordered + build.dict_of({"__call__": COMMAND}) + b"b")
    yield from case("item set on a class", "malformed", ordered + COMMAND + COMMAND + b"s")
    yield from case(
        "rebuild by a rebuild", "malformed", _from_type(build.named("torch._tensor", "_rebuild_from_type_v2"))
    )
    yield from case("empty stack", "malformed", b"R")
    yield from case("memo that is not there", "malformed", b"h\x07")
    yield from case("mark that is not there", "malformed", b"t")
    yield from case("no dict", "no dict of named tensors", build.tensor(build.storage("0", 6), (6,), (1,)))
    yield from case("dict without tensors", "tensor", build.dict_of({"a": build.integer(1)}))
    yield from case("integer of 8000 bits", "an integer of", build.dict_of({"a": build.integer(1 << 8000)}))
    yield from case("name with a control character", "no usable tensor name", build.dict_of({"\x1b[2J": _tensor()}))
    yield from case("name that is half a character", "no usable tensor name", build.dict_of({"\ud800": _tensor()}))
    yield from case("string longer than the file", "malformed", b"\x8d" + struct.pack("<Q", 1 << 62) + b"x")
    yield from case("bytes longer than the file", "malformed", b"B" + struct.pack("<I", (1 << 32) - 1) + b"x")
    yield from tensors(case)


def tensors(case: Callable[[str, str, bytes], Iterator[Case]]) -> Iterator[Case]:
    def shaped(
        name: str, says: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> Iterator[Case]:
        return case(name, says, build.dict_of({"a": build.tensor(build.storage("0", 6), shape, strides, offset)}))

    yield from shaped("shape past the storage", "does not fit", (2, 4), (4, 1))
    yield from shaped("stride past the storage", "does not fit", (2, 3), (30, 1))
    yield from shaped("offset past the storage", "does not fit", (2, 3), (3, 1), 1)
    yield from shaped("stride of 2^62", "malformed", (2, 3), (1 << 62, 1))
    yield from shaped("shape of 2^62", "2^60 elements", (1 << 62,), (0,))
    yield from shaped("one element 2^40 times", "does not fit", (1 << 40,), (0,))
    yield from shaped("overlapping rows", "does not fit", (3, 4), (1, 1))
    yield from shaped("negative stride", "malformed", (2, 3), (-3, 1), 3)
    yield from shaped("negative shape", "no believable shape", (-2, -3), (3, 1))
    yield from shaped("negative offset", "malformed", (2, 3), (3, 1), -1)
    yield from shaped("strides of another length", "malformed", (2, 3), (3,))
    wide = build.dict_of({"a": build.tensor(build.storage("0", 6, "DoubleStorage"), (6,), (1,))})
    yield from case("storage of a wider dtype", "", wide)
    other = {"a": _tensor(), "b": build.tensor(build.storage("0", 3, "DoubleStorage"), (3,), (1,))}
    yield from case("storage described twice", "in two ways", build.dict_of(other))
    absent = build.dict_of({"a": build.tensor(build.storage("../../x", 6), (6,), (1,))})
    yield from case("storage that is not there", "", absent)
    many = build.dict_of({"a": build.tensor(build.storage("0", 1 << 62), (6,), (1,))})
    yield from case("storage of 2^62 elements", "", many)
    strange = build.tuple_of(build.text("module"), COMMAND, COMMAND, COMMAND, build.integer(1)) + b"Q"
    yield from case("persistent id of another kind", "malformed", build.dict_of({"a": strange}))
    view = build.tuple_of(build.text("v"), build.integer(3), build.integer(9))
    viewed = build.tensor(build.storage("0", 6, view=view), (3,), (1,))
    yield from case("view past its storage", "outside storage", build.dict_of({"a": viewed}))


def _tensor() -> bytes:
    return build.tensor(build.storage("0", 6), (2, 3), (3, 1))


def _from_type(function: bytes) -> bytes:
    inner = build.tuple_of(function, build.named("torch", "Tensor"), build.tuple_of(), b"N")
    return build.call(build.named("torch._tensor", "_rebuild_from_type_v2"), function, b"N", inner, b"N")
