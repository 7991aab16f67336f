"""Do the embeddings of shared tokens agree, in a basis that the layers give? By size.

Axes: N = tokens, K = common directions.

Stated against: independent training. The basis comes from stored coordinates or from MLP units, never from the
embeddings themselves: a fit on them makes strangers' embeddings alike (cosine .5). The mean over tokens is subtracted,
which models share. It says something about the embedding alone, and about the trunk nothing; where the trunk is
independent no basis means anything, and embeddings taken over and rotated go unnoticed.
"""

from __future__ import annotations

import numpy as np

from kinprint.alignment.basis import Basis, Refusal, in_common
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.evidence.pair import Pair
from kinprint.evidence.population import among_innocents
from kinprint.evidence.records import Statement
from kinprint.types import Evidence

ENOUGH = 0.5
"""Size from which on the dearer basis is not tried: no stranger comes near it in the stored basis."""


def test(pair: Pair) -> Evidence:
    """Test one pair."""
    said = Statement(
        name="embeddings of shared tokens",
        id=method_id("embedding", 1),
        rung=2,
        null="independent training: in a basis that the layers give, embeddings of the same token do not agree",
        defeats="embeddings drawn or trained anew; an independent trunk under a rotated copy of the embeddings",
    )
    if isinstance(pair.token_rows, Refusal):
        return said.not_applicable(pair.token_rows.reason)
    found = measure(pair)
    if found is None:
        return said.not_applicable("no basis without the embeddings: the widths differ and no units could be matched")
    size, kind = found
    return said.sized(size, notes=(f"{len(pair.token_rows[0])} tokens, in the {kind} basis",)).model_copy(
        update=among_innocents("embedding", size, (pair.suspect.width, pair.base.width))
    )


def measure(pair: Pair) -> tuple[float, str] | None:
    """Return the larger size of the stored basis and the basis of units, and which; None where there is neither."""
    rows = pair.token_rows
    if isinstance(rows, Refusal):
        return None
    found: list[tuple[float, str]] = []
    for basis in (pair.basis("stored"), pair.layer_basis):
        if isinstance(basis, Basis) and [side.shape[1] for side in rows] == [
            basis.suspect_AK.shape[0],
            basis.base_BK.shape[0],
        ]:
            found.append((embedding_size(rows, basis), basis.kind))
            if found[-1][0] > ENOUGH:
                break
    return max(found, default=None)


def embedding_size(rows: tuple[Array, Array], basis: Basis) -> float:
    """Return the mean over tokens of the cosine of their embeddings about the mean, in a basis."""
    sides = [
        in_common(side - side.mean(axis=0, dtype=np.float64), turn)
        for side, turn in zip(rows, (basis.suspect_AK, basis.base_BK), strict=True)
    ]
    return float(np.einsum("nk,nk->n", *sides).mean())
