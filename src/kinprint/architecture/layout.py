"""Stored tensors to parts and back: orientation, fused projections, stacked experts.

A part is [out, in] (or [out]). ``take`` cuts it out of a stored array as a view where numpy can, ``join`` puts parts
together again; they are inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from kinprint.architecture.family import Part, Rule
from kinprint.architecture.geometry import Geometry
from kinprint.checkpoint import Array
from kinprint.errors import CheckpointError


def is_plain(rule: Rule) -> bool:
    """Return whether rows of the stored tensor are rows of its only part."""
    return rule.layout == "out-in" and len(rule.parts) == 1 and not rule.stacked and not rule.rows


def splittable(rule: Rule, geometry: Geometry) -> bool:
    """Return whether the sizes are known that a fused tensor is cut by."""
    if len(rule.parts) == 1 and not rule.layout.startswith("heads"):
        return True
    if any(part.size and _stated(part, geometry) is None for part in rule.parts):
        return False
    by_head = rule.split in ("per-head", "per-group") or rule.layout.startswith("heads")
    return geometry.heads is not None or not by_head


def axis_lengths(shape: tuple[int, ...], rule: Rule, index: int) -> Iterator[tuple[str, int]]:
    """Yield (axis kind, length) for what the stored shape alone shows of one part; nothing where its axes are others.

    A fused tensor shows its output axis only where all its parts have the same one; a fused q, k and v shows their
    rows together, as ``qkv``.
    """
    axes = axes_stored(rule)
    if len(shape) != axes if axes is not None else len(shape) < 2:
        return  # what has other axes than the rule says shows nothing
    inner = _inner(shape, rule)
    part = rule.parts[index]
    if rule.rows:  # how many experts share the rows is not known here
        yield from (("residual", shape[1]) for axis in (part.out, part.input) if axis == "residual")
        return
    kinds = {axis_kind(other.out) for other in rule.parts}
    if len(rule.parts) == 1:
        yield axis_kind(part.out), inner[0]
    elif len(kinds) == 1:
        yield axis_kind(part.out), inner[0] // len(rule.parts)
    elif kinds == {"query", "key", "value"}:
        yield "qkv", inner[0]
    if part.input:
        yield axis_kind(part.input), inner[1]


def axis_kind(axis: str) -> str:
    """Return an axis name without its layer and expert.

    Example:
        >>> axis_kind("expert-ffn.{layer}.{expert}")
        'expert-ffn'
    """
    return axis.split(".", maxsplit=1)[0]


def axes_stored(rule: Rule) -> int | None:
    """Return how many axes a rule's stored tensor has; None where a kernel may have any number from two on."""
    if rule.layout.startswith("flat"):
        return None
    return (1 if rule.vector else 2) + rule.stacked + rule.layout.startswith("heads")


def _inner(shape: tuple[int, ...], rule: Rule) -> tuple[int, ...]:
    """Return the shape of one expert's stored matrix, output axis first."""
    inner = shape[1:] if rule.stacked else shape
    if rule.layout == "flat":
        return inner[0], math.prod(inner[1:])
    if rule.layout == "flat-in-out":
        return math.prod(inner[1:]), inner[0]
    if rule.layout == "heads-out-in":
        return inner[0] * inner[1], inner[2]
    if rule.layout == "heads-in-out":
        return inner[0] * inner[2], inner[1]
    return inner[::-1] if rule.layout == "in-out" else inner


def _upright(inner: Array, rule: Rule) -> Array:
    """Return one expert's stored matrix with its output axis first; see :func:`_inner`."""
    if rule.layout == "flat-in-out":
        return inner.reshape(inner.shape[0], -1).T
    if rule.layout == "heads-in-out":
        inner = inner.transpose(0, 2, 1)
    if rule.layout in ("flat", "heads-out-in", "heads-in-out"):
        return inner.reshape(_inner(inner.shape if rule.layout != "heads-in-out" else _swapped(inner.shape), rule))
    return inner.T if rule.layout == "in-out" else inner


def _swapped(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[0], shape[2], shape[1]


def _out_length(rule: Rule, index: int, rows: int, geometry: Geometry) -> int:
    """Rows of one part of a fused tensor."""
    if len(rule.parts) == 1:
        return rows
    sizes = [_stated(part, geometry) for part in rule.parts]
    if any(size is not None for size in sizes):
        blocks = (geometry.heads or 1) if rule.split == "per-head" else 1
        own = sizes[index]
        return (rows - blocks * sum(size or 0 for size in sizes)) if own is None else own * blocks
    kind = axis_kind(rule.parts[index].out)
    heads, kv_heads, head_dim = geometry.heads, geometry.kv_heads, geometry.head_dim
    if kind in ("query", "key", "value") and heads and kv_heads and head_dim:
        return head_dim * (heads if kind == "query" else kv_heads)
    return rows // len(rule.parts)


def _experts(rows: int, geometry: Geometry) -> int:
    """Return how many experts share the rows of one tensor."""
    if not geometry.experts or rows % geometry.experts:
        raise CheckpointError(
            f"{rows} rows of experts cannot be divided among {geometry.experts or 'an unknown number'} of them: add "
            "the model's config.json"
        )
    return geometry.experts


def _stated(part: Part, geometry: Geometry) -> int | None:
    """Return how many rows (of a head) a part states for itself."""
    return getattr(geometry, part.size, None) if part.size else None


def part_shape(shape: tuple[int, ...], rule: Rule, index: int, geometry: Geometry) -> tuple[int, ...]:
    """Return the canonical shape of one part of a stored tensor.

    Raises:
        CheckpointError: The stored rows cannot be divided as the rule says.
    """
    if rule.rows:
        shape = (shape[0] // _experts(shape[0], geometry), *shape[1:])
    inner = _inner(shape, rule)
    rows = [_out_length(rule, i, inner[0], geometry) for i in range(len(rule.parts))]
    if sum(rows) != inner[0] or min(rows) < 0:
        raise CheckpointError(
            f"a fused tensor of {inner[0]} rows cannot hold parts of {rows} rows: wrong head geometry"
        )
    return (rows[index], *inner[1:])


def first_row(stored: tuple[int, ...], rule: Rule, index: int, expert: int | None, geometry: Geometry) -> int | None:
    """Return where the rows of a part begin among those of the stored tensor; None where they lie apart in it.

    Of stacked experts among the rows of one expert.
    """
    if rule.layout != "out-in" or (len(rule.parts) > 1 and rule.split != "blocks"):
        return None
    each = stored[0] // _experts(stored[0], geometry) if rule.rows else 0
    return each * (expert or 0) + sum(part_shape(stored, rule, i, geometry)[0] for i in range(index))


def take(stored: Array, rule: Rule, index: int, expert: int | None, geometry: Geometry) -> Array:
    """Return one part of a stored array, [out, in] or [out], as a view where possible."""
    shape = part_shape(stored.shape, rule, index, geometry)
    if rule.rows:
        stored = stored.reshape(_experts(stored.shape[0], geometry), -1, *stored.shape[1:])
    inner = _upright(stored[expert] if rule.stacked or rule.rows else stored, rule)
    if len(rule.parts) == 1:
        return inner
    if rule.split == "blocks":
        first = sum(part_shape(stored.shape, rule, i, geometry)[0] for i in range(index))
        return inner[first : first + shape[0]]
    if rule.split == "interleaved":
        return inner[index :: len(rule.parts)]
    if rule.split == "per-shard":
        return inner.reshape(rule.shards, len(rule.parts), -1, *inner.shape[1:])[:, index].reshape(shape)
    heads, kv_heads, head_dim = _known(geometry)
    if rule.split == "per-head":
        first, last = _span(rule, index, inner.shape[0] // heads, geometry)
        return inner.reshape(heads, -1, *inner.shape[1:])[:, first:last].reshape(shape)
    group = heads // kv_heads
    blocks = inner.reshape(kv_heads, group + 2, head_dim, *inner.shape[1:])
    chosen = blocks[:, :group] if index == 0 else blocks[:, group + index - 1]
    return chosen.reshape(shape)


def _span(rule: Rule, index: int, rows: int, geometry: Geometry) -> tuple[int, int]:
    """Return the first and last row of a part among the ``rows`` of one head."""
    sizes = [_stated(part, geometry) for part in rule.parts]
    if all(size is None for size in sizes):
        each = rows // len(sizes)
        return index * each, (index + 1) * each
    lengths = [rows - sum(size or 0 for size in sizes) if size is None else size for size in sizes]
    return sum(lengths[:index]), sum(lengths[: index + 1])


def join(parts: Sequence[Sequence[Array]], rule: Rule, geometry: Geometry) -> Array:
    """Return the stored array that holds parts: ``parts[expert][index]``, one expert for unstacked rules.

    Raises:
        CheckpointError: The stored tensor has more axes than its parts show (a kernel).
    """
    if rule.layout.startswith("flat"):
        raise CheckpointError(f"{rule.name} cannot be put together again: its parts do not tell the axes of its kernel")
    inner = [_join_one(expert, rule, geometry) for expert in parts]
    if rule.rows:
        return np.ascontiguousarray(np.concatenate(inner))
    return np.ascontiguousarray(np.stack(inner) if rule.stacked else inner[0])


def _join_one(parts: Sequence[Array], rule: Rule, geometry: Geometry) -> Array:
    fused = _fused(parts, rule, geometry)
    if rule.layout.startswith("heads"):
        by_head = fused.reshape(_known(geometry)[0], -1, fused.shape[1])
        return by_head if rule.layout == "heads-out-in" else by_head.transpose(0, 2, 1)
    return fused.T if rule.layout == "in-out" else fused


def _fused(parts: Sequence[Array], rule: Rule, geometry: Geometry) -> Array:
    """Return parts in one array, output axis first."""
    rest = parts[0].shape[1:]
    if len(parts) == 1 or rule.split == "blocks":
        return np.concatenate(parts, axis=0)
    if rule.split == "interleaved":
        return np.stack(parts, axis=1).reshape(-1, *rest)
    if rule.split == "per-shard":
        return np.stack([part.reshape(rule.shards, -1, *rest) for part in parts], axis=1).reshape(-1, *rest)
    heads, kv_heads, head_dim = _known(geometry)
    if rule.split == "per-head":
        return np.concatenate([part.reshape(heads, -1, *rest) for part in parts], axis=1).reshape(-1, *rest)
    blocks = [part.reshape(kv_heads, -1, head_dim, *rest) for part in parts]
    return np.concatenate(blocks, axis=1).reshape(-1, *rest)


def _known(geometry: Geometry) -> tuple[int, int, int]:
    if geometry.heads is None or geometry.kv_heads is None or geometry.head_dim is None:
        raise CheckpointError(
            "a fused attention tensor cannot be split without head counts: add the model's config.json"
        )
    return geometry.heads, geometry.kv_heads, geometry.head_dim
