"""Does a suspect agree with a base more often than with any unrelated model? "Model Provenance Testing".

Axes: N = prompts, C = controls.

Each model names its likeliest next token after each prompt. The suspect agrees with another model on a prompt where
both name the same text; spaces around it do not count, since they depend on how a server spells tokens. For each
control, H0: the suspect agrees with the base no more often than with that control.

Only the prompts on which the two agreements differ speak about H0: b where the suspect agrees with the base alone, c
where it agrees with the control alone. Prompts are the exchangeable units: they must be drawn alike and independently
of the models, and then under H0 each of the b + c is of the first kind with a probability of at most 1/2, so that

    p = P(X >= b),  X ~ Binomial(b + c, 1/2),

McNemar's test, one-sided and exact. It is 2^-(b + c) at the least and never 0. The p-values of all controls are
corrected by Holm; the finding rests on the largest, since the base must stand out from every control.

Prompts say nothing of how models differ: one control may be better, or nearer by chance, than another, and b is then
larger than c although nothing was copied: on independent models p is too small (docs/behaviour.md). The rank of the
base among the controls needs no prompt to be exchangeable:

    p = (1 + controls that agree with the suspect as often as the base, or oftener) / (1 + C),

exact where base and controls are exchangeable given the suspect, as models of one recipe and other seeds are, and never
below 1 / (1 + C): few controls can say little.

H0 is about agreement, not about descent. Models that were trained on the same data, or distilled from the base, agree
with it more than strangers do and are strangers by weights; a control with another tokenizer agrees less because it
cuts words elsewhere. So the test is made a second time with every doubt for the controls: there a control agrees as
soon as one of the two tokens begins with the other.

Ignores: everything that keeps the function. Notices: a common function, wherever it comes from.
Fails: distillation, the same training data, controls that are unlike the base in size, data or tokenizer, prompts that
are variations of a few, and suspects that were trained so far that nothing of the base is left.

Source: Nikolic, Baluta & Saxena, Model Provenance Testing for Large Language Models, arXiv 2502.00706, algorithm 1. The
published test compares two shares as if they came from different prompts (z-test, or Fisher's for small counts,
two-sided); both shares here are of the same prompts, and the test is paired. McNemar, Psychometrika 12, 1947; Holm,
Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinprint.behaviour.black_box import BlackBox, NextToken
from kinprint.canonical import method_id
from kinprint.errors import UsageError
from kinprint.types import MethodResult, Table, Value

VERSION = 1
NAME = "model-provenance-test"
SOURCE = "Nikolic, Baluta & Saxena (arXiv 2502.00706), algorithm 1; paired"

NULL = (
    "H0 for each control: the suspect agrees with the base no more often than with that control; exchangeable units "
    "are the prompts, which must be drawn alike and independently of the models"
)
DEFEATS = (
    "agreement is no descent: distillation from the base and training on the same data raise it without a common "
    "weight, long further training lowers it; controls must be like the base in size, data and tokenizer"
)
UNITS = (
    "log10 p takes prompts for the units: it is about these controls, and too small on independent models; the "
    "rank takes models for the units"
)
REPEATS = "prompts that are variations of a few count as many and make p too small"


@dataclass(frozen=True, slots=True)
class Discordant:
    """The prompts on which two agreements of the suspect differ.

    Attributes:
        base: Where it agrees with the base alone.
        control: Where it agrees with the control alone.
    """

    base: int
    control: int

    @property
    def log10_p(self) -> float:
        """Decimal logarithm of the exact p-value; 0 where no prompt speaks."""
        return log10_tail(self.base, self.base + self.control)


def compare(
    suspect: BlackBox, base: BlackBox, controls: Sequence[BlackBox], prompts: Sequence[str], alpha: float = 0.01
) -> MethodResult:
    """Test whether a suspect agrees with a base more often than with each control.

    Args:
        suspect: The model in question.
        base: The one that it may come from.
        controls: Unrelated models, at least one; the more alike they are to the base, the more the test says.
        prompts: Drawn alike and independently of the models; equal ones count once.
        alpha: Family-wise error rate over the controls.

    Returns:
        The share of prompts on which the suspect agrees with the base, the decimal logarithm of the largest p-value
        after Holm's correction, the largest share of agreement with a control, and the p-value of the rank.
        Controls: the p-value with every doubt for the controls, and how often base and nearest control agree.

    Raises:
        UsageError: ``alpha`` is no rate, or a control is the suspect or the base itself.
        KinprintError: A model could not be asked.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: give a rate between 0 and 1")
    for control in controls:
        if control.identity in (suspect.identity, base.identity):
            raise UsageError(f"control {control.name!r} is the suspect or the base itself: name an unrelated model")
    identifier = method_id(NAME, VERSION, alpha=alpha)
    asked = list(dict.fromkeys(prompts))
    if not controls or not asked:
        missing = "no prompt" if controls else "no control model: nobody knows how often strangers agree"
        return MethodResult(method=NAME, id=identifier, status="not_applicable", reason=missing, source=SOURCE)
    told = [model.next_tokens(asked, most=1) for model in (suspect, base, *controls)]
    answered = [row for row in zip(*told, strict=True) if all(token.top for token in row)]
    if not answered:
        reason = "no prompt has a next token from every model"
        return MethodResult(method=NAME, id=identifier, status="not_applicable", reason=reason, source=SOURCE)
    tokens = [[bare(token.top[0][0]) for token in row] for row in answered]
    strict = [discordant(tokens, place, same) for place in range(2, 2 + len(controls))]
    lenient = [discordant(tokens, place, begins) for place in range(2, 2 + len(controls))]
    shares = [sum(row[0] == row[place] for row in tokens) / len(tokens) for place in range(1, 2 + len(controls))]
    nearest = max(range(len(controls)), key=lambda place: shares[1 + place])
    adjusted = holm([each.log10_p for each in strict])
    return MethodResult(
        method=NAME,
        id=identifier,
        status="measured",
        values=(
            _similarity("agreement with the base", shares[0], f"of {len(tokens)} prompts"),
            _p_value("log10 p", max(adjusted), alpha),
            _statistic(
                "log10 p by rank", log10_rank(shares), f"of the base among {len(controls)} controls; units are models"
            ),
            _statistic("agreement with the nearest control", shares[1 + nearest], controls[nearest].name),
        ),
        controls=(
            _p_value("log10 p, every doubt for the controls", max(holm([each.log10_p for each in lenient])), alpha),
            _statistic(
                "agreement of base and nearest control",
                sum(row[1] == row[2 + nearest] for row in tokens) / len(tokens),
                "how often models that are taken for unrelated agree",
            ),
        ),
        tables=(_table(controls, shares, strict, adjusted, lenient),),
        notes=(NULL, UNITS, DEFEATS, *_notes(prompts, asked, answered)),
        source=SOURCE,
    )


def log10_rank(shares: Sequence[float]) -> float:
    """Return the decimal logarithm of the rank's p-value: the base's share comes first, then those of the controls.

    Example:
        >>> round(10 ** log10_rank([0.5, 0.2, 0.5, 0.1]), 12)
        0.5
    """
    return math.log10(sum(share >= shares[0] for share in shares) / len(shares))


def bare(token: str) -> str:
    r"""Return a token without white space around it; one that is nothing else stays.

    Example:
        >>> bare(" Paris"), bare("\n")
        ('Paris', '\n')
    """
    return token.strip() or token


def same(one: str, other: str) -> bool:
    """Tell whether two tokens are the same text."""
    return one == other


def begins(one: str, other: str) -> bool:
    """Tell whether one token begins with the other, as where two tokenizers cut a word differently."""
    return one.startswith(other) or other.startswith(one)


def discordant(tokens: Sequence[Sequence[str]], place: int, agree: Callable[[str, str], bool]) -> Discordant:
    """Count the prompts on which the suspect agrees with one of base and control alone.

    Args:
        tokens: [N, 2 + C]: for each prompt the tokens of suspect, base and controls.
        place: Which column is the control's.
        agree: When the suspect agrees with the control; with the base it does where the texts are the same.
    """
    pairs = [(row[0] == row[1], agree(row[0], row[place])) for row in tokens]
    return Discordant(pairs.count((True, False)), pairs.count((False, True)))


def log10_tail(successes: int, trials: int) -> float:
    """Return the decimal logarithm of P(X >= successes) for X ~ Binomial(trials, 1/2).

    Summed in whole numbers: the tail is exact, and finite where floating-point numbers would end.

    Example:
        >>> round(10 ** log10_tail(5, 6), 12) == round(7 / 64, 12), log10_tail(0, 0)
        (True, 0.0)
    """
    term = tail = math.comb(trials, successes)
    for count in range(successes, trials):
        term = term * (trials - count) // (count + 1)
        tail += term
    return min(0.0, math.log10(tail) - trials * math.log10(2))


def holm(log10_ps: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm for the family-wise error rate, as decimal logarithms.

    Example:
        >>> [round(10**p, 6) for p in holm([math.log10(0.04), math.log10(0.01), math.log10(0.03)])]
        [0.06, 0.03, 0.06]
    """
    adjusted = [0.0] * len(log10_ps)
    largest = -math.inf
    for rank, place in enumerate(sorted(range(len(log10_ps)), key=lambda place: log10_ps[place])):
        largest = max(largest, min(0.0, log10_ps[place] + math.log10(len(log10_ps) - rank)))
        adjusted[place] = largest
    return adjusted


def _table(
    controls: Sequence[BlackBox],
    shares: Sequence[float],
    strict: Sequence[Discordant],
    adjusted: Sequence[float],
    lenient: Sequence[Discordant],
) -> Table:
    return Table(
        title="Agreement of the suspect with the base and with each control",
        columns=(
            "control", "with base", "with control", "base alone", "control alone", "log10 p", "Holm",
            "log10 p, every doubt for the control",
        ),
        rows=tuple(
            (control.name, shares[0], shares[1 + place], counts.base, counts.control, counts.log10_p, adjusted[place],
             lenient[place].log10_p)
            for place, (control, counts) in enumerate(zip(controls, strict, strict=True))
        ),
    )  # fmt: skip


def _notes(prompts: Sequence[str], asked: Sequence[str], answered: Sequence[tuple[NextToken, ...]]) -> tuple[str, ...]:
    notes = [REPEATS]
    if len(asked) < len(prompts):
        notes.append(f"{len(prompts) - len(asked)} repeated prompts count once")
    if len(answered) < len(asked):
        notes.append(
            f"{len(asked) - len(answered)} of {len(asked)} prompts left out: not every model told a next token"
        )
    if any(token.sampled for row in answered for token in row):
        notes.append("a model tells no log-probabilities: its most frequent answer among few that were drawn counts")
    return tuple(notes)


def _similarity(name: str, share: float, note: str) -> Value:
    return Value(name=name, value=share, kind="similarity", identical=1.0, note=note)


def _statistic(name: str, number: float, note: str) -> Value:
    return Value(name=name, value=number, kind="statistic", note=note)


def _p_value(name: str, log10_p: float, alpha: float) -> Value:
    found = "more often than with every control" if log10_p <= math.log10(alpha) else "not more often than with each"
    return _statistic(
        name, log10_p, f"largest after Holm, units are prompts; at alpha {alpha:g} the suspect agrees {found}"
    )
