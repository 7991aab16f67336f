"""Gradient: statistics of the gradients that noise gives a model's matrices (TensorGuard).

Axes: O, I = output and input rows of a matrix.

For a matrix W and Gaussian noise x the gradient of |W x| with respect to W is u x^T, where u is W x at unit length.
Mean, standard deviation, norm, skewness and kurtosis of its entries, mean over draws and over the first layers, are
the features of each kind of matrix. Moments of an outer product are products of moments, so no gradient is formed.

The paper clusters features by k-means; LeaFBench takes similarities. The number here is one minus the mean relative
difference of features, |a - b| / (|a| + |b|).

Ignores: the order of the columns of W, up to the noise that they meet.
Notices: little: sizes and outliers of weights.
Fails: statistics of entries say how a model was initialised and trained, not from which: strangers of one recipe agree
(LeaFBench: AUC .798, .374 of copies at 1 % false alarms).

Source: TensorGuard (arXiv 2506.01631), section 3 and published code; LeaFBench's baseline "Gradient".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinprint.architecture import ModelView, view
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.errors import NonFiniteError
from kinprint.shapes import Float, Float64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

ROLES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
STATISTICS = ("mean", "std", "norm", "skewness", "kurtosis")
LAYERS, DRAWS, SEED = 16, 8, 0
_NAME = "gradient"
_ID = method_id(_NAME, 1, draws=DRAWS, layers=LAYERS, seed=SEED)
_SOURCE = "TensorGuard (arXiv 2506.01631), section 3"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return how alike the statistics of two models' gradients under noise are. Probes play no part.

    Control: the suspect's features with those of each kind of matrix moved on to the next kind.
    """
    del probes
    mine, theirs = (features(view(model.checkpoint)) for model in (suspect, base))
    shared = [role for role in ROLES if role in mine and role in theirs]
    if not shared:
        return METHOD.not_applicable("the models share no kind of matrix")
    left, right = (np.concatenate([side[role] for role in shared]) for side in (mine, theirs))
    moved = np.roll(left, len(STATISTICS))
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=(
            Value(
                name="similarity", value=alike(left, right), kind="similarity", identical=1.0, note="conversion ours"
            ),
            *(
                Value(name=role, value=alike(mine[role], theirs[role]), kind="similarity", identical=1.0)
                for role in shared
            ),
        ),
        controls=(
            (Value(name="kinds of matrices moved", value=alike(moved, left), kind="similarity"),)
            if len(shared) > 1
            else ()
        ),
        notes=(f"the first {LAYERS} layers at most; no text is read",),
        source=_SOURCE,
    )


def features(model: ModelView) -> Mapping[str, Float64[Array, " S"]]:
    """Return the statistics of each kind of matrix, mean over draws and layers; what holds NaN or Inf is left out."""
    found: dict[str, Array] = {}
    for role in ROLES:
        rows: list[Array] = []
        for layer in model.layers(role)[:LAYERS]:
            try:
                weight_OI = model.array(role, layer)
            except NonFiniteError:
                continue
            rng = np.random.default_rng([SEED, layer])
            rows += [statistics(weight_OI, rng.standard_normal(int(weight_OI.shape[1]))) for _ in range(DRAWS)]
        if rows:
            found[role] = np.mean(rows, axis=0)
    return found


def statistics(weight_OI: Float[Array, "O I"], noise_I: Float[Array, " I"]) -> Float64[Array, " S"]:
    """Return mean, deviation, norm, skewness and kurtosis of the entries of d |W x| / dW = u x^T.

    Example:
        >>> statistics(np.eye(2), np.array([3.0, 4.0])).round(3).tolist()
        [2.45, 0.497, 5.0, 0.298, -0.98]
    """
    output_O = weight_OI.astype(np.float64) @ noise_I
    length = float(np.linalg.norm(output_O))
    unit_O = output_O / length if length > 0 else output_O
    raw = [float((unit_O**power).mean() * (noise_I**power).mean()) for power in (1, 2, 3, 4)]
    mean, variance = raw[0], max(0.0, raw[1] - raw[0] ** 2)
    norm = (raw[1] * unit_O.size * noise_I.size) ** 0.5
    if variance == 0:
        return np.array([mean, 0.0, norm, 0.0, 0.0])
    third = raw[2] - 3 * mean * raw[1] + 2 * mean**3
    fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
    return np.array([mean, variance**0.5, norm, third / variance**1.5, fourth / variance**2 - 3])


def alike(left_S: Float[Array, " S"], right_S: Float[Array, " S"]) -> float:
    """Return one minus the mean relative difference.

    Example:
        >>> alike(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
        0.75
    """
    scale = np.abs(left_S) + np.abs(right_S)
    return float(1 - np.mean(np.abs(left_S - right_S) / np.where(scale > 0, scale, 1.0)))


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="the order of columns, up to the noise that they meet",
    notices="sizes and outliers of weights",
    fails="strangers of one recipe agree",
    measure=measure,
)
