"""What the page says in its own words, whatever was compared."""

from __future__ import annotations

from collections.abc import Mapping

from kinprint.types import Conclusion

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

LIMITS = (
    "weights say nothing of who copied from whom, of dates, of licences or of intent",
    "a common ancestor or a shared random start looks like derivation, since it is one of weights",
    "distillation and training on a model's answers copy behaviour and leave no trace in weights",
    "a model that was trained on until nothing is left of its start is a model trained from scratch",
)
