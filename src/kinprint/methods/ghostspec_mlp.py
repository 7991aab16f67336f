"""GhostSpec on MLP spectra: the up and the down matrix of each layer, each by itself.

Axes: N, M = layers of the two models, E, F = experts of one layer, K = singular values.

Distance, map and similarity are those of GhostSpec-mse with a single matrix in place of the two attention products; the
similarity of the method is the mean of both matrices'. In mixtures the shared expert stands for the MLP, and where
there is none the pooled routed experts do.

Routed experts are an extension: the paper defines nothing for them. Two numbers, where a model has any. *Pooled*: the
mean over a layer's experts of spectra at unit length, compared as the MLP's, both matrices together. *One to one*: the
mean distance of experts that are matched by their own spectra along the same map of layers. Of more than eight experts
a layer, eight are read. Their number may differ between the models, and a dense MLP counts as one expert: the experts
of a mixture made from a dense model start as copies of its MLP, so that the pooled spectrum equals the MLP's.

Unchanged by, when norm gains are folded in (the default): permuting units or experts, everything done to attention,
rotating the residual stream, exchanging gains with the next matrix. Changed by: scaling rows of up against columns of
down, which leaves a gated model as it was, and training.

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026), experiment on MLP spectra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.linalg import effective_rank, kept_rank, spectrum_distance
from kinprint.linalg.assignment import assignment
from kinprint.spectra import IDENTICAL, K_TAU, MLP, MLP_IGNORES, MLP_NOTICES, RHO, TAU, Match, match, similarity
from kinprint.spectra.match import map_table, match_notes, mismatch_controls, rank_table
from kinprint.types import MethodResult, Table, Value

VERSION = 2  # raise whenever any output can change
MATRICES = ("up", "down")
SOURCE = "GhostSpec, arXiv 2511.06390 (AAAI 2026), MLP spectra (up and down singly)"
NOTES = (
    "scaling rows of up against columns of down leaves a gated model as it was and changes these numbers",
    "no null distribution. Published against Llama-2-7b: its tunes .96 to .98, Yi-1.5-6B, unrelated, .59",
)
EXPERTS_NOTE = (
    "routed experts are kinprint's extension: pooled is the mean of a layer's spectra at unit length, one to one the "
    "distance of experts matched by their spectra"
)
_HELD = "experts.layers"
POOLED, ONE_TO_ONE = "experts pooled", "experts one to one"


def compare(suspect: Fingerprint, base: Fingerprint, *, fold: bool) -> MethodResult:
    """Return similarity and distance of two models' MLP spectra, by matrix and together.

    Args:
        suspect: MLP spectra.
        base: MLP spectra with the same id.
        fold: Whether norm gains are folded into these spectra; it only names the result.
    """
    name, settings = _name(fold), _id(fold)
    found: dict[str, Match] = {}
    for matrix in MATRICES:
        one = match(suspect, base, (matrix,))
        if isinstance(one, str):
            return MethodResult(method=name, id=settings, status="not_applicable", reason=one, source=SOURCE)
        found[matrix] = one
    experts = _experts(suspect, base)
    mean = float(np.mean([similarity(one.layer_map.distance) for one in found.values()]))
    return MethodResult(
        method=name,
        id=settings,
        status="measured",
        values=(
            Value(name="similarity", value=mean, kind="similarity", identical=IDENTICAL, note="mean of up and down"),
            *(value for matrix, one in found.items() for value in _values(matrix, one)),
            *experts.values,
        ),
        controls=(
            *(value for matrix, one in found.items() for value in mismatch_controls(one, f"{matrix}: ")),
            *experts.controls,
        ),
        tables=(
            *(
                table
                for matrix, one in found.items()
                for table in (map_table(one, f"layer map by spectra of {matrix}"), rank_table(one))
            ),
            *experts.tables,
        ),
        notes=tuple(dict.fromkeys((*NOTES, *match_notes(suspect, base, found.values(), fold=fold), *experts.notes))),
        source=SOURCE,
    )


def _values(matrix: str, found: Match) -> tuple[Value, Value]:
    distance = found.layer_map.distance
    return (
        Value(name=f"{matrix}: similarity", value=similarity(distance), kind="similarity", identical=IDENTICAL),
        Value(
            name=f"{matrix}: distance",
            value=distance,
            kind="distance",
            identical=0.0,
            note=f"mean over {len(found.layer_map.pairs)} pairs of layers; {TAU:g} is similarity one half",
        ),
    )


# -- routed experts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What routed experts add to a result."""

    values: tuple[Value, ...] = ()
    controls: tuple[Value, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def _experts(suspect: Fingerprint, base: Fingerprint) -> _Found:
    """Compare routed experts, pooled and one to one; nothing where neither model has any."""
    mixed = [_HELD in fingerprint.arrays for fingerprint in (suspect, base)]
    if not any(mixed):
        return _Found()
    notes = [EXPERTS_NOTE]
    if not all(mixed):
        dense, mixture = ("suspect", "base") if mixed[1] else ("base", "suspect")
        notes.append(
            f"the {dense} is dense: its MLP stands against the {mixture}'s experts, which would start as copies of it"
        )
    sides = _as_layers(suspect), _as_layers(base)
    found = match(sides[0], sides[1], MATRICES)
    if isinstance(found, str):
        lost = (f"{POOLED}: similarity", f"{POOLED}: distance", f"{ONE_TO_ONE}: distance")
        return _Found(tuple(_lost(name, found) for name in lost), notes=tuple(notes))
    matched, shifted = _matched_experts(found, sides)
    return _Found(
        (*_values(POOLED, found), matched),
        (*mismatch_controls(found, f"{POOLED}: "), shifted),
        (map_table(found, "layer map by pooled spectra of experts"), rank_table(found)),
        (*notes, *match_notes(sides[0], sides[1], [found], fold=True)),
    )


def _matched_experts(found: Match, sides: Sequence[Fingerprint]) -> tuple[Value, Value]:
    """Return the distance of experts matched one to one along the map of layers, and off it."""
    pairs = found.layer_map.pairs
    on_map = [_one_to_one(found, sides, row, column) for row, column in pairs]
    off_map = [_one_to_one(found, sides, row, pairs[at - 1][1]) for at, (row, _) in enumerate(pairs)]
    several = len(pairs) > 1
    return (
        Value(
            name=f"{ONE_TO_ONE}: distance",
            value=float(np.mean(on_map)),
            kind="distance",
            identical=0.0,
            note=f"mean over {len(pairs)} pairs of layers; the fewer experts choose their partners",
        ),
        Value(
            name=f"{ONE_TO_ONE}: distance, mismatched layers",
            value=float(np.mean(off_map)) if several else None,
            kind="distance",
            reason=None if several else "a single layer has no mismatched partner",
            note="every layer against its predecessor's partner, the first against the last's",
        ),
    )


def _lost(name: str, reason: str) -> Value:
    if name.endswith("similarity"):
        return Value(name=name, value=None, kind="similarity", identical=IDENTICAL, reason=reason)
    return Value(name=name, value=None, kind="distance", identical=0.0, reason=reason)


def _as_layers(fingerprint: Fingerprint) -> Fingerprint:
    """Return pooled experts as a fingerprint of layers; a dense model's MLP is its only expert."""
    arrays = fingerprint.arrays
    if _HELD in arrays:
        names = ("layers", *MATRICES, *(f"each.{matrix}" for matrix in MATRICES))
        return Fingerprint(fingerprint.id, {name: arrays[f"experts.{name}"] for name in names})
    single = {f"each.{matrix}": arrays[matrix][:, None] for matrix in MATRICES}
    return Fingerprint(fingerprint.id, {**{name: arrays[name] for name in ("layers", *MATRICES)}, **single})


def _one_to_one(found: Match, sides: Sequence[Fingerprint], row: int, column: int) -> float:
    """Return the mean distance of the experts of two layers, matched so that it is least."""
    layers = found.suspect.layers[row], found.base.layers[column]
    apart: list[Array] = []
    for matrix in MATRICES:
        here_EK, there_FK = (
            _present(side.arrays[f"each.{matrix}"][np.flatnonzero(side.arrays["layers"] == layer)[0]])
            for side, layer in zip(sides, layers, strict=True)
        )
        apart.append(np.array([[_distance(a_K, b_K) for b_K in there_FK] for a_K in here_EK]))
    mean_EF = np.mean(apart, axis=0)
    rows, columns = assignment(-mean_EF)
    return float(mean_EF[rows, columns].mean())


def _present(spectra_EK: Array) -> Array:
    """Return the experts that the layer has; where all are zero, one of them."""
    held_EK = spectra_EK[spectra_EK.any(axis=1)]
    return held_EK if held_EK.size else spectra_EK[:1]


def _distance(a_K: Array, b_K: Array) -> float:
    kept = kept_rank(effective_rank(a_K), effective_rank(b_K), min(a_K.size, b_K.size))
    return spectrum_distance(a_K, b_K, kept)


def _name(fold: bool) -> str:
    return "ghostspec-mlp" if fold else "ghostspec-mlp[fold=false]"


def _id(fold: bool) -> str:
    return method_id("ghostspec-mlp", VERSION, experts="pooled", fold=fold, k_tau=K_TAU, rho=RHO, tau=TAU)


METHODS = tuple(
    FingerprintMethod(
        name=_name(fold),
        id=_id(fold),
        source=SOURCE,
        extractor=MLP[fold],
        compare=partial(compare, fold=fold),
        ignores=MLP_IGNORES[fold],
        notices=MLP_NOTICES[fold],
    )
    for fold in (True, False)
)
