"""A common basis of two residual streams from their MLP units alone: no token, no stored order, no rotation matters.

Axes: A, B = residual coordinates of suspect and base, F, E = units of suspect and base, P = properties, S, T = layers.

How a unit stands to the forms of its own layer (see ``kinprint.alignment.trunk``) does not depend on the basis of the
stream: g^T M g for its gate row, how far M moves it, how gate, up and down row stand to each other. These numbers, as
ranks among the units of the layer, match units of two models (LAP); matched gate rows then give the basis by
Procrustes, and the basis is sharpened by matching gate rows in it, first in one pair of layers, then in all.

Which layers to start from is told by traces of products of forms, which no change of basis touches either; of several
starts the one whose attention forms agree best is kept. Attention forms take no part in any fit, so strangers stay near
zero in them, up to this choice among a few starts.

Signs: exchanging a sign between up and down changes nothing, so both enter every property together or not at all.

Source: worked out here; sharpening by alternating match and fit is iterative closest points (Besl & McKay, PAMI 14,
1992) with an assignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kinprint.alignment.basis import (
    Basis,
    Refusal,
    compared_in,
    form_similarities,
    from_cross,
    from_rows,
    in_basis,
    leading_from_rows,
    match_units,
)
from kinprint.alignment.forms import WIDE, Form, FormValue, inner, times, times_transposed, trace
from kinprint.alignment.trunk import Trunk, Units, largest, pooled
from kinprint.checkpoint import Array
from kinprint.linalg.assignment import assignment
from kinprint.linalg.device import CPU, Device
from kinprint.linalg.products import tall_qr, unit_rows
from kinprint.linalg.threads import side_by_side, threads_for
from kinprint.shapes import Float32, Float64

UNITS = 384
"""Most units of a suspect's layer that are matched, the largest; against all units of the base's layer."""

_WIDE_UNITS = 256
"""Most units of a layer of a wide model that are matched with, the largest."""

_LEAST_UNITS = 16
_SUSPECT_LAYERS = 4
"""Layers of the suspect to start from, spread over its depth."""

_BASE_LAYERS = 4
"""Layers of the base to start from for each of them, nearest first."""

_WIDE_LAYERS = 2
"""The same of wide models, of either."""

_FITTED_LAYERS = 8
"""Most layers that sharpen the basis, spread over the depth."""

_ROUNDS_ALONE, _ROUNDS_TOGETHER = 3, 3
_HELD_OUT: tuple[Form, ...] = ("qk", "vo")
_FITTED: tuple[Form, ...] = ("ud", "gate")


def unit_basis(
    suspect: Trunk,
    base: Trunk,
    *,
    starts: Sequence[tuple[int, int]] | None = None,
    device: Device = CPU,
    tables: UnitTables | None = None,
) -> Basis | Refusal:
    """Return a basis fitted on matched MLP units, or why there is none.

    Args:
        suspect: One model.
        base: The other.
        starts: Layers to start from, where it is known which face each other; otherwise they are searched for.
        device: Where rows are matched and fits worked out.
        tables: What is known of the units' properties already.
    """
    sides = [_usable(trunk) for trunk in (suspect, base)]
    if not sides[0] or not sides[1]:
        return Refusal(f"one of the models has no layer with {_LEAST_UNITS} MLP units and attention")
    tables = UnitTables(suspect, base, device) if tables is None else tables
    usable = [both for both in starts or () if both[0] in sides[0] and both[1] in sides[1]]
    if not usable:
        usable = [
            (here, there)
            for here in _spread(sides[0], _WIDE_LAYERS if suspect.wide else _SUSPECT_LAYERS)
            for there in _nearest_layers(suspect, base, here, sides[1])[: _WIDE_LAYERS if base.wide else _BASE_LAYERS]
        ]
    # Where it is known which layers face each other, one round is enough to read the embeddings by.
    rounds = 1 if starts else _ROUNDS_ALONE
    tables.fill(usable)
    started = side_by_side(lambda both: _started(tables, *both, rounds), usable, large=suspect.large)
    basis = started[0] if len(started) == 1 else _agreeing_best(tables, dict(zip(usable, started, strict=True)))
    if starts:
        return basis
    # No nanmean: a layer without an MLP lacks both forms, and the mean of nothing warns.
    table_ST = np.mean(np.stack(list(form_similarities(suspect, base, basis, _FITTED).values())), axis=0)
    at = [suspect.layers.index(number) for number in _spread(sides[0], _FITTED_LAYERS)]
    pairs = [(suspect.layers[i], base.layers[int(np.nanargmax(table_ST[i]))]) for i in at]
    return _sharpened(tables, basis, pairs, _ROUNDS_TOGETHER)


class UnitTables:
    """Units of the layers of two models with their properties as ranks, which are worked out once."""

    def __init__(self, suspect: Trunk, base: Trunk, device: Device = CPU) -> None:
        """Work nothing out yet."""
        self.suspect, self.base, self.device = suspect, base, device
        self._trunks = (suspect, base)
        self._ranks: dict[tuple[int, int], Array] = {}

    def fill(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Work out the ranks of the layers of some pairs, as many side by side as there are cores."""
        wanted = dict.fromkeys((side, both[side]) for both in pairs for side in (0, 1))
        most = min(trunk.at_once for trunk in self._trunks)
        side_by_side(lambda at: self.get(*at), wanted, large=self.suspect.large, most=most)

    def get(self, side: int, number: int) -> tuple[Units, Array]:
        """Return the pooled units of a layer of the suspect (0) or base (1), and their ranks [F, P]."""
        units = self.units(side, number)
        if (side, number) not in self._ranks:
            self._ranks[side, number] = _ranks(unit_properties(units, self._trunks[side].forms(number)))
        return units, self._ranks[side, number]

    def units(self, side: int, number: int) -> Units:
        """Return the pooled units of a layer of the suspect (0) or base (1)."""
        units = pooled(self._trunks[side].layer(number))
        assert units is not None  # only layers that have units are asked for
        if not self._trunks[side].wide:
            return units
        some = largest(units, _WIDE_UNITS)
        gate = None if units.gate_FD is None else units.gate_FD[some]
        return Units(gate, units.up_FD[some], units.down_FD[some])


def match_by_properties(tables: UnitTables, here: int, there: int) -> tuple[Array, Array]:
    """Return the gate rows of two layers' units, paired by what no basis changes: [K, A] of suspect, [K, B] of base."""
    (mine, ranks_FP), (theirs, ranks_EP) = tables.get(0, here), tables.get(1, there)
    chosen = largest(mine, UNITS)
    shared = min(ranks_FP.shape[1], ranks_EP.shape[1])
    rows, columns = assignment(-_squared_distances(ranks_FP[chosen, :shared], ranks_EP[:, :shared]))
    return unit_rows(mine.key_FD[chosen[rows]]), unit_rows(theirs.key_FD[columns])


def _usable(trunk: Trunk) -> list[int]:
    found: list[int] = []
    for number in trunk.layers:
        layer = trunk.layer(number)
        if layer.attention is not None and layer.mlps and len(layer.mlps[0].up_FD) >= _LEAST_UNITS:
            found.append(number)
    return found


def _spread(layers: Sequence[int], most: int) -> list[int]:
    if len(layers) <= most:
        return list(layers)
    return [layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, most).round().astype(int))]


def _started(tables: UnitTables, here: int, there: int, rounds: int) -> Basis:
    """Return the basis that one pair of layers gives."""
    basis = Basis("units", *from_rows(*match_by_properties(tables, here, there), tables.device), device=tables.device)
    return _sharpened(tables, basis, [(here, there)], rounds)


def _agreeing_best(tables: UnitTables, started: Mapping[tuple[int, int], Basis]) -> Basis:
    def agreement(both: tuple[int, int]) -> float:
        return _agreement(tables.suspect.forms(both[0]), tables.base.forms(both[1]), started[both])

    return started[max(started, key=agreement)]


def _sharpened(tables: UnitTables, basis: Basis, pairs: Sequence[tuple[int, int]], rounds: int) -> Basis:
    """Match gate rows in a basis and fit the basis anew on them, each pair of rows weighed by its squared cosine."""
    both = tables.suspect, tables.base
    fitted_on = f"gate rows of matched MLP units in {len(pairs)} layers"
    if min(trunk.width for trunk in both) > WIDE:
        sides = _sharpened_in_span(tables, basis, pairs, rounds)
        return Basis("units", *sides, device=tables.device, fitted_on=fitted_on)
    for _ in range(rounds):
        cross_AB = np.zeros((both[0].width, both[1].width))
        for here, there in pairs:
            mine, theirs = tables.units(0, here), tables.units(1, there)
            rows, columns, cosines = match_units(mine, theirs, basis, most=UNITS)
            weights = np.maximum(cosines, 0.0)[:, None] ** 2
            left, right = unit_rows(mine.key_FD[rows]) * weights, unit_rows(theirs.key_FD[columns])
            with threads_for(tables.suspect.width):
                cross_AB += left.T @ right
        if not cross_AB.any():
            return basis
        basis = Basis("units", *from_cross(cross_AB, tables.device), device=tables.device, fitted_on=fitted_on)
    return basis


def _sharpened_in_span(
    tables: UnitTables, basis: Basis, pairs: Sequence[tuple[int, int]], rounds: int
) -> tuple[Array, Array]:
    """Do the same in the span of the rows themselves, which has fewer coordinates than the stream of a wide model."""
    numbers = [list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1)]
    (axes_AR, mine_of), (axes_BR, theirs_of) = (_in_their_span(tables, side, numbers[side]) for side in (0, 1))
    device = tables.device
    sides = axes_AR.T @ basis.suspect_AK, axes_BR.T @ basis.base_BK
    for _ in range(rounds):
        left: list[Array] = []
        right: list[Array] = []
        within = Basis("units", *sides, device=device)
        for here, there in pairs:
            mine, theirs = mine_of[here], theirs_of[there]
            cosines = within.cosines(mine, theirs)
            rows, columns = assignment(cosines)
            left.append(mine[rows] * np.maximum(cosines[rows, columns], 0.0)[:, None] ** 2)
            right.append(theirs[columns])
        if not any(rows.any() for rows in left):
            break
        sides = leading_from_rows(np.concatenate(left), np.concatenate(right), device)
    return axes_AR @ sides[0], axes_BR @ sides[1]


def _in_their_span(
    tables: UnitTables, side: int, numbers: Sequence[int]
) -> tuple[Float32[Array, "A R"], dict[int, Array]]:
    """Return orthonormal axes of the span of some layers' gate rows, and each layer's rows at unit length in them."""
    keys = [unit_rows(tables.units(side, number).key_FD) for number in numbers]
    rows_NA = np.concatenate(keys)
    if len(rows_NA) >= rows_NA.shape[1]:
        return np.eye(rows_NA.shape[1], dtype=np.float32), dict(zip(numbers, keys, strict=True))
    axes_AN, rest_NN = tall_qr(rows_NA.T)
    ends = np.cumsum([len(key) for key in keys])[:-1]
    return axes_AN, dict(zip(numbers, np.split(rest_NN.T, ends), strict=True))


def _agreement(mine: Mapping[Form, FormValue], theirs: Mapping[Form, FormValue], basis: Basis) -> float:
    """Return how well the attention forms of two layers, which no fit has used, agree."""
    suspect, base = compared_in(basis)
    device = basis.device
    cosines = [
        float(in_basis(mine[form], suspect, device=device) @ in_basis(theirs[form], base, device=device))
        for form in _HELD_OUT
    ]
    return float(np.mean(cosines))


# -- what no basis changes -----------------------------------------------------------------------------------------


def unit_properties(units: Units, forms: Mapping[Form, FormValue]) -> Float64[Array, "F P"]:
    """Return numbers of every unit that no basis and no exchange of scale or sign between up and down changes."""
    up_FD, down_FD = unit_rows(units.up_FD), unit_rows(units.down_FD)
    gate_FD = up_FD if units.gate_FD is None else unit_rows(units.gate_FD)
    found = [
        _dots(gate_FD, up_FD) * _dots(gate_FD, down_FD),
        _dots(up_FD, down_FD),
        np.linalg.norm(units.key_FD.astype(np.float64), axis=1),
        np.linalg.norm(units.up_FD.astype(np.float64), axis=1)
        * np.linalg.norm(units.down_FD.astype(np.float64), axis=1),
    ]
    for form in (forms[name] for name in forms):
        forward = [times_transposed(rows, form) for rows in (gate_FD, up_FD, down_FD)]
        backward = [times(rows, form) for rows in (gate_FD, up_FD, down_FD)]
        found += [_dots(gate_FD, forward[0]), _dots(up_FD, forward[2]), _dots(down_FD, forward[1])]
        found += [_dots(gate_FD, forward[2]) * _dots(gate_FD, forward[1])]
        found += [_dots(gate_FD, backward[2]) * _dots(gate_FD, backward[1])]
        found += [np.linalg.norm(moved, axis=1) for moved in (*forward, *backward)]
    return np.stack(found, axis=1)


def layer_properties(layer_forms: Mapping[Form, FormValue]) -> Float64[Array, " P"]:
    """Return numbers of a layer that do not depend on the basis: sizes of its forms and traces of their products."""
    forms = [layer_forms[name] for name in layer_forms]
    norms = [float(np.sqrt(max(0.0, inner(form, form)))) or 1.0 for form in forms]
    found = [float(np.log(norm)) for norm in norms]
    for i, (left, size) in enumerate(zip(forms, norms, strict=True)):
        found.append(trace(left) / size)
        for right, other in zip(forms[i:], norms[i:], strict=True):
            found += [inner(left, right) / size / other, inner(left, right, transposed=True) / size / other]
    return np.array(found)


def _nearest_layers(suspect: Trunk, base: Trunk, here: int, among: Sequence[int]) -> list[int]:
    if len(among) <= (_WIDE_LAYERS if base.wide else _BASE_LAYERS):
        return list(among)
    mine = suspect.forms(here)
    same = [number for number in among if list(base.forms(number)) == list(mine)]
    if len(same) <= _BASE_LAYERS:
        return list(among)[:_BASE_LAYERS]
    theirs_TP = np.stack([layer_properties(base.forms(number)) for number in same])
    spread_P = theirs_TP.std(axis=0)
    distances_T = (np.abs(theirs_TP - layer_properties(mine)) / np.where(spread_P > 0, spread_P, 1.0)).mean(axis=1)
    return [same[i] for i in np.argsort(distances_T, kind="stable")[:_BASE_LAYERS]]


def _dots(left_FD: Array, right_FD: Array) -> Array:
    return np.einsum("fd,fd->f", left_FD, right_FD)


def _ranks(values_FP: Array) -> Array:
    """Return each column as ranks from 0 to 1, which no monotone change of scale touches."""
    order = np.argsort(np.argsort(values_FP, axis=0, kind="stable"), axis=0, kind="stable")
    return order / max(1, len(values_FP) - 1)


def _squared_distances(left_FP: Array, right_EP: Array) -> Array:
    return (left_FP**2).sum(axis=1)[:, None] + (right_EP**2).sum(axis=1)[None] - 2.0 * left_FP @ right_EP.T
