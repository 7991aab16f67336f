"""From a recipe's sizes to an untrained model: config and tokenizer."""

from __future__ import annotations

from typing import Any

from kinprint.zoo.model import Model, as_json
from kinprint.zoo.recipes import Form, Shape
from kinprint.zoo.train import byte_tokenizer

_CLASSES: dict[Form, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "mixtral": "MixtralForCausalLM",
}


def untrained(shape: Shape) -> Model:
    """Return a model of some sizes without weights."""
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.context}
    files = {"tokenizer.json": as_json(byte_tokenizer()), "tokenizer_config.json": as_json(tokenizer_config)}
    return Model(config(shape), {}, files)


def config(shape: Shape) -> dict[str, Any]:
    """Return what ``config.json`` says of a model: one that transformers loads."""
    common = {
        "architectures": [_CLASSES[shape.form]],
        "model_type": shape.form,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "torch_dtype": "bfloat16",
    }
    if shape.form == "gpt2":
        return common | {
            "n_embd": shape.hidden,
            "n_layer": shape.layers,
            "n_head": shape.heads,
            "n_inner": shape.ffn,
            "n_positions": shape.context,
            "layer_norm_epsilon": shape.norm_eps,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    common |= {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
    }
    if shape.form == "gpt_neox":
        return common | {"layer_norm_eps": shape.norm_eps, "rotary_pct": 0.25, "hidden_act": "gelu"}
    common |= {
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    if shape.form == "mixtral":
        common |= {"num_local_experts": shape.experts, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01}
    return common
