"""Quantised modules put together integer by integer, with the values that they stand for.

The packing here is arithmetic on one large Python integer for each row, so that it shares nothing with the shifts that
the readers do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hostile import build
from kinprint.checkpoint import Checkpoint, MemoryCheckpoint, open_checkpoint
from kinprint.checkpoint.quantised import decoded

Array = np.ndarray[Any, np.dtype[Any]]

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NAMES = {"float8_e8m0fnu": "F8_E8M0", "float8_e4m3fn": "F8_E4M3", "bfloat16": "BF16"}


@dataclass
class Made:
    """Stored tensors, the config beside them, and what ``name`` decodes to."""

    tensors: dict[str, Array]
    values: Array
    quantization: dict[str, Any] | None = None
    name: str = "m.weight"
    key: str = "quantization_config"
    extra: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        return {**self.extra, **({self.key: self.quantization} if self.quantization is not None else {})}

    def open(self) -> Checkpoint:
        return decoded(MemoryCheckpoint(self.tensors, config=self.config()))

    def read(self, rows: slice | None = None) -> Array:
        return self.open().read(self.name, rows)


def saved(folder: Path, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Checkpoint:
    """A folder with one safetensors file, of any dtype, opened."""
    (folder / "model.safetensors").write_bytes(safetensors_of(tensors))
    (folder / "config.json").write_text(json.dumps(config))
    return decoded(open_checkpoint(folder))


def safetensors_of(tensors: Mapping[str, Array]) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        kind = array.dtype.name
        dtype = NAMES.get(kind) or kind.replace("uint", "U").replace("int", "I").replace("float", "F")
        header[name] = build.entry(dtype, array.shape, len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return build.safetensors(header, data)


def stream(values_MN: Array, bits: int) -> Array:
    """Pack rows into int32 words, lowest bits first, across words."""
    words = -(-values_MN.shape[1] * bits // 32)
    rows = [
        sum(int(value) << (bits * place) for place, value in enumerate(row)).to_bytes(4 * words, "little")
        for row in values_MN
    ]
    return np.frombuffer(b"".join(rows), "<i4").reshape(values_MN.shape[0], words)


def halves(values_MN: Array, *, high_first: bool = False) -> Array:
    """Pack two 4-bit codes into a byte."""
    pairs = values_MN.reshape(*values_MN.shape[:-1], -1, 2).astype(np.uint8)
    low, high = (1, 0) if high_first else (0, 1)
    return pairs[..., low] + 16 * pairs[..., high]


def scales(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float16) -> Array:
    return rng.uniform(0.5, 2.0, shape).astype(dtype)


def gptq(
    seed: int, rows: int, columns: int, *, bits: int = 4, group: int = 32, version: int = 1, order: bool = False
) -> Made:
    rng = np.random.default_rng(seed)
    groups = -(-columns // group)
    codes_MN = rng.integers(0, 1 << bits, (rows, columns))
    # The first version cannot store a zero point of 0 without spoiling its neighbours.
    zeros_GM = rng.integers(version % 2, 1 << bits, (groups, rows))
    scales_GM = scales(rng, (groups, rows))
    index_N = np.arange(columns) // group
    index_N = rng.permutation(index_N) if order else index_N
    tensors = {
        "m.qweight": stream(codes_MN, bits).T.copy(),
        "m.qzeros": stream(zeros_GM - (1 if version == 1 else 0), bits),
        "m.scales": scales_GM,
        "m.g_idx": index_N.astype(np.int32),
    }
    values = (codes_MN - zeros_GM.T[:, index_N]) * scales_GM.T.astype(np.float32)[:, index_N]
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": order}
    return Made(tensors, values.astype(np.float32), config | ({"checkpoint_format": "gptq_v2"} if version == 2 else {}))


def awq(seed: int, rows: int, columns: int, *, group: int = 32) -> Made:
    rng = np.random.default_rng(seed)
    groups = columns // group
    codes_MN = rng.integers(0, 16, (rows, columns))
    zeros_GM = rng.integers(0, 16, (groups, rows))
    scales_GM = scales(rng, (groups, rows))
    order = [8 * (place // 8) + AWQ_ORDER[place % 8] for place in range(rows)]
    tensors = {
        "m.qweight": stream(codes_MN.T[:, order], 4),
        "m.qzeros": stream(zeros_GM[:, order], 4),
        "m.scales": scales_GM,
    }
    index_N = np.arange(columns) // group
    values = (codes_MN - zeros_GM.T[:, index_N]) * scales_GM.T.astype(np.float32)[:, index_N]
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return Made(tensors, values.astype(np.float32), config)


def compressed(
    seed: int, rows: int, columns: int, *, bits: int = 4, group: int = 32, zeros: bool = False, order: bool = False
) -> Made:
    rng = np.random.default_rng(seed)
    groups = columns // group
    codes_MN = rng.integers(0, 1 << bits, (rows, columns))
    zeros_MG = rng.integers(0, 1 << bits, (rows, groups)) if zeros else np.full((rows, groups), 1 << (bits - 1))
    scales_MG = scales(rng, (rows, groups), ml_dtypes.bfloat16)
    index_N = np.arange(columns) // group
    index_N = rng.permutation(index_N) if order else index_N
    tensors = {
        "m.weight_packed": stream(codes_MN, bits),
        "m.weight_shape": np.array([rows, columns], np.int64),
        "m.weight_scale": scales_MG,
    }
    if zeros:
        tensors["m.weight_zero_point"] = stream(zeros_MG.T, bits).T.copy()
    if order:
        tensors["m.weight_g_idx"] = index_N.astype(np.int32)
    values = (codes_MN - zeros_MG[:, index_N]) * scales_MG.astype(np.float32)[:, index_N]
    weights = {"num_bits": bits, "type": "int", "group_size": group, "strategy": "group", "symmetric": not zeros}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    return Made(tensors, values.astype(np.float32), config)


def mlx(seed: int, shape: tuple[int, ...], *, bits: int = 4, group: int = 32) -> Made:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, shape)
    scale, bias = (scales(rng, (*shape[:-1], shape[-1] // group)) for _ in range(2))
    tensors = {
        "m.weight": stream(codes.reshape(-1, shape[-1]), bits).view(np.uint32).reshape(*shape[:-1], -1),
        "m.scales": scale,
        "m.biases": bias,
    }
    wide = [np.repeat(part.astype(np.float32), group, axis=-1) for part in (scale, bias)]
    values = codes.astype(np.float32) * wide[0] + wide[1]
    return Made(tensors, values, {"bits": bits, "group_size": group}, key="quantization")


def bnb(seed: int, shape: tuple[int, ...], *, kind: str = "nf4", block: int = 64, nested: bool = False) -> Made:
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    codes = rng.integers(0, 16, count + count % 2)
    levels = np.linspace(-1, 1, 16, dtype=np.float32)
    runs = -(-count // block)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(shape)}
    tensors: dict[str, Array] = {"m.weight": halves(codes, high_first=True)[:, None], "m.weight.quant_map": levels}
    if nested:
        inner = rng.integers(0, 256, runs).astype(np.uint8)
        outer_levels, outer = np.linspace(-1, 1, 256, dtype=np.float32), scales(rng, (-(-runs // 4),), np.float32)
        state |= {"nested_blocksize": 4, "nested_dtype": "float32", "nested_offset": 0.25}
        tensors |= {"m.weight.nested_absmax": outer, "m.weight.nested_quant_map": outer_levels}
        tensors["m.weight.absmax"] = inner
        absmax = outer_levels[inner] * np.repeat(outer, 4)[:runs] + np.float32(0.25)
    else:
        absmax = tensors["m.weight.absmax"] = scales(rng, (runs,), np.float32)
    text = json.dumps(state).encode()
    tensors[f"m.weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8)
    values = levels[codes] * np.repeat(absmax, block)[: codes.size] if count % 2 == 0 else None
    if values is None:
        values = levels[codes[:count]] * np.repeat(absmax, block)[:count]
    return Made(tensors, values.reshape(shape), {"quant_method": "bitsandbytes", "load_in_4bit": True})


def bnb8(seed: int, rows: int, columns: int) -> Made:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (rows, columns)).astype(np.int8)
    largest = scales(rng, (rows,), np.float32)
    tensors = {"m.weight": codes, "m.SCB": largest, "m.weight_format": np.array(0, np.uint8)}
    values = codes * (largest * np.float32(1 / 127))[:, None]
    return Made(tensors, values, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def fp8(seed: int, shape: tuple[int, ...], *, block: tuple[int, int] = (128, 128), name: str = "m.weight") -> Made:
    """DeepSeek's layout; the last blocks are cut."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn)
    down, across = -(-shape[-2] // block[0]), -(-shape[-1] // block[1])
    scale = scales(rng, (*shape[:-2], down, across), np.float32)
    wide = np.repeat(np.repeat(scale, block[0], -2), block[1], -1)[..., : shape[-2], : shape[-1]]
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)}
    return Made({name: weight, f"{name}_scale_inv": scale}, weight.astype(np.float32) * wide, config, name)


def nvfp4(seed: int, shape: tuple[int, ...], *, compressed_tensors: bool = False) -> Made:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, shape)
    scale = scales(rng, (*shape[:-1], shape[-1] // 16), ml_dtypes.float8_e4m3fn)
    overall = np.array([4.0] if compressed_tensors else 0.25, np.float32)
    leaf = ("weight_packed", "weight_scale", "weight_global_scale")
    leaf = leaf if compressed_tensors else ("weight", "weight_scale", "weight_scale_2")
    tensors = dict(zip((f"m.{part}" for part in leaf), (halves(codes), scale, overall), strict=True))
    values = np.array(E2M1, np.float32)[codes] * np.repeat(scale.astype(np.float32) / 4, 16, -1)
    return Made(tensors, values, {"quant_method": "compressed-tensors" if compressed_tensors else "modelopt"})


def mxfp4(seed: int, experts: int, rows: int, columns: int) -> Made:
    """gpt-oss's layout."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (experts, rows, columns // 32, 32))
    powers = rng.integers(120, 131, codes.shape[:-1]).astype(np.uint8)
    tensors = {"m.gate_up_proj_blocks": halves(codes), "m.gate_up_proj_scales": powers}
    values = np.array(E2M1)[codes] * 2.0 ** (powers[..., None].astype(int) - 127)
    values = values.reshape(experts, rows, columns).swapaxes(1, 2).astype(np.float32)
    return Made(tensors, values, {"quant_method": "mxfp4"}, "m.gate_up_proj")
