"""GhostSpec on MLP spectra: the up and the down matrix of each layer, each by itself.

Axes: N, M = layers of the two models.

Distance, map and similarity are those of GhostSpec-mse with a single matrix in place of the two attention products; the
similarity of the method is the mean of both matrices'. In mixtures the shared expert stands for the MLP: the paper
defines nothing for routed experts.

Unchanged by, when norm gains are folded in (the default): permuting units, everything done to attention, rotating the
residual stream, exchanging gains with the next matrix. Changed by: scaling rows of up against columns of down, which
leaves a gated model as it was, and training.

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026), experiment on MLP spectra.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from kinprint.canonical import method_id
from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.spectra import IDENTICAL, K_TAU, MLP, MLP_IGNORES, MLP_NOTICES, RHO, TAU, Match, match, similarity
from kinprint.spectra.match import map_table, match_notes, mismatch_controls, rank_table
from kinprint.types import MethodResult, Value

VERSION = 1  # raise whenever any output can change
MATRICES = ("up", "down")
SOURCE = "GhostSpec, arXiv 2511.06390 (AAAI 2026), MLP spectra (up and down singly)"
NOTES = (
    "scaling rows of up against columns of down leaves a gated model as it was and changes these numbers",
    "no null distribution. Published against Llama-2-7b: its tunes .96 to .98, Yi-1.5-6B, unrelated, .59",
)


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
    mean = float(np.mean([similarity(one.layer_map.distance) for one in found.values()]))
    return MethodResult(
        method=name,
        id=settings,
        status="measured",
        values=(
            Value(name="similarity", value=mean, kind="similarity", identical=IDENTICAL, note="mean of up and down"),
            *(value for matrix, one in found.items() for value in _values(matrix, one)),
        ),
        controls=tuple(value for matrix, one in found.items() for value in mismatch_controls(one, f"{matrix}: ")),
        tables=tuple(
            table
            for matrix, one in found.items()
            for table in (map_table(one, f"layer map by spectra of {matrix}"), rank_table(one))
        ),
        notes=(*NOTES, *match_notes(suspect, base, found.values(), fold=fold)),
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


def _name(fold: bool) -> str:
    return "ghostspec-mlp" if fold else "ghostspec-mlp[fold=false]"


def _id(fold: bool) -> str:
    return method_id("ghostspec-mlp", VERSION, fold=fold, k_tau=K_TAU, rho=RHO, tau=TAU)


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
