"""Tiny random models of several families, instantiated by transformers, with their logits."""

from __future__ import annotations

import numpy as np

from kinprint.architecture import ModelView
from kinprint.checkpoint import MemoryCheckpoint

COMMON = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "rms_norm_eps": 1e-9}
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 16}),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "olmo2": ("Olmo2", GROUPED),
    "gpt2": ("GPT2", {"vocab_size": 48, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}),
    "gpt_neox": ("GPTNeoX", {**COMMON, "rotary_pct": 0.5, "hidden_act": "gelu"}),
    "mixtral": ("Mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            **GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "decoder_sparse_step": 1,
        },
    ),
}


class Model:
    """A tiny transformers model whose gains and biases are random, so that nothing hides behind a one or a zero."""

    def __init__(self, kind: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        torch.manual_seed(7)
        name, settings = KINDS[kind]
        self.config = getattr(transformers, f"{name}Config")(**settings, attn_implementation="eager")
        self.config._experts_implementation = "eager"  # the grouped kernel takes no float64
        architecture = {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
        self.build = getattr(transformers, architecture)
        self.module = self.build(self.config).double().eval()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        arrays = {key: value.numpy() for key, value in self.module.state_dict().items()}
        if self.config.tie_word_embeddings:
            arrays.pop("lm_head.weight")
        self.checkpoint = MemoryCheckpoint(arrays, config=self.config.to_dict())

    def logits(self, model: ModelView) -> np.ndarray:
        """Load a view's tensors into a fresh module and run it."""
        import torch

        config = self.config.__class__(**{**self.config.to_dict(), "tie_word_embeddings": model.tied})
        config._experts_implementation = "eager"
        module = self.build(config).double().eval()
        tensors = {name: torch.from_numpy(np.array(model.checkpoint.read(name))) for name in model.checkpoint.tensors}
        missing = module.load_state_dict(tensors, strict=False)
        assert not missing.unexpected_keys
        assert set(missing.missing_keys) <= {"lm_head.weight"}
        tokens = torch.from_numpy(np.random.default_rng(3).integers(0, 48, size=(2, 12)))
        with torch.no_grad():
            return module(tokens).logits.numpy()
