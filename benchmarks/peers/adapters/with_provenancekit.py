"""Ask Cisco's Model Provenance Kit about pairs: what ``provenancekit compare SUSPECT BASE --no-cache`` does.

Its cache is left out: it keeps features by path, so a model rebuilt in the same folder would get the old one's.
"""

from __future__ import annotations

from answering import Answer, serve
from provenancekit.config.settings import Settings
from provenancekit.core.scanner import ModelProvenanceScanner
from provenancekit.services.cache import NullCache
from provenancekit.utils.logging import configure_logging


def compare(suspect: str, base: str) -> Answer:
    """Return its pipeline score, and what the score is made of: metadata, and five signals from weights."""
    result = ModelProvenanceScanner(settings=Settings(), cache=NullCache()).compare(suspect, base)
    scores, signals = result.scores, result.signals
    return {
        "value": scores.pipeline_score,
        "verdict": scores.provenance_decision,
        "parts": {
            "identity_score": scores.identity_score,
            "mfi_score": scores.mfi_score,
            "tokenizer_score": scores.tokenizer_score,
            "eas": signals.eas,
            "nlf": signals.nlf,
            "lep": signals.lep,
            "end": signals.end,
            "wvc": signals.wvc,
        },
    }


if __name__ == "__main__":
    configure_logging(verbose=False)
    serve(compare)
