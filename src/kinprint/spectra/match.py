"""Distances between the layers of two models by their spectra, and the map of layers that follows from them.

Axes: N, M = usable layers of suspect and base, K = singular values.

A cell of the distance matrix truncates both spectra to the smaller effective rank, scales what is left to [0, 1], and
takes the mean squared difference; products are averaged. Scale is discarded.

Source: GhostSpec, arXiv 2511.06390, GhostSpec-mse and Algorithm 1 (POSA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.alignment.posa import LayerMap, posa
from kinprint.checkpoint import Array
from kinprint.fingerprints import Fingerprint
from kinprint.linalg import effective_rank, minmax, spectrum_distance
from kinprint.linalg.spectrum import kept_rank
from kinprint.types import Cell, Table, Value

TAU = 0.00925
"""Distance at which the similarity is one half: midway between the means that the paper's preliminary experiment prints
for related (0.0002) and unrelated (0.0183) models. Chosen here, because the paper prints no value."""

K_TAU = 3.7097
"""Slope of the similarity times ``TAU``. Only this product gives identical models the 0.9761 of the paper's tables."""

RHO = 0.000925
"""Penalty for a skipped layer, a tenth of ``TAU``. Chosen here, because the paper prints no value: above the distance
of related layers (0.0002), so that noise skips nothing; far below that of unrelated ones, so that pruned layers can be
skipped."""

IDENTICAL = float(1 / (1 + np.exp(-K_TAU)))
"""What the similarity gives a model compared with itself."""

MINIMUM_RANK = 3
"""Scaling to [0, 1] turns any two values into 1 and 0: the third is the first that can differ."""


def similarity(distance: float) -> float:
    """Return 1 / (1 + exp(k (distance - tau))), falling with distance.

    Example:
        >>> round(similarity(0.0), 4), similarity(TAU)
        (0.9761, 0.5)
    """
    return float(1 / (1 + np.exp(K_TAU * (distance / TAU - 1))))


@dataclass(frozen=True, slots=True)
class Side:
    """The usable layers of one model.

    Attributes:
        layers: Their numbers.
        spectra: Singular values by product, [N, K].
        ranks: Effective ranks by product, [N].
        unusable: Layers whose spectrum is too short for a shape.
    """

    layers: tuple[int, ...]
    spectra: Mapping[str, Array]
    ranks: Mapping[str, Array]
    unusable: tuple[int, ...]

    @classmethod
    def of(cls, fingerprint: Fingerprint, products: Sequence[str]) -> Side:
        """Keep the layers whose effective ranks are at least ``MINIMUM_RANK`` in every product."""
        layers = fingerprint.arrays["layers"]
        ranks = {
            name: np.array([effective_rank(row_K) for row_K in fingerprint.arrays[name]], dtype=np.float64)
            for name in products
        }
        usable_N = np.ones(layers.size, dtype=bool)
        for ranks_N in ranks.values():
            usable_N &= ranks_N >= MINIMUM_RANK
        return cls(
            layers=tuple(int(layer) for layer in layers[usable_N]),
            spectra={name: fingerprint.arrays[name][usable_N] for name in products},
            ranks={name: ranks_N[usable_N] for name, ranks_N in ranks.items()},
            unusable=tuple(int(layer) for layer in layers[~usable_N]),
        )


@dataclass(frozen=True, slots=True)
class Match:
    """Two models' layers held against each other.

    Attributes:
        suspect: One model's usable layers, the rows.
        base: The other's, the columns.
        kept: Values compared in each cell, by product, [N, M].
        distances: Distance in each cell, by product, [N, M].
        layer_map: The best increasing map of layers by the mean over products.
    """

    suspect: Side
    base: Side
    kept: Mapping[str, Array]
    distances: Mapping[str, Array]
    layer_map: LayerMap

    @property
    def distance_NM(self) -> Array:
        """Distance of every pair of layers, averaged over products."""
        return np.mean(list(self.distances.values()), axis=0)

    def levels(self, product: str) -> tuple[Array, Array]:
        """Return, for every mapped pair, the mean of both truncated and scaled spectra: (suspect's, base's)."""
        levels: list[tuple[float, float]] = []
        for row, column in self.layer_map.pairs:
            kept = int(self.kept[product][row, column])
            pair = self.suspect.spectra[product][row], self.base.spectra[product][column]
            levels.append((float(minmax(pair[0][:kept]).mean()), float(minmax(pair[1][:kept]).mean())))
        both = np.array(levels, dtype=np.float64)
        return both[:, 0], both[:, 1]


def match(suspect: Fingerprint, base: Fingerprint, products: Sequence[str]) -> Match | str:
    """Hold the layers of two models against each other, or return the reason why that is impossible."""
    sides = Side.of(suspect, products), Side.of(base, products)
    for who, fingerprint, side in (("suspect", suspect, sides[0]), ("base", base, sides[1])):
        if not side.layers:
            short = [f"every effective rank is below {MINIMUM_RANK}"] if side.unusable else []
            return f"{who}: {'; '.join((*fingerprint.problems, *short))}"
    kept = {name: _kept(sides[0], sides[1], name) for name in products}
    distances = {name: _distances(sides[0], sides[1], name, kept[name]) for name in products}
    return Match(*sides, kept, distances, posa(np.mean(list(distances.values()), axis=0), RHO))


def _kept(suspect: Side, base: Side, product: str) -> Array:
    available = min(suspect.spectra[product].shape[1], base.spectra[product].shape[1])
    rows = [[kept_rank(float(a), float(b), available) for b in base.ranks[product]] for a in suspect.ranks[product]]
    return np.array(rows, dtype=np.int64)


def _distances(suspect: Side, base: Side, product: str, kept_NM: Array) -> Array:
    distance_NM = np.zeros(kept_NM.shape)
    for (row, column), kept in np.ndenumerate(kept_NM):
        left, right = suspect.spectra[product][row], base.spectra[product][column]
        distance_NM[row, column] = spectrum_distance(left, right, int(kept))
    return distance_NM


UNFOLDED_NOTE = (
    "norm gains are not folded in, as in the paper: exchanging a gain with the next matrix leaves the model as it was "
    "and changes this number"
)

# -- controls and details ------------------------------------------------------------------------------------------


def mismatch_controls(found: Match, prefix: str = "") -> tuple[Value, ...]:
    """Return what layers that do not correspond give: the same numbers must come out worse there.

    Args:
        found: The match.
        prefix: Put before every name.
    """
    distance_NM, pairs = found.distance_NM, found.layer_map.pairs
    on_map = np.zeros(distance_NM.shape, dtype=bool)
    on_map[tuple(np.array(pairs).T)] = True
    off_map = distance_NM[~on_map]
    shifted, offset = _best_shift(distance_NM, pairs)
    one_layer = "a single layer has no mismatched partner"
    reversed_distance = posa(np.ascontiguousarray(distance_NM[::-1]), RHO).distance if off_map.size else None
    return (
        Value(
            name=f"{prefix}distance, mismatched layers",
            value=float(off_map.mean()) if off_map.size else None,
            kind="distance",
            reason=None if off_map.size else one_layer,
            note="mean over all pairs of layers off the map",
        ),
        Value(
            name=f"{prefix}distance, best shifted map",
            value=shifted,
            kind="distance",
            reason=one_layer if shifted is None else None,
            note=f"the map moved by {offset:+d} layers: the closest of all constant shifts",
        ),
        Value(
            name=f"{prefix}similarity, layers reversed",
            value=None if reversed_distance is None else similarity(reversed_distance),
            kind="similarity",
            reason=one_layer if reversed_distance is None else None,
            note="the suspect's layers in reverse order",
        ),
    )


def _best_shift(distance_NM: Array, pairs: Sequence[tuple[int, int]]) -> tuple[float | None, int]:
    """Return the smallest mean distance along the map moved by a constant, and the shift; half the map must remain."""
    best: tuple[float | None, int] = (None, 0)
    columns = distance_NM.shape[1]
    for offset in range(1 - columns, columns):
        moved = [distance_NM[row, column + offset] for row, column in pairs if 0 <= column + offset < columns]
        if offset == 0 or not moved or 2 * len(moved) < len(pairs):
            continue
        mean = float(np.mean(moved))
        if best[0] is None or mean < best[0]:
            best = mean, offset
    return best


def map_table(found: Match, title: str) -> Table:
    """Return the layer map with its distances and the number of values compared."""
    rows: list[tuple[Cell, ...]] = []
    for row, column in found.layer_map.pairs:
        cells: list[Cell] = [found.suspect.layers[row], found.base.layers[column]]
        cells.append(float(found.distance_NM[row, column]))
        for name in found.distances:
            cells += [float(found.distances[name][row, column]), int(found.kept[name][row, column])]
        rows.append(tuple(cells))
    names = [column for name in found.distances for column in (f"{name} distance", f"{name} values kept")]
    return Table(title=title, columns=("suspect layer", "base layer", "distance", *names), rows=tuple(rows))


def rank_table(found: Match) -> Table:
    """Return the effective rank of every usable layer of both models."""
    rows: list[tuple[Cell, ...]] = []
    for who, side in (("suspect", found.suspect), ("base", found.base)):
        for index, layer in enumerate(side.layers):
            rows.append((who, layer, *(float(ranks_N[index]) for ranks_N in side.ranks.values())))
    return Table(
        title="effective ranks",
        columns=("model", "layer", *(f"{name} effective rank" for name in found.suspect.ranks)),
        rows=tuple(rows),
    )


def match_notes(suspect: Fingerprint, base: Fingerprint, found: Iterable[Match], *, fold: bool) -> list[str]:
    """Return what was left out of either model, and what unfolded gains and unequal depth mean."""
    notes: list[str] = [] if fold else [UNFOLDED_NOTE]
    for who, fingerprint in (("suspect", suspect), ("base", base)):
        notes += [f"{who}: {problem}" for problem in fingerprint.problems]
    for one in found:
        for who, side in (("suspect", one.suspect), ("base", one.base)):
            if side.unusable:
                layers = ", ".join(map(str, side.unusable))
                products = " or ".join(side.spectra)
                notes.append(f"{who}: layers {layers} left out: effective rank of {products} below {MINIMUM_RANK}")
        depths = len(one.suspect.layers), len(one.base.layers)
        if depths[0] != depths[1]:
            notes.append(
                f"{depths[0]} against {depths[1]} layers: the shallower model's layers choose their places freely, "
                "which favours it"
            )
    return list(dict.fromkeys(notes))
