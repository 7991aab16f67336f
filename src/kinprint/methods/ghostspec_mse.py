"""GhostSpec-mse: how far apart the attention spectra of two models are, layer by layer along the best map.

Axes: N, M = layers of the two models.

D_ij is the mean over M_qk and M_vo of the mean squared difference of two spectra, truncated to the smaller effective
rank and then scaled to [0, 1]. The distance is the mean of D along the increasing map of layers that POSA finds, and
the similarity 1 / (1 + exp(k (distance - tau))).

Unchanged by, when norm gains are folded in (the default): every change of the weights that keeps the function. The
paper's own form does not fold and changes when a gain is exchanged with the next matrix, or when a q or k norm hides
a scale. Changed by: training.

What it is worth: shape and order of singular values, without scale, are alike in many unrelated models; there is no
null distribution. The controls show what layers that do not correspond give.

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026), GhostSpec-mse and Algorithm 1.
"""

from __future__ import annotations

from functools import partial

from kinprint.canonical import method_id
from kinprint.fingerprints import Fingerprint, FingerprintMethod
from kinprint.spectra import (
    ATTENTION,
    ATTENTION_IGNORES,
    ATTENTION_NOTICES,
    IDENTICAL,
    K_TAU,
    RHO,
    TAU,
    match,
    similarity,
)
from kinprint.spectra.match import map_table, match_notes, mismatch_controls, rank_table
from kinprint.spectra.shown import spectrum_tables
from kinprint.types import MethodResult, Value

VERSION = 1  # raise whenever any output can change
SOURCE = "GhostSpec, arXiv 2511.06390 (AAAI 2026), GhostSpec-mse and Algorithm 1 (POSA)"
NOTES = (
    "k * tau = 3.7097 follows from the paper's .9761 for identical models; tau and rho are kinprint's choice, as the "
    "paper prints neither",
    "no null distribution. Published unrelated pairs: .78 (Llama-2-13b and Qwen1.5-14b), .50 (Llama-2-7b and OPT-6.7b)",
)


def compare(suspect: Fingerprint, base: Fingerprint, *, fold: bool) -> MethodResult:
    """Return the similarity and the distance of two models' attention spectra.

    Args:
        suspect: Attention spectra.
        base: Attention spectra with the same id.
        fold: Whether norm gains are folded into these spectra; it only names the result.
    """
    name, settings = _name(fold), _id(fold)
    found = match(suspect, base, ("qk", "vo"))
    if isinstance(found, str):
        return MethodResult(method=name, id=settings, status="not_applicable", reason=found, source=SOURCE)
    distance = found.layer_map.distance
    return MethodResult(
        method=name,
        id=settings,
        status="measured",
        values=(
            Value(name="similarity", value=similarity(distance), kind="similarity", identical=IDENTICAL),
            Value(
                name="distance",
                value=distance,
                kind="distance",
                identical=0.0,
                note=f"mean over {len(found.layer_map.pairs)} pairs of layers; {TAU:g} is similarity one half",
            ),
        ),
        controls=mismatch_controls(found),
        tables=(
            map_table(found, "layer map by attention spectra"),
            rank_table(found),
            *spectrum_tables(suspect, base),
        ),
        notes=(*NOTES, *match_notes(suspect, base, [found], fold=fold)),
        source=SOURCE,
    )


def _name(fold: bool) -> str:
    return "ghostspec-mse" if fold else "ghostspec-mse[fold=false]"


def _id(fold: bool) -> str:
    return method_id("ghostspec-mse", VERSION, fold=fold, k_tau=K_TAU, rho=RHO, tau=TAU)


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
