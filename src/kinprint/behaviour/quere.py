"""QueRE: do two models answer the same follow-up questions about their own answers alike?

Axes: N = probes, F = features of one probe.

Each probe is put to the model, which answers; then it is asked fixed follow-up questions about that answer. Features
are the probability of yes among yes and no after each question, the mean log-probability of the answer (where the
model tells it), and the confidence before and after the answer was given.

The papers train a linear probe on the features, and GhostSpec, which turns them into one number, does not say how. The
number here is: Pearson's correlation over probes of each feature of one model with the same feature of the other, mean
over the features that vary in both. It is 1 for equal answers and about 0 where one model's confidence says nothing
about the other's; a constant leaning towards yes, which all small models have, takes no part.

Ignores: everything that keeps the function; a monotone change of confidence all but so.
Notices: another way to answer.
Fails: models trained on the same dialogues; models too small to answer lean one way (GhostSpec's table has 1.0 for
OPT-6.7b and .0910 for a true child).

Source: Sam et al., Predicting the Performance of Black-box LLMs through Follow-up Queries (QueRE, arXiv 2501.01558),
section 3; the questions are our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.behaviour.black_box import BlackBox, NextToken
from kinprint.behaviour.method import BehaviourMethod
from kinprint.behaviour.runner import Runner
from kinprint.canonical import method_id
from kinprint.shapes import Float64
from kinprint.types import MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]

FOLLOW_UPS = (
    "Is this right?",
    "Are you sure?",
    "Could this be wrong?",
    "Would an expert agree?",
    "Is this a guess?",
    "Is this common knowledge?",
)
"""Short, so that they fit behind a probe where a model reads a hundred tokens."""

BEFORE = "Do you know this?"
AFTER = "Did you know this?"
YES, NO = ("yes", "ye", "y"), ("no", "n")
"""Tokens that an answer may begin with; those of small vocabularies are single letters."""

ANSWER_TOKENS = 12
MOST_PROBES = 50
"""Each probe takes as many passes as there are questions."""

SHUFFLES, SEED = 20, 0
_LEAST_PROBES = 8
_NAME = "quere"
_ID = method_id(
    _NAME, 1, answer=ANSWER_TOKENS, questions=len(FOLLOW_UPS) + 2, probes=MOST_PROBES, seed=SEED, shuffles=SHUFFLES
)
_SOURCE = "Sam et al., QueRE (arXiv 2501.01558), section 3"


def measure(suspect: BlackBox, base: BlackBox, probes: Sequence[str]) -> MethodResult:
    """Return how alike two models' confidence runs over probes.

    Control: the base's probes shuffled.
    """
    fitting = [probe for probe in probes if all(_fits(model, probe) for model in (suspect, base))]
    if len(fitting) < _LEAST_PROBES:
        return METHOD.not_applicable(
            f"{len(fitting)} of {len(probes)} probes fit both contexts with a question behind them,"
            f" and {_LEAST_PROBES} are the least for a correlation"
        )
    step = max(1, len(fitting) // MOST_PROBES)
    chosen = fitting[::step][:MOST_PROBES]
    sides = [features(model, chosen) for model in (suspect, base)]
    names = [name for name in sides[0] if name in sides[1]]
    mine, theirs = (np.stack([side[name] for name in names], axis=1) for side in sides)
    correlations = _correlations(mine, theirs)
    known = ~np.isnan(correlations)
    if not known.any():
        return METHOD.not_applicable("no answer to a follow-up question varies over probes in both models")
    rng = np.random.default_rng(SEED)
    shuffled = [float(np.nanmean(_correlations(mine, theirs[rng.permutation(len(chosen))]))) for _ in range(SHUFFLES)]
    return MethodResult(
        method=_NAME,
        id=_ID,
        status="measured",
        values=(
            Value(
                name="similarity",
                value=float(correlations[known].mean()),
                kind="similarity",
                identical=1.0,
                note=f"mean correlation over probes of {int(known.sum())} of {len(names)} features",
            ),
            *(
                Value(name=name, value=float(value), kind="similarity", identical=1.0)
                for name, value in zip(names, correlations, strict=True)
                if not math.isnan(value)
            ),
        ),
        controls=(
            Value(
                name="shuffled probes", value=float(np.mean(shuffled)), kind="similarity", note=f"mean of {SHUFFLES}"
            ),
        ),
        notes=(f"{len(chosen)} probes", "the conversion into one number is ours: the papers do not print theirs"),
        source=_SOURCE,
    )


def features(model: BlackBox, probes: Sequence[str]) -> dict[str, Float64[Array, " N"]]:
    """Return every feature of some probes by its name; log-probabilities of answers only of a local model."""
    asked = [_asked(probe) for probe in probes]
    answers = model.answers(asked, most=ANSWER_TOKENS)
    answered = [question + (answer.split("\n")[0] or " ") for question, answer in zip(asked, answers, strict=True)]
    behind = (*FOLLOW_UPS, AFTER)
    before_N1 = _asks(model, [[_with(f"Q: {probe}", BEFORE)] for probe in probes])
    after_NQ = _asks(model, [[_with(text, question) for question in behind] for text in answered])
    found = {BEFORE: before_N1[:, 0], **dict(zip(behind, after_NQ.T, strict=True))}
    if isinstance(model, Runner):
        said = [text[len(question) :] for question, text in zip(asked, answered, strict=True)]
        found["log-probability of the answer"] = model.log_likelihoods(asked, said).astype(np.float64)
    return found


def _asks(model: BlackBox, groups: Sequence[Sequence[str]]) -> Float64[Array, "N Q"]:
    if not isinstance(model, Runner):
        told = model.next_tokens([text for group in groups for text in group])
        return leaning(told).reshape(len(groups), -1)
    # All tokens of a local model are known, not the likeliest alone.
    masses_NQ2 = model.log_masses(groups, (YES, NO))
    return 1 / (1 + np.exp(np.clip(masses_NQ2[..., 1] - masses_NQ2[..., 0], -700, 700)))


def leaning(asked: Sequence[NextToken]) -> Float64[Array, " N"]:
    """Return the probability of yes among yes and no; .5 where neither is among the tokens that were told.

    Example:
        >>> import math
        >>> leaning([NextToken(((" Yes", math.log(0.6)), ("no", math.log(0.2)), (" the", -3.0)))]).round(6).tolist()
        [0.75]
    """
    found: list[float] = []
    for one in asked:
        weights = {
            words: sum(math.exp(score) for token, score in one.top if token.strip().lower() in words)
            for words in (YES, NO)
        }
        total = weights[YES] + weights[NO]
        found.append(weights[YES] / total if total > 0 else 0.5)
    return np.array(found)


def _asked(probe: str) -> str:
    return f"Q: {probe}\nA:"


def _with(text: str, question: str) -> str:
    return f"{text}\nQ: {question}\nA:"


def _fits(model: BlackBox, probe: str) -> bool:
    """Return whether a probe, an answer and the longest question fit; a served model is taken to have room."""
    longest = max((*FOLLOW_UPS, BEFORE, AFTER), key=len)
    return not isinstance(model, Runner) or model.fits(_with(_asked(probe), longest), room=2 * ANSWER_TOKENS)


def _correlations(left_NF: Array, right_NF: Array) -> Array:
    about = [side - side.mean(axis=0) for side in (left_NF, right_NF)]
    norms = [np.linalg.norm(side, axis=0) for side in about]
    # What rounding leaves of a constant is no variation.
    varies = (norms[0] > 1e-9) & (norms[1] > 1e-9)
    products = (about[0] * about[1]).sum(axis=0)
    return np.where(varies, products / np.where(varies, norms[0] * norms[1], 1.0), np.nan)


METHOD = BehaviourMethod(
    name=_NAME,
    id=_ID,
    source=_SOURCE,
    ignores="everything that keeps the function",
    notices="another way to answer",
    fails="models trained on the same dialogues; models too small to answer",
    measure=measure,
)
