"""Directions of the stream that all layers use made no louder than the rest, before sizes are taken.

Axes: A, B = residual coordinates of suspect and base, K = common directions.

Trained models send much of their energy through few directions, and a fit lays the loud directions of strangers on each
other: cosines then agree for no other reason. So both models' rows are divided, in the common basis, by the root of
their joint second moment, one for what layers read from the stream and one for what they write to it; quiet directions
are not made louder than ``1 / sqrt(RIDGE)`` times the mean. The same is done to both, so a copy keeps its cosines, and
the moments turn with the models, so nothing that a rotation leaves alone is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from kinprint.alignment.basis import Basis
from kinprint.alignment.forms import WIDE
from kinprint.alignment.trunk import Layer, pooled, spaced
from kinprint.checkpoint import Array
from kinprint.linalg.device import CPU, Device
from kinprint.linalg.products import turned, unit_rows
from kinprint.linalg.threads import side_by_side, threads_for
from kinprint.shapes import Float64

UNITS = 512
"""Most units of a layer that count, of all sizes."""

WIDE_ROWS = 128
"""Most rows of a matrix of a wide model that count, evenly spaced."""

RIDGE = 0.1
"""Added to each direction's share of the mean energy."""


def whitened(
    suspect: Iterable[Layer], base: Iterable[Layer], basis: Basis, *, large: bool = False
) -> tuple[Basis, Basis]:
    """Return a basis for what layers read and one for what they write, both scaled by the joint energy.

    Args:
        suspect: Some of the suspect's layers. Of both models one at a time is taken, and none is kept.
        base: Some of the base's.
        basis: The common basis; its columns are orthonormal, those of the results are not.
        large: Whether the two models are worth a thread each.
    """
    sides = ((suspect, basis.suspect_AK), (base, basis.base_BK))
    moments = side_by_side(lambda side: _moments(*side, basis.device), sides, large=large)
    read, write = (_scaled(basis, mine + theirs) for mine, theirs in zip(*moments, strict=True))
    return read, write


def brought_into(layer: Layer, read_DK: Array, write_DK: Array, device: Device = CPU) -> Layer:
    """Return a layer in one side of the bases for what it reads and for what it writes."""

    def turn(rows_ND: Array, side_DK: Array) -> Array:
        return device.get(turned(device.put(rows_ND), device.put(side_DK)))

    attention = layer.attention
    if attention is not None:
        q, k, v = (turn(rows, read_DK) for rows in (attention.q_HD, attention.k_KD, attention.v_KD))
        attention = replace(attention, q_HD=q, k_KD=k, v_KD=v, o_HD=turn(attention.o_HD, write_DK))
    mlps = tuple(
        replace(
            units,
            gate_FD=None if units.gate_FD is None else turn(units.gate_FD, read_DK),
            up_FD=turn(units.up_FD, read_DK),
            down_FD=turn(units.down_FD, write_DK),
        )
        for units in layer.mlps
    )
    return Layer(attention, mlps)


def _moments(
    layers: Iterable[Layer], side_DK: Array, device: Device
) -> tuple[Float64[Array, "K K"], Float64[Array, "K K"]]:
    """Return the second moments of what layers read and of what they write."""
    read_KK, write_KK = (np.zeros((side_DK.shape[1], side_DK.shape[1])) for _ in range(2))
    for layer in layers:
        for total, written in ((read_KK, False), (write_KK, True)):
            _add_moment(total, layer, side_DK, device, written=written)
        del layer  # before the next is read
    # Both models weigh the same, whatever their depth.
    return _of_unit_energy(read_KK), _of_unit_energy(write_KK)


def _add_moment(total_KK: Array, layer: Layer, side_DK: Array, device: Device, *, written: bool) -> None:
    for rows in _rows(layer, written=written):
        common = turned(unit_rows(device.put(rows)), device.put(side_DK))
        with threads_for(side_DK.shape[1]):
            total_KK += device.get(common.T @ common) / len(rows)


def _of_unit_energy(moment_KK: Array) -> Array:
    energy = float(np.trace(moment_KK))
    return moment_KK / energy if energy > 0 else moment_KK


def _rows(layer: Layer, *, written: bool) -> Iterator[Array]:
    if layer.attention is not None:
        for rows in (layer.attention.o_HD,) if written else (layer.attention.k_KD, layer.attention.v_KD):
            step = max(1, len(rows) // WIDE_ROWS) if rows.shape[1] > WIDE else 1
            yield rows[::step]
    units = pooled(layer)
    if units is not None:
        some = spaced(units, WIDE_ROWS if units.up_FD.shape[1] > WIDE else UNITS)
        yield from (units.down_FD[some],) if written else (units.key_FD[some], units.up_FD[some])


def _scaled(basis: Basis, moment_KK: Array) -> Basis:
    energy = float(np.trace(moment_KK)) / len(moment_KK)
    if not energy > 0:
        return basis
    with threads_for(len(moment_KK)):
        values, vectors = np.linalg.eigh(moment_KK / energy)
        scale_KK = (vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE)) @ vectors.T
    sides = basis.suspect_AK, basis.base_BK
    if min(len(side) for side in sides) > WIDE:
        # Rows are turned in float32 anyway, and there are two such bases of each kind.
        sides, scale_KK = tuple(side.astype(np.float32, copy=False) for side in sides), scale_KK.astype(np.float32)
    with threads_for(max(len(side) for side in sides)):
        return replace(basis, suspect_AK=sides[0] @ scale_KK, base_BK=sides[1] @ scale_KK)
