"""One model, written in every way that people store models; rounding is to the nearest value unless said otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quantize

from checkpoint import packed
from checkpoint.packed import Array
from kinprint.checkpoint import open_checkpoint, write_safetensors
from kinprint.checkpoint.quantised.steps import NF4_LEVELS

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG: dict[str, Any] = json.loads((EXAMPLES / "base" / "config.json").read_text())
GROUP = 32
FP8 = ml_dtypes.float8_e4m3fn

Tensors = Mapping[str, Array]


def model(name: str = "base") -> dict[str, Array]:
    """A shipped model in float32, which holds its bf16 exactly."""
    stored = open_checkpoint(EXAMPLES / name)
    return {tensor: np.array(stored.read(tensor)).astype(np.float32) for tensor in stored.tensors}


# -- formats that change no value beyond its dtype ---------------------------------------------------------------------


def bf16(tensors: Tensors) -> dict[str, Array]:
    return {name: values.astype(ml_dtypes.bfloat16) for name, values in tensors.items()}


def in_shards(tensors: Tensors, folder: Path) -> None:
    total = sum(values.size for values in tensors.values())
    files = write_safetensors(folder, bf16(tensors), config=CONFIG, shard_bytes=total * 2 // 3)
    assert [file.name for file in files][-2:] == ["model-00004-of-00004.safetensors", "model.safetensors.index.json"]


def in_torch(tensors: Tensors, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    folder.mkdir()
    state = {name: torch.from_numpy(values).bfloat16() for name, values in tensors.items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))


def in_npz(tensors: Tensors, folder: Path) -> None:
    folder.mkdir()
    np.savez(folder / "model.npz", **tensors)  # pyright: ignore[reportArgumentType]
    (folder / "config.json").write_text(json.dumps(CONFIG))


def in_gguf(tensors: Tensors, folder: Path, *, kind: str, split: int = 0) -> None:
    """As llama.cpp converts: its names, the rows of q and k in its order, norms in float32."""
    folder.mkdir()
    leaves = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    writer = GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=split)
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(heads := CONFIG["num_attention_heads"])
    writer.add_head_count_kv(kv_heads := CONFIG["num_key_value_heads"])
    for name, values in tensors.items():
        stem = name.removesuffix(".weight")
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
        called = f"blk.{match[1]}.{leaves[match[2]]}" if match else whole[stem]
        if called.endswith(("attn_q", "attn_k")):
            stored = in_gguf_order(values, heads if called.endswith("q") else kv_heads)
        else:
            stored = values
        if kind == "F16" and values.ndim > 1:
            writer.add_tensor(f"{called}.weight", stored.astype(np.float16))
        elif values.ndim > 1:
            quantisation = GGMLQuantizationType[kind]
            writer.add_tensor(f"{called}.weight", quantize(stored, quantisation), raw_dtype=quantisation)
        else:
            writer.add_tensor(f"{called}.weight", stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_gguf_order(weight_MN: Array, heads: int) -> Array:
    """Rows of q or k with the two halves of each head interleaved."""
    rows, columns = weight_MN.shape
    halves: Array = weight_MN.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


# -- formats that round: from a matrix to what is stored in its place --------------------------------------------------

Packer = Callable[[Array], dict[str, Array]]


def gptq(
    weight_MN: Array, *, version: int = 1, order: bool = False, change: Callable[[Array, Array], Array] | None = None
) -> dict[str, Array]:
    index_N: Array = np.arange(weight_MN.shape[1], dtype=np.int64) // GROUP
    index_N = np.random.default_rng(0).permutation(index_N) if order else index_N
    zeros_GM, scales_GM = asymmetric(weight_MN, index_N)
    scales_MN, zeros_MN = scales_GM.astype(np.float32).T[:, index_N], zeros_GM.T[:, index_N]
    changed_MN = weight_MN if change is None else change(weight_MN, scales_MN)
    codes_MN: Array = np.clip(np.round(changed_MN / scales_MN) + zeros_MN, 0, 15).astype(int)
    return {
        "qweight": packed.stream(codes_MN, 4).T.copy(),
        "qzeros": packed.stream(zeros_GM - (1 if version == 1 else 0), 4),
        "scales": scales_GM,
        "g_idx": index_N.astype(np.int32),
    }


def asymmetric(weight_MN: Array, index_N: Array) -> tuple[Array, Array]:
    """Zero points and scales [groups, rows] of 16 equal steps from the smallest to the largest value of a group."""
    groups = [weight_MN[:, index_N == group] for group in range(index_N.max() + 1)]
    low_GM, high_GM = (np.array([end(group, axis=1) for group in groups]) for end in (np.min, np.max))
    scales_GM = ((np.maximum(high_GM, 0) - np.minimum(low_GM, 0)) / 15).astype(np.float16)
    # The first version of GPTQ has no zero point of 0.
    return np.clip(np.round(-low_GM / scales_GM.astype(np.float32)), 1, 15).astype(int), scales_GM


def awq(weight_MN: Array) -> dict[str, Array]:
    index_N: Array = np.arange(weight_MN.shape[1], dtype=np.int64) // GROUP
    zeros_GM, scales_GM = asymmetric(weight_MN, index_N)
    codes_MN: Array = np.round(weight_MN / scales_GM.astype(np.float32).T[:, index_N]) + zeros_GM.T[:, index_N]
    order = [8 * (place // 8) + packed.AWQ_ORDER[place % 8] for place in range(weight_MN.shape[0])]
    return {
        "qweight": packed.stream(np.clip(codes_MN, 0, 15).astype(int).T[:, order], 4),
        "qzeros": packed.stream(zeros_GM[:, order], 4),
        "scales": scales_GM,
    }


def int8(weight_MN: Array) -> dict[str, Array]:
    largest_M: Array = np.abs(weight_MN).max(axis=1)
    codes_MN: Array = np.round(weight_MN * (127 / largest_M[:, None]))
    return {"weight": codes_MN.astype(np.int8), "SCB": largest_M}


def nf4(weight_MN: Array) -> dict[str, Array]:
    levels = np.array(NF4_LEVELS, np.float32)
    blocks_KB = weight_MN.reshape(-1, 64)
    largest_K = np.abs(blocks_KB).max(axis=1)
    codes = np.abs((blocks_KB / largest_K[:, None]).reshape(-1, 1) - levels).argmin(axis=1)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight_MN.shape)}
    return {
        "weight": packed.halves(codes, high_first=True)[:, None],
        "weight.quant_map": levels,
        "weight.absmax": largest_K,
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }


def int4(weight_MN: Array) -> dict[str, Array]:
    blocks_MGB: Array = weight_MN.reshape(weight_MN.shape[0], -1, GROUP)
    scales_MG: Array = (np.abs(blocks_MGB).max(axis=2) / 7.5).astype(ml_dtypes.bfloat16)
    codes_MGB: Array = np.clip(np.round(blocks_MGB / scales_MG.astype(np.float32)[..., None]), -8, 7).astype(int) + 8
    return {
        "weight_packed": packed.stream(codes_MGB.reshape(weight_MN.shape), 4),
        "weight_shape": np.array(weight_MN.shape, np.int64),
        "weight_scale": scales_MG,
    }


def fp8_rows(weight_MN: Array) -> dict[str, Array]:
    scales_M1 = (np.abs(weight_MN).max(axis=1, keepdims=True) / 448).astype(ml_dtypes.bfloat16)
    return {"weight": (weight_MN / scales_M1.astype(np.float32)).clip(-448, 448).astype(FP8), "weight_scale": scales_M1}


def fp8_blocks(weight_MN: Array) -> dict[str, Array]:
    scales = np.array([[np.abs(part).max() / 448 for part in tiles(half, 1)] for half in tiles(weight_MN, 0)])
    wide_MN = np.repeat(np.repeat(scales, 128, 0), 128, 1)[: weight_MN.shape[0], : weight_MN.shape[1]]
    return {"weight": (weight_MN / wide_MN).astype(FP8), "weight_scale_inv": scales.astype(np.float32)}


def tiles(values: Array, axis: int) -> list[Array]:
    return np.split(values, range(128, values.shape[axis], 128), axis=axis)


def nvfp4(weight_MN: Array) -> dict[str, Array]:
    blocks_MGB: Array = weight_MN.reshape(weight_MN.shape[0], -1, 16)
    overall = np.float32(np.abs(weight_MN).max() / 6 / 448)
    scales_MG: Array = (np.abs(blocks_MGB).max(axis=2) / 6 / overall).astype(FP8)
    shares_MGB = blocks_MGB / (scales_MG.astype(np.float32) * overall)[..., None]
    codes_MGB = np.abs(shares_MGB[..., None] - np.array(packed.E2M1)).argmin(axis=-1)
    return {
        "weight": packed.halves(codes_MGB.reshape(weight_MN.shape)),
        "weight_scale": scales_MG,
        "weight_scale_2": np.array(overall),
    }


def mlx(weight_MN: Array) -> dict[str, Array]:
    blocks_MGB: Array = weight_MN.reshape(weight_MN.shape[0], -1, GROUP)
    low_MG: Array = blocks_MGB.min(axis=2).astype(np.float16)
    step_MG: Array = ((blocks_MGB.max(axis=2) - low_MG) / 15).astype(np.float16)
    codes_MGB: Array = np.round((blocks_MGB - low_MG[..., None]) / step_MG.astype(np.float32)[..., None]).clip(0, 15)
    words = packed.stream(codes_MGB.reshape(weight_MN.shape).astype(int), 4).view(np.uint32)
    return {"weight": words, "scales": step_MG, "biases": low_MG}


def in_packed(
    tensors: Tensors, folder: Path, *, pack: Packer, settings: Mapping[str, Any], key: str = "quantization_config"
) -> None:
    """Every matrix of the layers packed, and all others in bf16."""
    folder.mkdir()
    stored = bf16(tensors)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        del stored[name]
        prefix = name.removesuffix("weight")
        stored |= {prefix + leaf: np.ascontiguousarray(values) for leaf, values in pack(tensors[name]).items()}
    (folder / "model.safetensors").write_bytes(packed.safetensors_of(stored))
    (folder / "config.json").write_text(json.dumps({**CONFIG, key: dict(settings)}))


# -- all of them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A way to store a model: how it is written, and what the command calls its relation to the bf16 original."""

    write: Callable[[Tensors, Path], None]
    relation: str = "requantised"
    dtype: str = "BF16"


def quantised(pack: Packer, dtype: str, key: str = "quantization_config", **settings: Any) -> Stored:
    return Stored(partial(in_packed, pack=pack, settings=settings, key=key), dtype=dtype)


GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
V2 = {**GPTQ, "checkpoint_format": "gptq_v2"}
INT4 = {"a": {"weights": {"num_bits": 4, "type": "int", "group_size": GROUP, "strategy": "group", "symmetric": True}}}
FORMATS = {
    "safetensors in shards": Stored(in_shards, "same"),
    "torch": Stored(in_torch, "same"),
    "npz": Stored(in_npz, "rounded", "F32"),
    "gguf f16": Stored(partial(in_gguf, kind="F16"), "rounded", "F16"),
    "gguf f16 split": Stored(partial(in_gguf, kind="F16", split=20), "rounded", "F16"),
    "gguf q8_0": Stored(partial(in_gguf, kind="Q8_0"), dtype="GGUF:Q8_0"),
    "gguf q4_0": Stored(partial(in_gguf, kind="Q4_0"), dtype="GGUF:Q4_0"),
    "gguf q4_0 split": Stored(partial(in_gguf, kind="Q4_0", split=20), dtype="GGUF:Q4_0"),
    "gptq": quantised(gptq, "GPTQ:4", **GPTQ, desc_act=False),
    "gptq in another order": quantised(partial(gptq, order=True), "GPTQ:4", **GPTQ, desc_act=True),
    "gptq v2": quantised(partial(gptq, version=2), "GPTQ:4", **V2, desc_act=False),
    "gptq v2 in another order": quantised(partial(gptq, version=2, order=True), "GPTQ:4", **V2, desc_act=True),
    "awq": quantised(awq, "AWQ:4", quant_method="awq", bits=4, group_size=GROUP, version="gemm", zero_point=True),
    "bitsandbytes int8": quantised(int8, "INT8:8", quant_method="bitsandbytes", load_in_8bit=True),
    "bitsandbytes nf4": quantised(nf4, "NF4:4", quant_method="bitsandbytes", load_in_4bit=True),
    "compressed-tensors int4": quantised(
        int4, "INT:4", quant_method="compressed-tensors", format="pack-quantized", config_groups=INT4
    ),
    "compressed-tensors fp8": quantised(fp8_rows, "FP8:8", quant_method="compressed-tensors", format="float-quantized"),
    "fp8 in blocks": quantised(fp8_blocks, "FP8:8", quant_method="fp8", weight_block_size=[128, 128]),
    "nvfp4": quantised(nvfp4, "NVFP4:4", quant_method="modelopt", quant_algo="NVFP4"),
    "mlx": quantised(mlx, "MLX:4", "quantization", bits=4, group_size=GROUP),
}  # fmt: skip


# -- quantisers that do not round to the nearest -----------------------------------------------------------------------


def noise(weight_MN: Array, scales_MN: Array) -> Array:
    """Two half-widths of the rounding, of either sign."""
    rng = np.random.default_rng(1)
    return np.asarray(weight_MN + scales_MN * rng.standard_normal(weight_MN.shape), np.float32)


def made_up_for(weight_MN: Array, scales_MN: Array) -> Array:
    """GPTQ itself (Frantar et al. 2022, arXiv:2210.17323, algorithm 1), on inputs that correlate.

    The grid is left where it is without a zero point: only where weights come to lie on it matters here.
    """
    rng = np.random.default_rng(2)
    count = weight_MN.shape[1]
    inputs_NS = rng.standard_normal((count, count // 4)) @ rng.standard_normal((count // 4, 512))
    second_NN: Array = inputs_NS @ inputs_NS.T
    second_NN += 0.01 * np.mean(np.diag(second_NN)) * np.eye(count)
    lower_NN: Array = np.linalg.cholesky(np.linalg.inv(np.asarray(second_NN, np.float64)))
    left_MN: Array = weight_MN.astype(np.float64)
    for at in range(count):
        scale_M = scales_MN[:, at]
        error_M: Array = (left_MN[:, at] - scale_M * np.round(left_MN[:, at] / scale_M)) / lower_NN[at, at]
        left_MN[:, at + 1 :] -= error_M[:, None] * lower_NN[at + 1 :, at]
    return left_MN.astype(np.float32)
