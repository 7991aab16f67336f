"""Directions of the stream that all layers use made no louder than the rest, before sizes are taken.

Axes: A, B = residual coordinates of suspect and base, K = common directions.

Trained models send much of their energy through few directions, and a fit lays the loud directions of strangers on each
other: cosines then agree for no other reason. So both models' rows are divided, in the common basis, by the root of
their joint second moment, one for what layers read from the stream and one for what they write to it; quiet directions
are not made louder than ``1 / sqrt(RIDGE)`` times the mean. The same is done to both, so a copy keeps its cosines, and
the moments turn with the models, so nothing that a rotation leaves alone is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from kinprint.alignment.basis import Basis, turned
from kinprint.alignment.trunk import Layer, pooled, spaced, unit_rows
from kinprint.checkpoint import Array
from kinprint.linalg.threads import threads_for

UNITS = 512
"""Most units of a layer that count, of all sizes."""

RIDGE = 0.1
"""Added to each direction's share of the mean energy."""


def whitened(suspect: Sequence[Layer], base: Sequence[Layer], basis: Basis) -> tuple[Basis, Basis]:
    """Return a basis for what layers read and one for what they write, both scaled by the joint energy.

    Args:
        suspect: Some of the suspect's layers.
        base: Some of the base's.
        basis: The common basis; its columns are orthonormal, those of the results are not.
    """
    sides = ((suspect, basis.suspect_AK), (base, basis.base_BK))
    read, write = (
        _scaled(basis, sum((_moment(layers, side, written=written) for layers, side in sides), np.zeros(())))
        for written in (False, True)
    )
    return read, write


def _moment(layers: Sequence[Layer], side_DK: Array, *, written: bool) -> Float64[Array, "K K"]:
    total = np.zeros((side_DK.shape[1], side_DK.shape[1]))
    for layer in layers:
        for rows in _rows(layer, written=written):
            common = turned(unit_rows(rows), side_DK)
            with threads_for(side_DK.shape[1]):
                total += common.T @ common / len(common)
    # Both models weigh the same, whatever their depth.
    energy = float(np.trace(total))
    return total / energy if energy > 0 else total


def _rows(layer: Layer, *, written: bool) -> Iterator[Array]:
    if layer.attention is not None:
        yield from (layer.attention.o_HD,) if written else (layer.attention.k_KD, layer.attention.v_KD)
    units = pooled(layer)
    if units is not None:
        some = spaced(units, UNITS)
        yield from (units.down_FD[some],) if written else (units.key_FD[some], units.up_FD[some])


def _scaled(basis: Basis, moment_KK: Array) -> Basis:
    energy = float(np.trace(moment_KK)) / len(moment_KK)
    if not energy > 0:
        return basis
    with threads_for(len(moment_KK)):
        values, vectors = np.linalg.eigh(moment_KK / energy)
        scale_KK = (vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE)) @ vectors.T
        return Basis(basis.kind, basis.suspect_AK @ scale_KK, basis.base_BK @ scale_KK, basis.fitted_on)
