"""SeedPrints: does a model keep a leaning of its initialisation, seen on random tokens?

Axes: N = random texts, D = residual coordinates, S = chosen coordinates.

Both models read the same random tokens; of the last block's states at the last token the tenth of coordinates with the
lowest mean is taken in each, and what both chose is S. States go through a softmax over coordinates at temperature 10;
for each coordinate of S Kendall's tau over texts between the models, and their mean over S.

Published null: the mean of |S| independent taus of N ranks, normal with variance 2 (2 N + 5) / (9 N (N - 1)) / |S|.
Coordinates of one model are not independent, so that p-value is too small for strangers; it is shown as a statistic.
The p-value here permutes labels. H0: the two initialisations are independent, so that the numbering of residual
coordinates is exchangeable; under any numbering the table of rank correlations between coordinates has the same law,
and its diagonal is compared with what permutations of it give (one group: all coordinates, or a thousand drawn by a
seed, never the lowest, whose choice would depend on the numbering).
It fails, as every such test, where the residual basis was changed, and where one was trained from the other's
embedding; and it does not hold under fixed sinusoidal positions.

Ignores: training that keeps coordinates in their places. Notices: another initialisation.
Fails: needs equal width; a rotation or permutation of the residual stream defeats it; 200 texts give .737 accuracy,
2,000 .9375.

Source: SeedPrints, ICLR 2026, section 3 and published code; permutations: kinprint.linalg.permutation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.linalg.permutation import permutation_test
from kinprint.shapes import Float, Float64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

TEXTS, LENGTH, SEED = 256, 32, 0
SHARE, TEMPERATURE = 0.1, 10.0
DRAWS, COORDINATES = 999, 1024
REACHED = "relabellings that reached it"
_LEAST = 4
_NAME = "seedprint"
_ID = method_id(
    _NAME,
    1,
    coordinates=COORDINATES,
    draws=DRAWS,
    length=LENGTH,
    seed=SEED,
    share=SHARE,
    temperature=TEMPERATURE,
    texts=TEXTS,
)
_SOURCE = "SeedPrints, ICLR 2026, section 3; p by permuting residual coordinates"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return the mean tau on random tokens, and the p-value of the numbering of coordinates. Probes play no part."""
    del probes
    tokens = min(suspect.vocabulary_size, base.vocabulary_size)
    ids_NT = np.random.default_rng(SEED).integers(0, tokens, (TEXTS, _length(suspect, base)))
    mine, theirs = (model.run_ids(ids_NT).states[-1].astype(np.float64) for model in (suspect, base))
    if mine.shape[1] != theirs.shape[1]:
        return METHOD.not_applicable(f"the models have {mine.shape[1]} and {theirs.shape[1]} residual coordinates")
    count = max(_LEAST, round(SHARE * mine.shape[1]))
    lowest = [np.argsort(side.mean(axis=0), kind="stable")[:count] for side in (mine, theirs)]
    both: Array = np.intersect1d(lowest[0], lowest[1])
    drawn = _drawn(mine.shape[1])
    soft = [softmax(side) for side in (mine, theirs)]
    test = permutation_test([rank_correlations(soft[0][:, drawn], soft[1][:, drawn])], draws=DRAWS, seed=SEED)
    if test is None:
        return METHOD.not_applicable("no coordinate of one of the models moves over random texts")
    if both.size:
        tau = mean_tau(soft[0][:, both], soft[1][:, both])
        deviation = math.sqrt(2 * (2 * TEXTS + 5) / (9 * TEXTS * (TEXTS - 1)) / both.size)
        z = tau / deviation
        values = [
            Value(name="similarity", value=tau, kind="similarity", identical=1.0, note="mean tau"),
            Value(name="published z", value=z, kind="statistic", note="takes coordinates for independent: too large"),
        ]
    else:
        reason = "no coordinate is among the lowest of both"
        values = [Value(name="similarity", value=None, kind="similarity", identical=1.0, reason=reason)]
    values += [
        Value(
            name="log10 p",
            value=test.log10_p,
            kind="statistic",
            note="H0: the numbering of residual coordinates is exchangeable (independent initialisations)",
        ),
        Value(name="log10 floor", value=test.log10_floor, kind="statistic", note="what p could have been at least"),
    ]
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=tuple(values),
        controls=(
            Value(name=REACHED, value=test.count, kind="statistic", note=f"of {DRAWS} that were drawn, seed {SEED}"),
        ),
        notes=(f"{TEXTS} random texts; {both.size} coordinates among the lowest {count} of both",),
        source=_SOURCE,
    )


def softmax(states_ND: Float[Array, "N D"]) -> Float64[Array, "N D"]:
    """Return the softmax over coordinates at the published temperature."""
    scaled = states_ND / TEMPERATURE
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def mean_tau(left_NS: Float[Array, "N S"], right_NS: Float[Array, "N S"]) -> float:
    """Return the mean over coordinates of Kendall's tau-b over texts; one that is constant counts 0.

    Example:
        >>> round(mean_tau(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [2.0]])), 12)
        0.333333333333
    """
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

    found = [float(cast("Any", stats).kendalltau(*both).statistic) for both in zip(left_NS.T, right_NS.T, strict=True)]
    return float(np.mean(np.nan_to_num(found)))


def rank_correlations(left_NS: Float[Array, "N S"], right_NS: Float[Array, "N S"]) -> Float64[Array, "S S"]:
    """Return Spearman's correlation over texts of every coordinate with every coordinate of the other model.

    Ties share their mean rank, so that a coordinate that never moves has 0 with every other, and not with its own
    number 1.
    """
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

    unit: list[Array] = []
    for side in (left_NS, right_NS):
        ranks: Array = cast("Any", stats).rankdata(side, axis=0)
        about = ranks - ranks.mean(axis=0)
        norms = np.linalg.norm(about, axis=0)
        unit.append(about / np.where(norms > 0, norms, 1.0))
    return unit[0].T @ unit[1]


def _drawn(width: int) -> Array:
    if width <= COORDINATES:
        return np.arange(width)
    return np.sort(np.random.default_rng(SEED).choice(width, COORDINATES, replace=False))


def _length(*models: Runner) -> int:
    return min(LENGTH, *(model.context or LENGTH for model in models))


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="training that keeps coordinates in their places",
    notices="another initialisation",
    fails="needs equal width; any change of the residual basis defeats it",
    measure=measure,
)
