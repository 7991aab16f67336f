"""AttnDiff: do two models shift their attention alike when a text is corrupted?

Axes: N = probes, T = tokens of a text (all cut to the same), L = blocks, H = heads.

Each probe is run as it is and corrupted; the change of every head's attention map, mean over probes, is a T x T matrix,
and those of all heads side by side are features [T, L H T]. Two models' features are compared by linear CKA.

Corrected: the published code divides by |X| where CKA has |X^T X|, so that a model's similarity with itself is below 1
unless its features have rank one. Here it is CKA.
Corruption: two neighbouring tokens in the middle half of the text are exchanged, drawn by a seed; the published pairs
are hand-made.

Ignores: everything that keeps the function; the order of heads and blocks.
Notices: training of attention.
Fails: all causal models attend to the last tokens and to the first, which alone makes strangers alike; it needs texts
of the same number of tokens; T samples are few.

Source: AttnDiff (arXiv 2604.05502), section 3 and published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.reef import centred, linear_cka
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.linalg.cka import unbiased_cka
from kinprint.shapes import Float64, Int64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

TOKENS = 8
"""Tokens of every text; shorter probes are left out. Short statements have few in a large vocabulary."""

MOST_PROBES, SEED = 60, 0
_LEAST_PROBES = 8
_NAME = "attndiff"
_ID = method_id(_NAME, 1, probes=MOST_PROBES, seed=SEED, tokens=TOKENS)
_SOURCE = "AttnDiff (arXiv 2604.05502), section 3, self-similarity corrected"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return the CKA of two models' changes of attention.

    Control: the maps of the texts as they are, which differ little between strangers.
    """
    sides = _long_enough(suspect, base, probes)
    if len(sides[0]) < _LEAST_PROBES:
        return METHOD.not_applicable(
            f"{len(sides[0])} probes have {TOKENS} tokens in both models, and {_LEAST_PROBES} are the least"
        )
    found = [_features(model, ids) for model, ids in zip((suspect, base), sides, strict=True)]
    changes, plain = zip(*found, strict=True)
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=(
            Value(
                name="similarity",
                value=linear_cka(*map(centred, changes)),
                kind="similarity",
                identical=1.0,
                note="CKA of how attention changes",
            ),
            Value(
                name="unbiased",
                value=unbiased_cka(*(features @ features.T for features in map(centred, changes))),
                kind="similarity",
                identical=1.0,
            ),
        ),
        controls=(
            Value(
                name="maps without corruption",
                value=linear_cka(*map(centred, plain)),
                kind="similarity",
                note="what attention to the first and to the last tokens gives alone",
            ),
        ),
        notes=(f"{len(sides[0])} probes, cut to {TOKENS} tokens", "self-similarity corrected: see the method's page"),
        source=_SOURCE,
    )


def corrupted(ids_NT: Int64[Array, "N T"]) -> Int64[Array, "N T"]:
    """Return texts with two neighbouring tokens exchanged, in the middle half.

    Example:
        >>> corrupted(np.arange(8)[None]).tolist()
        [[0, 1, 2, 3, 4, 6, 5, 7]]
    """
    changed = ids_NT.copy()
    length = ids_NT.shape[1]
    places = np.random.default_rng(SEED).integers(length // 4, max(length // 4 + 1, 3 * length // 4), len(ids_NT))
    rows = np.arange(len(ids_NT))
    changed[rows, places], changed[rows, places + 1] = ids_NT[rows, places + 1], ids_NT[rows, places]
    return changed


def _long_enough(suspect: Runner, base: Runner, probes: Sequence[str]) -> tuple[Array, Array]:
    """Return the first tokens of the same texts for both models, [N, T] each."""
    kept = [
        (mine[:TOKENS], theirs[:TOKENS])
        for mine, theirs in zip(suspect.encode(probes), base.encode(probes), strict=True)
        if min(len(mine), len(theirs)) >= TOKENS
    ][:MOST_PROBES]
    first, second = (np.array([both[side] for both in kept], dtype=np.int64).reshape(-1, TOKENS) for side in (0, 1))
    return first, second


def _features(model: Runner, ids_NT: Array) -> tuple[Float64[Array, "T F"], Float64[Array, "T F"]]:
    """Return mean changes of all maps side by side, and the mean maps themselves."""
    plain, other = (_mean_maps(model, ids) for ids in (ids_NT, corrupted(ids_NT)))
    return _joined(plain - other), _joined(plain)


def _mean_maps(model: Runner, ids_NT: Array) -> Array:
    total, count = np.zeros(()), 0
    for maps in model.attention(ids_NT):
        total = total + maps.sum(axis=0, dtype=np.float64)
        count += len(maps)
    return total / count


def _joined(maps_LHTT: Array) -> Array:
    return np.moveaxis(maps_LHTT, 2, 0).reshape(maps_LHTT.shape[2], -1)


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="everything that keeps the function; the order of heads and blocks",
    notices="training of attention",
    fails="all causal models attend alike to first and last tokens; few samples",
    measure=measure,
)
