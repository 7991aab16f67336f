"""The same values as the functions of transformers that need no GPU; other frameworks: benchmarks/quantised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checkpoint import packed

torch: Any = pytest.importorskip("torch")
mxfp4: Any = pytest.importorskip("transformers.integrations.mxfp4")
finegrained_fp8: Any = pytest.importorskip("transformers.integrations.finegrained_fp8")
metal: Any = pytest.importorskip("transformers.integrations.metal_quantization")


def test_gpt_oss_experts_are_those_that_transformers_unpacks() -> None:
    made = packed.mxfp4(0, 2, 6, 64)
    blocks, scales = (torch.from_numpy(made.tensors[f"m.gate_up_proj_{leaf}"]) for leaf in ("blocks", "scales"))
    theirs = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).numpy()
    np.testing.assert_array_equal(made.read(), theirs)


@pytest.mark.parametrize("shape", [(64, 128), (3, 64, 128)])
def test_fp8_blocks_are_those_that_transformers_scales(shape: tuple[int, ...]) -> None:
    made = packed.fp8(1, shape, block=(32, 64))
    weight = torch.from_numpy(made.tensors["m.weight"].view(np.uint8)).view(torch.float8_e4m3fn)
    scale = torch.from_numpy(made.tensors["m.weight_scale_inv"])
    theirs = finegrained_fp8.Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
    np.testing.assert_array_equal(made.read(), theirs.numpy())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mlx_is_what_the_metal_integration_unpacks(bits: int) -> None:
    made = packed.mlx(2, (8, 128), bits=bits)
    parts = [torch.from_numpy(made.tensors[f"m.{leaf}"].copy()) for leaf in ("weight", "scales", "biases")]
    np.testing.assert_array_equal(made.read(), metal._affine_dequantize_tensor(*parts, 32, bits).numpy())
    # Its checkpoints call the offsets otherwise.
    made.tensors["m.qbiases"] = made.tensors.pop("m.biases")
    made.key, made.quantization = "quantization_config", {"quant_method": "metal", "bits": bits, "group_size": 32}
    np.testing.assert_array_equal(made.read(), made.values)
