"""Layers dropped, repeated and reordered; coordinates, MLP units and heads dropped. Generated from the family tables.

Which layers and coordinates go is the caller's choice; ``strongest_*`` choose by magnitude. Sources: dropping whole
layers, Men et al., ShortGPT (arXiv 2403.03853), section 3; repeating them, Kim et al., SOLAR 10.7B (arXiv 2312.15166),
section 2; one set of residual coordinates for the whole model and whole MLP units and heads, Xia et al., Sheared LLaMA
(arXiv 2310.06694), section 2.1, who learn the choice that is made by magnitude here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kinprint.architecture import PartKey
from kinprint.architecture.family import Size
from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.shapes import Float
from kinprint.transform.sizes import entry, resized, size_in_config, with_entry
from kinprint.transform.state import ModelState

_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Config entries with one value per layer."""

_UNITS: Mapping[str, Size | None] = {"ffn": "ffn", "expert-ffn": "expert_ffn", "shared-ffn": None}
"""Axes that count units of an MLP, with the size that the tables know them by."""

_SHARED_UNITS = "shared_expert_intermediate_size"

# -- depth ---------------------------------------------------------------------------------------------------------


def with_layers(model: ModelState, order: Sequence[int]) -> ModelState:
    """Return a model whose layer i is the old layer ``order[i]``: a cut, an up-scaling or a reordering.

    The config's number of layers and its lists by layer follow.

    Raises:
        UsageError: No layer is left, one does not exist, or the config cannot say which layers are mixtures.
    """
    depth = model.geometry.layers or 0
    if not order or not all(0 <= layer < depth for layer in order):
        named = "+".join(str(layer) for layer in order) or "none"
        raise UsageError(f"cannot lay out layers {named} of a model with {depth}: name some from 0 to {depth - 1}")
    claimed = size_in_config(model, "layers")
    if claimed is not None and claimed != depth:
        raise UsageError(
            f"cannot lay out the layers of a model that stores {depth} and whose config says {claimed}: the others "
            "predict further tokens"
        )
    parts = {key: array for key, array in model.parts.items() if key.layer is None}
    for new, old in enumerate(order):
        parts |= {replace(key, layer=new): array for key, array in model.parts.items() if key.layer == old}
    changed = replace(model, parts=parts, extra=_extra(model, order))
    return _layers_in_config(resized(changed, {"layers": len(order)}), order, depth)


def _extra(model: ModelState, order: Sequence[int]) -> dict[str, Array]:
    """Return the tensors that are no parameters, those of a layer under its new number."""
    heads = {rule.name.partition("{layer}")[0] for rule in model.family.tensor if "{layer}" in rule.name}
    stems = sorted(head.replace("{p}", model.prefix) for head in heads)
    moved: dict[str, Array] = {}
    for name, array in model.extra.items():
        stem = next((stem for stem in stems if name.startswith(stem)), "")
        number, dot, rest = name.removeprefix(stem).partition(".")
        if stem and dot and number.isdecimal():
            moved |= {f"{stem}{new}.{rest}": array for new, old in enumerate(order) if old == int(number)}
        else:
            moved[name] = array
    return moved


def _layers_in_config(model: ModelState, order: Sequence[int], depth: int) -> ModelState:
    for key in _PER_LAYER:
        values: Any = entry(model, key)
        if values is not None and len(values) == depth:
            model = with_entry(model, key, [values[layer] for layer in order])
    dense = [layer for layer in range(len(order)) if PartKey("moe.router", layer) not in model.parts]
    if entry(model, "decoder_sparse_step") is not None:
        model = with_entry(with_entry(model, "decoder_sparse_step", 1), "mlp_only_layers", dense)
    if entry(model, "first_k_dense_replace") is not None:
        if dense != list(range(len(dense))):
            raise UsageError(
                f"cannot lay out layers {'+'.join(map(str, order))}: this form has its layers without experts first"
            )
        model = with_entry(model, "first_k_dense_replace", len(dense))
    return model


# -- width ---------------------------------------------------------------------------------------------------------


def with_residual(model: ModelState, kept: Sequence[int]) -> ModelState:
    """Return a model with some coordinates of its residual stream, the same everywhere; heads keep their size.

    Raises:
        UsageError: The family has no head size of its own, so a narrower stream would mean smaller heads.
    """
    head_dim = _own_head_dim(model, "the residual stream")
    model = _taken(model, "residual", kept, 1)
    return resized(model, {"hidden": len(kept), "head_dim": head_dim})


def with_units(model: ModelState, kept: Mapping[str, Sequence[int]]) -> ModelState:
    """Return a model with some units of its MLPs and experts.

    Args:
        model: The model.
        kept: For every axis of units (``ffn.3``, ``expert-ffn.3.0``, ``shared-ffn.3``) which ones stay; as many in
            each of a kind, for a config has one size.

    Raises:
        UsageError: An axis is missing, or two of a kind would have different lengths.
    """
    if set(kept) != set(unit_axes(model)):
        raise UsageError(f"cannot cut MLP units: say for each of {', '.join(unit_axes(model))} which ones stay")
    for kind, size in _UNITS.items():
        counts = {len(kept[axis]) for axis in kept if axis.split(".", maxsplit=1)[0] == kind}
        if len(counts) > 1:
            raise UsageError(f"cannot keep {min(counts)} {kind} units in one layer and {max(counts)} in another")
        for number in counts:
            if size is not None:
                model = resized(model, {size: number})
            elif entry(model, _SHARED_UNITS) is not None:
                model = with_entry(model, _SHARED_UNITS, number)
    for axis, units in kept.items():
        model = _taken(model, axis, units, 1)
    found = {len(units) for axis, units in kept.items() if axis.startswith(("ffn.", "expert-ffn."))}
    return replace(model, geometry=replace(model.geometry, ffn=found.pop() if len(found) == 1 else model.geometry.ffn))


def with_groups(model: ModelState, kept: Mapping[int, Sequence[int]]) -> ModelState:
    """Return a model with some of its key/value heads, each with the query heads that share it.

    Args:
        model: The model.
        kept: For every layer which key/value heads stay; as many in each.

    Raises:
        UsageError: Layers differ, one is missing, or this form's heads cannot be cut by themselves.
    """
    heads, kv_heads, head_dim = model.geometry.heads, model.geometry.kv_heads, _own_head_dim(model, "heads")
    if heads is None or kv_heads is None:
        raise UsageError("cannot cut heads: this model's head geometry is unknown: add its config.json")
    if any(key.role == "norm.q" and not model.axes(key)[0].startswith("head") for key in model.parts):
        raise UsageError("cannot cut heads: one q or k norm runs over all of them, and those that stay would change")
    counts = {len(groups) for groups in kept.values()}
    if set(kept) != set(attention_layers(model)) or len(counts) != 1:
        raise UsageError("cannot cut heads: say for every layer which key/value heads stay, as many in each")
    for layer, groups in kept.items():
        for kind in ("query", "context"):
            model = _taken(model, f"{kind}.{layer}", groups, heads // kv_heads * head_dim)
        for kind in ("key", "value"):
            model = _taken(model, f"{kind}.{layer}", groups, head_dim)
    count = counts.pop()
    return resized(model, {"heads": count * (heads // kv_heads), "kv_heads": count, "head_dim": head_dim})


def _own_head_dim(model: ModelState, what: str) -> int:
    """Return the head size of a form whose config can say it, whatever the width and the number of heads."""
    head_dim = model.geometry.head_dim
    if head_dim is None or not model.family.geometry.get("head_dim"):
        raise UsageError(
            f"cannot cut {what} of a {model.family.name} model: the size of its heads is its width over their number"
        )
    return head_dim


def _taken(model: ModelState, axis: str, blocks: Sequence[int], block: int) -> ModelState:
    rows = (np.asarray(blocks, dtype=np.int64)[:, None] * block + np.arange(block)).reshape(-1)
    return model.mapped(axis, lambda array, position, _: np.take(array, rows, axis=position))


# -- what to keep --------------------------------------------------------------------------------------------------


def strongest_residual(model: ModelState, keep: float) -> list[int]:
    """Return the residual coordinates with the largest norm over all tensors, in order.

    Args:
        model: The model.
        keep: Share that stays, rounded down to whole coordinates.
    """
    return _strongest(energy(model, "residual"), keep, "coordinates of the residual stream")


def strongest_units(model: ModelState, keep: float) -> dict[str, list[int]]:
    """Return for every axis of units the ones with the largest norm over all their weights; see `with_units`."""
    return {axis: _strongest(energy(model, axis), keep, f"units along {axis}") for axis in unit_axes(model)}


def strongest_groups(model: ModelState, keep: float) -> dict[int, list[int]]:
    """Return for every layer the key/value heads with the largest norm, their query heads' weights included."""
    groups = model.geometry.kv_heads or 1
    return {
        layer: _strongest(
            np.sum([energy(model, f"{kind}.{layer}", groups) for kind in ("query", "key", "value", "context")], axis=0),
            keep,
            "key/value heads",
        )
        for layer in attention_layers(model)
    }


def energy(model: ModelState, axis: str, blocks: int | None = None) -> Float[np.ndarray, " K"]:
    """Return the sum of squares of all weights that belong to each coordinate of an axis, or to each block of them."""
    found: list[Array] = []
    for key, position in model.along(axis):
        moved = np.moveaxis(model.parts[key], position, 0)
        found.append(np.square(moved).reshape(blocks or moved.shape[0], -1).sum(axis=1))
    return np.sum(found, axis=0)


def unit_axes(model: ModelState) -> list[str]:
    """Return every axis of MLP units."""
    return [axis for axis in model.axis_names() if axis.split(".", maxsplit=1)[0] in _UNITS]


def attention_layers(model: ModelState) -> list[int]:
    """Return the layers that have queries."""
    return sorted({key.layer for key in model.parts if key.role == "attn.q" and key.layer is not None})


def _strongest(energies: Float[np.ndarray, " K"], keep: float, what: str) -> list[int]:
    # 1e-9: 0.29 * 100 is 28.999..., and 29 are meant.
    count = max(1, math.floor(keep * energies.size + 1e-9))
    if count >= energies.size:
        raise UsageError(f"keeping {keep:g} of {energies.size} {what} cuts nothing: lower keep")
    return sorted(int(index) for index in np.argsort(-energies, kind="stable")[:count])
