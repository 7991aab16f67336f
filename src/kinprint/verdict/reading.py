"""How much of two models is read: a seeded sample that grows while they are undecided, or everything.

Large models are read in steps. The first look takes some rows of a few layers. Where it decides, nothing else is read.
Else whole layers are: a few, and more while the verdict is inconclusive, within what the caller allows. Alpha is shared
over the steps beforehand (``kinprint.verdict.plan``), so that growing costs no error rate. Models up to ``SMALL`` bytes
are read whole at once: there is nothing to save.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from kinprint.alignment.basis import TOKENS
from kinprint.architecture import ModelView, PartKey
from kinprint.checkpoint import Checkpoint
from kinprint.errors import KinprintError
from kinprint.evidence import exact_sample
from kinprint.evidence.sampling import EXPERTS, Sampling
from kinprint.types import Reading, ReadingSide

SMALL = 1 << 26
"""Bytes up to which a model is read whole."""

STEPS = (4, 12, 24)
"""Layers that are read whole, step by step while undecided; then all of them."""

MISSED = 0.01
"""Chance of missing every copied layer that a statement about a sample allows for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a comparison may read.

    Attributes:
        budget: Bytes of each checkpoint, headers not counted; None for no limit.
        layers: Layers that are read whole at most; None for no limit.
        full: Read every layer and compare every value, whatever the size.
        small: Bytes up to which models are read whole unasked.
    """

    budget: int | None = None
    layers: int | None = None
    full: bool = False
    small: int = SMALL

    def whole(self, *models: ModelView) -> bool:
        """Return whether models are read whole."""
        if self.full:
            return True
        most = max(total_bytes(model.checkpoint) for model in models)
        return most <= self.small and self.layers is None and (self.budget is None or most <= self.budget)

    def steps(self, layers: int) -> tuple[int, ...]:
        """Return how many layers each step reads, rising to all that there are or may be.

        Example:
            >>> Limits().steps(30), Limits(layers=8).steps(30), Limits().steps(4)
            ((4, 12, 24, 30), (4, 8), (4,))
        """
        most = layers if self.layers is None else min(self.layers, layers)
        return (*(step for step in STEPS if step < most), *((most,) if most else ()))


def total_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of all tensors."""
    return sum(info.nbytes for info in checkpoint.tensors.values())


def look_bytes(view: ModelView) -> int:
    """Return about how many bytes the first look reads of a model."""
    widths = [
        _part_bytes(view, key) / max(1, view.shape(key.role, key.layer, key.expert)[0])
        for role in ("mlp.up", "moe.shared.up", "moe.up")
        for layer in view.layers(role)[:1]
        for key in [PartKey(role, layer, next(iter(view.experts(role, layer)), None))]
    ]
    parts = exact_sample.LAYERS * len(exact_sample.PARTS)
    return round(max(widths, default=0.0)) * exact_sample.LABELS * parts


def layer_bytes(view: ModelView, *, embedding: bool = True) -> int:
    """Return how many bytes the layers of a view hold, and with them what is read of the embedding."""
    total = sum(_part_bytes(view, key) for key in view.parts if key.layer is not None)
    tokens = PartKey("embed.token")
    if embedding and tokens in view.parts:
        total += _part_bytes(view, tokens) * min(1.0, TOKENS / max(1, view.shape(tokens.role)[0]))
    return round(total)


def a_layer(view: ModelView, number: int) -> int:
    """Return the bytes of one layer, of mixtures with as many experts as are read."""
    experts = {number: tuple(view.experts("moe.up", number)[:EXPERTS])}
    return layer_bytes(view.only([number], experts), embedding=False)


def _part_bytes(view: ModelView, key: PartKey) -> float:
    """Return the bytes of one part: its share of a tensor that holds several."""
    info = view.checkpoint.tensors[view.parts[key].tensor]
    return info.nbytes * min(1.0, math.prod(view.shape(key.role, key.layer, key.expert)) / max(1, info.size))


@contextmanager
def read_ahead(*views: ModelView) -> Generator[None]:
    """Fetch the layers of some models, layer by layer, while the block works on those that are there."""
    stopped: list[bool] = []

    def fetch(view: ModelView) -> None:
        for layer in sorted({key.layer for key in view.parts if key.layer is not None}):
            if stopped:
                return
            view.checkpoint.fetch(
                [
                    (
                        place.tensor,
                        slice(key.expert, key.expert + 1) if place.rule.stacked and key.expert is not None else None,
                    )
                    for key, place in view.parts.items()
                    if key.layer == layer
                ]
            )

    with ThreadPoolExecutor(len(views), thread_name_prefix="read-ahead") as pool:
        waiting: list[Future[None]] = [pool.submit(fetch, view) for view in views]
        try:
            yield
        finally:
            stopped.append(True)
    for one in waiting:
        # What could not be fetched ahead was asked for again by whoever needed it, and failed there if it had to.
        if (error := one.exception()) is not None and not isinstance(error, KinprintError):
            raise error


def reading_of(
    sampling: Sampling, read: tuple[Collection[int], Collection[int]], *, sampled: bool, notes: tuple[str, ...] = ()
) -> Reading:
    """Return the record of what was read.

    Args:
        sampling: The sample.
        read: Numbers of the layers of suspect and base of which something was read.
        sampled: Whether something was left out.
        notes: Why reading ended where it did.
    """
    sides = [
        ReadingSide(
            bytes_read=view.checkpoint.bytes_read,
            bytes_total=total_bytes(view.checkpoint),
            layers_read=tuple(sorted(layers)),
            layers=len(numbers),
            revision=view.checkpoint.revision,
        )
        for view, layers, numbers in zip((sampling.suspect, sampling.base), read, sampling.layers, strict=True)
    ]
    return Reading(sampled=sampled, suspect=sides[0], base=sides[1], empty_layers=sampling.empty, notes=notes)


def sentences(reading: Reading) -> Iterator[str]:
    """Yield what was read, and what it means for what could have been seen."""
    if not reading.sampled:
        return
    side = reading.suspect
    yield (
        f"Read were {size(side.bytes_read)} of the suspect's {size(side.bytes_total)} and"
        f" {size(reading.base.bytes_read)} of the base's {size(reading.base.bytes_total)}:"
        f" {len(side.layers_read)} of {side.layers} layers."
    )
    if reading.empty_layers:
        yield f"{reading.empty_layers} layers hold nothing but zeros in one of the models, which is no evidence."
    yield from reading.notes


def unseen(reading: Reading) -> str | None:
    """Return which copies a sample of layers may have missed; None where all layers were read."""
    count, total = len(reading.suspect.layers_read), reading.suspect.layers
    if not reading.sampled or count >= total:
        return None
    copied = least_seen(count, total)
    return (
        f"copies of fewer than {copied} of the {total} layers: {count} drawn layers were read, which miss more copied"
        f" ones with a probability of at most {MISSED:g}; and layers moved to other depths in a model that was"
        " scrambled too, for which --full reads all"
    )


def least_seen(read: int, layers: int) -> int:
    """Return how many copied layers a sample misses altogether with a probability of at most ``MISSED``.

    Example:
        >>> least_seen(4, 46), least_seen(46, 46)
        (31, 1)
    """
    for copied in range(1, layers + 1):
        free = layers - copied
        chance = math.comb(free, read) / math.comb(layers, read) if read <= free else 0.0
        if chance <= MISSED:
            return copied
    return layers


def size(count: int) -> str:
    """Return a number of bytes as people read it.

    Example:
        >>> size(8_400_000), size(212_000_000_000)
        ('8.4 MB', '212 GB')
    """
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
