"""Quantised checkpoints: what each framework packs, decoded by kinprint and by the framework itself.

The frameworks need gigabytes and contradict each other's requirements, so they have an environment of their own,
outside CI; one that is not installed gives a row that says so::

    python -m venv .venv/quantised
    .venv/quantised/bin/pip install -r benchmarks/quantised/requirements.txt -e .
    .venv/quantised/bin/python benchmarks/quantised/check.py

Each case lets a framework quantise a random matrix (float32 scales where it allows them), writes what it would save as
safetensors, and prints the largest difference of a decoded element. Exits with 1 where one is beyond the bar.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from kinprint.checkpoint import open_checkpoint
from kinprint.checkpoint.quantised import decoded


def load(module: str) -> Any:  # noqa: ANN401 - frameworks without types
    """Import a module of a framework when its turn comes."""
    return importlib.import_module(module)


torch = load("torch")
Tensor = Any
BAR = 1e-6
"""Of the largest element: both sides compute in float32, in one order of operations or another."""

NAME = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS = 192, 256


@dataclass(frozen=True, slots=True)
class Case:
    """What a framework saved, and what it says that it stands for."""

    scheme: str
    tensors: Mapping[str, Tensor]
    values: Tensor
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    name: str = f"{NAME}.weight"


def drawn(seed: int, *shape: int) -> Tensor:
    """Return random weights."""
    return torch.randn(*(shape or (ROWS, COLUMNS)), generator=torch.Generator().manual_seed(seed)) / 16


def config_of(method: str, **settings: object) -> dict[str, Any]:
    """Return the config.json of a quantised model."""
    return {"quantization_config": {"quant_method": method, **settings}}


def asymmetric(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Return scales and zero points [out, groups] of a plain min-max quantiser."""
    grouped = weight.reshape(weight.shape[0], -1, group)
    low, high = grouped.amin(-1), grouped.amax(-1)
    low[::3] = 0  # zero points of 0, which the first version of GPTQ stores as -1
    scales = (high - low) / (2**bits - 1)
    return scales, (-low / scales).round().clamp(0, 2**bits - 1)


# -- frameworks ----------------------------------------------------------------------------------------------------


def gptq() -> Iterator[Case]:
    """Both versions as gptqmodel packs and unpacks them, with and without reordering."""
    qlinear, models = load("gptqmodel.nn_modules.qlinear.torch"), load("gptqmodel.utils.model")

    for bits in (2, 3, 4, 8):
        for version, shuffled in ((1, False), (1, True), (2, False)):
            weight = drawn(bits)
            scales, zeros = asymmetric(weight, bits, 32)
            index = torch.arange(COLUMNS) // 32
            index = index[torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(0))] if shuffled else index
            linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
            linear.weight.data = weight
            module = qlinear.TorchLinear(bits, 32, False, shuffled, COLUMNS, ROWS)
            module.pack_original(linear, scales, zeros, index.to(torch.int32))
            module.scales = module.scales.float()
            module.post_init()
            values = module.dequantize_weight().T.float()
            if version == 1:
                models.convert_gptq_v2_to_v1_format_module(module, SimpleNamespace(bits=bits, pack_dtype=torch.int32))
            tensors = {f"{NAME}.{leaf}": getattr(module, leaf) for leaf in ("qweight", "qzeros", "scales", "g_idx")}
            form = "gptq" if version == 1 else "gptq_v2"
            config = config_of("gptq", bits=bits, group_size=32, desc_act=shuffled, checkpoint_format=form)
            label = f"GPTQ {bits} bits v{version}" + (" act-order" if shuffled else "")
            yield Case(label, tensors, values, config)


def awq() -> Iterator[Case]:
    """AutoAWQ's gemm layout."""
    gemm, packing = load("awq.modules.linear.gemm"), load("awq.utils.packing_utils")

    weight = drawn(1)
    scales, zeros = asymmetric(weight, 4, 64)
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = weight
    module = gemm.WQLinear_GEMM.from_linear(linear, 4, 64, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    values = packing.dequantize_gemm(module.qweight, module.qzeros, module.scales.float(), 4, 64).T
    tensors = {f"{NAME}.{leaf}": getattr(module, leaf) for leaf in ("qweight", "qzeros", "scales")}
    yield Case("AWQ gemm 4 bits", tensors, values, config_of("awq", bits=4, group_size=64, version="gemm"))


def bitsandbytes() -> Iterator[Case]:
    """int8, and the 4-bit codes with and without double quantisation."""
    functional = load("bitsandbytes.functional")

    codes, scales, _ = functional.int8_vectorwise_quant(drawn(2).half())
    tensors = {f"{NAME}.weight": codes, f"{NAME}.SCB": scales}
    values = functional.int8_vectorwise_dequant(codes, scales)
    yield Case("bitsandbytes int8", tensors, values, config_of("bitsandbytes", load_in_8bit=True))
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            packed, state = functional.quantize_4bit(drawn(3), quant_type=kind, compress_statistics=nested)
            values = functional.dequantize_4bit(packed, state)
            tensors = {f"{NAME}.weight": packed}
            tensors |= {f"{NAME}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
            label = f"bitsandbytes {kind}" + (" nested" if nested else "")
            yield Case(label, tensors, values, config_of("bitsandbytes", load_in_4bit=True))


def compressed_tensors() -> Iterator[Case]:
    """Every format of compressed-tensors that holds numbers."""
    compressors, quantization = load("compressed_tensors.compressors"), load("compressed_tensors.quantization")
    fp4 = load("compressed_tensors.compressors.nvfp4.helpers")
    forward = load("compressed_tensors.quantization.lifecycle.forward")
    utils = load("compressed_tensors.quantization.utils")

    def case(label: str, form: str, **arguments: object) -> Case:
        weight = drawn(4)
        args = quantization.QuantizationArgs(**arguments)
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
        group, state = args.group_size or 0, {"weight": weight}
        if args.strategy == "block":
            blocks = weight.reshape(ROWS // 32, 32, COLUMNS // 64, 64).transpose(1, 2).reshape(ROWS // 32, -1, 2048)
        else:
            blocks = weight.reshape(1 if args.strategy == "tensor" else ROWS, -1, group if group > 0 else COLUMNS)
            blocks = blocks.reshape(1, 1, -1) if args.strategy == "tensor" else blocks
        low, high = blocks.amin(-1), blocks.amax(-1)
        if form.startswith("nvfp4"):
            state["weight_global_scale"] = utils.generate_gparam(low.min(), high.max())
        overall = state.get("weight_global_scale")
        scale, zero = utils.calculate_qparams(low, high, args, global_scale=overall)
        state["weight_scale"] = scale
        if not args.symmetric:
            state["weight_zero_point"] = zero.to(torch.int8)
        compressor = compressors.BaseCompressor.get_value_from_registry(form)
        saved = compressor.compress(dict(state), scheme)
        if overall is None:
            values = compressor.decompress(dict(saved), scheme)["weight"]
        else:
            # What decompress does, in float32 where it takes bfloat16.
            codes = fp4.unpack_fp4_from_uint8(saved["weight_packed"], ROWS, COLUMNS, dtype=torch.float32)
            scale = saved["weight_scale"].float()
            values = forward.dequantize(codes, scale, args=args, global_scale=overall, dtype=torch.float32)
        settings = {"format": form, "config_groups": {"group_0": {"weights": args.model_dump(mode="json")}}}
        tensors = {f"{NAME}.{leaf}": value for leaf, value in saved.items()}
        return Case(f"compressed-tensors {label}", tensors, values, config_of("compressed-tensors", **settings))

    for bits in (2, 3, 4, 8):
        for symmetric in (True, False):
            label = f"pack {bits} bits" + ("" if symmetric else " asymmetric")
            common = {"num_bits": bits, "symmetric": symmetric}
            yield case(label, "pack-quantized", strategy="group", group_size=64, **common)
            yield case(label + " per channel", "pack-quantized", strategy="channel", **common)
    for symmetric in (True, False):
        yield case(f"int8 {symmetric=}", "int-quantized", num_bits=8, strategy="channel", symmetric=symmetric)
    floats = {"num_bits": 8, "type": "float"}
    yield case("fp8 per channel", "float-quantized", strategy="channel", **floats)
    yield case("fp8 per tensor", "float-quantized", strategy="tensor", **floats)
    yield case("fp8 blocks", "float-quantized", strategy="block", block_structure=[32, 64], **floats)
    yield case("nvfp4", "nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16)
    powers = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8}
    yield case("mxfp4", "mxfp4-pack-quantized", num_bits=4, **powers)
    yield case("mxfp8", "mxfp8-quantized", num_bits=8, **powers)


def mlx() -> Iterator[Case]:
    """Every width and mode of MLX, and a stack of matrices."""
    core = load("mlx.core")

    def case(label: str, weight: Tensor, **arguments: object) -> Case:
        packed, *rest = core.quantize(core.array(weight.numpy()), **arguments)
        values = core.dequantize(packed, *rest, **arguments).astype(core.float32)
        arrays = dict(zip(("weight", "scales", "biases"), (packed, *rest), strict=False))
        tensors = {f"{NAME}.{leaf}": torch.from_numpy(np.array(value)) for leaf, value in arrays.items()}
        return Case(f"MLX {label}", tensors, torch.from_numpy(np.array(values)), {"quantization": arguments})

    for bits in (2, 3, 4, 5, 6, 8):
        yield case(f"{bits} bits", drawn(bits), bits=bits, group_size=64)
    yield case("4 bits stacked", drawn(5, 4, 32, 64), bits=4, group_size=32)
    for mode, bits, group in (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)):
        yield case(mode, drawn(6), bits=bits, group_size=group, mode=mode)


def modelopt() -> Iterator[Case]:
    """NVFP4 of TensorRT Model Optimizer."""
    tensor = load("modelopt.torch.quantization.qtensor").NVFP4QTensor
    packed, scale, whole = tensor.quantize(drawn(7), 16)
    values = packed.dequantize(torch.float32, scale=scale, double_scale=whole, block_sizes={-1: 16})
    arrays = {"weight": packed._quantized_data, "weight_scale": scale, "weight_scale_2": whole}
    tensors = {f"{NAME}.{leaf}": value for leaf, value in arrays.items()}
    yield Case("modelopt NVFP4", tensors, values, config_of("modelopt", quant_algo="NVFP4"))


def transformers() -> Iterator[Case]:
    """MXFP4 as in gpt-oss, and fp8 in blocks, with float and power-of-two scales, stacked and not."""
    mxfp4, fp8 = load("transformers.integrations.mxfp4"), load("transformers.integrations.finegrained_fp8")
    random = torch.Generator().manual_seed(8)
    blocks = torch.randint(0, 256, (4, 96, 6, 16), dtype=torch.uint8, generator=random)
    powers = torch.randint(110, 135, (4, 96, 6), dtype=torch.uint8, generator=random)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    values = mxfp4.convert_moe_packed_tensors(blocks, powers, dtype=torch.float32)
    yield Case("MXFP4 gpt-oss", {f"{name}_blocks": blocks, f"{name}_scales": powers}, values, config_of("mxfp4"), name)
    for kind in ("float", "ue8m0"):
        for shape in ((ROWS, COLUMNS), (3, ROWS, COLUMNS)):
            settings = SimpleNamespace(weight_block_size=[64, 128], scale_fmt=kind)
            quantizer = fp8.Fp8Quantize(SimpleNamespace(quantization_config=settings))
            made = quantizer.convert({f"{NAME}.weight": drawn(9, *shape)})
            weight, scale = made[f"{NAME}.weight"], made[f"{NAME}.weight_scale_inv"]
            values = fp8.Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
            config = config_of("fp8", weight_block_size=[64, 128])
            yield Case(f"FP8 blocks, {kind} scales", made, values, config)


# -- comparison ----------------------------------------------------------------------------------------------------

FRAMEWORKS: Mapping[str, Callable[[], Iterator[Case]]] = {
    "gptqmodel": gptq, "awq": awq, "bitsandbytes": bitsandbytes, "compressed_tensors": compressed_tensors,
    "mlx": mlx, "modelopt": modelopt, "transformers": transformers,
}  # fmt: skip


def difference(case: Case) -> tuple[float, float]:
    """Return the largest difference of an element and the largest element."""
    with TemporaryDirectory() as scratch:
        tensors = {name: value.detach().contiguous() for name, value in case.tensors.items()}
        load("safetensors.torch").save_file(tensors, Path(scratch, "model.safetensors"))
        Path(scratch, "config.json").write_text(json.dumps(case.config))
        checkpoint = decoded(open_checkpoint(scratch))
        if list(checkpoint.tensors) != [case.name]:
            raise SystemExit(f"{case.scheme}: decoded to {list(checkpoint.tensors)}, not to {case.name}")
        values = checkpoint.read(case.name)
    theirs = case.values.detach().float().numpy()
    if values.shape != theirs.shape:
        raise SystemExit(f"{case.scheme}: decoded to {values.shape}, the framework to {theirs.shape}")
    return float(np.abs(values - theirs).max()), float(np.abs(theirs).max())


def main() -> int:
    """Run every case and print the table."""
    print("| scheme | shape | largest difference | largest element |\n|---|---|---|---|")
    worst = 0.0
    for package, cases in FRAMEWORKS.items():
        if importlib.util.find_spec(package) is None:
            print(f"| {package} | | not installed | |")
            continue
        for case in cases():
            gap, largest = difference(case)
            print(f"| {case.scheme} | {list(case.values.shape)} | {gap:.1e} | {largest:.2f} |", flush=True)
            worst = max(worst, gap / largest)
    print(f"\nlargest {worst:.1e} of the largest element, bar {BAR:.0e}")
    return int(not worst <= BAR)


if __name__ == "__main__":
    sys.exit(main())
