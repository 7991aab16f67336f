"""Next-token overlap: how much of the probability of what comes next do two models give to the same tokens?

Axes: N = probes, V = tokens of one vocabulary.

After each probe each model has a distribution over its vocabulary. What both give to the same token is summed over the
tokens that both vocabularies have: 1 less the total variation distance where the vocabularies are the same. The number
is the mean over probes; beside it stands on how many probes both name the same token first, which is all that model
provenance testing looks at.

Ignores: everything that keeps the function.
Notices: any change of the function, whatever its cause; a student that was taught its teacher's distribution.
Fails: texts that neither model was made for, after which all models of one kind are alike; other vocabularies.

Source: total variation, as in any textbook; agreement of first tokens: Nikolic, Baluta & Saxena, Model Provenance
Testing for Large Language Models, arXiv 2502.00706, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.behaviour.logits import shared_ids
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.shapes import Float, Float64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

SEED = 0
_NAME = "next-token"
_ID = method_id(_NAME, 1, seed=SEED)
_SOURCE = "total variation; agreement: Nikolic, Baluta & Saxena (arXiv 2502.00706), section 4"


def measure(suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
    """Return how much probability two models give to the same next tokens.

    Control: the base's distributions after other probes.
    """
    mine_NV, theirs_NV = suspect.run(probes).logits, base.run(probes).logits
    ids, note = shared_ids(suspect, base, mine_NV.shape[1], theirs_NV.shape[1])
    if ids is None:
        return METHOD.not_applicable(note)
    others = np.random.default_rng(SEED).permutation(len(theirs_NV))
    shared_N, by_chance_N = overlaps(mine_NV, theirs_NV, *ids), overlaps(mine_NV, theirs_NV[others], *ids)
    places = dict(zip(ids[0].tolist(), ids[1].tolist(), strict=True))
    firsts = zip(mine_NV.argmax(axis=1).tolist(), theirs_NV.argmax(axis=1).tolist(), strict=True)
    same = [places.get(here) == there for here, there in firsts]
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=(
            Value(
                name="similarity",
                value=float(shared_N.mean()),
                kind="similarity",
                identical=1.0,
                note="probability that both give to the same tokens",
            ),
            Value(
                name="agreement",
                value=float(np.mean(same)),
                kind="similarity",
                identical=1.0,
                note="share of probes with the same likeliest token",
            ),
        ),
        controls=(
            Value(name="other probes", value=float(by_chance_N.mean()), kind="similarity", note="probes shuffled"),
        ),
        notes=(f"{len(probes)} probes, {note}",),
        source=_SOURCE,
    )


def overlaps(
    mine_NV: Float[Array, "N V"], theirs_NU: Float[Array, "N U"], here_S: Array, there_S: Array
) -> Float64[Array, " N"]:
    """Return for each pair of rows of logits the probability that both give to the same of some tokens.

    Args:
        mine_NV: Logits of one model.
        theirs_NU: Logits of the other.
        here_S: Ids of the shared tokens in the first vocabulary.
        there_S: Ids of the same tokens in the second.

    Example:
        >>> both = np.arange(2)
        >>> overlaps(np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]]), both, both).round(12).tolist()
        [0.75]
    """
    rows = zip(mine_NV, theirs_NU, strict=True)  # one by one: vocabularies are large
    return np.array([np.minimum(_softmax(mine)[here_S], _softmax(theirs)[there_S]).sum() for mine, theirs in rows])


def _softmax(logits_V: Array) -> Array:
    weights_V = np.exp(logits_V.astype(np.float64) - logits_V.max())
    return weights_V / weights_V.sum()


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="everything that keeps the function",
    notices="any change of the function, and a student that was taught its teacher's distribution",
    fails="texts that neither model was made for; other vocabularies",
    measure=measure,
)
