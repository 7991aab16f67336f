"""What one step of the inference hands to the next: tensors, their roles, and layers that are alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

Layout = Literal["out-in", "in-out"]
Roles = tuple[str, ...]

QKV = ("attn.q", "attn.k", "attn.v")

MOST_EXPERTS = 1 << 14
"""More experts than any model has."""

TRIES = 4
"""Lists of layers, periods of the file and so on that are tried, the largest first."""

LEAST_SHARE = 4
"""One part in so many of a model must be explained."""

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Return items by key, groups and members in the order of their first appearance."""
    found: dict[_Key, list[_Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of all layers of one kind, or of no layer.

    Attributes:
        text: The name, with ``{layer}`` and ``{expert}`` where they stand.
        shape: Shape of one of them.
        order: Place in the file, of the first.
        experts: How many there are in a layer, where they are numbered.
    """

    text: str
    shape: tuple[int, ...]
    order: int
    experts: int = 0

    @property
    def module(self) -> str:
        """What a weight and its bias share."""
        return self.text.rpartition(".")[0]

    @property
    def word(self) -> str:
        """What tells a weight from its bias."""
        return self.text.rpartition(".")[2]

    @property
    def size(self) -> int:
        """Elements, of one numbered expert."""
        return math.prod(self.shape)

    @property
    def total(self) -> int:
        """Elements in one layer."""
        return self.size * max(1, self.experts)

    @property
    def count(self) -> int:
        """How many experts it stands for, numbered or stacked; 0 where it is none."""
        return self.experts or (self.shape[0] if len(self.shape) == 3 else 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A tensor with its roles."""

    slot: Slot
    roles: Roles
    layout: Layout = "out-in"

    @property
    def rows(self) -> int:
        """Length of the output axis."""
        inner = self.slot.shape[-2:]
        return inner[0] if self.layout == "out-in" else inner[-1]


def elements(claims: Iterable[Claim]) -> int:
    """Return how many elements have a role, of one numbered expert."""
    return sum(claim.slot.size for claim in claims)


def without(claims: Iterable[Claim], stems: str | tuple[str, ...]) -> list[Claim]:
    """Return the claims to roles that do not start so."""
    return [claim for claim in claims if not claim.roles[0].startswith(stems)]


@dataclass(frozen=True, slots=True)
class Biases:
    """Biases of matrices.

    Attributes:
        pairs: Matrices, each with its bias.
        words: How names of biases end where they share a path with their matrix.
        ahead: Whether they lie in front of their matrices.
    """

    pairs: tuple[tuple[Claim, Slot], ...] = ()
    words: frozenset[str] = frozenset()
    ahead: bool = False

    @property
    def weight(self) -> tuple[bool, int]:
        """How much they say: a shared path more than neighbourhood."""
        return bool(self.words), len(self.pairs)


@dataclass
class Reading:
    """One kind of layer.

    Attributes:
        layers: Their numbers.
        slots: What they hold.
        claims: What has a role.
        notes: What was decided, and how.
        biases: Biases of its matrices.
        subtracts: Whether norms come with biases.
    """

    layers: tuple[int, ...]
    slots: list[Slot]
    claims: list[Claim]
    notes: list[str]
    biases: Biases = field(default_factory=Biases)
    subtracts: bool = False

    @property
    def roles(self) -> set[str]:
        """What is played."""
        return {role for claim in self.claims for role in claim.roles}

    @property
    def free(self) -> list[Slot]:
        """What has no role yet."""
        taken = {claim.slot for claim in self.claims}
        return [slot for slot in self.slots if slot not in taken]
