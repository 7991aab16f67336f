"""GGUF files: tensors under GGUF's names, quantised blocks decoded to float32 a few rows at a time.

llama.cpp's converter permutes the rows of q and k inside each head for the architectures whose rotary embedding works
on neighbouring rows; ``read`` undoes it, so that a GGUF compares with the model that it was made from, and ``raw``
does not.

Source: llama.cpp, conversion/*.py, ``LlamaModel.permute`` and the classes that call it (2026).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import BLOCK_BYTES, Array, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, fault, natural, shown
from kinprint.checkpoint.gguf_header import GgufTensor, read_header, read_tokens
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.parts import Part, enclosing, take
from kinprint.checkpoint.quantised.gguf_codecs import gguf_codec
from kinprint.checkpoint.source import ByteSource
from kinprint.errors import CheckpointError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

PERMUTED = frozenset(
    {"llama", "llama-embed", "mistral3", "granite", "granitemoe", "granitehybrid", "arcee", "smollm3", "nanbeige"}
    | {"deci", "deepseek", "llada", "chameleon", "internlm2", "bailingmoe", "minicpm", "olmo", "arctic"}
    | {"baichuan", "xverse"}
)
"""Values of ``general.architecture`` whose q and k rows the converter permutes.

Not here although their rotary embedding works on neighbouring rows: llama4, command-r, cohere2, chatglm, ernie4_5,
deepseek2 and others, whose original weights already lie that way.
"""

BIASES_TOO = frozenset(
    {"llama", "llama-embed", "mistral3", "granite", "granitemoe", "granitehybrid", "arcee", "smollm3", "nanbeige"}
    | {"deci", "deepseek", "llada", "chameleon"}
)
"""Those of them whose converter permutes the biases too."""

_PLAIN = {
    "F32": "F32",
    "F16": "F16",
    "F64": "F64",
    "BF16": "BF16",
    "I8": "I8",
    "I16": "I16",
    "I32": "I32",
    "I64": "I64",
}
_QK = re.compile(r"blk\.(\d{1,6})\.attn_([qk])\.(weight|bias)")


class GgufFile(Part):
    """One GGUF file, memory-mapped."""

    format = "gguf"

    def __init__(self, source: ByteSource, *, settings: Mapping[str, Any] | None = None) -> None:
        """Read and check the header.

        Args:
            source: The file.
            settings: Those of the first file, when this is a later one of a split model and has none of its own.

        Raises:
            CheckpointError: The header cannot be believed, or its settings contradict the shapes.
        """
        self.source = source
        source.hold_back(False)  # one long header, read from end to end
        header = read_header(source)
        self.settings: Mapping[str, Any] = header.settings
        self._tokens_at = header.tokens_at
        self._start: dict[str, int] = {}
        self._type: dict[str, int] = {}
        self.tensors: Mapping[str, TensorInfo] = {}
        data_bytes = max(source.size - header.data_start, 0)
        for tensor, end in _checked_spans(header.tensors, data_bytes, source.where):
            self._start[tensor.name] = header.data_start + tensor.offset
            self._type[tensor.name] = tensor.type_id
            self.tensors[tensor.name] = TensorInfo(
                tensor.name,
                _dtype(tensor.type_id),
                tensor.shape,
                end - tensor.offset,
                source.name,
                gguf_codec(_dtype(tensor.type_id).removeprefix("GGUF:")),
            )
        self._heads, left = _permuted_heads(self.tensors, settings or self.settings, source.where)
        undone = f"{source.name}: the row order of q and k that GGUF uses for rotary embeddings was undone"
        self.notes = (f"{source.name}: {left}",) if left else (undone,) if self._heads else ()

    def read(self, name: str, rows: slice | None) -> Array:
        """View a plain tensor, or decode the blocks of the rows that are asked for."""
        info = self.tensors[name]
        if not info.shape:
            return take(self._stored(info, 0, 1).reshape(()), rows)
        first, last, step = enclosing(rows, info.shape[0])
        heads = self._heads.get(name)
        if heads is None:
            return self._stored(info, first, last)[::step]
        start, end, count = _whole_heads(first, last, info.shape[0], heads)
        return _unpermute(self._stored(info, start, end), count)[first - start : last - start][::step]

    def raw(self, name: str) -> memoryview:
        """Return the tensor's bytes in the map, as they are stored."""
        return self.source.view(self._start[name], self.tensors[name].nbytes)

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the bytes of some rows in the map, in the order of the file."""
        start, end = self._span(name, first, last)
        return self.source.view(start, end - start)

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the one range that holds the rows, or the heads that they lie in."""
        info = self.tensors[name]
        if not info.shape:
            yield self.source, self._span(name, 0, 1)
            return
        first, last, _ = enclosing(rows, info.shape[0])
        if name in self._heads:
            first, last, _ = _whole_heads(first, last, info.shape[0], self._heads[name])
        yield self.source, self._span(name, first, last)

    def _span(self, name: str, first: int, last: int) -> Range:
        """Return where some rows lie in the file."""
        info = self.tensors[name]
        if len(info.shape) == 1 and info.dtype.startswith("GGUF:"):
            return self._start[name], self._start[name] + info.nbytes  # blocks run along the only axis
        row_bytes = info.nbytes // max(info.shape[0], 1) if info.shape else info.nbytes
        return self._start[name] + first * row_bytes, self._start[name] + last * row_bytes

    def tokens(self) -> tuple[str, ...] | None:
        """Return the token strings by id; None if the file has none."""
        return None if self._tokens_at is None else read_tokens(self.source, self._tokens_at)

    def _stored(self, info: TensorInfo, first: int, last: int) -> Array:
        """Return rows of a tensor in the order of the file."""
        shape = (last - first, *info.shape[1:])
        data = self.raw_rows(info.name, first, last)
        if not info.dtype.startswith("GGUF:"):
            return dtypes.array(data, info.dtype, shape, self.source.where, info.name)
        kind = _quantisation(self._type[info.name])
        if kind is None:
            raise _undecodable(self.source.where, info.dtype.removeprefix("GGUF:"))
        block, block_bytes = _block(kind)
        if len(shape) == 1:
            whole: Array = np.ndarray((1, info.shape[0] // block * block_bytes), np.uint8, buffer=data)
            return _decode(whole, info.shape[0], kind, self.source.where).reshape(-1)[first:last]
        blocks: Array = np.ndarray((*shape[:-1], shape[-1] // block * block_bytes), np.uint8, buffer=data)
        return _decode(blocks, shape[-1], kind, self.source.where)


def _checked_spans(tensors: Sequence[GgufTensor], data_bytes: int, where: str) -> list[tuple[GgufTensor, int]]:
    """Return each tensor with the end of its bytes, in file order.

    Raises:
        CheckpointError: Two names are equal, a tensor reaches past the end of the file, two overlap, or a row is no
            whole number of blocks.
    """
    if not tensors:
        raise fault(where, "holds no tensors", "give the file with the model's weights")
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise fault(where, "holds two tensors of one name", "damaged: " + FETCH_AGAIN)
    spans: list[tuple[GgufTensor, int]] = []
    for tensor, following in zip(ordered, [*ordered[1:], None], strict=True):
        limit = data_bytes if following is None else following.offset
        size = _nbytes(tensor, where)
        # A quantisation of unknown block size takes at most what lies before the next tensor.
        end = tensor.offset + size if size is not None else max(limit, tensor.offset)
        if end > data_bytes:
            raise fault(
                where,
                f"tensor {shown(tensor.name)} ends {shown(end - data_bytes)} bytes past the end of the file",
                "truncated or lying header: " + FETCH_AGAIN,
            )
        if end > limit:
            raise fault(where, f"tensor {shown(tensor.name)} overlaps the next one", "damaged: " + FETCH_AGAIN)
        spans.append((tensor, end))
    return spans


def _quantisation(type_id: int) -> GGMLQuantizationType | None:
    """Return the package's name of a quantisation, or None for one that it does not know."""
    # Imported on first use: the package takes 0.12 s, and other formats do not need it.
    from gguf.constants import GGMLQuantizationType

    try:
        return GGMLQuantizationType(type_id)
    except ValueError:
        return None


def _block(kind: GGMLQuantizationType) -> tuple[int, int]:
    """Return the elements and the bytes of one block."""
    from gguf.constants import GGML_QUANT_SIZES

    return GGML_QUANT_SIZES[kind]


def _nbytes(tensor: GgufTensor, where: str) -> int | None:
    """Return the bytes of a tensor, from its shape and its quantisation's block size; None if that is not known."""
    kind = _quantisation(tensor.type_id)
    if kind is None:
        return None
    block, block_bytes = _block(kind)
    columns = tensor.shape[-1] if tensor.shape else 1
    if columns % block:
        raise fault(
            where,
            f"tensor {shown(tensor.name)} has rows of {columns}, no multiple of {kind.name}'s {block}",
            "damaged: " + FETCH_AGAIN,
        )
    elements = 1
    for length in tensor.shape:
        elements *= length
    return elements // block * block_bytes


def _dtype(type_id: int) -> str:
    """Return our spelling of a quantisation."""
    kind = _quantisation(type_id)
    name = f"TYPE_{type_id}" if kind is None else kind.name
    return _PLAIN.get(name, f"GGUF:{name}")


def _decode(blocks: Array, columns: int, kind: GGMLQuantizationType, where: str) -> Array:
    """Decode rows of blocks to float32, a few rows at a time so that the package's temporaries stay small.

    Args:
        blocks: Bytes, rows on every axis but the last.
        columns: Elements of a decoded row.
        kind: The quantisation.
        where: File, for the message.

    Raises:
        CheckpointError: The installed package does not decode this quantisation.
    """
    from gguf.quants import dequantize

    row_count = blocks.size // max(blocks.shape[-1], 1)
    values = np.empty((row_count, columns), np.float32)
    flat = blocks.reshape(row_count, blocks.shape[-1])
    step = max(BLOCK_BYTES // 4 // max(columns, 1), 1)
    try:
        # Blocks may hold NaN and Inf as scales; they come out as NaN and Inf, which methods look for themselves.
        with np.errstate(all="ignore"):
            for first in range(0, row_count, step):
                values[first : first + step] = dequantize(flat[first : first + step], kind)
    except NotImplementedError as error:
        raise _undecodable(where, kind.name) from error
    values.flags.writeable = False
    return values.reshape(*blocks.shape[:-1], columns)


def _undecodable(where: str, kind: str) -> CheckpointError:
    """Return the error for a quantisation that the installed package does not decode."""
    return fault(where, f"uses the quantisation {kind}, which is not decoded", "use another quantisation of the model")


def _permuted_heads(
    tensors: Mapping[str, TensorInfo], settings: Mapping[str, Any], where: str
) -> tuple[dict[str, int], str | None]:
    """Return how many heads the rows of each permuted tensor form, and why a known permutation could not be undone.

    Raises:
        CheckpointError: The head count does not divide the rows.
    """
    architecture = settings.get("general.architecture")
    found: dict[str, int] = {}
    if architecture not in PERMUTED:
        return found, None
    heads = settings.get(f"{architecture}.attention.head_count")
    counts = {"q": heads, "k": settings.get(f"{architecture}.attention.head_count_kv") or heads}
    for name, info in tensors.items():
        match = _QK.fullmatch(name)
        if match is None or not info.shape or (match[3] == "bias" and architecture not in BIASES_TOO):
            continue
        count: object = counts[match[2]]
        if isinstance(count, list):
            layer, per_layer = int(match[1]), cast("list[object]", count)
            count = per_layer[layer] if layer < len(per_layer) else None
        if count is None:
            return {}, "the row order of q and k is GGUF's, for the file does not state the number of heads"
        if not natural(count) or count == 0 or info.shape[0] % (2 * count):
            raise fault(
                where,
                f"states {shown(count)} heads, but tensor {shown(name)} has {info.shape[0]} rows",
                "settings and shapes contradict each other: " + FETCH_AGAIN,
            )
        found[name] = count
    return found, None


def _whole_heads(first: int, last: int, rows: int, heads: int) -> tuple[int, int, int]:
    """Return the rows of the heads that a range of rows touches, and how many heads: rows move inside heads."""
    length = rows // heads
    start, end = first // length, -(-last // length)
    return start * length, end * length, end - start


def _unpermute(stored: Array, heads: int) -> Array:
    """Put rows [heads, half, 2] back to [heads, 2, half], the order of the model that was converted."""
    half = stored.shape[0] // max(heads, 1) // 2
    values = stored.reshape(heads, half, 2, *stored.shape[1:]).swapaxes(1, 2).reshape(stored.shape)
    values.flags.writeable = False
    return values
