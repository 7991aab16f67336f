"""Unbiased linear CKA: how alike two sets of features are on the same samples, whatever basis the features have.

Axes: K = samples.

Two sets of features [features, K] enter as their Gram matrices over samples. Nothing that keeps the products of
samples changes the number: an orthogonal change of features, their order, their number, a common scale, or a constant
added to a feature. Features that have nothing to do with each other have 0 on average, however many there are of them
and however few samples; the usual CKA is far above 0 there.

Source: Song et al., Feature Selection via Dependence Maximization, JMLR 13 (2012), equation 5 (the estimator);
Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019 (CKA); this way of centring: AWM
(arXiv 2510.06738), section 4, code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinprint.shapes import Float, Float64

Array = np.ndarray[Any, np.dtype[Any]]

_ROUNDING = 1e-12
"""What centring leaves of a Gram matrix that it should empty, as a share of its norm. AWM's code has an absolute 1e-8
in this place, below which weights that are small everywhere would fall."""


def centred_gram(gram_KK: Float[Array, "K K"]) -> Float64[Array, "K K"]:
    """Return a Gram matrix without its diagonal and without row and column means, at unit length.

    Centred so that anything of the form a_i + a_j outside the diagonal vanishes, which is what makes products unbiased.

    Args:
        gram_KK: Symmetric.

    Returns:
        Zero where nothing is left, as for up to three samples.

    Example:
        >>> pair = np.zeros((4, 4))
        >>> pair[0, 1] = pair[1, 0] = 1.0
        >>> (centred_gram(pair)[:2] * np.sqrt(6)).round(12).tolist()
        [[0.0, 1.0, -0.5, -0.5], [1.0, 0.0, -0.5, -0.5]]
    """
    # float64: the diagonal, which is taken away, is the largest part, and what is left is a difference.
    gram_KK = gram_KK.astype(np.float64)
    count = len(gram_KK)
    np.fill_diagonal(gram_KK, 0.0)
    before = float(np.linalg.norm(gram_KK))
    if count <= 3 or before == 0:
        return np.zeros_like(gram_KK)
    gram_KK /= before
    means_K = gram_KK.sum(axis=0) / (count - 2)
    means_K -= means_K.sum() / (2 * (count - 1))
    gram_KK -= means_K[:, None]
    gram_KK -= means_K[None]
    np.fill_diagonal(gram_KK, 0.0)
    norm = float(np.linalg.norm(gram_KK))
    return gram_KK / norm if norm > _ROUNDING else np.zeros_like(gram_KK)


def unbiased_cka(left_KK: Float[Array, "K K"], right_KK: Float[Array, "K K"]) -> float:
    """Return the unbiased linear CKA of two Gram matrices over the same samples: -1 to 1, and 0 where one is empty.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((3, 8))
        >>> round(unbiased_cka(features.T @ features, 4 * features.T @ features), 12)
        1.0
    """
    return float(np.clip(np.vdot(centred_gram(left_KK), centred_gram(right_KK)), -1.0, 1.0))
