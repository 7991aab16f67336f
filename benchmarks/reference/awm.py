"""AWM as published: align the residual coordinates by the embeddings, then compare W_q and W_k by unbiased linear CKA.

Axes: T = shared tokens, D, E = residual coordinates of the two models (D >= E), L, M = layers.

Steps: cosines of embedding columns on the tokens that both vocabularies hold; one linear assignment of
1 - |cosine| gives each coordinate of the narrower model one of the wider, and a sign; the wider model's W_q and W_k get
their input columns in that order and with those signs; each pair of layers scores the mean of two unbiased linear
CKAs, whose samples are the input columns. Models of one depth are compared layer by layer, others by the assignment of
layers that scores highest.

Float32 throughout. The published code leaves the CKA to a GPU; here the same products run in numpy.

Source: AWM, arXiv 2510.06738 (ICLR 2026), sections 3 and 4 and the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment  # pyright: ignore

Array = np.ndarray[Any, np.dtype[Any]]

EMPTY = 1e-8
"""Below it, the published code gives 0 in place of a quotient."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What AWM reads of a model.

    Attributes:
        embedding: [tokens, D], float32. Row t is the same token in both models.
        queries: W_q of every layer, [out, D], float32.
        keys: W_k of every layer, [out, D], float32.
    """

    embedding: Array
    queries: Sequence[Array]
    keys: Sequence[Array]


def similarity(one: Weights, other: Weights) -> float:
    """Return AWM's similarity of two models: 1 for the same, about 0 for unrelated ones."""
    wide, narrow = (one, other) if one.embedding.shape[1] >= other.embedding.shape[1] else (other, one)
    order_E, signs_E = alignment(wide.embedding, narrow.embedding)
    queries = [weight[:, order_E] * signs_E for weight in wide.queries]
    keys = [weight[:, order_E] * signs_E for weight in wide.keys]
    if len(queries) == len(narrow.queries):
        pairs = [(layer, layer) for layer in range(len(queries))]
        return float(np.mean([_layers(queries, keys, narrow, *pair) for pair in pairs]))
    scores_LM = np.array(
        [[_layers(queries, keys, narrow, i, j) for j in range(len(narrow.queries))] for i in range(len(queries))]
    )
    rows, columns = linear_sum_assignment(scores_LM, maximize=True)
    return float(scores_LM[rows, columns].mean())


def _layers(queries: Sequence[Array], keys: Sequence[Array], narrow: Weights, i: int, j: int) -> float:
    return (unbiased_cka(queries[i], narrow.queries[j]) + unbiased_cka(keys[i], narrow.keys[j])) / 2


def alignment(wide_TD: Array, narrow_TE: Array) -> tuple[Array, Array]:
    """Match residual coordinates by the embeddings of shared tokens.

    Returns:
        For each coordinate of the narrower model, a coordinate of the wider one, [E], and its sign, [E].
    """
    cosines_DE = _unit(wide_TD.T) @ _unit(narrow_TE.T).T
    rows, columns = linear_sum_assignment(1 - np.abs(cosines_DE))
    order_E = rows[np.argsort(columns)]
    return order_E, np.sign(cosines_DE[order_E, np.arange(narrow_TE.shape[1])])


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def unbiased_cka(left: Array, right: Array) -> float:
    """Return the unbiased linear CKA of two weights [out, D], whose samples are the D input columns.

    Both need the same D; outputs may differ in number.
    """
    gram_left, gram_right = _centred(left.T @ left), _centred(right.T @ right)
    between = float(np.sum(gram_left * gram_right))
    norm = float(np.sqrt(np.sum(gram_left * gram_left) * np.sum(gram_right * gram_right)))
    return between / norm if norm > EMPTY else 0.0


def _centred(gram: Array) -> Array:
    """Take diagonal and means from a Gram matrix, in the way that makes products of two of them unbiased."""
    count = len(gram)
    np.fill_diagonal(gram, 0)
    means = gram.sum(axis=0) / (count - 2)
    means -= means.sum() / (2 * (count - 1))
    gram = gram - means[:, None] - means[None]
    np.fill_diagonal(gram, 0)
    return gram
