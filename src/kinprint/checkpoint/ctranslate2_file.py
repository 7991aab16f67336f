"""CTranslate2's ``model.bin``: variables one after the other, then aliases for those that are shared.

Axes are CTranslate2's, which are torch's ([out, in]). Names stay its own with ``/`` turned into ``.`` and ``layer_3``
into ``layers.3``, so that the numbering of layers is seen: ``decoder/layer_3/ffn/linear_0/weight`` becomes
``decoder.layers.3.ffn.linear_0.weight``. Variables without axes and texts are settings and go to the config.

int8 and int16 weights come with ``<name>_scale`` and decode to float32: value = integer / scale, with one scale per row
(int8) or one for all (int16). Weights packed by AWQ are refused.

Source: CTranslate2 4.8, python/ctranslate2/specs/model_spec.py (``_serialize``, ``_quantize``) and src/models/model.cc.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, checked_shape, fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.jsonfile import read_bytes
from kinprint.checkpoint.parts import Part, enclosing, take
from kinprint.checkpoint.source import ByteSource, Files
from kinprint.checkpoint.vocabulary import TOKENIZER_BYTES

VERSIONS = (4, 5, 6)
"""Layouts that are read; older ones do not state dtypes."""

SCALE = "_scale"

HEAD_BYTES = 80
"""Bytes that show whether a file is CTranslate2's."""

_DTYPES = ("F32", "I8", "I16", "I32", "F16", "BF16")
_LAYER = re.compile(r"(?<![^.])layer_(\d+)(?![^.])")
_SPEC = re.compile(rb"[A-Za-z0-9_]{1,62}\0")


@dataclass(frozen=True, slots=True)
class _Variable:
    """One variable: dtype, shape, and where its bytes start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Ctranslate2File(Part):
    """One ``model.bin`` of CTranslate2.

    Attributes:
        settings: Its variables without axes, and its texts, under CTranslate2's names.
    """

    format = "ctranslate2"

    def __init__(self, source: ByteSource) -> None:
        """Read and check the file's variables; their values are left where they are.

        Raises:
            CheckpointError: The layout is unknown, the file is damaged, or the weights are packed by AWQ.
        """
        self.source = source
        self.settings: dict[str, Any] = {}
        variables, aliases = _variables(source)
        for alias, target in aliases.items():
            if target not in variables or alias in variables:
                raise fault(source.where, f"{shown(alias)} stands for {shown(target)}, which is not there", FETCH_AGAIN)
            variables[alias] = variables[target]
            if target + SCALE in variables:
                # A shared weight is quantised once, and the alias of its scales is left out.
                variables.setdefault(alias + SCALE, variables[target + SCALE])
        self._held: dict[str, tuple[_Variable, _Variable | None]] = {}
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._tensor(name, spelled, variables)
            for spelled, name in _names(variables, source.where).items()
            if not self._setting(spelled, variables)
        }
        if not self.tensors:
            raise fault(source.where, "holds no weights", "give the file with the model's weights")
        self.notes = (f"{source.name}: / in CTranslate2's names was turned into . and layer_N into layers.N",)

    def read(self, name: str, rows: slice | None) -> Array:
        """View a plain variable, or decode the rows of an integer one that are asked for."""
        stored, scale = self._held[name]
        first, last, step = enclosing(rows, stored.shape[0])
        start, end = _span(stored, rows)
        data = self.source.view(start, end - start)
        shape = (last - first, *stored.shape[1:])
        values = dtypes.array(data, stored.dtype, shape, self.source.where, name)[::step]
        if scale is None:
            return values
        factors = self._values(scale, name).astype(np.float32)
        if factors.ndim:
            factors = take(factors.reshape(-1), rows).reshape((-1,) + (1,) * (len(stored.shape) - 1))
        # A scale of zero is damage that shows as Inf, which methods look for themselves.
        with np.errstate(all="ignore"):
            decoded = values.astype(np.float32) / factors
        decoded.flags.writeable = False
        return decoded

    def raw(self, name: str) -> memoryview:
        """Return the variable's bytes; of a quantised one, its integers and then its scales."""
        stored, scale = self._held[name]
        data = self.source.view(stored.start, stored.nbytes)
        if scale is None:
            return data
        return memoryview(bytes(data) + bytes(self.source.view(scale.start, scale.nbytes)))

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows of the variable, without scales."""
        start, end = _span(self._held[name][0], slice(first, last))
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the range that holds the rows, and all scales."""
        stored, scale = self._held[name]
        yield self.source, _span(stored, rows)
        if scale is not None:
            yield self.source, _span(scale, None)

    def _values(self, variable: _Variable, name: str) -> Array:
        """View the stored numbers."""
        data = self.source.view(variable.start, variable.nbytes)
        return dtypes.array(data, variable.dtype, variable.shape, self.source.where, name)

    def _setting(self, spelled: str, variables: Mapping[str, _Variable]) -> bool:
        """Keep a variable that is a setting or belongs to another one; tell whether it was."""
        variable = variables[spelled]
        if spelled.endswith(SCALE) and spelled.removesuffix(SCALE) in variables:
            return True
        if variable.shape and not (variable.dtype == "I8" and len(variable.shape) == 1):
            return False
        value = self._values(variable, spelled)
        self.settings[spelled] = value.item() if not variable.shape else bytes(value[:1000]).decode("utf-8", "replace")
        return True

    def _tensor(self, name: str, spelled: str, variables: Mapping[str, _Variable]) -> TensorInfo:
        """Return what one weight is, once its scale fits it."""
        stored, scale = variables[spelled], variables.get(spelled + SCALE)
        if scale is None:
            self._held[name] = stored, None
            return TensorInfo(name, stored.dtype, stored.shape, stored.nbytes, self.source.name)
        if stored.dtype in {"F32", "F16", "BF16"} or stored.dtype == "I32":
            what = "is packed by AWQ" if stored.dtype == "I32" else "has scales although it is not quantised"
            raise fault(self.source.where, f"weight {shown(name)} {what}: refused", "convert the model without it")
        if scale.dtype not in {"F32", "F16", "BF16"} or scale.shape not in ((), (1,), stored.shape[:1]):
            raise fault(self.source.where, f"the scales of {shown(name)} do not fit it", "damaged: " + FETCH_AGAIN)
        codec = Codec("CT2", 8 if stored.dtype == "I8" else 16, 0)
        self._held[name] = stored, scale
        return TensorInfo(name, str(codec), stored.shape, stored.nbytes + scale.nbytes, self.source.name, codec)


def looks_like_it(head: bytes) -> bool:
    """Tell from its first 80 bytes whether a file is CTranslate2's: a small version, then the name of a spec."""
    length = int.from_bytes(head[4:6], "little")
    name = head[6 : 6 + length]
    return 1 <= int.from_bytes(head[:4], "little") < 256 and _SPEC.fullmatch(name) is not None


def _span(variable: _Variable, rows: slice | None) -> Range:
    """Return where a variable, or the smallest range that holds some rows of it, lies in the file."""
    if rows is None:
        return variable.start, variable.start + variable.nbytes
    first, last, _ = enclosing(rows, variable.shape[0])
    row_bytes = variable.nbytes // max(variable.shape[0], 1)
    return variable.start + first * row_bytes, variable.start + last * row_bytes


def ctranslate2_vocabulary(files: Files) -> tuple[str, ...] | None:
    """Return the tokens by id from the list that lies beside a ``model.bin``; None where there is none.

    Raises:
        CheckpointError: It is no JSON list of texts.
    """
    for name in ("vocabulary.json", "shared_vocabulary.json"):
        if not files.has(name):
            continue
        where = files.where(name)
        try:
            tokens: object = json.loads(read_bytes(files.source(name), max_bytes=TOKENIZER_BYTES))
        except (ValueError, RecursionError) as error:
            raise fault(where, "holds malformed JSON", FETCH_AGAIN) from error
        entries = cast("list[object]", tokens) if isinstance(tokens, list) else [None]
        texts = [entry.encode("utf-8", "backslashreplace").decode() for entry in entries if isinstance(entry, str)]
        if len(texts) != len(entries):
            raise fault(where, "is no list of tokens", FETCH_AGAIN)
        return tuple(texts)
    return None


def _names(variables: Mapping[str, _Variable], where: str) -> dict[str, str]:
    """Return our name of every variable."""
    names = {spelled: checked_name(_LAYER.sub(r"layers.\1", spelled.replace("/", ".")), where) for spelled in variables}
    if len(set(names.values())) != len(names):
        raise fault(where, "holds two variables whose names differ in / and . only", "damaged: " + FETCH_AGAIN)
    return names


def _variables(source: ByteSource) -> tuple[dict[str, _Variable], dict[str, str]]:
    """Return the variables, and which names stand for others."""
    cursor = _Cursor(source)
    version = cursor.number(4)
    if version not in VERSIONS:
        raise fault(source.where, f"has CTranslate2's layout {version}, which is not read", "convert the model again")
    cursor.text()
    cursor.number(4)
    variables: dict[str, _Variable] = {}
    for _ in range(cursor.number(4)):
        name = cursor.text()
        lengths = [cursor.number(4) for _ in range(cursor.number(1))]
        shape = checked_shape(lengths, source.where, name)
        kind, nbytes = cursor.number(1), cursor.number(4)
        if name in variables or kind >= len(_DTYPES):
            what = "comes twice" if name in variables else f"has the unknown dtype {kind}"
            raise fault(source.where, f"variable {shown(name)} {what}", "damaged: " + FETCH_AGAIN)
        variable = _Variable(_DTYPES[kind], shape, cursor.position, nbytes)
        needed = int(np.prod(shape, dtype=object)) * dtypes.READABLE[variable.dtype].itemsize
        if needed != nbytes:
            raise fault(
                source.where,
                f"variable {shown(name)} has {nbytes} bytes; {variable.dtype} of shape {list(shape)} needs {needed}",
                "the header lies or is damaged: " + FETCH_AGAIN,
            )
        cursor.skip(nbytes)
        variables[name] = variable
    aliases: dict[str, str] = {}
    for _ in range(cursor.number(4)):
        alias = cursor.text()
        aliases[alias] = cursor.text()
    if cursor.position != source.size:
        raise fault(source.where, "has bytes after the last variable", "damaged: " + FETCH_AGAIN)
    return variables, aliases


class _Cursor:
    """A place in the file that moves on as values are read."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.position = 0

    def number(self, width: int) -> int:
        """Return a little-endian integer."""
        value = int.from_bytes(self._source.view(self.position, width), "little")
        self.position += width
        return value

    def text(self) -> str:
        """Return a name that is stored with its length and a zero byte."""
        length = self.number(2)
        stored = bytes(self._source.view(self.position, length))
        self.position += length
        try:
            return checked_name(stored.removesuffix(b"\0").decode(), self._source.where)
        except UnicodeDecodeError as error:
            raise fault(self._source.where, "holds a name that is no UTF-8", "damaged: " + FETCH_AGAIN) from error

    def skip(self, length: int) -> None:
        """Step over bytes that must be there."""
        self._source.check(self.position, length)
        self.position += length
