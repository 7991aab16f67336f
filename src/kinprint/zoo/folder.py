"""One model's folder in the usual Hugging Face layout: weights, config, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kinprint.checkpoint import Array, MemoryCheckpoint, open_checkpoint, write_safetensors
from kinprint.errors import UsageError
from kinprint.zoo.recipes import Shape

WEIGHTS_FILE = "model.safetensors"


def config(shape: Shape) -> dict[str, Any]:
    """Return what ``config.json`` says of a model: a Llama config that transformers loads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "torch_dtype": "bfloat16",
    }


def byte_tokenizer() -> dict[str, Any]:
    """Return a ``tokenizer.json`` that maps every byte to its own value: byte-level BPE without a merge."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: byte for byte, token in enumerate(_byte_characters())},
            "merges": [],
        },
    }


def rounded(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights rounded to bf16 (nearest, ties to even), which is how they are stored."""
    return {name: array.astype(ml_dtypes.bfloat16) for name, array in weights.items()}


def write(folder: Path, stored: Mapping[str, Array], shape: Shape) -> Path:
    """Write a model's files, the weights last, and return the weights' path.

    Raises:
        UsageError: They cannot be written.
    """
    write_settings(folder, shape)
    weights = folder / WEIGHTS_FILE
    try:
        write_safetensors(weights, stored)
    except OSError as error:
        raise UsageError(f"cannot write {weights}: {error.strerror}: choose another folder") from error
    return weights


def write_settings(folder: Path, shape: Shape) -> None:
    """Write config and tokenizer, which follow from the shape alone.

    Raises:
        UsageError: They cannot be written.
    """
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.context}
    put(folder / "config.json", _json(config(shape)))
    put(folder / "tokenizer.json", _json(byte_tokenizer()))
    put(folder / "tokenizer_config.json", _json(tokenizer_config))


def read(folder: Path) -> dict[str, Array]:
    """Return a model's stored tensors as float32.

    Raises:
        CheckpointError: They cannot be read.
    """
    stored = open_checkpoint(folder)
    return {name: stored.read(name).astype(np.float32) for name in stored.tensors}


def content_digest(stored: Mapping[str, Array]) -> str:
    """Return the digest that ``kinprint inspect`` and ``compare`` give the same tensors."""
    return MemoryCheckpoint(stored).content_digest


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a file that already says the same is left alone.

    Raises:
        UsageError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}: choose another folder") from error


def _byte_characters() -> list[str]:
    """Return the printable character that byte-level BPE writes for each byte (GPT-2's ``bytes_to_unicode``)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
