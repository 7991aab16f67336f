"""A reader of the pickles that ``torch.save`` writes. It rebuilds tensors' descriptions and can do nothing else.

A pickle is a program. Python's own machine for it imports any name and calls anything; this one has no such power to
restrict: names that it knows are turned into inert :class:`Name` records, calling one of them fills in a
:class:`TensorRef`, and every other name or instruction is an error. ``pickletools`` only splits the instructions.

Source: Lib/pickletools.py (instruction set); torch/_utils.py and torch/_tensor.py (what tensors reduce to).
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar, cast

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.faults import FETCH_AGAIN, MAX_ELEMENTS, SHOWN_CHARS, checked_shape, fault, natural, shown
from kinprint.checkpoint.stream import Stream

PICKLE_BYTES = 50_000_000
"""Longest pickle that is read: about 200,000 tensors."""

MAX_INSTRUCTIONS = 2_000_000
"""Most instructions that are run: a tensor takes about 40, and one instruction can make an object of 64 bytes."""

INTEGER_BITS = 128
"""Longest integer that is believed. torch's own magic number has 77 bits."""

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "UntypedStorage": "U8",
}
"""torch's storage classes and what they hold. Untyped ones are bytes until a tensor says more."""

DTYPES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}
"""torch's dtypes under safetensors' spelling."""

_REBUILDS = {f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")}
_PARAMETERS = {f"torch._utils.{name}" for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")}
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_ORDERED = "collections.OrderedDict"
_SIZE = "torch.Size"
_IGNORED = {
    "torch.device",
    "torch.serialization._get_layout",
    "collections.Counter",
    "_codecs.encode",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "bytearray", "complex")),
}
_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter"}
_KNOWN = {
    *_REBUILDS,
    *_PARAMETERS,
    *_IGNORED,
    *_CLASSES,
    _FROM_TYPE,
    _ORDERED,
    _SIZE,
    *(f"{module}.{name}" for module in ("torch", "torch.cuda", "torch.storage") for name in STORAGES),
    *(f"torch.{name}" for name in DTYPES),
}


@dataclass(frozen=True, slots=True)
class Name:
    """A known name that the pickle mentions. It stands for nothing that could run."""

    text: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """The place of a value that is not needed and was not built."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements that tensors are cut from.

    Attributes:
        key: Name under which the file holds its bytes.
        dtype: safetensors' spelling.
        numel: Elements in it.
        start: First of them that belongs to this storage; not 0 only for views in old files.
        stop: One past the last.
    """

    key: str
    dtype: str
    numel: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Where a tensor's elements lie. Offsets and strides count elements of ``dtype``."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(stream: Stream) -> tuple[object, dict[str, Storage]]:
    """Run one pickle and leave the stream behind it.

    Returns:
        The object (dicts, lists, tuples, text, bytes, numbers, None, :class:`TensorRef`, :class:`Name` and
        :class:`Ignored`), and every storage that the pickle names, by key.

    Raises:
        CheckpointError: The pickle asks for a name or an instruction that is not on the list, or is malformed.
    """
    machine = _Machine(stream.where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", stream))):
            if count >= MAX_INSTRUCTIONS:
                raise fault(stream.where, f"holds a pickle of more than {MAX_INSTRUCTIONS} instructions", _CONVERT)
            if opcode.name == "STOP":
                return machine.pop(), machine.storages
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise fault(stream.where, "holds a malformed pickle", "damaged or truncated: " + FETCH_AGAIN) from error
    raise fault(stream.where, "holds a pickle without an end", "truncated: " + FETCH_AGAIN)


_CONVERT = "convert the model to safetensors where you trust it"


Kind = TypeVar("Kind")


class _Machine:
    """The pickle machine: a stack, the stacks set aside by marks, and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}

    def pop(self) -> object:
        """Take the value on top."""
        return self.stack.pop()

    def pop_mark(self) -> list[object]:
        """Take everything since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def run(self, opcode: str, argument: object) -> None:
        """Run one instruction."""
        if opcode in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > INTEGER_BITS:
                raise fault(self.where, f"its pickle holds {shown(argument)}", "damaged: " + FETCH_AGAIN)
            self.stack.append(argument)
            return
        handler = _HANDLERS.get(opcode)
        if handler is None:
            raise fault(self.where, f"its pickle uses {opcode}, which torch.save does not write", _CONVERT)
        handler(self, argument)

    def tuple_of(self, count: int) -> None:
        """Replace the top values by a tuple of them."""
        if count > len(self.stack):
            raise IndexError
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def set_items(self, items: list[object]) -> None:
        """Put pairs into the dict on top. Pairs whose key is no text or number are of no use here."""
        target = self.stack[-1]
        if isinstance(target, Ignored):
            return
        # A tuple as key is not even hashed: hashing a deeply nested one overflows the C stack.
        found = cast("dict[object, object]", _need(target, dict))
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str | int | float | bytes) or key is None:
                found[key] = value

    def append_items(self, items: list[object]) -> None:
        """Put values into the list on top."""
        target = self.stack[-1]
        if not isinstance(target, Ignored):
            cast("list[object]", _need(target, list)).extend(items)

    def name(self, text: str) -> None:
        """Push a name, if it is a known one."""
        if text not in _KNOWN:
            raise fault(self.where, f"its pickle asks for {text[:SHOWN_CHARS]}: refused, nothing was run", _CONVERT)
        self.stack.append(Name(text))

    def stack_name(self) -> None:
        """Push the name whose module and attribute are on the stack."""
        attribute, module = self.pop(), self.pop()
        self.name(f"{_need(module, str)}.{_need(attribute, str)}")

    def memoize(self, index: int | None) -> None:
        """Remember the value on top."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def call(self) -> None:
        """Replace a name and its arguments by what they describe."""
        arguments, name = _tuple_in(self.pop()), _need(self.pop(), Name)
        self.stack.append(_called(name.text, arguments, self.where))

    def build(self) -> None:
        """Drop the state of an object: of a state dict it is only torch's version notes."""
        self.pop()
        if not isinstance(self.stack[-1], dict | TensorRef | Ignored):
            raise TypeError

    def persistent(self) -> None:
        """Replace a storage's key by the storage."""
        storage = _storage(_tuple_in(self.pop()), self.where)
        first = self.storages.setdefault(storage.key, storage)
        if (first.dtype, first.numel) != (storage.dtype, storage.numel):
            raise fault(self.where, f"describes storage {shown(storage.key)} in two ways", "damaged: " + FETCH_AGAIN)
        self.stack.append(storage)


def _need(value: object, kind: type[Kind]) -> Kind:
    """Return the value if it has the type that the instruction needs. Exactly that type: nothing here has others."""
    if type(value) is not kind:
        raise TypeError
    return value


def _tuple_in(value: object) -> tuple[object, ...]:
    """Return the value if it is a tuple."""
    return cast("tuple[object, ...]", _need(value, tuple))


def _called(name: str, arguments: tuple[object, ...], where: str) -> object:
    """Return what a call to a known name describes."""
    if name == _FROM_TYPE:
        function, _, inner, *_ = arguments
        name, arguments = _need(function, Name).text, _tuple_in(inner)
    if name in _REBUILDS:
        return _tensor(name, arguments, where)
    if name in _PARAMETERS:
        return _need(arguments[0], TensorRef)
    if name == _ORDERED:
        pairs = cast("list[list[object]]", _need(arguments[0], list) if arguments else [])
        return {_need(key, str): value for key, value in pairs}
    if name == _SIZE:
        return _tuple_in(arguments[0])
    if name in _IGNORED:
        return Ignored()
    raise TypeError


def _tensor(name: str, arguments: tuple[object, ...], where: str) -> TensorRef:
    """Describe a tensor; refuse one that reaches outside its storage or repeats elements of it."""
    storage = _need(arguments[0], Storage)
    offset, size, strides = arguments[1:4]
    dtype = DTYPES[_need(arguments[6], Name).text.removeprefix("torch.")] if name.endswith("_v3") else storage.dtype
    shape = checked_shape(size, where, f"in storage {storage.key}")
    steps = cast("tuple[int, ...]", _tuple_in(strides))
    if not natural(offset) or not all(natural(step) and step <= MAX_ELEMENTS for step in steps):
        raise TypeError
    elements, last = 1, offset
    for length, step in zip(shape, steps, strict=True):
        elements *= length
        last += (length - 1) * step
    element_bits = dtypes.bits(dtype) or 8
    storage_bits = (storage.stop - storage.start) * (dtypes.bits(storage.dtype) or 8)
    if elements and ((last + 1) * element_bits > storage_bits or elements * element_bits > storage_bits):
        raise fault(
            where,
            f"a tensor of shape {list(shape)} does not fit into storage {shown(storage.key)}",
            "damaged, or an expanded tensor: save a contiguous copy",
        )
    return TensorRef(storage, dtype, offset, shape, steps)


def _storage(key: tuple[object, ...], where: str) -> Storage:
    """Read the tuple that names a storage: kind, class, key, device, elements, and in old files a view."""
    kind, storage_class, name, _, numel, *rest = key
    text = _need(storage_class, Name).text.rpartition(".")[2]
    if kind != "storage" or text not in STORAGES or not isinstance(name, str) or not natural(numel):
        raise TypeError
    start, stop = 0, numel
    if rest and rest[0] is not None:
        _, start, length = cast("tuple[object, ...]", rest[0])
        if not natural(start) or not natural(length) or start + length > numel:
            raise fault(where, f"a view reaches outside storage {shown(name)}", "damaged: " + FETCH_AGAIN)
        stop = start + length
    return Storage(name, STORAGES[text], numel, start, stop)


_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
)

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "NONE": lambda machine, argument: machine.stack.append(None),
    "NEWTRUE": lambda machine, argument: machine.stack.append(True),
    "NEWFALSE": lambda machine, argument: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, argument: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, argument: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, argument: machine.stack.append(()),
    "EMPTY_SET": lambda machine, argument: machine.stack.append([]),
    "MARK": lambda machine, argument: _mark(machine),
    "TUPLE": lambda machine, argument: _tuple(machine),
    "TUPLE1": lambda machine, argument: machine.tuple_of(1),
    "TUPLE2": lambda machine, argument: machine.tuple_of(2),
    "TUPLE3": lambda machine, argument: machine.tuple_of(3),
    "SETITEM": lambda machine, argument: _set_item(machine),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_mark()),
    "APPEND": lambda machine, argument: machine.append_items([machine.pop()]),
    "APPENDS": lambda machine, argument: machine.append_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, argument: machine.append_items(machine.pop_mark()),
    "BINPUT": lambda machine, argument: machine.memoize(argument),
    "LONG_BINPUT": lambda machine, argument: machine.memoize(argument),
    "MEMOIZE": lambda machine, argument: machine.memoize(None),
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "GLOBAL": lambda machine, argument: machine.name(argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, argument: machine.stack_name(),
    "REDUCE": lambda machine, argument: machine.call(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.persistent(),
}


def _mark(machine: _Machine) -> None:
    """Set the stack aside."""
    machine.marked.append(machine.stack)
    machine.stack = []


def _tuple(machine: _Machine) -> None:
    """Replace everything since the mark by a tuple."""
    items = tuple(machine.pop_mark())
    machine.stack.append(items)


def _set_item(machine: _Machine) -> None:
    """Put the pair on top into the dict below it."""
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])
