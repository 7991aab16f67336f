"""Checkpoints made by hand: names and shapes of published models, at a size for counting on fingers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kinprint.checkpoint import Array, Checkpoint, MemoryCheckpoint, TensorInfo

CONFIG = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}

Shapes = dict[str, tuple[int, ...]]


def llama_shapes(layers: int = 2, ffn: int = 12) -> Shapes:
    """Names and shapes: residual 8, vocabulary 10, 4 query heads and 2 key/value heads of 4."""
    shapes: Shapes = {"model.embed_tokens.weight": (10, 8), "lm_head.weight": (10, 8), "model.norm.weight": (8,)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (8,),
            f"{at}post_attention_layernorm.weight": (8,),
            f"{at}self_attn.q_proj.weight": (16, 8),
            f"{at}self_attn.k_proj.weight": (8, 8),
            f"{at}self_attn.v_proj.weight": (8, 8),
            f"{at}self_attn.o_proj.weight": (8, 16),
            f"{at}mlp.gate_proj.weight": (ffn, 8),
            f"{at}mlp.up_proj.weight": (ffn, 8),
            f"{at}mlp.down_proj.weight": (8, ffn),
        }
    return shapes


def moe_shapes(layers: int = 2, experts: int = 3) -> Shapes:
    """Qwen3-MoE, one tensor per expert."""
    shapes = {name: shape for name, shape in llama_shapes(layers).items() if ".mlp." not in name}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.q_norm.weight": (4,), f"{at}self_attn.k_norm.weight": (4,)}
        shapes[f"{at}mlp.gate.weight"] = (experts, 8)
        for expert in range(experts):
            shapes |= {
                f"{at}mlp.experts.{expert}.gate_proj.weight": (6, 8),
                f"{at}mlp.experts.{expert}.up_proj.weight": (6, 8),
                f"{at}mlp.experts.{expert}.down_proj.weight": (8, 6),
            }
    return shapes


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Array]:
    """Random float32 tensors of these shapes."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def llama(config: Mapping[str, Any] | None = None, **changed: Any) -> MemoryCheckpoint:
    """A Llama; ``changed`` goes to :func:`llama_shapes`."""
    return MemoryCheckpoint(filled(llama_shapes(**changed)), config=CONFIG if config is None else config)


class Headers(Checkpoint):
    """A checkpoint of headers alone: whoever reads a tensor fails."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], dtype: str = "BF16") -> None:
        self.name = self.location = "headers"
        self.format = "memory"
        self.config = config
        self.notes = ()
        self.tensors = {name: TensorInfo(name, dtype, shape, 0, "none") for name, shape in shapes.items()}

    def read(self, name: str, rows: slice | None = None) -> Array:
        raise AssertionError(f"{name} was read")

    def raw(self, name: str) -> memoryview:
        raise AssertionError(f"{name} was read")

    @property
    def vocabulary(self) -> None:
        return None


def without(shapes: Shapes, *words: str) -> Shapes:
    """Shapes whose names hold none of the words."""
    return dict(_kept(shapes, words))


def _kept(shapes: Shapes, words: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in shapes.items():
        if not any(word in name for word in words):
            yield name, shape
