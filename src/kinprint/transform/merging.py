"""Models of one shape merged, part by part. Every merge keeps the first model's config and names.

A part is one matrix by its role: of a fused or stacked tensor, each matrix in it is merged by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.transform.state import ModelState

COLINEAR = 0.9995
"""Cosine from which two directions count as one: SLERP divides by the sine of their angle, which is noise there."""


def linear(models: Sequence[ModelState], weights: Sequence[float]) -> ModelState:
    """Return the weighted mean of models; the weights are divided by their sum.

    Source: Wortsman et al., Model soups (arXiv 2203.05482), section 2.

    Raises:
        UsageError: The models differ in shape.
    """
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    return _merged(models, lambda arrays: _weighted_sum(shares, arrays))


def slerp(first: ModelState, second: ModelState, t: float) -> ModelState:
    """Return the point a share ``t`` of the way from one model to another, along the arc between their directions.

    With the angle O between two parts as vectors: sin((1 - t) O) / sin O of the first and sin(t O) / sin O of the
    second. Where they are (nearly) colinear or one is zero, linear interpolation takes its place. Lengths are not
    interpolated: as mergekit does, the weights of the arc multiply the parts as they are.

    Source: Shoemake, Animating rotation with quaternion curves (SIGGRAPH 1985), section 3.3.

    Raises:
        UsageError: The models differ in shape.
    """
    return _merged([first, second], lambda arrays: _slerp(arrays[0], arrays[1], t))


def task_arithmetic(base: ModelState, models: Sequence[ModelState], weights: Sequence[float]) -> ModelState:
    """Return ``base + sum of weight_i (model_i - base)``.

    Source: Ilharco et al., Editing Models with Task Arithmetic (arXiv 2212.04089), section 2.

    Raises:
        UsageError: The models differ in shape.
    """
    scales = np.asarray(weights, dtype=np.float64)

    def add(arrays: Sequence[Array]) -> Array:
        origin, *others = arrays
        return origin + _weighted_sum(scales, [other - origin for other in others])

    return _merged([base, *models], add)


def ties(
    base: ModelState, models: Sequence[ModelState], *, density: float, scale: float = 1.0, weights: Sequence[float] = ()
) -> ModelState:
    """Return ``base`` plus merged task vectors: trimmed, a sign elected for each weight, mean of those that agree.

    Source: Yadav et al., TIES-Merging (arXiv 2306.01708), section 4 and algorithm 1. The paper trims a task vector as
    a whole; as mergekit does, each part is trimmed by itself.

    Args:
        base: What the task vectors start from.
        models: The models to merge.
        density: Share of each task vector that stays, the largest by magnitude (the paper's k), rounded down to whole
            entries; of equally large ones (models stored in bf16 have many) the first stay.
        scale: What the merged task vector is multiplied by (the paper's lambda).
        weights: Weight of each model in the election and the mean; equal where none are given.

    Raises:
        UsageError: The models differ in shape.
    """
    shares = np.asarray(weights or [1.0] * len(models), dtype=np.float64)

    def merge(arrays: Sequence[Array]) -> Array:
        origin, *others = arrays
        return origin + scale * _disjoint_mean(np.stack([_trimmed(o - origin, density) for o in others]), shares)

    return _merged([base, *models], merge)


def _merged(models: Sequence[ModelState], merge: Callable[[Sequence[Array]], Array]) -> ModelState:
    _require_one_shape(models)
    return models[0].updated({key: merge([model.parts[key] for model in models]) for key in models[0].parts})


def _require_one_shape(models: Sequence[ModelState]) -> None:
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for key in sorted({*first.parts, *model.parts}, key=str):
            here, there = first.parts.get(key), model.parts.get(key)
            if here is None or there is None or here.shape != there.shape:
                shapes = ["missing" if array is None else str(list(array.shape)) for array in (here, there)]
                raise UsageError(
                    f"cannot merge models of different shape: {key} is {shapes[0]} in the first and {shapes[1]} in "
                    f"model {number}"
                )


def _weighted_sum(weights: Array, arrays: Sequence[Array]) -> Array:
    return np.sum([weight * array for weight, array in zip(weights, arrays, strict=True)], axis=0)


def _slerp(first: Array, second: Array, t: float) -> Array:
    norms = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    cosine = float(np.vdot(first, second)) / norms if norms > 0 else 1.0
    if abs(cosine) > COLINEAR:
        return (1 - t) * first + t * second
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)


def _trimmed(task_vector: Array, density: float) -> Array:
    """Return a task vector with all but its largest entries set to zero."""
    count = int(density * task_vector.size)
    gone = np.argsort(-np.abs(task_vector), axis=None, kind="stable")[count:]
    trimmed = task_vector.copy()
    trimmed.reshape(-1)[gone] = 0.0
    return trimmed


def _disjoint_mean(task_vectors: Array, weights: Array) -> Array:
    """Return the weighted mean over the models whose sign, for each weight, is the one with more weight behind it."""
    weights = weights.reshape(-1, *[1] * (task_vectors.ndim - 1))
    elected = np.where((weights * task_vectors).sum(axis=0) >= 0, 1.0, -1.0)
    agreeing = weights * (np.sign(task_vectors) == elected)
    total = agreeing.sum(axis=0)
    return (agreeing * task_vectors).sum(axis=0) / np.where(total == 0, 1.0, total)
