"""Checkpoints whose names say nothing, with the roles that their tensors really play."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

from handmade import Headers

from kinprint.architecture import Family, view
from kinprint.architecture.family import skeleton
from kinprint.architecture.inference import infer, inferred_names
from kinprint.architecture.lexicon import Names
from kinprint.checkpoint import TensorInfo

Shapes = Mapping[str, tuple[int, ...]]
Where = tuple[str, int | None, int | None]
"""A role, its layer and its expert."""

_MATRICES = ("attn.", "cross.", "mlp.", "moe.", "embed.token", "unembed")


def headers(shapes: Shapes) -> dict[str, TensorInfo]:
    """Headers of float tensors of these shapes, in this order."""
    return {name: TensorInfo(name, "BF16", shape, 0, "none") for name, shape in shapes.items()}


def by_skeleton(names: Shapes | Mapping[str, TensorInfo]) -> Names:
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name in names:
        text, numbers = skeleton(name)
        found.setdefault(text, []).append((name, numbers))
    return found


def read(shapes: Shapes, config: Mapping[str, Any] | None = None) -> Family | None:
    """What shapes and repetition say of tensors."""
    return infer(by_skeleton(shapes), headers(shapes), config or {})


def nonsense(name: str, salt: str = "") -> str:
    """The name with another word for each of its words, the same for the same word; numbers stay."""
    words = re.split(r"([.])", name)
    return "".join(word if word == "." or word.isdigit() else f"w{_hash(word, salt)}" for word in words)


def _hash(word: str, salt: str) -> str:
    return "".join(chr(97 + byte % 26) for byte in hashlib.sha256((salt + word).encode()).digest()[:8])


def scrambled(shapes: Shapes, salt: str = "") -> dict[str, tuple[int, ...]]:
    return {nonsense(name, salt): shape for name, shape in shapes.items()}


def roles(family: Family | None, shapes: Shapes) -> dict[str, tuple[Where, ...]]:
    """Role, layer and expert of the parts of every tensor, as the rules have them."""
    found: dict[str, tuple[Where, ...]] = {}
    if family is None:
        return found
    names = by_skeleton(shapes)
    for rule in family.tensor:
        text, _ = skeleton(re.sub(r"\{(?:layer|expert)\}", "0", rule.name))
        for name, numbers in names.get(text, ()):
            at = rule.numbers(numbers)
            if at is None or (rule.layers and at.get("layer") not in rule.layers):
                continue
            assert name not in found, f"{name} has two rules"
            found[name] = tuple((part.role, at.get("layer"), at.get("expert")) for part in rule.parts)
    return found


def transformers_shapes(model: str, config: str, **settings: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Names and shapes of a transformers model, in the order of its state dict, and its config."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        made = getattr(transformers, config)(**settings)
        with torch.device("meta"):
            module = getattr(transformers, model)(made)
        shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        if made.tie_word_embeddings:
            for name in ("lm_head.weight", "cls.predictions.decoder.weight"):
                shapes.pop(name, None)
        return shapes, made.to_dict()


def truth(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, set[Where]]:
    """Roles of matrices as a family table has them."""
    found: dict[str, set[Where]] = {}
    for key, place in view(Headers(shapes, config)).parts.items():
        if key.role.startswith(_MATRICES) and key.role != "unembed.bias":
            found.setdefault(place.tensor, set()).add((key.role, key.layer, None if place.rule.stacked else key.expert))
    return found


def matrices(found: dict[str, tuple[Where, ...]]) -> dict[str, set[Where]]:
    """Of these roles those that :func:`truth` compares."""
    kept = {name: {where for where in parts if where[0].startswith(_MATRICES)} for name, parts in found.items()}
    return {name: parts for name, parts in kept.items() if parts}


def unscrambled(shapes: Shapes, config: Mapping[str, Any] | None = None) -> dict[str, tuple[Where, ...]]:
    """Roles of tensors by their true names, found without them."""
    back = {nonsense(name): name for name in shapes}
    hidden = scrambled(shapes)
    return {back[name]: parts for name, parts in roles(read(hidden, config), hidden).items()}


def unnumbered(shapes: Shapes) -> dict[str, tuple[Where, ...]] | None:
    """The same, with nothing in the names but their order in the file."""
    names = {f"t_{at}": name for at, name in enumerate(shapes)}
    hidden = dict(zip(names, shapes.values(), strict=True))
    renamed = inferred_names(by_skeleton(hidden), headers(hidden))
    if renamed is None:
        return None
    back = {new: names[old] for old, new in renamed.items()}
    seen = {new: hidden[old] for old, new in renamed.items()}
    return {back[name]: parts for name, parts in roles(read(seen), seen).items()}


def family_of(shapes: Shapes) -> Family:
    family = read(shapes)
    assert family is not None
    return family


def torch_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    from torch import nn

    if kind == "encoder":
        module = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(24, 4, 40, batch_first=True), 3, enable_nested_tensor=False
        )
    else:
        module = nn.Transformer(24, 4, 2, 3, 40, batch_first=True)
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def fairseq_shapes() -> dict[str, tuple[int, ...]]:
    at = "encoder.sentence_encoder."
    shapes: dict[str, tuple[int, ...]] = {f"{at}embed_tokens.weight": (50, 24), f"{at}embed_positions.weight": (18, 24)}
    for layer in range(3):
        for name, rows, columns in (
            *((f"self_attn.{name}_proj", 24, 24) for name in ("k", "v", "q", "out")),
            ("self_attn_layer_norm", 24, 0),
            ("fc1", 40, 24),
            ("fc2", 24, 40),
            ("final_layer_norm", 24, 0),
        ):
            shapes[f"{at}layers.{layer}.{name}.weight"] = (rows, columns) if columns else (rows,)
            shapes[f"{at}layers.{layer}.{name}.bias"] = (rows,)
    shapes |= {f"{at}emb_layer_norm.weight": (24,), f"{at}emb_layer_norm.bias": (24,)}
    return shapes | {"encoder.lm_head.weight": (50, 24), "encoder.lm_head.bias": (50,)}
