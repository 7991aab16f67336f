"""Every causal language model of the installed transformers, tiny and random."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "hidden_size_global", "n_embd", "d_model", "word_embed_proj_dim", "dim_model", "emb_dim"), 32
    ),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), 20),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 16,
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dim_ff", "n_inner", "dff"), 40),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 40),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "moe_k"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 24),
    "shared_expert_intermediate_size": 28,
    "moe_shared_expert_intermediate_size": 28,
    "first_k_dense_replace": 1,
    "q_lora_rank": 14,
    "kv_lora_rank": 10,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    **dict.fromkeys(("n_group", "topk_group"), 1),
    "vocab_size": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("mamba_d_state", "state_size"), 8),
    "d_kv": 8,
    **dict.fromkeys(("embed_dim",), 32),
    "layers": 4,
    "attention_heads": 4,
    **dict.fromkeys(("ffn_hidden_size",), 40),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("mamba_head_dim", "mamba_d_head"), 16),
    "mamba_d_ssm": 64,
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups"), 2),
    **dict.fromkeys(("linear_num_key_heads", "index_n_heads"), 2),
    "linear_num_value_heads": 4,
    **dict.fromkeys(("linear_key_head_dim", "index_head_dim"), 8),
    "linear_value_head_dim": 12,
    **dict.fromkeys(("pronunciation_vocab_size", "shape_vocab_size"), 30),
    **dict.fromkeys(("pronunciation_embed_dim",), 10),
    **dict.fromkeys(("shape_embed_dim",), 14),
    "depth": 2,
    **dict.fromkeys(("swa_num_attention_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("swa_num_key_value_heads",), 2),
    **dict.fromkeys(("swa_head_dim", "global_head_dim"), 20),
    **dict.fromkeys(("rel_extent",), 9),
    "unpadded_vocab_size": 96,
    "linear_head_dim": 12,
    **dict.fromkeys(("zero_expert_num",), 1),
    **dict.fromkeys(("shared_intermediate_size", "shared_experts_intermediate_size"), 28),
    **dict.fromkeys(("dense_intermediate_size", "d_inner"), 36),
    "router_hidden_size": 18,
    "rotary_dim": 8,
    **dict.fromkeys(("hidden_size_per_layer_input",), 12),
    **dict.fromkeys(("vocab_size_per_layer_input",), 96),
    "laurel_rank": 6,
    "backbone_hidden_size": 32,
    "encoder_hash_byte_group_vocab": 50,
    "dim_head": 16,
    "num_kv_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
"""What a config is made small by. Sizes that could be taken for each other differ."""

LAYERS = 4

SPECIAL: dict[str, dict[str, Any]] = {
    "BailingHybridForCausalLM": {"n_group": 1, "topk_group": 1},
    "BigBirdForCausalLM": {"attention_type": "original_full"},
    "BltForCausalLM": {f"{part}_config": {"head_dim": 8} for part in ("patcher", "encoder", "decoder", "global")},
    "BambaForCausalLM": {"attn_layer_indices": [1, 3]},
    "CohereCompassForCausalLM": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "DbrxForCausalLM": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "DeepseekV4ForCausalLM": {"head_dim": 16, "num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 6},
    "Dots1ForCausalLM": {"n_shared_experts": 1},
    "Dots3NoteForCausalLM": {
        "num_key_value_heads": 4,
        "head_dim": 12,
        "swa_num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_q_lora_rank": 14,
        "swa_kv_lora_rank": 10,
        "swa_head_dim": 12,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 6,
    },
    "DoryForCausalLM": {
        "num_hidden_layers": 8,
        "n_input_layers": 2,
        "n_output_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 4,
    },
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 2]]},
    "Gemma3nForCausalLM": {"num_kv_shared_layers": 2},
    "Gemma3nForConditionalGeneration": {"text_config": {"num_kv_shared_layers": 2}},
    "Gemma4AssistantForCausalLM": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "GraniteMoeHybridForCausalLM": {"layer_types": ["mamba", "attention"] * 2},
    "HeliumForCausalLM": {"head_dim": 8},
    "JambaForCausalLM": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"] * 2},
    "LongcatFlashForCausalLM": {"head_dim": 4},
    "Mistral4ForCausalLM": {
        "head_dim": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        },
    },
    "ProphetNetForCausalLM": {"num_decoder_layers": 4},
    "Qwen4ExpForCausalLM": {
        **dict.fromkeys(("indexer_n_heads",), 2),
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "ReformerModelWithLMHead": {"is_decoder": True, "axial_pos_embds_dim": [12, 20], "axial_pos_shape": [8, 8]},
    "XmodForCausalLM": {"default_language": "en_XX"},
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
    "xLSTMForCausalLM": {"head_dim": 8},
}
"""What single classes need besides; a table is for a nested config."""


def classes() -> list[str]:
    """Return every class that transformers names a causal model or loads as one, sorted."""
    return sorted(_homes())


def _homes() -> dict[str, str]:
    """Return the module that defines each class."""
    transformers = library("transformers")
    loaded = library("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    found: dict[str, str] = {}
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        home = f"transformers.models.{path.parent.name}.{path.stem}"
        text = path.read_text(encoding="utf-8")
        found |= dict.fromkeys(re.findall(r"^class (\w+ForCausalLM)\(", text, re.MULTILINE), home)
    found.pop("AutoModelForCausalLM", None)  # it only looks the others up
    for names in loaded.values():
        for name in (names,) if isinstance(names, str) else names:
            if name not in found:
                found[name] = getattr(transformers, name).__module__
    return found


def library(name: str) -> Any:
    """Import torch, transformers or a part of them, whose types are not this package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def build(name: str, *, seed: int = 11, disturbed: bool = True) -> tuple[Any, Any]:
    """Return one class, tiny and with random parameters, and its config.

    ``disturbed`` adds noise to every parameter, so that gains and biases are no ones and zeros.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and transformers are not this package's
        torch = library("torch")
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        made = getattr(importlib.import_module(_homes()[name]), name)
        config = _config(made.config_class, SPECIAL.get(name, {}))
        with _without_missing_towers():
            module = made._from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for tensor in module.parameters():
                if (
                    disturbed and tensor.requires_grad
                ):  # else the waves of fixed positions, which must stay what they are
                    tensor.add_(0.3 * torch.randn_like(tensor))
    return module, config


@contextmanager
def _without_missing_towers() -> Generator[None]:
    """Leave out a tower for images whose package is not installed: the language model behind it is what matters."""
    nothing, automatic = library("torch").nn.Identity, library("transformers").AutoModel
    make = automatic.from_config

    def instead(*given: Any, **named: Any) -> Any:
        try:
            return make(*given, **named)
        except ImportError:
            return nothing()

    with patch.object(automatic, "from_config", instead):
        yield


def _config(config_class: Any, special: dict[str, Any]) -> Any:
    return config_class(**_settings(config_class, special))


def _settings(config_class: Any, special: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that make a config small, with those of its nested configs."""
    # Some defaults contradict themselves and need their nested table said.
    default = config_class(**{key: value for key, value in special.items() if key in config_class.sub_configs})
    chosen: dict[str, Any] = {}
    known = default.to_dict()
    for key, value in SIZES.items():
        if key == "head_dim" and "qk_rope_head_dim" in known:
            continue  # there it is one of the others
        if key in known and not isinstance(getattr(config_class, key, None), property):
            chosen[key] = [value] * LAYERS if isinstance(known[key], list | tuple) else value
    if "vocab_size_per_layer_input" in known or str(known.get("model_type")).startswith("gemma4"):
        chosen["global_head_dim"] = SIZES["global_head_dim"]  # Gemma 4 takes it and keeps it by layer
    chosen |= _kinds(default, known)
    for key in config_class.sub_configs:
        nested = getattr(default, key, None)
        if nested is None:
            continue
        chosen[key] = {"model_type": nested.model_type, **_settings(type(nested), special.get(key, {}))}
    return {
        **special,
        **chosen,
        **{key: value for key, value in special.items() if not isinstance(chosen.get(key), dict)},
    }


def _kinds(default: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Return the kinds of the layers, so that each kind of the default config occurs."""
    found: dict[str, Any] = {}
    for key in ("layer_types", "mlp_layer_types", "layers_block_type"):
        kinds: list[str] = known.get(key) or []
        if kinds and not isinstance(getattr(default.__class__, key, None), property):
            each = list(dict.fromkeys(kinds))
            found[key] = (each * LAYERS)[:LAYERS]
    return found
