"""Where every tensor of a sparse checkpoint lies: names, shapes, files and offsets, all before a byte is written.

A *unit* is what is either filled whole or a hole whole: a tensor, or the share that one expert's projection has of a
stacked tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from kinprint.errors import UsageError
from kinprint.zoo.sparse_shapes import FP8_BLOCK, SHAPES, Shape

Layout = Literal["per-expert", "fused"]
Dtype = Literal["bf16", "fp8"]

SHARD_BYTES = 5_000_000_000
"""Most tensor bytes of one file, as transformers has it."""

ITEM_BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}

AXES = {
    "embed": ("token", "residual"),
    "output": ("token", "residual"),
    "norm": ("residual",),
    "q": ("head", "residual"),
    "k": ("group", "residual"),
    "v": ("group", "residual"),
    "o": ("residual", "head"),
    "q_a": ("query-latent", "residual"),
    "q_a.norm": ("query-latent",),
    "q_b": ("latent-query", "query-latent"),
    "kv_a": ("key-latent", "residual"),
    "kv_a.norm": ("key-latent",),
    "kv_b": ("latent-key", "key-latent"),
    "q.bias": ("head",),
    "k.bias": ("group",),
    "v.bias": ("group",),
    "gate": ("unit", "residual"),
    "up": ("unit", "residual"),
    "down": ("residual", "unit"),
    "router": ("expert", "residual"),
    "router.bias": ("expert",),
}
"""The axes of each role. Tensors of a layer, or of one expert, that share an axis are permuted together."""

QUANTISED = ("q", "k", "v", "o", "q_a", "q_b", "kv_a", "kv_b", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class Unit:
    """One matrix or vector.

    Attributes:
        name: Its name where every expert has tensors of its own.
        role: A key of :data:`AXES`.
        shape: Rows and columns, or the length of a vector.
        layer: Its layer; None outside the layers.
        expert: Its routed expert.
        shared: Whether it belongs to the experts that every token passes through.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    layer: int | None = None
    expert: int | None = None
    shared: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def stacked(self) -> tuple[str, int]:
        """Where the fused layout has an expert's projection: the tensor, and how many shares of an expert precede."""
        stem, _, projection = self.name.removesuffix(".weight").rpartition(".")
        return stem.rpartition(".")[0] + (".down_proj" if projection == "down_proj" else ".gate_up_proj"), int(
            projection == "up_proj"
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor; ``offset`` counts bytes from the first tensor of its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Its bytes in a file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a unit is stored: the tensor and its first element there, and the same of its scales, if it has any."""

    tensor: str
    first: int = 0
    scales: str | None = None
    first_scale: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole checkpoint.

    Attributes:
        shape: What it is of, with as many layers as it has.
        dtype: How the matrices of layers are stored.
        units: Every unit and its place.
        tensors: Stored tensors by name, file by file in the order of their bytes.
        headers: Header of each file, with the length before it.
        sizes: Bytes of each file.
    """

    shape: Shape
    dtype: Dtype
    units: tuple[tuple[Unit, Place], ...]
    tensors: Mapping[str, Tensor]
    headers: Mapping[str, bytes]
    sizes: Mapping[str, int]

    @property
    def apparent_bytes(self) -> int:
        """Length of all model files together, holes included."""
        return sum(self.sizes.values())

    def index(self) -> dict[str, Any]:
        """Return the index that Hugging Face's loaders read."""
        return {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in self.tensors.values())},
            "weight_map": {tensor.name: tensor.file for tensor in self.tensors.values()},
        }


def plan(
    shape: Shape | str,
    *,
    layers: int | None = None,
    layout: Layout = "per-expert",
    dtype: Dtype = "bf16",
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Lay out a checkpoint.

    Args:
        shape: A shape or its name.
        layers: Use only the first so many layers; all when None.
        layout: Whether every expert has tensors of its own, or one tensor holds those of all.
        dtype: ``fp8`` stores the matrices of layers, but not the router's, as blocks of e4m3 with float32 scales.
        shard_bytes: Most tensor bytes of one file; one tensor is never split.

    Raises:
        UsageError: No such shape, layout or dtype, more layers than the shape has, or a combination that no model has.
    """
    found = sized(shape, layers)
    known("layout", layout, get_args(Layout))
    known("dtype", dtype, get_args(Dtype))
    fused, fp8 = layout == "fused", dtype == "fp8"
    if fused and not found.experts:
        raise UsageError(f"{found.name} has no experts to fuse: leave the layout per-expert")
    if fused and fp8 and found.expert_intermediate % FP8_BLOCK:
        raise UsageError(
            f"{found.name} has {found.expert_intermediate} units an expert, so that blocks of {FP8_BLOCK} would hold "
            "both gate and up: leave the layout per-expert"
        )
    stored: dict[str, Tensor] = {}
    placed: list[tuple[Unit, Place]] = []
    for unit in units(found):
        place, tensors = _stored(unit, found, fused=fused, fp8=fp8)
        placed.append((unit, place))
        for tensor in tensors:
            stored.setdefault(tensor.name, tensor)
    tensors, headers, sizes = _shards(list(stored.values()), shard_bytes)
    return Plan(found, dtype, tuple(placed), tensors, headers, sizes)


def sized(shape: Shape | str, layers: int | None) -> Shape:
    """Return a shape with so many layers.

    Raises:
        UsageError: There is no such shape, or it has fewer layers.
    """
    if isinstance(shape, str):
        known("shape", shape, SHAPES)
        shape = SHAPES[shape]
    if layers is not None and not 1 <= layers <= shape.layers:
        raise UsageError(f"{shape.name} has {shape.layers} layers: give 1 to {shape.layers}, not {layers}")
    return shape if layers is None else replace(shape, layers=layers)


def known(what: str, word: str, words: Collection[str]) -> None:
    """Refuse a word that is none of those known.

    Raises:
        UsageError: It is none.
    """
    if word not in words:
        raise UsageError(f"there is no {what} {word}: give one of {', '.join(words)}")


def units(shape: Shape) -> Iterator[Unit]:
    """Yield every unit in the order of transformers' state dict."""
    yield Unit("model.embed_tokens.weight", "embed", (shape.vocab, shape.hidden))
    for layer in range(shape.layers):
        yield from _layer(shape, layer)
    yield Unit("model.norm.weight", "norm", (shape.hidden,))
    if not shape.tied:
        yield Unit("lm_head.weight", "output", (shape.vocab, shape.hidden))


def _layer(shape: Shape, layer: int) -> Iterator[Unit]:
    stem, hidden = f"model.layers.{layer}", shape.hidden
    yield from (_latent_attention if shape.query_latent else _attention)(shape, f"{stem}.self_attn", layer)
    mlp = f"{stem}.mlp"
    if shape.is_mixture(layer):
        yield Unit(f"{mlp}.gate.weight", "router", (shape.experts, hidden), layer)
        yield Unit(f"{mlp}.gate.e_score_correction_bias", "router.bias", (shape.experts,), layer)
        for expert in range(shape.experts):
            yield from _mlp(f"{mlp}.experts.{expert}", hidden, shape.expert_intermediate, layer, expert=expert)
        if shape.shared_experts:
            wide = shape.shared_experts * shape.expert_intermediate
            yield from _mlp(f"{mlp}.shared_experts", hidden, wide, layer, shared=True)
    else:
        yield from _mlp(mlp, hidden, shape.intermediate, layer)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield Unit(f"{stem}.{norm}.weight", "norm", (hidden,), layer)


def _attention(shape: Shape, stem: str, layer: int) -> Iterator[Unit]:
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for role, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield Unit(f"{stem}.{role}_proj.weight", role, (rows, hidden), layer)
        if shape.qkv_bias:
            yield Unit(f"{stem}.{role}_proj.bias", f"{role}.bias", (rows,), layer)
    yield Unit(f"{stem}.o_proj.weight", "o", (hidden, queries), layer)


def _latent_attention(shape: Shape, stem: str, layer: int) -> Iterator[Unit]:
    hidden, heads, own = shape.hidden, shape.heads, shape.head_dim
    for what, name, role, wide, rotated, made in (
        ("q", "q_a_proj", "q_a", shape.query_latent, 0, heads * (own + shape.rotary_dim)),
        ("kv", "kv_a_proj_with_mqa", "kv_a", shape.key_latent, shape.rotary_dim, heads * 2 * own),
    ):
        yield Unit(f"{stem}.{name}.weight", role, (wide + rotated, hidden), layer)
        yield Unit(f"{stem}.{what}_a_layernorm.weight", f"{role}.norm", (wide,), layer)
        yield Unit(f"{stem}.{what}_b_proj.weight", f"{what}_b", (made, wide), layer)
    yield Unit(f"{stem}.o_proj.weight", "o", (hidden, heads * own), layer)


def _mlp(
    stem: str, hidden: int, wide: int, layer: int, *, expert: int | None = None, shared: bool = False
) -> Iterator[Unit]:
    for role in ("gate", "up"):
        yield Unit(f"{stem}.{role}_proj.weight", role, (wide, hidden), layer, expert, shared)
    yield Unit(f"{stem}.down_proj.weight", "down", (hidden, wide), layer, expert, shared)


def blocks(rows: int, columns: int) -> tuple[int, int]:
    """Return how many blocks that share a scale lie above and beside each other."""
    return -(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK)


def _stored(unit: Unit, shape: Shape, *, fused: bool, fp8: bool) -> tuple[Place, list[Tensor]]:
    """Return where a unit is stored, and the tensors that this needs."""
    packed = fp8 and unit.role in QUANTISED
    dtype = "F8_E4M3" if packed else "F32" if unit.role == "router.bias" else "BF16"
    name, dims, share = unit.name, unit.shape, 0
    stack: tuple[int, ...] = ()
    if fused and unit.expert is not None:
        name, second = unit.stacked
        shares = 1 if unit.role == "down" else 2
        stack, share = (shape.experts,), unit.expert * shares + second
        dims = (unit.shape[0] * shares, unit.shape[1])
    tensors = [Tensor(name, dtype, (*stack, *dims))]
    if not packed:
        return Place(name, share * unit.size), tensors
    scales = f"{name}_scale_inv"
    tensors.append(Tensor(scales, "F32", (*stack, *blocks(*dims))))
    return Place(name, share * unit.size, scales, share * math.prod(blocks(*unit.shape))), tensors


def _shards(tensors: list[Tensor], shard_bytes: int) -> tuple[dict[str, Tensor], dict[str, bytes], dict[str, int]]:
    """Distribute tensors over files."""
    shards: list[list[Tensor]] = []
    left = 0
    for tensor in tensors:
        if not shards or tensor.nbytes > left:
            shards.append([])
            left = shard_bytes
        shards[-1].append(tensor)
        left -= tensor.nbytes
    found: dict[str, Tensor] = {}
    headers: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        # Wide elements first, so that every tensor is aligned in the file.
        for tensor in sorted(shard, key=lambda tensor: -ITEM_BYTES[tensor.dtype]):
            end = position + tensor.nbytes
            found[tensor.name] = Tensor(tensor.name, tensor.dtype, tensor.shape, file, position)
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, end]}
            position = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        headers[file] = len(text).to_bytes(8, "little") + text
        sizes[file] = len(headers[file]) + position
    return found, headers, sizes
