"""Sizes of published models, for checkpoints that have their shape and little else: data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

FP8_BLOCK = 128
"""Rows and columns that share a scale, as transformers' FineGrainedFP8 has it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides names and shapes of all tensors of a decoder of Llama's form.

    Attributes:
        name: Name in :data:`SHAPES`.
        model_type: transformers' name of the architecture: ``llama``, ``mistral``, ``qwen2``, ``glm4_moe`` or
            ``deepseek_v3``.
        hidden: Residual coordinates.
        layers: Layers. A layer that predicts a further token is left out.
        heads: Query heads.
        kv_heads: Key/value heads.
        head_dim: Coordinates of a head; with latents, of its keys before the rotated ones, and of its values.
        intermediate: Units of a dense MLP.
        vocab: Rows of the embedding.
        experts: Routed experts of a mixture layer; 0 in a dense model.
        expert_intermediate: Units of one expert.
        experts_per_token: Experts that one token is routed to.
        shared_experts: Experts that all tokens pass through, stored as one wide one.
        first_dense: Layers before the first mixture.
        qkv_bias: Whether queries, keys and values have biases.
        tied: Whether the output matrix is the embedding.
        norm_eps: Constant of the RMS norms.
        rope_theta: Base of the rotary frequencies.
        rotary: Share of a head's coordinates that is rotated.
        context: Longest sequence that the config claims.
        query_latent: Coordinates that queries are made from, where attention is latent; 0 where it is not.
        key_latent: Coordinates that keys and values are made from.
        rotary_dim: Rotated coordinates that each latent query head has besides; one key of as many serves all heads.
    """

    name: str
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    experts: int = 0
    expert_intermediate: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    first_dense: int = 0
    qkv_bias: bool = False
    tied: bool = False
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rotary: float = 1.0
    context: int = 8192
    query_latent: int = 0
    key_latent: int = 0
    rotary_dim: int = 0

    def is_mixture(self, layer: int) -> bool:
        """Tell whether a layer has experts."""
        return self.experts > 0 and layer >= self.first_dense


_GLM_AIR = Shape(
    name="glm-4.5-air",
    model_type="glm4_moe",
    hidden=4096,
    layers=46,
    heads=96,
    kv_heads=8,
    head_dim=128,
    intermediate=10_944,
    vocab=151_552,
    experts=128,
    expert_intermediate=1408,
    experts_per_token=8,
    shared_experts=1,
    first_dense=1,
    qkv_bias=True,
    rope_theta=1e6,
    rotary=0.5,
    context=131_072,
)

_LLAMA_8B = Shape(
    name="llama-3-8b",
    model_type="llama",
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=14_336,
    vocab=128_256,
    rope_theta=500_000.0,
)

_DEEPSEEK_V3 = Shape(
    name="deepseek-v3",
    model_type="deepseek_v3",
    hidden=7168,
    layers=61,
    heads=128,
    kv_heads=128,
    head_dim=128,
    intermediate=18_432,
    vocab=129_280,
    experts=256,
    expert_intermediate=2048,
    experts_per_token=8,
    shared_experts=1,
    first_dense=3,
    norm_eps=1e-6,
    context=163_840,
    query_latent=1536,
    key_latent=512,
    rotary_dim=64,
)

_TINY_MIXTURE = Shape(
    name="tiny-moe",
    model_type="glm4_moe",
    hidden=128,
    layers=5,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate=320,
    vocab=256,
    experts=6,
    expert_intermediate=128,
    experts_per_token=2,
    shared_experts=1,
    first_dense=1,
    qkv_bias=True,
    rotary=0.5,
    context=128,
)


_TINY_LATENT = replace(
    _TINY_MIXTURE,
    name="tiny-latent",
    model_type="deepseek_v3",
    kv_heads=4,
    qkv_bias=False,
    rotary=1.0,
    query_latent=48,
    key_latent=40,
    rotary_dim=16,
)


def _dense(shape: Shape, name: str) -> Shape:
    """Return the shape whose MLPs a mixture can be upcycled from. Of dense architectures, Qwen2's has the biases."""
    return replace(
        shape,
        name=name,
        model_type="qwen2",
        experts=0,
        expert_intermediate=0,
        experts_per_token=0,
        shared_experts=0,
        first_dense=0,
        rotary=1.0,
    )


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            _GLM_AIR,
            _dense(_GLM_AIR, "glm-4.5-air-dense"),
            _LLAMA_8B,
            replace(_LLAMA_8B, name="llama-3-70b", hidden=8192, layers=80, heads=64, intermediate=28_672),
            replace(_LLAMA_8B, name="mistral-7b", model_type="mistral", vocab=32_768, rope_theta=1e6, context=32_768),
            replace(
                _LLAMA_8B,
                name="llama-65b",
                hidden=8192,
                layers=80,
                heads=64,
                kv_heads=64,
                intermediate=22_016,
                vocab=32_000,
                rope_theta=10_000.0,
                context=2048,
            ),
            _DEEPSEEK_V3,
            _TINY_MIXTURE,
            _TINY_LATENT,
            _dense(_TINY_MIXTURE, "tiny-dense"),
        )
    }
)
"""Every shape by name.

Sources: the config.json of zai-org/GLM-4.5-Air, meta-llama/Meta-Llama-3-8B and -70B, mistralai/Mistral-7B-v0.3 and
deepseek-ai/DeepSeek-V3; for ``llama-65b``, LLaMA (arXiv 2302.13971), table 2.
``glm-4.5-air-dense`` is no published model: GLM-4.5-Air with the MLP of its first layer in every layer.
"""

_CLASSES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}


def config(shape: Shape, *, fp8: bool) -> dict[str, Any]:
    """Return what transformers writes to ``config.json`` for a shape."""
    found: dict[str, Any] = {
        "architectures": [_CLASSES[shape.model_type]],
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        # Of latent attention, transformers calls that the rotated part of a head.
        "head_dim": shape.rotary_dim or shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "model_type": shape.model_type,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_parameters": {
            "rope_theta": shape.rope_theta,
            "rope_type": "default",
            **({"partial_rotary_factor": shape.rotary} if shape.rotary < 1 else {}),
        },
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "vocab_size": shape.vocab,
    }
    if shape.model_type == "llama":
        found |= {"attention_bias": shape.qkv_bias, "mlp_bias": False}
    if shape.model_type == "mistral":
        found |= {"sliding_window": None}
    if shape.query_latent:
        found |= {
            "kv_lora_rank": shape.key_latent,
            "q_lora_rank": shape.query_latent,
            "qk_nope_head_dim": shape.head_dim,
            "qk_rope_head_dim": shape.rotary_dim,
            "v_head_dim": shape.head_dim,
        }
    if shape.experts:
        found |= {
            "attention_bias": shape.qkv_bias,
            "first_k_dense_replace": shape.first_dense,
            "moe_intermediate_size": shape.expert_intermediate,
            "n_group": 1,
            "n_routed_experts": shape.experts,
            "n_shared_experts": shape.shared_experts,
            "norm_topk_prob": True,
            "num_experts_per_tok": shape.experts_per_token,
            "num_nextn_predict_layers": 0,
            "routed_scaling_factor": 1.0,
            "topk_group": 1,
        }
    if shape.model_type == "glm4_moe":
        found |= {"use_qk_norm": False}
    if fp8:
        found["quantization_config"] = {
            "activation_scheme": "dynamic",
            "modules_to_not_convert": ["lm_head"],
            "quant_method": "fp8",
            "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
        }
    return found
