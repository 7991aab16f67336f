"""Layers of files whose names do not number them as words: by numbers inside words, by period, by runs of one shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise

import numpy as np

from kinprint.architecture.inference.assembly import inferred
from kinprint.architecture.inference.records import LEAST_SHARE, TRIES
from kinprint.architecture.inference.repeats import Cut, Parsed, at_words, parsed, stacks
from kinprint.architecture.lexicon import Names
from kinprint.checkpoint import Array, TensorInfo

_LEAST_TENSORS = 2
_LEAST_RUN = 3
"""A run of two is an embedding and its output, or k and v, as often as two layers."""

_DIGITS = re.compile(r"[0-9]{1,6}")

Layers = list[list[tuple[str, Parsed]]]
"""For each layer, names inside it and tensors, in order."""


def inferred_names(names: Names, tensors: Mapping[str, TensorInfo]) -> Mapping[str, str] | None:
    """Return names that number the layers, by stored name, for files whose own do not; None where none are found.

    Layers are found by numbers inside words, else by the period of shapes in file order (or in the order of the names'
    numbers), else by runs of one shape, one for each layer. Files in any other order are left alone: which matrices
    share a layer is then not in their shapes.

    Args:
        names: Names by skeleton, of one trunk. Their order has no part.
        tensors: Headers, in file order.

    Returns:
        A new name for every name, in the order of layers: :func:`infer` must see the tensors in this order.
    """
    trunk = {name for members in names.values() for name, _ in members}
    listed = [name for name in tensors if name in trunk]
    usable = parsed(trunk, tensors, _at_digits)
    total = sum(one.size for one in usable)
    likely = (
        layers
        for layers in _unnumbered(usable)
        if len(layers) > 1
        and min(len(layer) for layer in layers) > _LEAST_TENSORS
        and LEAST_SHARE * sum(one.size for layer in layers for _, one in layer) >= total
    )
    for layers in islice(likely, 2 * TRIES):
        renamed = _renamed(layers, listed)
        seen = {new: tensors[old] for old, new in renamed.items()}
        if len(seen) == len(renamed) and inferred(parsed(seen, seen, at_words), {}) is not None:
            return renamed
    return None


def _at_digits(name: str) -> Cut:
    return tuple(_DIGITS.split(name)), tuple(int(number) for number in _DIGITS.findall(name))


def _unnumbered(usable: Sequence[Parsed]) -> Iterator[Layers]:
    """Yield what may be the layers."""
    yield from _inside_words(usable)
    by_number = sorted(usable, key=lambda one: one.numbers)
    for listed in dict.fromkeys((tuple(usable), tuple(by_number))):
        shapes = {shape: at for at, shape in enumerate(dict.fromkeys(one.shape for one in listed))}
        ids = np.array([shapes[one.shape] for one in listed], dtype=np.int64)
        for start, period, count in _periods(ids)[:TRIES]:
            inner = _inner([one.shape for one in listed[start : start + period]], ids[start:][:period])
            firsts = range(start, start + count * period, period)
            yield [list(zip(inner, listed[first : first + period], strict=True)) for first in firsts]
        yield from _runs(listed, ids)


def _inside_words(usable: Sequence[Parsed]) -> Iterator[Layers]:
    for layered in stacks(usable):
        full = sorted(at for at, held in layered.items() if sum(len(one.shape) > 1 for one in held.values()) > 2)
        layers = [[(text.partition("{layer}")[2], one) for text, one in layered[at].items()] for at in full]
        if any(len(dict(layer)) < len(layer) for layer in layers):
            layers = [[(text.replace("{layer}", ""), one) for text, one in layered[at].items()] for at in full]
        yield layers


def _renamed(layers: Layers, listed: Sequence[str]) -> dict[str, str]:
    inside = {
        one.name: f"layers.{layer}.{inner.lstrip('.') or 'only'}"
        for layer, held in enumerate(layers)
        for inner, one in held
    }
    outside = {name: f"outside.{name}" for name in listed if name not in inside}
    first = next((at for at, name in enumerate(listed) if name in inside), 0)
    before = {name: outside[name] for name in listed[:first]}
    return before | inside | outside


def _inner(shapes: Sequence[tuple[int, ...]], ids: Array) -> list[str]:
    """Return names inside a layer: what repeats two or three matrices of different shapes are experts."""
    names = [f"t{at}" for at in range(len(shapes))]
    for start, period, count in _periods(ids)[:1]:
        one = shapes[start : start + period]
        if period in (2, 3) and len(set(one)) == 2 and all(len(shape) == 2 for shape in one):
            for at in range(period * count):
                names[start + at] = f"n.{at // period}.t{at % period}"
    return names


def _periods(ids: Array) -> list[tuple[int, int, int]]:
    """Return (start, length, count) of what repeats in a sequence, the most of it first."""
    gaps: Counter[int] = Counter()
    for gram in (1, 3):
        last: dict[tuple[int, ...], int] = {}
        listed: list[int] = ids.tolist()
        for at, key in enumerate(zip(*(listed[shift:] for shift in range(gram)), strict=False)):
            if key in last:
                gaps[at - last[key]] += 1
            last[key] = at
    found: list[tuple[int, int, int]] = []
    for period, _ in gaps.most_common(2 * TRIES):
        same = np.concatenate([[False], ids[:-period] == ids[period:], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        runs = edges[1::2] - edges[::2]
        if runs.size and runs.max() >= period:
            longest = int(runs.argmax())
            found.append((int(edges[2 * longest]), period, int(runs[longest]) // period + 1))
    return sorted(found, key=lambda one: (-one[1] * one[2], one[1]))


def _runs(listed: Sequence[Parsed], ids: Array) -> Iterator[Layers]:
    """Yield layers of files that list every q first, then every k and so on."""
    edges = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(listed)]
    runs = [listed[first:last] for first, last in pairwise(edges)]
    lengths = Counter(len(run) for run in runs if len(run) >= _LEAST_RUN)
    whole = {
        count: sum(lengths[length] for length in lengths if length % count == 0)
        for count, _ in lengths.most_common(TRIES)
    }
    for count in sorted(whole, key=lambda count: (-whole[count], -count)):
        layers: Layers = [[] for _ in range(count)]
        for number, run in enumerate(runs):
            for at in range(len(run) // count * count):
                layers[at % count].append((f"t{number}x{at // count}", run[at]))
        yield layers
