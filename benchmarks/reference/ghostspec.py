"""GhostSpec-mse as published: spectra of the dense products W_q W_k and W_v W_o of every layer, and the best layer map.

Axes: A, B = layers of the two models, S = singular values.

Steps: form both D x D products of each layer in float32, with the key/value heads repeated to the number of query
heads where queries are grouped; take all singular values; cut two spectra at the smaller effective rank, then scale
each to [0, 1]; the distance of two layers is the mean over both products of the mean squared difference; the distance
of two models is its mean along the map of layers that POSA (Algorithm 1) finds.

The paper turns the distance into 1 / (1 + exp(k (distance - tau))) and prints neither k nor tau. Effective rank is Roy
and Vetterli's. POSA is quadratic in the deeper model's layers, as Algorithm 1 is.

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def layer_spectra(
    query: Array, key: Array, value: Array, output: Array, *, heads: int, kv_heads: int
) -> tuple[Array, Array]:
    """Return the singular values of one layer's two products.

    Args:
        query: W_q, [heads * head size, D], float32.
        key: W_k, [kv_heads * head size, D].
        value: W_v, [kv_heads * head size, D].
        output: W_o, [D, heads * head size].
        heads: Query heads.
        kv_heads: Key/value heads, a divisor of ``heads``.

    Returns:
        All D singular values of W_q^T W_k and of W_o W_v, largest first.
    """
    group = heads // kv_heads
    interactions = query.T @ repeated(key, kv_heads, group)
    transport = output @ repeated(value, kv_heads, group)
    return np.linalg.svd(interactions, compute_uv=False), np.linalg.svd(transport, compute_uv=False)


def repeated(weight: Array, kv_heads: int, group: int) -> Array:
    """Repeat each key/value head as often as there are query heads to it, head after head."""
    return np.repeat(weight.reshape(kv_heads, -1, weight.shape[1]), group, axis=0).reshape(-1, weight.shape[1])


def effective_rank(values_S: Array) -> int:
    """Return exp of the entropy of a spectrum that sums to 1, rounded, at least 1."""
    shares = values_S[values_S > 0].astype(np.float64)
    shares /= shares.sum()
    return max(1, round(float(np.exp(-np.sum(shares * np.log(shares))))))


def spectrum_distance(left_S: Array, right_S: Array) -> float:
    """Return the mean squared difference of two spectra, cut at the smaller effective rank and scaled to [0, 1]."""
    rank = min(effective_rank(left_S), effective_rank(right_S))
    return float(np.mean((_scaled(left_S[:rank]) - _scaled(right_S[:rank])) ** 2))


def _scaled(values: Array) -> Array:
    span = values[0] - values[-1]
    return (values - values[-1]) / span if span > 0 else np.zeros_like(values)


def distance(one: Sequence[tuple[Array, Array]], other: Sequence[tuple[Array, Array]], *, penalty: float) -> float:
    """Return the distance of two models from the spectra of their layers: 0 for the same.

    Args:
        one: What :func:`layer_spectra` gave for each layer.
        other: The same for the other model.
        penalty: What a skipped layer costs in POSA; the paper gives no value.
    """
    shallow, deep = sorted((one, other), key=len)
    distances_AB = np.array(
        [[sum(map(spectrum_distance, left, right)) / 2 for right in deep] for left in shallow], dtype=np.float64
    )
    return posa(distances_AB, penalty)


def posa(distances_AB: Array, penalty: float) -> float:
    """Return the mean distance along the best increasing map of A layers into B >= A layers (Algorithm 1)."""
    rows, columns = distances_AB.shape
    cost = np.full((rows, columns), np.inf)
    before = np.zeros((rows, columns), dtype=int)
    cost[0] = distances_AB[0]
    for i in range(1, rows):
        for j in range(i, columns):
            steps = [cost[i - 1, k] + (j - k - 1) * penalty for k in range(i - 1, j)]
            best = int(np.argmin(steps))
            before[i, j] = best + i - 1
            cost[i, j] = steps[best] + distances_AB[i, j]
    column = int(np.argmin(cost[-1]))
    path = [column]
    for i in range(rows - 1, 0, -1):
        column = int(before[i, column])
        path.append(column)
    return float(np.mean([distances_AB[i, j] for i, j in enumerate(reversed(path))]))
