"""Spectra of layers, made once per model and shared by every similarity that is computed from them."""

from kinprint.spectra.extract import (
    ATTENTION,
    ATTENTION_IGNORES,
    ATTENTION_NOTICES,
    MLP,
    MLP_IGNORES,
    MLP_NOTICES,
    attention_spectra,
    mlp_spectra,
)
from kinprint.spectra.kinds import attention_notes
from kinprint.spectra.match import IDENTICAL, K_TAU, RHO, TAU, Match, Side, match, similarity

__all__ = [
    "ATTENTION",
    "ATTENTION_IGNORES",
    "ATTENTION_NOTICES",
    "IDENTICAL",
    "K_TAU",
    "MLP",
    "MLP_IGNORES",
    "MLP_NOTICES",
    "RHO",
    "TAU",
    "Match",
    "Side",
    "attention_notes",
    "attention_spectra",
    "match",
    "mlp_spectra",
    "similarity",
]
