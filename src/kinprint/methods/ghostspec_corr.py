"""GhostSpec-corr: whether the attention spectra of two models rise and fall together over depth.

Axes: N = mapped pairs of layers, L = 2 N.

For each layer and product the level is the mean of its singular values, truncated and scaled to [0, 1] as in
GhostSpec-mse. The similarity is the distance correlation of [levels of M_qk; levels of M_vo] of the two models, layer
by layer along a map. The paper says of the map only that it is "similar to POSA"; here it is POSA itself, on the
distances of GhostSpec-mse, and both spectra of a pair are truncated to the smaller of their effective ranks, as there.

Unchanged and changed by: as GhostSpec-mse.

What it is worth: distance correlation is biased upwards for short sequences, and M_qk and M_vo have different levels in
most models, which alone correlates. The controls show both: the suspect's layers shuffled (levels stay where they
are), and all its values shuffled (bias alone).

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026), GhostSpec-corr; distance correlation: Szekely, Rizzo & Bakirov, Annals
of Statistics 35 (2007), definition 5.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.linalg import distance_correlation
from kinprint.spectra import ATTENTION, ATTENTION_IGNORES, ATTENTION_NOTICES, RHO, Match, match
from kinprint.spectra.match import match_notes
from kinprint.types import Cell, MethodResult, Table, Value

VERSION = 1  # raise whenever any output can change
PRODUCTS = ("qk", "vo")
SHUFFLES, SEED = 64, 0
MINIMUM_PAIRS = 3
"""The two values of a single layer always correlate at one, and few values nearly always."""

SOURCE = "GhostSpec, arXiv 2511.06390 (AAAI 2026), GhostSpec-corr; distance correlation: Szekely et al. 2007"
NOTES = (
    "no null distribution, and biased upwards for short sequences. Published: unrelated .27 to .43, children .70 to 1",
    "layers are mapped as in ghostspec-mse; the paper says only that its map is similar to POSA",
)


def compare(suspect: Fingerprint, base: Fingerprint, *, fold: bool) -> MethodResult:
    """Return the distance correlation of two models' levels over depth.

    Args:
        suspect: Attention spectra.
        base: Attention spectra with the same id.
        fold: Whether norm gains are folded into these spectra; it only names the result.
    """
    name, settings = _name(fold), _id(fold)
    found = match(suspect, base, PRODUCTS)
    reason = found if isinstance(found, str) else _obstacle(found)
    if isinstance(found, str) or reason is not None:
        return MethodResult(method=name, id=settings, status="not_applicable", reason=reason, source=SOURCE)
    levels = [found.levels(product) for product in PRODUCTS]
    left_L, right_L = (np.concatenate([level[side] for level in levels]) for side in (0, 1))
    value = distance_correlation(left_L, right_L)
    if not np.isfinite(value):
        reason = "the level is the same in every layer of one model"
        return MethodResult(method=name, id=settings, status="not_applicable", reason=reason, source=SOURCE)
    return MethodResult(
        method=name,
        id=settings,
        status="measured",
        values=(
            Value(
                name="similarity",
                value=value,
                kind="similarity",
                identical=1.0,
                note=f"distance correlation over 2 x {len(found.layer_map.pairs)} levels",
            ),
        ),
        controls=_controls(left_L, right_L),
        tables=(_table(found, levels),),
        notes=(*NOTES, *match_notes(suspect, base, [found], fold=fold)),
        source=SOURCE,
    )


def _obstacle(found: Match) -> str | None:
    pairs = len(found.layer_map.pairs)
    return None if pairs >= MINIMUM_PAIRS else f"{pairs} pairs of layers: at least {MINIMUM_PAIRS} are needed"


def _controls(left_L: Array, right_L: Array) -> tuple[Value, ...]:
    """Return the mean correlation after shuffling the suspect's layers, and after shuffling all its levels."""
    rng = np.random.default_rng(SEED)
    half = left_L.size // 2
    by_layer: list[float] = []
    by_value: list[float] = []
    for _ in range(SHUFFLES):
        order = rng.permutation(half)
        by_layer.append(distance_correlation(left_L[np.concatenate([order, order + half])], right_L))
        by_value.append(distance_correlation(rng.permutation(left_L), right_L))
    return (
        Value(
            name="similarity, layers shuffled: mean",
            value=float(np.mean(by_layer)),
            kind="similarity",
            note=f"{SHUFFLES} shuffles, seed {SEED}; what the different levels of qk and vo alone give",
        ),
        Value(
            name="similarity, all levels shuffled: mean",
            value=float(np.mean(by_value)),
            kind="similarity",
            note=f"{SHUFFLES} shuffles, seed {SEED}; the bias of a short sequence",
        ),
    )


def _table(found: Match, levels: list[tuple[Array, Array]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for index, (row, column) in enumerate(found.layer_map.pairs):
        cells = [float(level[side][index]) for level in levels for side in (0, 1)]
        rows.append((found.suspect.layers[row], found.base.layers[column], *cells))
    names = [f"{product} level, {who}" for product in PRODUCTS for who in ("suspect", "base")]
    return Table(
        title="mean of the scaled singular values, by pair of layers",
        columns=("suspect layer", "base layer", *names),
        rows=tuple(rows),
    )


def _name(fold: bool) -> str:
    return "ghostspec-corr" if fold else "ghostspec-corr[fold=false]"


def _id(fold: bool) -> str:
    return method_id("ghostspec-corr", VERSION, fold=fold, rho=RHO, seed=SEED, shuffles=SHUFFLES)


METHODS = tuple(
    FingerprintMethod(
        name=_name(fold),
        id=_id(fold),
        source=SOURCE,
        extractor=ATTENTION[fold],
        compare=partial(compare, fold=fold),
        ignores=ATTENTION_IGNORES[fold],
        notices=ATTENTION_NOTICES[fold],
    )
    for fold in (True, False)
)
