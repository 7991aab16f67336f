"""REEF: are two models' last-token states on the same texts alike, up to a linear change of basis?

Axes: N = probes, D = residual coordinates, L, M = decoder blocks of suspect and base.

States of the last token after a decoder block, centred over probes and, in the published code, divided by each
coordinate's standard deviation; then linear CKA, |X^T Y|^2 / (|X^T X| |Y^T Y|). The similarity is that of one relative
depth, block 18 of 32; beside it stand the best pair of blocks, the same without the division, and the unbiased
estimate.

Ignores, centred: a rotation of the residual stream, its scale, the order of everything, and so every change of weights
that keeps the function. The division by each coordinate's deviation is taken in the basis that the model happens to
have, so the published form is not invariant to a rotation.
Notices: training, pruning, merging; every change of what the states hold.
Fails: with N probes and far more coordinates biased CKA is high for strangers (.75 to .83 for Mistral and Qwen or Yi);
it depends on the probes (a gap of .8 between related and unrelated on TruthfulQA, of .5 on ToxiGen) and on the layer;
a student taught by another model's answers is near it though no weight was copied.

Source: Zhang et al., REEF, ICLR 2025 (arXiv 2410.14273), section 3 and published code; unbiased: Song et al., JMLR 13
(2012), equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.linalg.cka import centred_gram
from kinprint.shapes import Float, Float64
from kinprint.types import MethodResult, Table, Value

Array = np.ndarray[Any, np.dtype[Any]]

DEPTH = 18, 32
"""Block 18 of the 32 of the paper's models."""

SHUFFLES, SEED = 20, 0
_LEAST_PROBES = 8
_NAME = "reef"
_ID = method_id(_NAME, 1, depth=f"{DEPTH[0]}/{DEPTH[1]}", seed=SEED, shuffles=SHUFFLES)
_SOURCE = "Zhang et al., REEF, ICLR 2025 (arXiv 2410.14273), section 3"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return the CKA of two models' states on the same probes.

    Controls: the same block with the base's probes shuffled, and the first block, whose states follow from the token
    alone.
    """
    if len(probes) < _LEAST_PROBES:
        return METHOD.not_applicable(
            f"{len(probes)} probes, and {_LEAST_PROBES} are the least that CKA means anything on"
        )
    sides = [model.run(probes).states.astype(np.float64) for model in (suspect, base)]
    here, there = (block_at(len(states)) for states in sides)
    published = [[_unit_gram(standardised(states)) for states in side] for side in sides]
    table_LM = np.array([[_inner(mine, theirs) for theirs in published[1]] for mine in published[0]])
    best = np.unravel_index(int(table_LM.argmax()), table_LM.shape)
    mine, theirs = sides[0][here], sides[1][there]
    plain = [centred(states) for states in (mine, theirs)]
    unbiased = [centred_gram(states @ states.T) for states in plain]
    rng = np.random.default_rng(SEED)
    orders = [rng.permutation(len(probes)) for _ in range(SHUFFLES)]
    shuffled = [_inner(published[0][here], published[1][there][np.ix_(order, order)]) for order in orders]
    values = (
        Value(
            name="similarity",
            value=float(table_LM[here, there]),
            kind="similarity",
            identical=1.0,
            note=f"standardised as published, blocks {here + 1} of {len(sides[0])} and {there + 1} of {len(sides[1])}",
        ),
        Value(
            name="best of map",
            value=float(table_LM.max()),
            kind="similarity",
            identical=1.0,
            note=f"blocks {int(best[0]) + 1} and {int(best[1]) + 1}",
        ),
        Value(
            name="centred",
            value=_inner(*(_unit_gram(states) for states in plain)),
            kind="similarity",
            identical=1.0,
            note="without the division, which a rotation changes",
        ),
        Value(
            name="unbiased",
            value=float(np.clip(np.vdot(*unbiased), -1.0, 1.0)),
            kind="similarity",
            identical=1.0,
            note="0 on average for features that have nothing to do with each other",
        ),
    )
    controls = (
        Value(
            name="shuffled probes",
            value=float(np.mean(shuffled)),
            kind="similarity",
            note=f"mean of {SHUFFLES}: what the number of probes and coordinates gives alone",
        ),
        Value(name="first blocks", value=float(table_LM[0, 0]), kind="similarity", note="mostly the last token itself"),
    )
    rows = tuple((row + 1, *map(float, line)) for row, line in enumerate(table_LM))
    columns = ("suspect's block", *(str(column + 1) for column in range(table_LM.shape[1])))
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=values,
        controls=controls,
        tables=(Table(title="published CKA of every block with every block of the base", columns=columns, rows=rows),),
        notes=(f"{len(probes)} probes",),
        source=_SOURCE,
    )


def block_at(layers: int) -> int:
    """Return the block, from 0, at the published depth.

    Example:
        >>> block_at(32), block_at(4), block_at(1)
        (17, 1, 0)
    """
    return max(1, round(DEPTH[0] * layers / DEPTH[1])) - 1


def centred(states_ND: Float[Array, "N D"]) -> Float64[Array, "N D"]:
    """Return states about their mean over probes."""
    return states_ND.astype(np.float64) - states_ND.mean(axis=0, dtype=np.float64)


def standardised(states_ND: Float[Array, "N D"]) -> Float64[Array, "N D"]:
    """Return states about their mean, each coordinate divided by its deviation over probes; constants stay 0."""
    about = centred(states_ND)
    deviations_D = about.std(axis=0)
    return about / np.where(deviations_D > 1e-12 * np.abs(states_ND).max(initial=0.0), deviations_D, 1.0)


def linear_cka(left_ND: Float[Array, "N D"], right_NE: Float[Array, "N E"]) -> float:
    """Return the biased linear CKA of centred features, 0 to 1; 0 where one holds nothing.

    Example:
        >>> left = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(linear_cka(left, left @ np.array([[0.6, -0.8], [0.8, 0.6]])), 12)
        1.0
    """
    return _inner(_unit_gram(left_ND), _unit_gram(right_NE))


def _unit_gram(features_ND: Array) -> Array:
    gram_NN = features_ND @ features_ND.T
    norm = float(np.linalg.norm(gram_NN))
    return gram_NN / norm if norm > 0 else gram_NN


def _inner(left_NN: Array, right_NN: Array) -> float:
    return float(np.clip(np.vdot(left_NN, right_NN), 0.0, 1.0))


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="centred: every change of weights that keeps the function; as published not a rotation of the stream",
    notices="training, pruning, merging",
    fails="high for strangers; depends on probes and layer; high for a distilled student",
    measure=measure,
)
