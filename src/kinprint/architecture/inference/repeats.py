"""What repeats with the same shapes is a layer; the length that most matrices of layers share is the width."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from kinprint.architecture.family import skeleton
from kinprint.architecture.inference.records import TRIES, Slot, grouped
from kinprint.checkpoint import TensorInfo

_SLOTS = 3
"""Numbers of a name that may count layers."""

Cut = tuple[tuple[str, ...], tuple[int, ...]]
"""The text between the numbers of a name, and the numbers."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A tensor that may be a parameter, its name apart at the numbers.

    Attributes:
        name: The name as stored.
        pieces: The text between its numbers.
        numbers: The numbers.
        shape: The stored shape.
        order: Place in the file.
    """

    name: str
    pieces: tuple[str, ...]
    numbers: tuple[int, ...]
    shape: tuple[int, ...]
    order: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    def text(self, layer: int | None = None) -> str:
        """Return the name with ``{layer}`` for the number at one place."""
        words = [str(number) if at != layer else "{layer}" for at, number in enumerate(self.numbers)]
        return "".join(part for pair in zip(self.pieces, [*words, ""], strict=True) for part in pair)


Layered = Mapping[int, Mapping[str, Parsed]]
"""Tensors by the number of the layer and the name with ``{layer}`` in its place, in file order."""

Kind = tuple[tuple[int, ...], list[Slot]]
"""Layers that are alike, and what each of them holds."""


def at_words(name: str) -> Cut:
    """Return a name apart at the numbers that are whole words."""
    text, numbers = skeleton(name)
    return tuple(text.split("#")), numbers


def parsed(names: Container[str], tensors: Mapping[str, TensorInfo], cut: Callable[[str], Cut]) -> list[Parsed]:
    """Return those of the names that may be a parameter, in file order."""
    return [
        Parsed(name, *cut(name), info.shape, order)
        for order, (name, info) in enumerate(tensors.items())
        if name in names and info.floating and info.shape and 0 not in info.shape
    ]


def stacks(tensors: Iterable[Parsed]) -> Iterator[Layered]:
    """Yield what may be lists of layers, largest first: behind one path, then names whose only number counts them."""
    behind: dict[Cut, list[Parsed]] = {}
    alike: dict[tuple[str, ...], list[Parsed]] = {}
    for one in tensors:
        for at in range(min(len(one.numbers), _SLOTS)):
            behind.setdefault((one.pieces[: at + 1], one.numbers[:at]), []).append(one)
        if len(one.numbers) == 1:
            alike.setdefault(one.pieces, []).append(one)
    for members, at in _largest((members, len(before)) for (_, before), members in behind.items()):
        yield _layered(members, at)
    sets = grouped(alike.values(), key=lambda members: frozenset(one.numbers[0] for one in members))
    # What shares one path was seen above as a whole; here it would lack whatever not all layers have.
    apart = [lists for lists in sets.values() if len({members[0].pieces[0] for members in lists}) > 1]
    for members, at in _largest((list(chain.from_iterable(lists)), 0) for lists in apart):
        yield _layered(members, at)


def _largest(lists: Iterable[tuple[list[Parsed], int]]) -> list[tuple[list[Parsed], int]]:
    """Return the lists with most elements, of equal ones the first, each with the place of the number it counts by."""
    several = [(members, at) for members, at in lists if len({one.numbers[at] for one in members}) > 1]
    return sorted(several, key=lambda pair: -sum(one.size for one in pair[0]))[:TRIES]


def _layered(members: Iterable[Parsed], at: int) -> Layered:
    found: dict[int, dict[str, Parsed]] = {}
    twice: set[str] = set()
    for one in sorted(members, key=lambda one: one.order):
        text = one.text(at)
        if found.setdefault(one.numbers[at], {}).setdefault(text, one) is not one:
            twice.add(text)  # one number in two spellings
    return {layer: {text: held[text] for text in held if text not in twice} for layer, held in found.items()}


def kinds(layered: Layered) -> Iterator[Kind]:
    """Yield layers that hold the same names and shapes, and what they hold, in file order."""
    alike = grouped(
        sorted(layered), key=lambda layer: frozenset((text, one.shape) for text, one in layered[layer].items())
    )
    for layers in alike.values():
        yield tuple(layers), [Slot(text, one.shape, one.order) for text, one in layered[layers[0]].items()]


def width_of(found: Sequence[Kind]) -> int | None:
    """Return the length that most matrices of the layers share (of several, the one that most vectors have)."""
    matrices: Counter[int] = Counter()
    vectors: Counter[int] = Counter()
    for layers, slots in found:
        for slot in slots:
            if len(slot.shape) in (2, 3):
                matrices.update(dict.fromkeys(slot.shape[-2:], len(layers)))
            elif len(slot.shape) == 1:
                vectors[slot.shape[0]] += len(layers)
    ranked = sorted(((count, vectors[length], length) for length, count in matrices.items()), reverse=True)
    if not ranked or ranked[0][2] < 2 or (len(ranked) > 1 and ranked[0][:2] == ranked[1][:2]):
        return None
    return ranked[0][2]
