"""Compositions of three kinds of derivation, drawn by a seed: what nobody chose to be easy or hard.

Axes of the draw: which three kinds, in which order. What cannot follow each other is drawn again: kinds that are not
defined on mixtures after an upcycling, a merge with a model of the old shape after a change of shape, the same kind
twice.
"""

from __future__ import annotations

import numpy as np

from kinprint.zoo.recipes import Derived

_SHAPE_KINDS = (
    "depth-cut:count=1",
    "depth-upscale",
    "reorder-blocks",
    "width-cut-residual:keep=0.75",
    "width-cut-ffn:keep=0.75",
    "width-cut-heads:keep=0.5",
    "vocab-cut:keep=128",
    "vocab-extend:tokens=64",
    "upcycle:experts=4,noise=0.01",
)
"""Kinds after which a model of the old shape cannot be merged in."""

_OTHER_KINDS = (
    "fine-tune:steps=200",
    "continued-pretraining:steps=400",
    "lora-merge:steps=100",
    "heal:steps=150",
    "prune-magnitude:share=0.5",
    "prune-magnitude:share=0.7",
    "prune-calibrated:method=wanda,share=0.5",
    "prune-calibrated:method=sparsegpt,share=0.6",
    "noise:share=0.1",
    "quantise:scheme=int8",
    "quantise:scheme=q4",
    "embedding-reinit",
)

_DENSE_ONLY = ("lora-merge", "prune-calibrated", "upcycle", "query-head-permutation")
"""Kinds that are not drawn after an upcycling."""

_KINDS_OF_A_MERGE = ("merge-linear", "merge-slerp")


def drawn(base: str, sibling: str, laundry: tuple[str, ...], *, count: int, seed: int) -> tuple[Derived, ...]:
    """Return compositions of three kinds on one base.

    Args:
        base: The base's name.
        sibling: A model of the same shape, derived from the base, for merges.
        laundry: Function-preserving kinds: drawn one by one, and all together as one kind.
        count: How many compositions.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    singles = [(kind,) for kind in (*_SHAPE_KINDS, *_OTHER_KINDS, *laundry)]
    merges = [(f"{kind}:others={sibling}",) for kind in _KINDS_OF_A_MERGE]
    pool: list[tuple[str, ...]] = [*singles, *merges, laundry, laundry]
    found: list[Derived] = []
    while len(found) < count:
        chosen = [pool[int(at)] for at in rng.choice(len(pool), 3, replace=False)]
        if not _can_follow(chosen):
            continue
        kinds = tuple(kind for kinds in chosen for kind in kinds)
        found.append(
            Derived(
                name=f"{base}.drawn-{len(found):02}",
                summary=" then ".join("laundered" if part == laundry else part[0] for part in chosen),
                parent=base,
                kinds=kinds,
                others=(sibling,) if any(kind.startswith("merge-") for kind in kinds) else (),
                seed=seed + len(found),
            )
        )
    return tuple(found)


def _can_follow(chosen: list[tuple[str, ...]]) -> bool:
    names = [part[0].partition(":")[0] for part in chosen]
    if len(set(names)) < len(names):
        return False
    for at, part in enumerate(chosen):
        later = [kind.partition(":")[0] for after in chosen[at + 1 :] for kind in after]
        if part[0].startswith("upcycle") and set(later) & set(_DENSE_ONLY):
            return False
        if part[0] in (*_SHAPE_KINDS, "embedding-reinit") and set(later) & set(_KINDS_OF_A_MERGE):
            return False
    return True
