"""What an adapter does to a parameter that holds one matrix for every expert.

Its A is [rank x experts, in] with the experts' blocks one after the other, its B [out, rank x experts] with the experts
interleaved; the parameter may be stored fused, [experts, out, in] or [experts, in, out], or one expert at a time.

Source: peft 0.21, tuners/lora/layer.py, ``ParamWrapper.get_delta_weight``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kinprint.checkpoint.adapter_changes import Change, Experts, LowRank
from kinprint.checkpoint.adapter_names import ORDER, Fused
from kinprint.checkpoint.base import Array
from kinprint.checkpoint.parts import Part

TRANSPOSED = frozenset({"gpt_oss", "llama4", "llama4_text"})
"""Values of ``model_type`` whose fused experts lie [experts, in, out]; asked only where shapes do not tell."""


def fits(kept: Fused, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> bool:
    """Tell whether two factors are those of a parameter, either way round."""
    experts, rows, columns = kept.shape
    if len(a_shape) != 2 or len(b_shape) != 2 or a_shape[0] != b_shape[1] or a_shape[0] % experts or not a_shape[0]:
        return False
    straight = (b_shape[0], a_shape[1]) == (rows, columns)
    return straight or (kept.whole is not None and (a_shape[1], b_shape[0]) == (rows, columns))


def order_of(leaf: str) -> tuple[int, str]:
    """Return the place of a parameter in the order of their definition."""
    return (ORDER.index(leaf) if leaf in ORDER else len(ORDER), leaf)


def expert_changes(
    part: Part, a: str, b: str, kept: Fused, scale: float, model_type: object
) -> list[tuple[str, Change]]:
    """Return the change of every tensor that a parameter lies in.

    Args:
        part: The adapter's tensors.
        a: Name of A.
        b: Name of B; both were found to fit.
        kept: The parameter.
        scale: What B A is multiplied by.
        model_type: The base's, asked of square experts.
    """
    experts, rows, columns = kept.shape
    rank = part.tensors[a].shape[0] // experts

    def first(expert: int) -> Array:
        return part.read(a, slice(expert * rank, (expert + 1) * rank)).astype(np.float32)

    def second(expert: int) -> Array:
        return part.read(b, None)[:, expert::experts].astype(np.float32)

    turned = (part.tensors[a].shape[1], part.tensors[b].shape[0]) == (rows, columns)
    if kept.whole is not None:
        if turned and (rows != columns or model_type in TRANSPOSED):
            return [(kept.whole, Experts((a, b), _transposed(first), _transposed(second), scale))]
        return [(kept.whole, Experts((a, b), second, first, scale))]
    found: list[tuple[str, Change]] = []
    for expert, names in enumerate(kept.apart):
        step = rows // len(names)
        for place, name in enumerate(names):
            left = _block(second, expert, place * step, step)
            found.append((name, LowRank((a, b), left, _one(first, expert), scale)))
    return found


def _transposed(read: Callable[[int], Array]) -> Callable[[int], Array]:
    """Return what reads one expert's transpose."""
    return lambda expert: read(expert).T


def _one(read: Callable[[int], Array], expert: int) -> Callable[[], Array]:
    """Return what reads one expert's factor."""
    return lambda: read(expert)


def _block(read: Callable[[int], Array], expert: int, first: int, count: int) -> Callable[[], Array]:
    """Return what reads some rows of one expert's factor."""
    return lambda: read(expert)[first : first + count]
