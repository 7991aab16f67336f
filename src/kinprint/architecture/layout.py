"""Stored tensors to parts and back: orientation, fused projections, stacked experts.

A part is [out, in] (or [out]). ``take`` cuts it out of a stored array as a view where numpy can, ``join`` puts parts
together again; they are inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kinprint.architecture.family import Rule
from kinprint.architecture.geometry import Geometry
from kinprint.checkpoint import Array
from kinprint.errors import CheckpointError


def is_plain(rule: Rule) -> bool:
    """Return whether rows of the stored tensor are rows of its only part."""
    return rule.layout == "out-in" and len(rule.parts) == 1 and not rule.stacked


def axis_lengths(shape: tuple[int, ...], rule: Rule, index: int) -> Iterator[tuple[str, int]]:
    """Yield (axis kind, length) for what the stored shape alone shows of one part.

    A fused tensor shows its output axis only where all its parts have the same one; a fused q, k and v shows their
    rows together, as ``qkv``.
    """
    inner = _inner(shape, rule)
    part = rule.parts[index]
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


def _inner(shape: tuple[int, ...], rule: Rule) -> tuple[int, ...]:
    """Return the shape of one expert's stored matrix, output axis first."""
    inner = shape[1:] if rule.stacked else shape
    return inner[::-1] if rule.layout == "in-out" else inner


def _out_length(rule: Rule, index: int, rows: int, geometry: Geometry) -> int:
    """Rows of one part of a fused tensor."""
    if len(rule.parts) == 1:
        return rows
    kind = axis_kind(rule.parts[index].out)
    heads, kv_heads, head_dim = geometry.heads, geometry.kv_heads, geometry.head_dim
    if kind in ("query", "key", "value") and heads and kv_heads and head_dim:
        return head_dim * (heads if kind == "query" else kv_heads)
    return rows // len(rule.parts)


def part_shape(shape: tuple[int, ...], rule: Rule, index: int, geometry: Geometry) -> tuple[int, ...]:
    """Return the canonical shape of one part of a stored tensor.

    Raises:
        CheckpointError: The stored rows cannot be divided as the rule says.
    """
    inner = _inner(shape, rule)
    rows = [_out_length(rule, i, inner[0], geometry) for i in range(len(rule.parts))]
    if sum(rows) != inner[0]:
        raise CheckpointError(
            f"a fused tensor of {inner[0]} rows cannot hold parts of {rows} rows: wrong head geometry"
        )
    return (rows[index], *inner[1:])


def take(stored: Array, rule: Rule, index: int, expert: int | None, geometry: Geometry) -> Array:
    """Return one part of a stored array, [out, in] or [out], as a view where possible."""
    shape = part_shape(stored.shape, rule, index, geometry)
    inner = stored[expert] if rule.stacked else stored
    if rule.layout == "in-out":
        inner = inner.T
    if len(rule.parts) == 1:
        return inner
    if rule.split == "blocks":
        first = sum(part_shape(stored.shape, rule, i, geometry)[0] for i in range(index))
        return inner[first : first + shape[0]]
    heads, kv_heads, head_dim = _known(geometry)
    if rule.split == "per-head":
        return inner.reshape(heads, len(rule.parts), head_dim, *inner.shape[1:])[:, index].reshape(shape)
    group = heads // kv_heads
    blocks = inner.reshape(kv_heads, group + 2, head_dim, *inner.shape[1:])
    chosen = blocks[:, :group] if index == 0 else blocks[:, group + index - 1]
    return chosen.reshape(shape)


def join(parts: Sequence[Sequence[Array]], rule: Rule, geometry: Geometry) -> Array:
    """Return the stored array that holds parts: ``parts[expert][index]``, one expert for unstacked rules."""
    inner = [_join_one(expert, rule, geometry) for expert in parts]
    return np.ascontiguousarray(np.stack(inner) if rule.stacked else inner[0])


def _join_one(parts: Sequence[Array], rule: Rule, geometry: Geometry) -> Array:
    if len(parts) == 1 or rule.split == "blocks":
        fused = np.concatenate(parts, axis=0)
    else:
        heads, kv_heads, head_dim = _known(geometry)
        rest = parts[0].shape[1:]
        if rule.split == "per-head":
            fused = np.stack([part.reshape(heads, head_dim, *rest) for part in parts], axis=1)
        else:
            blocks = [part.reshape(kv_heads, -1, head_dim, *rest) for part in parts]
            fused = np.concatenate(blocks, axis=1)
        fused = fused.reshape(-1, *rest)
    return fused.T if rule.layout == "in-out" else fused


def _known(geometry: Geometry) -> tuple[int, int, int]:
    if geometry.heads is None or geometry.kv_heads is None or geometry.head_dim is None:
        raise CheckpointError(
            "a fused attention tensor cannot be split without head counts: add the model's config.json"
        )
    return geometry.heads, geometry.kv_heads, geometry.head_dim
