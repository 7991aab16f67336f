"""Logits: do a suspect's logits lie in the span of the victim's output matrix?

Axes: N = probes, V = tokens that both vocabularies hold, D = residual coordinates of the victim.

Every output of a language model is a product with its output matrix, so it lies in D of V dimensions. The suspect's
next-token logits on each probe are standardised over the vocabulary and projected on the columns of the victim's
matrix; d is the length of what is left. The score is the share of probes with d < e, and e is one of 150 to 300 in the
paper, whose vocabulary has 32,000 tokens. A standardised vector has length sqrt(V), so e is taken relative to that
here: e sqrt(V / 32000). Constants are taken from both sides, since standardising subtracts the mean and the span need
not hold it.

Where vocabularies differ, rows and entries of the tokens with the same strings are compared.

Ignores: everything that keeps the function, and training that leaves the output matrix alone.
Notices: another output matrix, whoever trained the rest.
Fails: where D is not far below V; models of one vocabulary whose output matrices share a span (Qwen2.5 has .9967
against an unrelated model); an output matrix that was turned or trained anew.

Source: Yang & Wu, A Fingerprint for Large Language Models (arXiv 2407.01235), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.alignment.vocabulary import shared_tokens
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.shapes import Float, Float64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

THRESHOLDS = (150, 200, 250, 300)
PUBLISHED_VOCABULARY = 32_000
SEED = 0
_ROWS, _TOKENS = 64, 1 << 13
"""Rows of logits and tokens that are worked through at once."""

_LEAST = 1e-12
"""Share of the largest squared length below which a direction of the columns is rounding."""

_NAME = "logits"
_ID = method_id(_NAME, 1, e=THRESHOLDS[0], seed=SEED, vocabulary=PUBLISHED_VOCABULARY)
_SOURCE = "Yang & Wu (arXiv 2407.01235), section 4"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return which share of the suspect's logits the span of the base's output matrix explains.

    Controls: a span of as many directions drawn at random, and the base's own logits.
    """
    matrix_VD = base.output_matrix
    logits_NV, own_NV = suspect.run(probes).logits, base.run(probes).logits
    ids, note = shared_ids(suspect, base, logits_NV.shape[1], len(matrix_VD))
    if ids is None:
        return METHOD.not_applicable(note)
    here, there = ids
    width = matrix_VD.shape[1]
    if len(here) <= 2 * width:
        return METHOD.not_applicable(
            f"{len(here)} shared tokens for {width} coordinates: nearly everything lies in such a span"
        )
    held_SD = _taken(matrix_VD, there)
    left = relative_residuals(_taken(logits_NV.T, here).T, held_SD)
    own = relative_residuals(_taken(own_NV.T, there).T, held_SD)
    del held_SD  # as large as an output matrix
    held_SD = np.random.default_rng(SEED).standard_normal((len(there), width), dtype=np.float32)
    by_chance = relative_residuals(_taken(logits_NV.T, here).T, held_SD)
    limits = [threshold / PUBLISHED_VOCABULARY**0.5 for threshold in THRESHOLDS]
    values = [
        Value(
            name="similarity",
            value=float((left < limits[0]).mean()),
            kind="similarity",
            identical=1.0,
            note=f"share of probes with a distance below e = {THRESHOLDS[0]}, as it would be with 32,000 tokens",
        ),
        Value(
            name="mean explained",
            value=float(1 - (left**2).mean()),
            kind="similarity",
            identical=1.0,
            note=f"share of the squared length that the span explains; chance gives {width / len(there):.3f}",
        ),
        *(
            Value(name=f"share below {threshold}", value=float((left < limit).mean()), kind="similarity", identical=1.0)
            for threshold, limit in zip(THRESHOLDS[1:], limits[1:], strict=True)
        ),
    ]
    controls = (
        Value(name="random span", value=float(1 - (by_chance**2).mean()), kind="similarity", note="mean explained"),
        Value(name="base on itself", value=float(1 - (own**2).mean()), kind="similarity", note="mean explained"),
    )
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=tuple(values),
        controls=controls,
        notes=(f"{len(probes)} probes, {note}",),
        source=_SOURCE,
    )


def relative_residuals(logits_NV: Float[Array, "N V"], matrix_VD: Float[Array, "V D"]) -> Float64[Array, " N"]:
    """Return the share of each centred logit vector's length that no sum of a matrix's centred columns gives, 0 to 1.

    Example:
        >>> relative_residuals(np.array([[5.0, 1.0]]), np.array([[3.0], [-1.0]])).round(6).tolist()
        [0.0]
    """
    # Vocabularies are large: by blocks of tokens, and float64 since what is left over may be tiny.
    blocks = [slice(start, start + _TOKENS) for start in range(0, len(matrix_VD), _TOKENS)]
    mean_D = matrix_VD.mean(axis=0, dtype=np.float64)
    gram_DD = np.zeros((len(mean_D), len(mean_D)))
    for block in blocks:
        about_BD = matrix_VD[block] - mean_D
        gram_DD += about_BD.T @ about_BD
    # An orthonormal basis of the columns' span is (matrix - mean) @ half; what rounding leaves of others is no column.
    lengths_D, vectors_DD = np.linalg.eigh(gram_DD)
    kept = lengths_D > _LEAST * lengths_D[-1]
    half_DR = vectors_DD[:, kept] / np.sqrt(lengths_D[kept])
    found = np.ones(len(logits_NV))
    for first in range(0, len(found), _ROWS):
        rows_KV = logits_NV[first : first + _ROWS].astype(np.float64)
        rows_KV -= rows_KV.mean(axis=1, keepdims=True)
        norms_K = np.linalg.norm(rows_KV, axis=1)
        rows_KV /= np.where(norms_K > 0, norms_K, 1.0)[:, None]
        products_KD = np.sum([rows_KV[:, block] @ (matrix_VD[block] - mean_D) for block in blocks], axis=0)
        inside_KD = products_KD @ half_DR @ half_DR.T
        for block in blocks:
            rows_KV[:, block] -= inside_KD @ (matrix_VD[block] - mean_D).T
        found[first : first + _ROWS] = np.where(norms_K > 0, np.linalg.norm(rows_KV, axis=1), 1.0)
    return found


def _taken(rows: Array, ids: Array) -> Array:
    """Return some rows; where they are all rows in order, as they are, since a vocabulary's matrix is large."""
    return rows if np.array_equal(ids, np.arange(len(rows))) else rows[ids]


def shared_ids(suspect: Runner, base: Runner, mine: int, theirs: int) -> tuple[tuple[Array, Array] | None, str]:
    """Return the ids of the tokens that two models share, in each, and how they were told; None where nothing tells."""
    words = suspect.checkpoint.vocabulary, base.checkpoint.vocabulary
    if words[0] is not None and words[1] is not None:
        here, there = shared_tokens(words[0], words[1])
        kept = (here < mine) & (there < theirs)
        return (here[kept], there[kept]), f"{int(kept.sum())} shared tokens"
    if mine == theirs:
        return (np.arange(mine), np.arange(mine)), f"{mine} tokens, taken to be the same"
    return None, f"no token strings to tell which of {mine} and {theirs} tokens are the same"


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="everything that keeps the function, and training that leaves the output matrix alone",
    notices="another output matrix, whoever trained the rest",
    fails="small vocabularies; unrelated models whose matrices share a span; an output matrix trained anew",
    measure=measure,
)
