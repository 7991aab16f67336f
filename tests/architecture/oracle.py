"""Tiny random transformers models that say themselves what their queries, keys, values and MLPs are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kinprint.checkpoint import MemoryCheckpoint

SIZES = {
    "vocab_size": 41,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
WIDE_HEADS = {**GROUPED, "head_dim": 8}
SPARSE = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 10}


@dataclass(frozen=True)
class Case:
    """What transformers calls a model, its settings, and the family that kinprint must see in it."""

    family: str
    model: str
    config: str
    settings: Mapping[str, Any]
    act: str


CASES: dict[str, Case] = {
    "llama": Case(
        "llama", "LlamaForCausalLM", "LlamaConfig", {**GROUPED, "attention_bias": True, "mlp_bias": True}, "silu"
    ),
    "mistral": Case("llama", "MistralForCausalLM", "MistralConfig", WIDE_HEADS, "silu"),
    "qwen2": Case("llama", "Qwen2ForCausalLM", "Qwen2Config", GROUPED, "silu"),
    "qwen3": Case("llama", "Qwen3ForCausalLM", "Qwen3Config", WIDE_HEADS, "silu"),
    "gemma": Case("gemma", "GemmaForCausalLM", "GemmaConfig", WIDE_HEADS, "gelu_pytorch_tanh"),
    "gemma2": Case("gemma2", "Gemma2ForCausalLM", "Gemma2Config", WIDE_HEADS, "gelu_pytorch_tanh"),
    "gemma3": Case("gemma2", "Gemma3ForCausalLM", "Gemma3TextConfig", WIDE_HEADS, "gelu_pytorch_tanh"),
    "olmo2": Case("olmo2", "Olmo2ForCausalLM", "Olmo2Config", GROUPED, "silu"),
    "exaone4": Case("exaone4", "Exaone4ForCausalLM", "Exaone4Config", GROUPED, "silu"),
    "gpt2": Case(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 41, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16},
        "gelu_new",
    ),
    "gpt_bigcode": Case(
        "gpt_bigcode",
        "GPTBigCodeForCausalLM",
        "GPTBigCodeConfig",
        {"vocab_size": 41, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16, "multi_query": True},
        "gelu_pytorch_tanh",
    ),
    "gpt_neox": Case("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", SIZES, "gelu"),
    "bert": Case("bert", "BertModel", "BertConfig", SIZES, "gelu"),
    "bert-mlm": Case("bert", "BertForMaskedLM", "BertConfig", SIZES, "gelu"),
    "bert-pretraining": Case("bert", "BertForPreTraining", "BertConfig", SIZES, "gelu"),
    "bert-classifier": Case("bert", "BertForSequenceClassification", "BertConfig", SIZES, "gelu"),
    "mixtral": Case("mixtral", "MixtralForCausalLM", "MixtralConfig", {**GROUPED, "num_local_experts": 4}, "silu"),
    "qwen2_moe": Case(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**SPARSE, "shared_expert_intermediate_size": 12, "mlp_only_layers": [0]},
        "silu",
    ),
    "qwen3_moe": Case(
        "qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**SPARSE, "head_dim": 8, "mlp_only_layers": [1]}, "silu"
    ),
    "olmoe": Case(
        "olmoe", "OlmoeForCausalLM", "OlmoeConfig", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2}, "silu"
    ),
    "glm4_moe": Case(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        "Glm4MoeConfig",
        {
            **SPARSE,
            "head_dim": 8,
            "n_routed_experts": 4,
            "first_k_dense_replace": 1,
            "attention_bias": True,
            "use_qk_norm": True,
        },
        "silu",
    ),
}


@dataclass
class Run:
    """One token through one model, in float64.

    Attributes:
        module: The model.
        checkpoint: Its state dict.
        inputs: What each named submodule was given, [features].
        outputs: What it returned, [features].
        attention: Query, key and value of each layer as attention takes them, [heads, head_dim]. The token stands at
            position 0, where rotary positions turn nothing.
    """

    case: Case
    module: Any
    checkpoint: MemoryCheckpoint
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    attention: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


def run(name: str, **changed: Any) -> Run:
    """Build a model with random gains and biases, some settings changed, and send one token through it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and transformers are not this package's
        import torch
        import transformers
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        torch.set_num_threads(1)
        torch.manual_seed(11)
        case = CASES[name]
        config = getattr(transformers, case.config)(**{**case.settings, **changed})
        module = getattr(transformers, case.model)(config).double().eval()
        with torch.no_grad():
            for tensor in module.parameters():
                tensor.add_(0.3 * torch.randn_like(tensor))
        arrays = {key: value.numpy().copy() for key, value in module.state_dict().items()}
        if config.tie_word_embeddings:
            arrays.pop("lm_head.weight", None)  # tied: a checkpoint holds it once
        result = Run(case, module, MemoryCheckpoint(arrays, config=config.to_dict()))

        def record(path: str) -> Any:
            def hook(_: Any, given: Any, returned: Any) -> None:
                for kept, value in ((result.inputs, given), (result.outputs, returned)):
                    tensor = value[0] if isinstance(value, tuple) and value else value
                    if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                        kept[path] = tensor.reshape(-1, tensor.shape[-1])[0].numpy()

            return hook

        def attend(_: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
            result.attention.append(tuple(part[0, :, 0].numpy() for part in (query, key, value)))
            return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None

        ALL_ATTENTION_FUNCTIONS.register("recorded", attend)
        module.set_attn_implementation("recorded")
        module.set_experts_implementation("eager")  # the grouped kernel takes no float64
        for path, part in module.named_modules():
            part.register_forward_hook(record(path))
        with torch.no_grad():
            module(torch.tensor([[7]]))
    return result


def activation(name: str, values: np.ndarray) -> np.ndarray:
    """Apply one of transformers' activations."""
    import torch
    from transformers.activations import ACT2FN

    return ACT2FN[name](torch.from_numpy(np.array(values))).numpy()


def saved(module: Any, folder: Any, config: Mapping[str, Any]) -> MemoryCheckpoint:
    """Return what save_pretrained writes, with the names that it restores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from safetensors.numpy import load_file

        module.save_pretrained(folder)
        return MemoryCheckpoint(load_file(folder / "model.safetensors"), config=config)
