"""A model of a few lines that can be asked: its next tokens are drawn by seed and prompt."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kinprint.behaviour.black_box import NextToken


@dataclass
class Toy:
    """A model that draws its next tokens by prompt and seed, and keeps a share of its parent's.

    Attributes:
        seed: Models of other seeds are independent.
        parent: Where a share of the likeliest tokens comes from.
        kept: That share.
        vocabulary: Words to choose from.
    """

    seed: int = 0
    parent: Toy | None = None
    kept: float = 0.0
    vocabulary: int = 50
    name: str = "toy"

    @property
    def identity(self) -> str:
        return f"toy {self.seed} {self.kept}"

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        return [self._next(prompt, most) for prompt in prompts]

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        found: list[str] = []
        for prompt in prompts:
            text = ""
            for _ in range(most):
                text += self._next(prompt + text, 1).top[0][0]
            found.append(text)
        return found

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|\W", text)) + 1

    def _next(self, prompt: str, most: int) -> NextToken:
        drawn = random.Random(f"{self.seed} {prompt}")
        if self.parent is not None and drawn.random() < self.kept:
            return self.parent.next_tokens([prompt], most=most)[0]
        words = drawn.sample(range(self.vocabulary), min(20, self.vocabulary))
        weights = [math.exp(-0.8 * place) for place in range(len(words))]
        top = [(f" w{word}", math.log(weight / sum(weights))) for word, weight in zip(words, weights, strict=True)]
        return NextToken(tuple(top[:most]))
