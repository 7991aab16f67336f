"""Sizes of matched heads and units, one pair of layers at a time.

Axes: D = residual coordinates, K = common directions, G, H = key/value groups of suspect and base.

Heads: a key/value group (its query heads summed) is matched by what it attends to (QK form) and tested by what it moves
(VO form). Units: an MLP unit is matched by its gate row and tested by its up and down rows together, as the cosine of
the outer products up x down, which is the product of their cosines: exchanging scale or sign between up and down
changes nothing. Without a gate, units are matched by up and tested by down.

A copy has 1; strangers have 0 up to chance and to what all trained models share.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from kinprint.alignment.basis import Basis, match_units
from kinprint.alignment.trunk import Attention, Layer, Units
from kinprint.checkpoint import Array
from kinprint.linalg import products
from kinprint.linalg.assignment import assignment
from kinprint.linalg.device import Device, DeviceArray
from kinprint.shapes import Float64

EXPERTS = 4
"""Most experts of a suspect's layer that are matched, spread over the layer; against all of the base's layer."""

UNITS = 512
"""Most units of a suspect's MLP that are matched, of all sizes; against all of the base's."""


def group_cosines(
    suspect: Attention, base: Attention, basis: Basis, form: Literal["qk", "vo"], write: Basis | None = None
) -> Float64[Array, "G H"]:
    """Return the cosine of every key/value group's form with every group's of the other model.

    The inner product of two forms L^T R is the sum of products of two small matrices, so none is formed.

    Args:
        suspect: One layer's attention.
        base: The other's.
        basis: The common basis, for what is read from the stream.
        form: Which form.
        write: The basis for what is written to the stream, where it is another.
    """
    output = basis if form == "qk" or write is None else write
    device = basis.device
    sides: list[tuple[DeviceArray, DeviceArray]] = []
    for attention, out_side, side in (
        (suspect, output.suspect_AK, basis.suspect_AK),
        (base, output.base_BK, basis.base_BK),
    ):
        left, right = attention.group_factors(form)
        sides.append((_each_turned(left, out_side, device), _each_turned(right, side, device)))
    return device.get(products.group_cosines(*sides[0], *sides[1]))


def _each_turned(blocks_GCD: Array, side_DK: Array, device: Device) -> DeviceArray:
    groups, rows, width = blocks_GCD.shape
    flat_ND = device.put(blocks_GCD.reshape(groups * rows, width))
    return products.turned(flat_ND, device.put(side_DK)).reshape(groups, rows, -1)


def matched_heads(suspect: Layer, base: Layer, basis: Basis, write: Basis | None = None) -> float | None:
    """Return the mean VO cosine of groups matched by QK, or None where a layer has no attention."""
    if suspect.attention is None or base.attention is None:
        return None
    here, there = assignment(group_cosines(suspect.attention, base.attention, basis, "qk"))
    return float(group_cosines(suspect.attention, base.attention, basis, "vo", write)[here, there].mean())


def matched_units(
    suspect: Layer, base: Layer, basis: Basis, write: Basis | None = None, *, most: int = UNITS
) -> float | None:
    """Return the mean over experts of the tested cosine of matched units, or None where a layer has no MLP.

    Each expert faces the expert that its units agree with best.

    Args:
        suspect: One layer.
        base: The other.
        basis: The common basis, for what is read from the stream.
        write: The basis for what is written to the stream, where it is another.
        most: Most units of an expert of the suspect that are matched.
    """
    sizes = matched_mlps(suspect, base, basis, write, most=most)
    return float(np.mean([size for _, size in sizes])) if sizes else None


def matched_mlps(
    suspect: Layer, base: Layer, basis: Basis, write: Basis | None = None, *, most: int = UNITS
) -> list[tuple[int | None, float]]:
    """Return the number and the size of each expert that was matched; of a dense MLP None and its size.

    Args:
        suspect: One layer.
        base: The other.
        basis: The common basis, for what is read from the stream.
        write: The basis for what is written to the stream, where it is another.
        most: Most units of an expert of the suspect that are matched.
    """
    if not suspect.mlps or not base.mlps:
        return []
    last = len(suspect.mlps) - 1
    spread = sorted({round(last * step / (EXPERTS - 1)) for step in range(EXPERTS)})
    chosen = [suspect.mlps[at] for at in spread]
    return [(units.expert, _best_expert(units, base, basis, write, most)) for units in chosen]


def _best_expert(units: Units, base: Layer, basis: Basis, write: Basis | None, most: int) -> float:
    if len(base.mlps) == 1:
        return unit_size(units, base.mlps[0], basis, write, most=most)
    # Told by a sample: to match all experts in full with each other would cost their number squared.
    told = [unit_size(units, other, basis, write, most=64) for other in base.mlps]
    return unit_size(units, base.mlps[int(np.argmax(told))], basis, write, most=most)


def unit_size(suspect: Units, base: Units, basis: Basis, write: Basis | None = None, *, most: int = UNITS) -> float:
    """Return the mean cosine of up x down (of down, without a gate) over units matched by their gate rows."""
    rows, columns, _ = match_units(suspect, base, basis, most=most)
    down = (basis if write is None else write).facing_cosines(suspect.down_FD[rows], base.down_FD[columns])
    if suspect.gate_FD is None or base.gate_FD is None:
        return float(down.mean())
    return float((down * basis.facing_cosines(suspect.up_FD[rows], base.up_FD[columns])).mean())


def trunk_size(sizes: list[float | None]) -> float | None:
    """Return the size of a trunk: the mean over the better half of its layers, so that new layers do not hide the rest.

    Example:
        >>> trunk_size([0.9, 0.0, 0.7, None])
        0.8
    """
    known = sorted((size for size in sizes if size is not None), reverse=True)
    return float(np.mean(known[: (len(known) + 1) // 2])) if known else None
