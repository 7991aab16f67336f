"""Ask modelDNA about pairs: what its command ``modeldna compare SUSPECT BASE`` does, once per line of input."""

from __future__ import annotations

from answering import Answer, serve
from modeldna.scan import compare_pair


def compare(suspect: str, base: str) -> Answer:
    """Return its probability that the suspect derives from the base, and the four signals behind it."""
    _, _, evidence, verdict = compare_pair(suspect, base)
    (candidate,) = verdict.candidates
    return {
        "value": candidate.probability,
        "verdict": verdict.verdict.value,
        "reason": candidate.ruled_out,
        "parts": evidence.features(),
    }


if __name__ == "__main__":
    serve(compare)
