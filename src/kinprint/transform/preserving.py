"""Changes of the weights that leave the model's function as it was.

Each is generated from the axis names of the family table. Sources: Zhu et al., Independence Tests for Language Models
(arXiv 2502.12292), appendix G, transformations T1 to T6; the gauges of attention: V/O by GL(head_dim) per key/value
head, Q/K by what commutes with rotary positions, one complex scalar per rotary pair and key/value head.

Signs, rotations and gain replacement need an RMSNorm: a LayerNorm subtracts the mean, which only permutations keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import PartKey
from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.transform.state import ModelState

Random = np.random.Generator

LOG_SCALE = 0.5
"""Standard deviation of the natural logarithm of drawn scales: most lie between 0.37 and 2.7."""


@dataclass(frozen=True, slots=True)
class Transform:
    """One function-preserving transformation.

    Attributes:
        name: What methods declare to ignore or notice.
        summary: What it does, in one line.
        obstacle: Why it would not preserve this model's function, or None where it does.
        apply: The transformed model; call only where ``obstacle`` is None.
    """

    name: str
    summary: str
    obstacle: Callable[[ModelState], str | None]
    apply: Callable[[ModelState, Random], ModelState]


def preserve(model: ModelState, names: Iterable[str], rng: Random) -> ModelState:
    """Apply transformations in order.

    Raises:
        UsageError: An unknown name, or a transformation that would change this model's function.
    """
    for name in names:
        if name not in PRESERVING:
            raise UsageError(f"unknown transformation {name!r}: choose from {', '.join(PRESERVING)}")
        transform = PRESERVING[name]
        if (reason := transform.obstacle(model)) is not None:
            raise UsageError(f"{name} would change this model: {reason}")
        model = transform.apply(model, rng)
    return model


# -- the residual stream -------------------------------------------------------------------------------------------


def _permute_residual(model: ModelState, rng: Random) -> ModelState:
    order = _reordering(rng, _length(model, "residual"))
    return model.mapped("residual", lambda array, position, _: np.take(array, order, axis=position))


def _sign_residual(model: ModelState, rng: Random) -> ModelState:
    signs = rng.choice([-1.0, 1.0], size=_length(model, "residual"))
    return model.mapped(
        "residual", lambda array, position, key: array if _is_gain(key) else _scale(array, signs, position)
    )


def _rotate_residual(model: ModelState, rng: Random) -> ModelState:
    """Fold every gain into its readers, then turn the stream by one random rotation."""
    model = model.untied()
    model = _exchange_gains(model, {norm: np.ones_like(model.parts[norm]) for norm in _stream_norms(model)})
    rotation = _orthogonal(rng, _length(model, "residual"))

    def turn(array: Array, position: int, key: PartKey) -> Array:
        if _is_gain(key):
            return array
        return np.moveaxis(np.tensordot(array, rotation, axes=(position, 0)), -1, position)

    return model.mapped("residual", turn)


def _replace_gains(model: ModelState, rng: Random) -> ModelState:
    model = model.untied()
    fresh: dict[PartKey, Array] = {}
    for norm in _stream_norms(model):
        size = model.parts[norm].size
        fresh[norm] = np.exp(LOG_SCALE * rng.standard_normal(size)) * rng.choice([-1.0, 1.0], size=size)
    return _exchange_gains(model, fresh)


def _exchange_gains(model: ModelState, fresh: Mapping[PartKey, Array]) -> ModelState:
    """Give norms new effective gains and let the matrices that read them make up for it."""
    shift = 1.0 if model.family.gain == "zero-centred" else 0.0
    changed: dict[PartKey, Array] = {norm: gain - shift for norm, gain in fresh.items()}
    for key in model.parts:
        norm = model.reads(key)
        if norm is not None and norm in fresh:
            changed[key] = model.parts[key] * (model.gain(norm) / fresh[norm])
    return model.updated(changed)


# -- the MLP -------------------------------------------------------------------------------------------------------


def _permute_units(model: ModelState, rng: Random) -> ModelState:
    for axis in _unit_axes(model):
        order = _reordering(rng, _length(model, axis))
        model = model.mapped(axis, lambda array, position, _, order=order: np.take(array, order, axis=position))
    return model


def _rescale_units(model: ModelState, rng: Random) -> ModelState:
    for axis in _unit_axes(model):
        size = _length(model, axis)
        scales = np.exp(LOG_SCALE * rng.standard_normal(size)) * rng.choice([-1.0, 1.0], size=size)
        changed: dict[PartKey, Array] = {}
        for key, position in model.along(axis):
            role = key.role.removesuffix(".bias").rsplit(".", maxsplit=1)[-1]
            if role == "up":
                changed[key] = _scale(model.parts[key], scales, position)
            elif role == "down":
                changed[key] = _scale(model.parts[key], 1.0 / scales, position)
        model = model.updated(changed)
    return model


def _permute_experts(model: ModelState, rng: Random) -> ModelState:
    for axis in _axes_of_kind(model, "expert"):
        layer = int(axis.rsplit(".", maxsplit=1)[-1])
        order = _reordering(rng, _length(model, axis))
        model = model.mapped(axis, lambda array, position, _, order=order: np.take(array, order, axis=position))
        moved = {
            PartKey(key.role, layer, new): model.parts[PartKey(key.role, layer, int(old))]
            for key in model.parts
            if key.layer == layer and key.expert == 0
            for new, old in enumerate(order)
        }
        model = model.updated(moved)
    return model


# -- attention -----------------------------------------------------------------------------------------------------


def _permute_groups(model: ModelState, rng: Random) -> ModelState:
    heads, kv_heads, head_dim = _heads(model)
    for layer in _attention_layers(model):
        order = _reordering(rng, kv_heads)
        for kind in ("query", "context"):
            model = _reorder_blocks(model, f"{kind}.{layer}", order, heads // kv_heads * head_dim)
        for kind in ("key", "value"):
            model = _reorder_blocks(model, f"{kind}.{layer}", order, head_dim)
    return model


def _permute_heads_in_groups(model: ModelState, rng: Random) -> ModelState:
    heads, kv_heads, head_dim = _heads(model)
    group = heads // kv_heads
    for layer in _attention_layers(model):
        order: Array = np.concatenate([g * group + _reordering(rng, group) for g in range(kv_heads)])
        for kind in ("query", "context"):
            model = _reorder_blocks(model, f"{kind}.{layer}", order, head_dim)
    return model


def _mix_values(model: ModelState, rng: Random) -> ModelState:
    heads, kv_heads, head_dim = _heads(model)
    for layer in _attention_layers(model):
        mixes = [_general_linear(rng, head_dim) for _ in range(kv_heads)]
        undone = [np.linalg.inv(mix).T for mix in mixes for _ in range(heads // kv_heads)]
        model = _turn_blocks(model, f"value.{layer}", mixes)
        model = _turn_blocks(model, f"context.{layer}", undone)
    return model


def _mix_queries_and_keys(model: ModelState, rng: Random) -> ModelState:
    """Keys turned by G, queries by its inverse transpose, G being whatever positions and q/k norms allow."""
    heads, kv_heads, head_dim = _heads(model)
    for layer in _attention_layers(model):
        if PartKey("norm.q", layer) in model.parts:
            model = _rescale_normed(model, layer, rng)
            continue
        mixes = [_commuting(model, rng, head_dim) for _ in range(kv_heads)]
        undone = [np.linalg.inv(mix).T for mix in mixes for _ in range(heads // kv_heads)]
        model = _turn_blocks(model, f"key.{layer}", mixes)
        model = _turn_blocks(model, f"query.{layer}", undone)
    return model


def _rescale_normed(model: ModelState, layer: int, rng: Random) -> ModelState:
    """A q or k norm undoes any positive scale of what it normalises: one per head, or one in all.

    Exact but for the norm's epsilon: where q or k are hardly larger than it, as before training, the logits move.
    """
    changed: dict[PartKey, Array] = {}
    for side in ("q", "k"):
        matrix = PartKey(f"attn.{side}", layer)
        rows, block = model.parts[matrix].shape[0], model.parts[PartKey(f"norm.{side}", layer)].size
        drawn: Array = rng.standard_normal((int(rows) // int(block),))
        scales = np.repeat(np.exp(LOG_SCALE * drawn), block)
        for key in (matrix, PartKey(f"attn.{side}.bias", layer)):
            if key in model.parts:
                changed[key] = _scale(model.parts[key], scales, 0)
    return model.updated(changed)


def _commuting(model: ModelState, rng: Random, head_dim: int) -> Array:
    """Draw a matrix that commutes with the rotary turn of one head: a complex scalar per pair, GL on the rest."""
    turned = 0
    if model.family.positions == "rotary":
        turned = round(head_dim * model.geometry.rotary_share) // 2 * 2
    mix = np.zeros((head_dim, head_dim))
    mix[turned:, turned:] = _general_linear(rng, head_dim - turned)
    half = turned // 2
    scale = np.exp(LOG_SCALE * rng.standard_normal(half))
    angle = rng.uniform(0, 2 * np.pi, size=half)
    first, second = np.arange(half), np.arange(half) + half
    mix[first, first] = mix[second, second] = scale * np.cos(angle)
    mix[second, first] = scale * np.sin(angle)
    mix[first, second] = -scale * np.sin(angle)
    return mix


# -- pieces --------------------------------------------------------------------------------------------------------


def _is_gain(key: PartKey) -> bool:
    return key.role.startswith("norm.") and not key.role.endswith(".bias")


def _length(model: ModelState, axis: str) -> int:
    key, position = next(iter(model.along(axis)))
    return model.parts[key].shape[position]


def _scale(array: Array, scales: Array, position: int) -> Array:
    return array * (scales[:, None] if array.ndim == 2 and position == 0 else scales)


def _axes_of_kind(model: ModelState, *kinds: str) -> list[str]:
    return [axis for axis in model.axis_names() if axis.split(".", maxsplit=1)[0] in kinds]


def _unit_axes(model: ModelState) -> list[str]:
    return _axes_of_kind(model, "ffn", "expert-ffn", "shared-ffn")


def _attention_layers(model: ModelState) -> list[int]:
    return sorted({key.layer for key in model.parts if key.role == "attn.q" and key.layer is not None})


def _heads(model: ModelState) -> tuple[int, int, int]:
    geometry = model.geometry
    if geometry.heads is None or geometry.kv_heads is None or geometry.head_dim is None:
        raise UsageError("this model's head geometry is unknown: add its config.json")
    return geometry.heads, geometry.kv_heads, geometry.head_dim


def _stream_norms(model: ModelState) -> list[PartKey]:
    """Norms whose gain can be handed to the matrices that read them."""
    return sorted({norm for key in model.parts if (norm := model.reads(key)) is not None}, key=str)


def _reorder_blocks(model: ModelState, axis: str, order: Array, block: int) -> ModelState:
    rows = (order[:, None] * block + np.arange(block)).reshape(-1)
    return model.mapped(axis, lambda array, position, _: np.take(array, rows, axis=position))


def _turn_blocks(model: ModelState, axis: str, mixes: list[Array]) -> ModelState:
    """Multiply block b of an axis by ``mixes[b]``: new block = mix @ old block."""

    def turn(array: Array, position: int, _: PartKey) -> Array:
        moved = np.moveaxis(array, position, 0)
        blocks = moved.reshape(len(mixes), -1, *moved.shape[1:])
        turned = np.stack([np.tensordot(mix, block, axes=(1, 0)) for mix, block in zip(mixes, blocks, strict=True)])
        return np.moveaxis(turned.reshape(moved.shape), 0, position)

    return model.mapped(axis, turn)


def _reordering(rng: Random, size: int) -> Array:
    """Draw a permutation that moves something, where there are two things to move."""
    order = rng.permutation(size)
    while size > 1 and np.array_equal(order, np.arange(size)):
        order = rng.permutation(size)
    return order


def _orthogonal(rng: Random, size: int) -> Array:
    """Draw a rotation uniformly (Haar): QR of a Gaussian matrix with the signs of R's diagonal undone."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diagonal(r)))


def _general_linear(rng: Random, size: int) -> Array:
    """Draw an invertible matrix whose singular values are log-normal."""
    scales = np.exp(LOG_SCALE * rng.standard_normal(size))
    return (_orthogonal(rng, size) * scales) @ _orthogonal(rng, size)


# -- what stands in the way ----------------------------------------------------------------------------------------


def _nothing(_: ModelState) -> str | None:
    return None


def _needs_rms(model: ModelState) -> str | None:
    return None if model.family.norm == "rms" else "its norms subtract the mean (LayerNorm)"


def _needs_free_gains(model: ModelState) -> str | None:
    if model.family.norm != "rms":
        return "its norms subtract the mean (LayerNorm)"
    return None if _stream_norms(model) else "no norm gain can be handed to the matrices that read it"


def _needs_prenorm(model: ModelState) -> str | None:
    if (reason := _needs_free_gains(model)) is not None:
        return reason
    if model.family.placement != "pre":
        return "its norms act on what blocks add to the stream, coordinate by coordinate"
    model = model.untied()  # as the rotation does first: the final gain then has a reader
    folded = set(_stream_norms(model))
    for key, _ in model.along("residual"):
        if _is_gain(key) and key not in folded:
            return f"the gain {key} has no reader to be folded into"
    return None


def _needs_gate(model: ModelState) -> str | None:
    return None if model.family.ffn == "gated" else "its MLP has no gate, and the activation is not homogeneous"


def _needs_experts(model: ModelState) -> str | None:
    return None if _axes_of_kind(model, "expert") else "it has no experts"


def _needs_shared_keys(model: ModelState) -> str | None:
    return None if (model.geometry.group or 1) > 1 else "no two query heads share a key/value head"


PRESERVING: Mapping[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform("residual-permutation", "one permutation of the residual stream (T1)", _nothing, _permute_residual),
        Transform("residual-signs", "one sign for each residual coordinate (T1)", _needs_rms, _sign_residual),
        Transform(
            "residual-rotation", "one rotation of the stream, gains folded (T3)", _needs_prenorm, _rotate_residual
        ),
        Transform(
            "norm-gain-replacement", "new norm gains, readers make up for them (T5)", _needs_free_gains, _replace_gains
        ),
        Transform(
            "ffn-permutation", "a permutation of the units of each MLP and expert (T2)", _nothing, _permute_units
        ),
        Transform(
            "ffn-rescaling", "up rows scaled, down columns unscaled, signs included (T6)", _needs_gate, _rescale_units
        ),
        Transform(
            "kv-group-permutation", "key/value heads with their query heads reordered", _nothing, _permute_groups
        ),
        Transform(
            "query-head-permutation",
            "query heads reordered inside their group",
            _needs_shared_keys,
            _permute_heads_in_groups,
        ),
        Transform("vo-gauge", "values mixed by GL(head_dim) per key/value head, undone in o", _nothing, _mix_values),
        Transform(
            "qk-gauge",
            "keys and queries mixed by all that positions and q/k norms allow (T4)",
            _nothing,
            _mix_queries_and_keys,
        ),
        Transform("expert-permutation", "experts reordered with their router rows", _needs_experts, _permute_experts),
    )
}
"""Every function-preserving transformation, by name."""
