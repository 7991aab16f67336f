"""Changes of every weight that keep all sizes: magnitude pruning, Gaussian noise, quantisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from kinprint.architecture import PartKey
from kinprint.checkpoint import Array
from kinprint.shapes import Float
from kinprint.transform.state import ModelState

Scheme = Literal["int8", "int8-channel", "q4"]

_BLOCK = 32
"""Neighbouring weights of a row that share a scale in Q8_0 and Q4_0."""


def block_matrices(model: ModelState) -> list[PartKey]:
    """Return the matrices of attention, MLPs and experts, sorted: all but embeddings and routers.

    It is what pruning (Wanda, SparseGPT) and weight-only quantisation (GPTQ, bitsandbytes) change.
    """
    return sorted(
        (
            key
            for key, array in model.parts.items()
            if array.ndim == 2 and key.role.startswith(("attn.", "mlp.", "moe.")) and not key.role.endswith("router")
        ),
        key=str,
    )


def prune_magnitude(model: ModelState, share: float) -> ModelState:
    """Set the smallest weights of each block matrix to zero.

    Source: Han et al., Learning both Weights and Connections (arXiv 1506.02626), section 3, matrix by matrix; the
    baseline of Sun et al., Wanda (arXiv 2306.11695).

    Args:
        model: The model.
        share: Share of each matrix, 0 to 1, rounded down to whole weights.
    """
    return _changed(model, lambda matrix_MN: _pruned(matrix_MN, share))


def noised(model: ModelState, share: float, rng: np.random.Generator) -> ModelState:
    """Add Gaussian noise to every matrix, embeddings included.

    Args:
        model: The model.
        share: Standard deviation of the noise as a share of the matrix's own.
        rng: Where it comes from.
    """
    matrices = sorted((key for key, array in model.parts.items() if array.ndim == 2), key=str)
    return model.updated({key: disturbed(model.parts[key], share, rng) for key in matrices})


def disturbed(array: Float[np.ndarray, "*S"], share: float, rng: np.random.Generator) -> Float[np.ndarray, "*S"]:
    """Return an array with Gaussian noise of ``share`` times its own standard deviation."""
    return array + share * array.std() * rng.standard_normal(array.shape)


def quantised(model: ModelState, scheme: Scheme) -> ModelState:
    """Round block matrices to few levels and write the rounded numbers back.

    Args:
        model: The model.
        scheme: ``int8`` and ``q4`` are llama.cpp's Q8_0 and Q4_0, by the ``gguf`` package: blocks of 32 weights in a
            row share a scale in float16. ``int8-channel`` has one scale per row, its largest weight over 127.
    """
    rounding: Callable[[Array], Array] = _by_channel if scheme == "int8-channel" else lambda m: _by_block(m, scheme)
    return _changed(model, rounding)


def _changed(model: ModelState, change: Callable[[Array], Array]) -> ModelState:
    return model.updated({key: change(model.parts[key]) for key in block_matrices(model)})


def _pruned(matrix_MN: Float[np.ndarray, "M N"], share: float) -> Float[np.ndarray, "M N"]:
    # Counted, not cut at a threshold: weights stored in bf16 have many equals.
    smallest = np.argsort(np.abs(matrix_MN), axis=None, kind="stable")[: int(share * matrix_MN.size)]
    pruned = matrix_MN.copy()
    pruned.reshape(-1)[smallest] = 0.0
    return pruned


def _by_channel(matrix_MN: Float[np.ndarray, "M N"]) -> Float[np.ndarray, "M N"]:
    scale_M1 = np.abs(matrix_MN).max(axis=1, keepdims=True) / 127
    scale_M1 = np.where(scale_M1 > 0, scale_M1, 1.0)
    return np.round(matrix_MN / scale_M1) * scale_M1


def _by_block(matrix_MN: Float[np.ndarray, "M N"], scheme: Scheme) -> Float[np.ndarray, "M N"]:
    from gguf import quants  # 0.1 s to import, and few callers quantise
    from gguf.constants import GGMLQuantizationType

    kind = GGMLQuantizationType.Q8_0 if scheme == "int8" else GGMLQuantizationType.Q4_0
    columns = matrix_MN.shape[1]
    padded = np.pad(matrix_MN.astype(np.float32), ((0, 0), (0, -columns % _BLOCK)))  # zeros leave a block's scale alone
    stored: Any = quants.quantize(padded, kind)
    return np.asarray(quants.dequantize(stored, kind))[:, :columns].astype(np.float64)
