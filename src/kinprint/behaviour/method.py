"""What a behavioural method is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinprint.behaviour.runner import NotFiniteError, Runner
from kinprint.errors import CheckpointError, UsageError
from kinprint.types import MethodResult


@dataclass(frozen=True, slots=True)
class BehaviourMethod:
    """A method that runs two models on the same probes.

    Attributes:
        name: The paper's.
        id: Name, version and every setting that changes a number.
        source: Paper, section, equation.
        ignores: What leaves it unchanged, in words.
        notices: What changes it.
        fails: Published failure modes.
        measure: Suspect, base and probes to a result.
    """

    name: str
    id: str
    source: str
    ignores: str
    notices: str
    fails: str
    measure: Callable[[Runner, Runner, Sequence[str]], MethodResult]

    def run(self, suspect: Runner, base: Runner, probes: Sequence[str]) -> MethodResult:
        """Return what was measured, or why nothing could be: what one method cannot use stops no other."""
        try:
            return self.measure(suspect, base, probes)
        except (NotFiniteError, CheckpointError, UsageError) as error:
            return self.not_applicable(str(error))

    def not_applicable(self, reason: str) -> MethodResult:
        """Return a result that says why there is none."""
        return MethodResult(method=self.name, id=self.id, status="not_applicable", reason=reason, source=self.source)
