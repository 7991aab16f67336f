"""What a run may spend on a model behind an API, and what it has spent. No request is sent that could exceed it.

What a request will cost is known only afterwards. Before, it is bounded: a token has at least one byte, except for what
the server's own template adds, and of that the most that was seen so far is allowed for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from kinprint.behaviour.openai_api import Answer, Question
from kinprint.errors import UsageError
from kinprint.types import Spent

TEMPLATE_TOKENS = 64
"""What a template may add to a prompt, until the server has shown what it adds."""

PER_PRICE = 1_000_000
"""Prices are those of so many tokens."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one run on one model.

    Attributes:
        max_requests: Requests that may be sent, repeated ones counted; None for as many as it takes.
        max_cost: What they may cost, in the currency of the prices.
        prices: Price of a million tokens of prompts, and of a million tokens of answers.
    """

    max_requests: int | None = None
    max_cost: float | None = None
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.max_requests is not None and self.max_requests < 0:
            raise UsageError(f"a budget of {self.max_requests} requests: give 0 or more")
        if self.prices is not None and not all(0 <= price < float("inf") for price in self.prices):
            raise UsageError("prices must be numbers of at least 0, for a million tokens of prompts and of answers")
        if self.max_cost is None:
            return
        if self.prices is None:
            raise UsageError("a limit of cost needs prices: those of a million tokens of prompts and of answers")
        if not 0 <= self.max_cost < float("inf"):
            raise UsageError(f"a budget of {self.max_cost}: give a number of at least 0")


@dataclass
class Meter:
    """Counts against a budget; threads may share it."""

    budget: Budget
    _requests: int = 0
    _tokens: tuple[int, int] = (0, 0)
    _uncounted: int = 0
    _cost: float = 0.0
    _open: float = 0.0
    _template: int = TEMPLATE_TOKENS
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, question: Question) -> float:
        """Count a request that is about to be sent, and return the most that it can cost.

        Raises:
            UsageError: It might exceed the budget.
        """
        with self._lock:
            if self.budget.max_requests is not None and self._requests >= self.budget.max_requests:
                raise UsageError(f"the budget of {self.budget.max_requests} requests is spent: raise it and run again")
            most = self._priced(len(question.prompt.encode()) + self._template, question.tokens)
            if self.budget.max_cost is not None and self._cost + self._open + most > self.budget.max_cost:
                left = self.budget.max_cost - self._cost
                raise UsageError(
                    f"the budget of {self.budget.max_cost:g} is spent: {left:.4g} of it is left and the next request "
                    f"may cost {most:.4g}; raise it and run again"
                )
            self._requests += 1
            self._open += most
            return most

    def refused(self, most: float) -> None:
        """Count that a request was refused, which costs nothing."""
        with self._lock:
            self._open -= most

    def lost(self, most: float) -> None:
        """Count that no answer came, though the server may have made one."""
        with self._lock:
            self._open -= most
            self._cost += most

    def answered(self, question: Question, answer: Answer, most: float) -> None:
        """Count an answer."""
        with self._lock:
            self._open -= most
            if answer.prompt_tokens is None or answer.answer_tokens is None:
                self._uncounted += 1
                self._cost += most
                return
            self._tokens = self._tokens[0] + answer.prompt_tokens, self._tokens[1] + answer.answer_tokens
            self._template = max(self._template, answer.prompt_tokens - len(question.prompt.encode()))
            self._cost += self._priced(answer.prompt_tokens, answer.answer_tokens)

    @property
    def spent(self) -> Spent:
        """What was spent so far."""
        with self._lock:
            cost = self._cost if self.budget.prices is not None else None
            return Spent(
                requests=self._requests,
                prompt_tokens=self._tokens[0],
                answer_tokens=self._tokens[1],
                uncounted=self._uncounted,
                cost=cost,
            )

    def _priced(self, prompt_tokens: int, answer_tokens: int) -> float:
        prices = self.budget.prices or (0.0, 0.0)
        return (prompt_tokens * prices[0] + answer_tokens * prices[1]) / PER_PRICE
