"""What the page says in its own words, whatever was compared."""

from __future__ import annotations

from collections.abc import Mapping

from kinprint.types import Conclusion, Verdict
from kinprint.verdict.words import probability

MEANING: Mapping[Conclusion, str] = {
    "identical": (
        "Every value of one model is in the other, as it is stored or after rounding. They are the same weights; the "
        "page does not say which was there first."
    ),
    "derived": (
        "The weights of one model come from those of the other, or both come from a common ancestor. Weights do not "
        "say in which direction, by whom, or whether that was allowed: dates, licences and statements do."
    ),
    "independent": (
        "Nothing of one model's weights was found in the other, and copies that were planted for the purpose were "
        "found. That speaks of weights alone: data, code, architecture and behaviour may still be shared."
    ),
    "inconclusive": (
        "What was tested is neither enough to say that weights were shared nor enough to say that they were not. It "
        "is no accusation and no acquittal."
    ),
    "not_comparable": "Nothing could be tested on this pair; the reasons stand below.",
}

RUNG_MEANING: Mapping[int, str] = {
    0: "are values the same, bit by bit or after rounding",
    1: "a permutation test whose p-value is exact under its null hypothesis",
    2: "parts are matched first and tested on what did not choose the match: a size, and no p-value",
    3: "numbers that no rewriting of the same function changes",
}

MATCHED: Mapping[str, str] = {"heads": "matched attention heads", "units": "matched MLP units"}
"""What people call the parts whose sizes stand among those of independent pairs, by the record's short name."""

LIMITS = (
    "weights say nothing of who copied from whom, of dates, of licences or of intent",
    "a common ancestor or a shared random start looks like derivation, since it is one of weights",
    "distillation and training on a model's answers copy behaviour and leave no trace in weights",
    "a model that was trained on until nothing is left of its start is a model trained from scratch",
)

_SHORT = 80
"""Characters of a name that stand in headings, links and cells."""


def short(text: str) -> str:
    """Return a name as it fits a heading; a name is as long as whoever made the checkpoint wanted.

    Example:
        >>> short("base"), len(short("a" * 10_000))
        ('base', 80)
    """
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def error_rate(verdict: Verdict) -> str:
    """Return how often a verdict like this one would be wrong, as far as the record knows.

    Args:
        verdict: What was decided.
    """
    carrier = next((one for one in verdict.evidence if one.name == verdict.decided_by), None)
    if verdict.conclusion == "identical":
        return "none: values were compared one by one, and nothing was estimated"
    if verdict.conclusion == "derived":
        if carrier is not None and carrier.log10_p is not None:
            return (
                f"p = {probability(carrier.log10_p)}; all {verdict.planned} planned exact tests together call "
                f"independent models derived with a probability of at most {verdict.alpha:g}"
            )
        people = carrier.population if carrier is not None else None
        if people is None:
            return "not known for the whole: it rests on single layers or parts, whose sizes stand below"
        return (
            f"{people.passed} of {people.pairs} independent pairs are beyond the margin: at most {people.bound:.2g} if "
            f"pairs count as independent draws, {people.bound_disjoint:.2g} if only pairs that share no model do"
        )
    if verdict.conclusion == "independent" and verdict.power is not None and verdict.power.plantings:
        least = min(one.lower_bound for one in verdict.power.plantings)
        return f"of copies like those that were planted, at most {1 - least:.2g} would be missed (95 % confidence)"
    return "none is claimed: nothing was decided"
