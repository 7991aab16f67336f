"""What can be asked of a model without its weights: likely next tokens, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class NextToken:
    """What a model would say next after one prompt.

    Attributes:
        top: Token strings and their natural log-probabilities, most likely first; a model behind an API names few.
        sampled: Whether the numbers are shares among sampled answers, where log-probabilities are not given.
    """

    top: tuple[tuple[str, float], ...]
    sampled: bool = False


@runtime_checkable
class BlackBox(Protocol):
    """A model that can be asked."""

    @property
    def name(self) -> str:
        """For people; never evidence."""
        ...

    @property
    def identity(self) -> str:
        """What is asked: the digest of a local model, or the address and name of a served one."""
        ...

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        """Return for each prompt the ``most`` likeliest next tokens, or as many as the model tells."""
        ...

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        """Return for each prompt the likeliest continuation, of at most ``most`` tokens."""
        ...
