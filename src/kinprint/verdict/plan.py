"""What is tested, in which order, and what each test may spend. Fixed before any model is read.

Alpha is spent by stages, alpha 2^-k at stage k, and shared evenly by a stage's tests (Bonferroni, valid under any
dependence). Stage 1: a sample of units. Stage 2: label groups in the stored basis. Stage 3: label groups in the basis
that was found. Where a large model is read in steps, stages 2 and 3 are run once a step, each step on a quarter of what
the one before it could spend. A test that cannot run on a pair does not hand its share on.

A verdict by size has no alpha: its margin was set on independent pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from kinprint.alignment.basis import Basis, Refusal
from kinprint.evidence import (
    cka,
    embedding,
    exact_experts,
    exact_groups,
    exact_residual,
    exact_sample,
    exact_units,
    folded_spectra,
    head_spectra,
    matched,
    matched_coordinates,
    token_forms,
)
from kinprint.evidence.calibration import calibrated
from kinprint.evidence.exact_sample import Look
from kinprint.evidence.pair import Pair
from kinprint.evidence.records import Statement
from kinprint.evidence.sampling import Sampling
from kinprint.types import Evidence

Mode = Literal["quick", "default", "thorough"]

Tell = Callable[[str], None]

STAGES: tuple[tuple[str, ...], ...] = (
    ("sample",),
    ("units", "groups", "experts", "residual", "embeddings"),
    ("units", "groups", "experts", "residual"),
)
"""Label groups that each stage tests: a sample, then all in the stored basis, then in the one that was found."""

PLANNED = sum(len(stage) for stage in STAGES)


@dataclass
class Findings:
    """All evidence on one pair so far."""

    evidence: list[Evidence] = field(default_factory=list[Evidence])
    sizes: matched.Sizes = field(default_factory=lambda: matched.Sizes((), ()))
    step: int = 0

    @property
    def decided(self) -> bool:
        """Whether something that may carry the verdict speaks for derivation."""
        return any(found.carries and found.beyond for found in self.evidence)


def share(stage: int, step: int = 0) -> float:
    """Return the part of alpha that one test of a stage may spend, in one step of reading.

    Example:
        >>> share(1), share(2), share(3), share(2, step=1)
        (0.5, 0.05, 0.03125, 0.0125)
    """
    return 2.0**-stage * 4.0**-step / len(STAGES[stage - 1])


def stage_of(test_id: str) -> int:
    """Return the stage that an exact test belongs to, by its id."""
    if test_id.startswith("exact-sample/"):
        return 1
    return 2 if "stored" in test_id or "rows=embeddings" in test_id else 3


def first_look(sampling: Sampling, alpha: float) -> Look:
    """Run stage 1."""
    found = exact_sample.look(sampling, math.log10(alpha * share(1)))
    return replace(found, evidence=_checked(found.evidence))


def gather(pair: Pair, *, mode: Mode, alpha: float, first: tuple[Evidence, ...], tell: Tell, step: int = 0) -> Findings:
    """Run the plan on one pair; what is dear runs only while undecided, unless the mode is ``thorough``.

    Args:
        pair: Two models with roles.
        mode: How much to run.
        alpha: Family-wise error rate of the exact tests.
        first: Evidence of rung 0 and of the sample.
        tell: Called before each test, with what comes next.
        step: How often models of this pair were read further before.
    """
    found = Findings(list(first), step=step)
    found.evidence += about_the_trunk(list(_stage_2(pair, alpha, step, tell)))
    known = list(found.evidence)
    if mode == "quick" and found.decided:
        return found
    tell("matching heads and units")
    found.sizes = matched.measure(pair)
    found.evidence += [matched.heads(pair, found.sizes), matched.units(pair, found.sizes)]
    if mode == "thorough" or not found.decided:
        found.evidence += about_the_trunk([*known, *_stage_3(pair, alpha, step, tell)])[len(known) :]
    if mode != "quick":
        tell("embeddings")
        found.evidence.append(embedding.test(pair))
    # None of these may carry a verdict, and of wide models they take minutes.
    if mode == "thorough" or (mode == "default" and not found.decided and not pair.suspect.wide):
        for test in _SHOWN:
            tell(test.__name__.rsplit(".", maxsplit=1)[-1].replace("_", " "))
            found.evidence.append(test.test(pair))
    return found


def most_steps(mode: Mode) -> int:
    """Return how many steps :func:`gather` tells of at most: exact tests, matching, embeddings and what is shown only.

    Example:
        >>> most_steps("quick"), most_steps("default")
        (10, 16)
    """
    steps = sum(len(stage) for stage in STAGES[1:]) + 1
    return steps if mode == "quick" else steps + 1 + len(_SHOWN)


_SHOWN = (matched_coordinates, cka, head_spectra, token_forms, folded_spectra)


def _stage_2(pair: Pair, alpha: float, step: int, tell: Tell) -> Iterator[Evidence]:
    basis = pair.basis("stored")
    log10_alpha = math.log10(alpha * share(2, step))
    yield from _in_basis(pair, basis, "stored", log10_alpha, tell)
    tell(exact_residual.statement("stored").name)
    yield _checked(exact_residual.test(pair, "stored", log10_alpha))
    tell(exact_residual.statement("embeddings").name)
    # The embedding is judged for itself: what is often taken over alone does not convict the layers.
    yield _checked(exact_residual.test(pair, "embeddings", log10_alpha)).model_copy(update={"carries": False})


def _stage_3(pair: Pair, alpha: float, step: int, tell: Tell) -> Iterator[Evidence]:
    best = pair.best_free
    basis = Refusal("the models share no basis but the stored one") if best is None else best
    kind = "tokens" if best is None else best.kind
    log10_alpha = math.log10(alpha * share(3, step))
    yield from _in_basis(pair, basis, kind, log10_alpha, tell)
    tell(exact_residual.statement("matched").name)
    yield _checked(exact_residual.test(pair, "matched", log10_alpha))


_State = Callable[[str], Statement]
_Run = Callable[[Pair, Basis, str, float], Evidence]

_IN_A_BASIS: tuple[tuple[_State, _Run], ...] = (
    (exact_units.statement, exact_units.test),
    (exact_groups.statement, exact_groups.test),
    (exact_experts.statement, exact_experts.test),
)


def _in_basis(pair: Pair, basis: Basis | Refusal, kind: str, log10_alpha: float, tell: Tell) -> Iterator[Evidence]:
    for state, run in _IN_A_BASIS:
        tell(state(kind).name)
        if isinstance(basis, Refusal):
            yield state(kind).not_applicable(basis.reason)
        else:
            yield _checked(run(pair, basis, kind, log10_alpha))


def about_the_trunk(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return evidence in which a shared embedding does not speak for the layers.

    A model trained from scratch on another's embedding takes over the numbering of its coordinates: layers then
    resemble each other coordinate by coordinate, though none was copied. Where the embedding is shared, tests that
    permute residual coordinates no longer test the trunk. Units, heads and experts are numbered apart from it.
    """
    if not any("rows=embeddings" in one.id and one.beyond for one in evidence):
        return list(evidence)
    note = "the embedding is shared, and with it the numbering of coordinates: shown, and carries no verdict on layers"
    return [
        one.model_copy(update={"carries": False, "beyond": False, "notes": (*one.notes, note)})
        if one.id.startswith("exact-residual/") and "rows=embeddings" not in one.id
        else one
        for one in evidence
    ]


def _checked(evidence: Evidence) -> Evidence:
    """Let only a calibrated test carry the verdict."""
    if evidence.status != "measured" or calibrated(evidence.id):
        return evidence
    note = "not calibrated on independent models in this version: shown, and carries no verdict"
    return evidence.model_copy(update={"carries": False, "beyond": False, "notes": (*evidence.notes, note)})
