"""Spectra of the routed experts of a layer, each by itself and pooled: an extension, no paper defines them.

Axes: E = experts, K = singular values.

Pooled is the mean over experts of spectra at unit length (root of the sum of squares), a summary that no order of the
experts changes. Experts that are copies of one MLP have its spectrum up to scale, so that a mixture made from a dense
model can be held against it.

Of more than ``SAMPLED`` experts so many are read, evenly spaced in the order of the lengths of their router rows: what
is chosen follows the experts, not their numbers. The rows are centred over experts first, for a softmax does not see
what all have in common. Where no router says, numbers are evenly spaced instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kinprint.architecture import ModelView
from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.linalg.device import Device
from kinprint.linalg.stacked import singular_values_of
from kinprint.shapes import Float64

SAMPLED = 8
"""Experts of a layer that are read where there are more: a layer then costs what 8 small MLPs do."""

MATRICES = ("up", "down")


def sampled(model: ModelView, stem: str, layer: int, *, fold: bool) -> list[int]:
    """Return the numbers of the experts to read, at most ``SAMPLED``.

    Args:
        model: The model.
        stem: ``moe``, or ``moe.shared`` where shared experts are numbered.
        layer: The layer.
        fold: Multiply the norm's gain into the router first.

    Raises:
        NonFiniteError: The router holds NaN or Inf.
    """
    experts = model.experts(f"{stem}.up", layer)
    if len(experts) <= SAMPLED:
        return experts
    order = np.array(experts)
    if model.has(f"{stem}.router", layer) and model.shape(f"{stem}.router", layer)[0] > max(experts):
        rows_ED = model.array(f"{stem}.router", layer, fold=fold)[experts].astype(np.float64)
        lengths_E = np.linalg.norm(rows_ED - rows_ED.mean(axis=0), axis=1)
        order = order[np.argsort(-lengths_E, kind="stable")]
    places = np.linspace(0, len(experts) - 1, SAMPLED).round().astype(int)
    return sorted(int(expert) for expert in order[places])


def expert_spectra(
    model: ModelView, stem: str, layer: int, *, fold: bool, device: Device | None = None
) -> Mapping[str, Float64[Array, "E K"]]:
    """Return the singular values of ``up`` and ``down`` of the sampled experts, largest first.

    With a device the experts of a layer are worked out together there.

    Raises:
        NonFiniteError: One of them holds NaN or Inf.
        UsageError: One of them lacks a matrix.
    """
    experts = sampled(model, stem, layer, fold=fold)
    missing = [m for m in MATRICES for expert in experts if not model.has(f"{stem}.{m}", layer, expert)]
    if missing:
        raise UsageError(f"no {stem}.{missing[0]} in one of the experts")
    return {
        matrix: padded(
            singular_values_of((model.array(f"{stem}.{matrix}", layer, e, fold=fold) for e in experts), device)
        )
        for matrix in MATRICES
    }


def pooled(spectra_EK: Float64[Array, "E K"]) -> Float64[Array, " K"]:
    """Return the mean of spectra at unit length; an expert of zeros adds nothing.

    Example:
        >>> pooled(np.array([[3.0, 4.0], [6.0, 8.0]])).round(12).tolist()
        [0.6, 0.8]
    """
    lengths_E1 = np.linalg.norm(spectra_EK, axis=1, keepdims=True)
    return (spectra_EK / np.where(lengths_E1 > 0, lengths_E1, 1.0)).mean(axis=0)


def padded(rows: Sequence[Array]) -> Array:
    """Return rows of unequal length as one array, zeros behind the shorter ones; [0, 0] for none."""
    longest = max((row.size for row in rows), default=0)
    padded_NK = np.zeros((len(rows), longest))
    for row, values in zip(padded_NK, rows, strict=True):
        row[: values.size] = values
    return padded_NK
