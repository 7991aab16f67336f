"""Do whole layers' attention spectra have the same shape? GhostSpec with gains folded; by size.

H0: the models were trained independently. The statistic is the similarity of ``kinprint.methods.ghostspec_mse`` with
gains folded: singular values of QK and VO of every layer, truncated and scaled to [0, 1], along the best increasing map
of layers. It rests on no numbering and on no token, and needs no basis.

Survives every change of the weights that keeps the function. Defeated by training: a child that was trained on was
farther from its parent than a twin that was never related. It has no null either: the shape of a spectrum is much the
same in many unrelated models, whose similarity is anywhere from 0 to .78 as published, and reached .96 in small twins,
where a model and itself have .976. So it never carries a verdict, and is shown because it is a published figure, which
readers may know.

Source: GhostSpec, arXiv 2511.06390 (AAAI 2026), GhostSpec-mse and Algorithm 1; folding is added here.
"""

from __future__ import annotations

from kinprint.canonical import method_id
from kinprint.evidence.pair import Pair
from kinprint.evidence.records import Statement
from kinprint.linalg.device import CPU
from kinprint.methods import ghostspec_mse
from kinprint.spectra import IDENTICAL, K_TAU, RHO, TAU, attention_spectra
from kinprint.types import Evidence


def statement() -> Statement:
    """Return what this test says about itself."""
    return Statement(
        name="attention spectra, gains folded (GhostSpec-mse)",
        id=method_id("folded-spectra", 1, ghostspec=ghostspec_mse.VERSION, k_tau=K_TAU, rho=RHO, tau=TAU),
        rung=3,
        null="independent training: no null is known, for spectra of unrelated models are alike in shape",
        defeats="training: a child trained on was farther from its parent than an unrelated twin",
    )


def test(pair: Pair) -> Evidence:
    """Measure one pair."""
    said = statement()
    device = None if pair.device == CPU else pair.device
    prints = [attention_spectra(trunk.view, fold=True, device=device) for trunk in (pair.suspect, pair.base)]
    found = ghostspec_mse.compare(*prints, fold=True)
    similarity = found.values[0].value if found.values else None
    if similarity is None:
        return said.not_applicable(found.reason or "the spectra of no two layers could be compared")
    return said.sized(
        similarity,
        controls=found.controls,
        tables=found.tables,
        notes=(f"a model and itself have {IDENTICAL:.3f}; distance {found.values[1].value:.4g}", *found.notes),
    )
