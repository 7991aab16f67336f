"""Where each layer of a model truly comes from: worked out from the recipes in the manifest, for judging layer maps.

A recipe's step that moves layers is run again as it is, on a model whose layers carry their numbers. Where a step's
order cannot be known from the settings (layers chosen by a measurement, or an order drawn after draws that only the
whole model repeats), the order is read from the stored weights: a layer comes from the one layer of the parent with
which it shares a tensor bit for bit. Where that is not possible either, the truth is not known, and nothing is judged.

A merge has its parent's order. Weights of a packaged model come from nowhere that a recipe tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinprint.architecture import ModelView, PartKey, view
from kinprint.checkpoint import Array, open_checkpoint
from kinprint.zoo import corpus
from kinprint.zoo.derive import Chain
from kinprint.zoo.kinds import Context, Step
from kinprint.zoo.manifest import Manifest, ModelEntry
from kinprint.zoo.model import Model

Order = tuple[int, ...]
"""For each layer of a model the number of the layer that it comes from."""

MEASURED_ORDERS = ("depth-cut-shortgpt",)
"""Kinds that move layers by what they measure."""

DRAWN_ORDERS = ("reorder-blocks",)
"""Kinds that move layers by a draw, unless their settings name an order."""

NAMED_ORDERS = ("depth-cut", "depth-upscale")
"""Kinds that move layers by their settings alone."""

DRAWS_NOTHING = (
    *NAMED_ORDERS,
    *("width-cut-residual", "width-cut-ffn", "width-cut-heads"),
    *("prune-magnitude", "quantise", "vocab-cut", "resave"),
)
"""Kinds after which the next draw is still the recipe's first."""


class Lineage:
    """Orders of all models of a zoo, each worked out once and only if asked for."""

    def __init__(self, manifest: Manifest, zoo: Path) -> None:
        """Work nothing out yet.

        Args:
            manifest: Of the zoo.
            zoo: Its folder.
        """
        self._entries = {entry.name: entry for entry in manifest.models}
        self._zoo = zoo
        self._found: dict[str, tuple[str, Order] | None] = {}

    def true_layers(self, suspect: str, base: str) -> tuple[Order, ...] | None:
        """Return for each layer of a suspect the layers of a base with the same origin.

        None where the recipes do not tell, or the models have no origin in common.
        """
        mine, theirs = self.order(suspect), self.order(base)
        if mine is None or theirs is None or mine[0] != theirs[0] or not mine[1]:
            return None
        return tuple(tuple(at for at, there in enumerate(theirs[1]) if there == here) for here in mine[1])

    def order(self, name: str) -> tuple[str, Order] | None:
        """Return the model in which a model's layers began, and which layer of that each of them is."""
        if name not in self._found:
            self._found[name] = self._order(self._entries[name])
        return self._found[name]

    def _order(self, entry: ModelEntry) -> tuple[str, Order] | None:
        depth = self._view(entry).geometry.layers or 0
        kinds, seed = entry.settings.get("kinds"), entry.settings.get("seed")
        if entry.kind != "derived" or entry.parent is None:
            return entry.name, tuple(range(depth))
        assert isinstance(kinds, list)
        assert isinstance(seed, int)
        chain = Chain.parse(str(kind) for kind in kinds)
        if not chain.keeps_weights:
            return entry.name, tuple(range(depth))
        before = self.order(entry.parent)
        if before is None:
            return None
        parent = self._view(self._entries[entry.parent])
        moved = recipe_order(chain, seed, len(before[1])) or order_by_bits(self._view(entry), parent)
        if moved is None or len(moved) != depth:
            return None
        return before[0], tuple(before[1][layer] for layer in moved)

    def _view(self, entry: ModelEntry) -> ModelView:
        folder = self._zoo / entry.name
        return view(open_checkpoint(folder / entry.weights_file if entry.kind == "packaged" else folder))


def recipe_order(chain: Chain, seed: int, depth: int) -> Order | None:
    """Return which of a parent's layers stands at each place after a recipe, or None where the settings do not tell.

    Args:
        chain: The recipe's steps.
        seed: Of all that it draws.
        depth: Layers of the parent.

    Example:
        >>> recipe_order(Chain.parse(["heal:steps=10", "depth-upscale"]), 0, 4)
        (0, 1, 2, 1, 2, 3)
    """
    rng, drawn, order = np.random.default_rng(seed), False, tuple(range(depth))
    for step in chain.steps:
        name = step.kind.name
        draws = name in DRAWN_ORDERS and not getattr(step.settings, "order", ())
        if name in MEASURED_ORDERS or (draws and drawn):
            return None
        if name in NAMED_ORDERS or name in DRAWN_ORDERS:
            order = _moved(step, order, rng)
        drawn = drawn or name not in DRAWS_NOTHING
    return order


def _moved(step: Step, order: Order, rng: np.random.Generator) -> Order:
    """Run one step on a model whose layers carry the numbers in ``order``."""
    context = Context(rng=rng, text=lambda name: corpus.load(name).content, model=_nobody, tell=lambda _, __: None)
    after = step.kind.apply(_numbered(order), step.settings, context).state()
    return tuple(int(after.parts[PartKey("norm.attn", layer)][0]) for layer in range(after.geometry.layers or 0))


def _nobody(name: str) -> Model:
    raise LookupError(name)  # no step that moves layers uses another model


def _numbered(order: Sequence[int]) -> Model:
    """Return the smallest Llama with as many layers, the gains of each of which are its number."""
    twos = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "head_dim"), 2)
    ones = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), 1)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": len(order),
        **twos,
        **ones,
    }
    square: Array = np.zeros((2, 2), np.float32)
    weights = {"model.embed_tokens.weight": square, "lm_head.weight": square, "model.norm.weight": square[0]}
    matrices = (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
    for place, number in enumerate(order):
        stem = f"model.layers.{place}"
        weights |= {f"{stem}.{name}.weight": square for name in matrices}
        weights |= {f"{stem}.input_layernorm.weight": np.full(2, number, np.float32)}
        weights |= {f"{stem}.post_attention_layernorm.weight": square[0]}
    return Model(config, weights, {})


def order_by_bits(child: ModelView, parent: ModelView) -> Order | None:
    """Return which layer of a parent each layer of a child shares a tensor with, bit for bit.

    None where a layer shares one with none of the parent's, or with several. Constant tensors say nothing.
    """
    there: dict[tuple[str, int | None, bytes], set[int]] = {}
    for key, layer, content in _layered(parent):
        there.setdefault((*key, content), set()).add(layer)
    found: dict[int, set[int]] = {layer: set() for _, layer, _ in _layered(child)}
    for key, layer, content in _layered(child):
        found[layer] |= there.get((*key, content), set())
    if not found or any(len(partners) != 1 for partners in found.values()):
        return None
    return tuple(next(iter(found[layer])) for layer in sorted(found))


def _layered(model: ModelView) -> list[tuple[tuple[str, int | None], int, bytes]]:
    rows: list[tuple[tuple[str, int | None], int, bytes]] = []
    for key in model.parts:
        if key.layer is not None:
            stored = np.ascontiguousarray(model.stored(key.role, key.layer, key.expert))
            if stored.size > 1 and (stored != stored.flat[0]).any():
                content = hashlib.sha256(stored.tobytes()).digest()
                rows.append(((key.role, key.expert), key.layer, content))
    return rows
