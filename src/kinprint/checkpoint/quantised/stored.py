"""What a quantised checkpoint has on disk, as the schemes look at it: tensors by module, arrays of every dtype, config.

``Checkpoint.read`` refuses dtypes that mean nothing on their own, such as the powers of two that scale blocks; here
they are read, because a scheme knows what they scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import ml_dtypes
import numpy as np

from kinprint.checkpoint.base import Array, Checkpoint, TensorInfo
from kinprint.checkpoint.dtypes import READABLE
from kinprint.checkpoint.faults import fault, shown
from kinprint.errors import CheckpointError

DEQUANTISE = "dequantise it with its own framework and save it as safetensors in bf16"
"""What to do about a scheme that is not decoded."""

DAMAGED = "the files do not belong together or are damaged: fetch them again"
"""What to do about tensors of one group that contradict each other."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of scales that are plain numbers."""

FP8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
"""Dtypes of fp8 weights."""

_MORE: dict[str, np.dtype[Any]] = {
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_TABLES = ("quantization_config", "compression_config", "quantization")
_NESTED = ("text_config", "llm_config", "language_config")


View = Callable[[str, slice | None], Array]
"""Views a tensor, or a range of its first axis."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the config says about the quantisation.

    Attributes:
        where: The model, for messages.
        table: The config's entry, empty if there is none.
        method: ``quant_method``, lower case; None where nothing is stated.
    """

    where: str
    table: Mapping[str, Any] = field(default_factory=dict[str, Any])
    method: str | None = None

    def integer(self, key: str, table: Mapping[str, Any] | None = None) -> int | None:
        """Return a whole number of the config, None where it is absent.

        Raises:
            CheckpointError: It is something else.
        """
        value = (self.table if table is None else table).get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise fault(self.where, f"its config has {key} = {shown(value)}", "a whole number belongs there")
        return value

    def text(self, *keys: str) -> str | None:
        """Return the first of several settings that is text, lower case; None where there is none."""
        values = (self.table.get(key) for key in keys)
        return next((value.lower() for value in values if isinstance(value, str)), None)


def read_settings(config: Mapping[str, Any], where: str) -> Settings:
    """Find what a config says about quantisation, at its top or in the part for text.

    MLX names no method: its table holds ``bits`` and ``group_size`` alone.
    """
    places = [config, *(config[key] for key in _NESTED if isinstance(config.get(key), Mapping))]
    for place in places:
        for key in _TABLES:
            value = place.get(key)
            if isinstance(value, Mapping) and value:
                table = cast("Mapping[str, Any]", value)
                method = table.get("quant_method")
                named = method.lower() if isinstance(method, str) else None
                if named is None and "group_size" in table and "bits" in table:
                    named = "mlx"
                return Settings(where, table, named or "unnamed")
    return Settings(where)


class Stored:
    """The stored tensors of a checkpoint.

    Attributes:
        where: The model, for messages.
        tensors: Headers by name.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.where = checkpoint.location
        self.tensors = checkpoint.tensors
        self._checkpoint = checkpoint

    def ending(self, leaf: str) -> Iterator[tuple[str, TensorInfo]]:
        """Yield (what stands before, header) of every tensor whose name ends so, in file order."""
        found = [names for last, names in self._by_last_word.items() if last.endswith(leaf)]
        named = found[0] if len(found) == 1 and "." not in leaf else self.tensors if found or "." in leaf else ()
        for name in named:
            if name.endswith(leaf):
                yield name.removesuffix(leaf), self.tensors[name]

    @cached_property
    def _by_last_word(self) -> dict[str, list[str]]:
        """Names in file order by what follows their last dot: every scheme looks for a few of thousands."""
        found: dict[str, list[str]] = {}
        for name in self.tensors:
            found.setdefault(name.rpartition(".")[2], []).append(name)
        return found

    def first(self, *names: str) -> TensorInfo | None:
        """Return the header of the first of several names that is there."""
        return next((self.tensors[name] for name in names if name in self.tensors), None)

    def array(self, name: str, rows: slice | None = None) -> Array:
        """View one tensor, or a range of its first axis, in its stored dtype; only what is used is read."""
        info = self.tensors[name]
        if info.dtype in READABLE:
            return self._checkpoint.read(name, rows)
        data, shape = self._part(name, rows, info.shape)
        return np.ndarray(shape, _MORE[info.dtype], buffer=data)

    def octets(self, name: str, rows: slice | None = None) -> Array:
        """View one tensor, or a range of its first axis, as bytes: its axes, the last one in bytes."""
        data, shape = self._part(name, rows, octet_shape(self.tensors[name]))
        return np.ndarray(shape, np.uint8, buffer=data)

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor."""
        return self._checkpoint.raw(name)

    def scale(self, name: str, rows: slice | None = None) -> Array:
        """View scales. Bytes among them are E8M0, powers of two: value - 127 is the exponent, 255 is NaN."""
        if self.tensors[name].dtype == "U8":
            return self.octets(name, rows).view(_MORE["F8_E8M0"])
        return self.array(name, rows)

    def run(self, view: View, name: str, first: int, last: int, width: int) -> Array:
        """Return some rows of a tensor that is taken as rows of one width; no more of its first axis is read.

        Args:
            view: :meth:`array`, :meth:`octets` or :meth:`scale`.
            name: The tensor.
            first: First row, counted through all axes but those that make up a row.
            last: Row after the last.
            width: Elements (for ``octets``, bytes) of a row.

        Returns:
            [last - first, width].
        """
        info = self.tensors[name]
        if not info.shape:
            return view(name, None).reshape(-1, width)[first:last]
        count = info.nbytes if view == self.octets else info.size
        item = max(count // max(info.shape[0], 1), 1)
        start = first * width // item
        values = view(name, slice(start, -(-last * width // item))).reshape(-1)
        return values[first * width - start * item :][: (last - first) * width].reshape(last - first, width)

    def _part(self, name: str, rows: slice | None, shape: tuple[int, ...]) -> tuple[memoryview, tuple[int, ...]]:
        """Return the bytes of a tensor or of a range of its first axis, and the shape they have."""
        if rows is None or not shape:
            return self.raw(name), shape
        first, last, _ = rows.indices(shape[0])
        return self._checkpoint.raw_rows(name, first, last), (last - first, *shape[1:])

    def fault(self, name: str, what: str, advice: str = DAMAGED) -> CheckpointError:
        """Return the error for one tensor."""
        return fault(self.where, f"tensor {shown(name)} {what}", advice)


def octet_shape(info: TensorInfo) -> tuple[int, ...]:
    """Return the shape of a tensor whose last axis is counted in bytes."""
    rows = int(np.prod(info.shape[:-1], dtype=object))
    return (*info.shape[:-1], info.nbytes // max(rows, 1))
