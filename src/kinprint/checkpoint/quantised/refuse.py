"""What is quantised and not decoded: named, and never taken for whole numbers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from kinprint.checkpoint.base import TensorInfo
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.quantised.stored import DEQUANTISE, FP8, Settings, Stored
from kinprint.errors import CheckpointError

SCHEMES = {
    "W_q": "HQQ", "codes": "AQLM", "codebooks": "AQLM", "_data": "quanto", "_qdata": "torchao",
    "_weight_qdata": "torchao", "weight_qdata": "torchao", "dense_weights": "SpQR", "centroids": "VPTQ",
    "res_centroids": "VPTQ", "trellis": "EXL3", "Qidxs": "QuIP#", "forward_hadamard_matrix": "FP-Quant",
    "bitmask": "a sparse bitmask", "blocks": "MXFP4 under its first names", "B": "QQQ or Marlin", "B_24": "Marlin",
    "qweight": "a layout of qweight that is not GPTQ's or AWQ's", "q_weight": "EXL2", "q_perm": "EXL2",
    "weight_packed": "a layout of weight_packed that is not known",
}  # fmt: skip
"""Scheme by the last part of a tensor's name."""

BESIDE = {"weight_scales": "EETQ", "tables": "HIGGS", "indices": "VPTQ"}
"""Scheme of ``weight`` by what lies beside it."""

PACKED = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F4", "F6_E2M3", "F6_E3M2"})
"""Dtypes of packed weights."""

NO_WEIGHTS = ("attn.bias", "attention.bias", "masked_bias", "position_ids", "token_type_ids", "attn_mask")
"""Ends of names of masks and numberings, which old checkpoints keep as whole numbers."""

METHODS = frozenset({"mlx", "unnamed"})
"""Not names of a method, but what is said where none is named."""


def check_rest(stored: Stored, claimed: AbstractSet[str], settings: Settings) -> None:
    """Refuse packed weights that no scheme took.

    Raises:
        CheckpointError: There are some, or there is fp8 without scales.
    """
    quantised = settings.method is not None or bool(claimed)
    for name, info in stored.tensors.items():
        if name in claimed:
            continue
        if _packed(name, info, settings):
            raise _refused(stored, name, info, settings)
        if quantised and info.dtype in FP8 and len(info.shape) > 1:
            # In a model that is not quantised, fp8 may be meant as it stands.
            raise stored.fault(name, f"is {info.dtype} in a quantised model and has no scales beside it")


def _packed(name: str, info: TensorInfo, settings: Settings) -> bool:
    leaf = name.rsplit(".", 1)[-1]
    if leaf.endswith("qdata") or (leaf == "dense_weights" and info.dtype == "I64"):
        return True
    if info.dtype not in PACKED or len(info.shape) < 2 or name.endswith(NO_WEIGHTS):
        return False
    # Without a word from the config, whole numbers under other names may be masks or tables.
    return settings.method is not None or leaf in SCHEMES or leaf == "weight" or leaf.endswith("_blocks")


def _refused(stored: Stored, name: str, info: TensorInfo, settings: Settings) -> CheckpointError:
    module, _, leaf = name.rpartition(".")
    beside = (scheme for other, scheme in BESIDE.items() if f"{module}.{other}" in stored.tensors)
    scheme = next(beside, None) or SCHEMES.get(leaf)
    if settings.method is not None and settings.method not in METHODS:
        scheme = f"the method {shown(settings.method)}" + (f" ({scheme})" if scheme else "")
    by = f"packed by {scheme}, which is not decoded" if scheme else "packed, and how is not known"
    return fault(stored.where, f"tensor {shown(name)} ({info.dtype}, {list(info.shape)}) is {by}", DEQUANTISE)
