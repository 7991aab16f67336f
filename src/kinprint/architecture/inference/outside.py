"""What stands in no layer: the embeddings, the output matrix and the last norm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, permutations

from kinprint.architecture.inference.records import Claim, Reading, Slot, grouped
from kinprint.architecture.inference.repeats import Layered, Parsed
from kinprint.architecture.inference.vectors import norm_claims, norms_of

_LEAST_ROWS = 16
"""A shorter table outside the layers may be of segments or labels."""


def outside_of(layered: Layered, tensors: Sequence[Parsed]) -> list[Slot]:
    """Return what stands once and in no layer, in file order."""
    inside = {one.order for held in layered.values() for one in held.values()}
    times = Counter(one.pieces for one in tensors)
    return [
        Slot(one.text(), one.shape, one.order) for one in tensors if times[one.pieces] == 1 and one.order not in inside
    ]


def vectors_outside(slots: Sequence[Slot], width: int) -> list[Slot]:
    """Return vectors as long as the stream that are no matrix's bias."""
    modules = grouped(slots, key=lambda slot: slot.module).values()
    pairs = [pair for held in modules if len(held) == 2 for pair in permutations(held)]
    pairs += [(left, right) for left, right in pairwise(slots) if right.order == left.order + 1]
    biases = {vector for matrix, vector in pairs if len(matrix.shape) == 2 and vector.shape == matrix.shape[:1]}
    return [slot for slot in slots if slot.shape == (width,) and slot not in biases]


def read_tables(slots: Sequence[Slot], width: int, first: int, *, turned: bool) -> list[Claim]:
    """Return embeddings and the output matrix.

    The token embedding has the most rows, or as many as another matrix: that one gives the output.

    Args:
        slots: What stands in no layer, in file order.
        width: Length of the stream.
        first: Place in the file where layers begin.
        turned: Whether the file was sorted by name: lm_head and embed_out come before what they lead out of.
    """
    tables = [slot for slot in slots if len(slot.shape) == 2 and slot.shape[1] == width != slot.shape[0]]
    widest = max((slot.size for slot in slots if len(slot.shape) == 2 and slot.shape[1] != width), default=0)
    if not tables or widest > max(slot.size for slot in tables):
        return []  # tokens are embedded in another width
    times = Counter(slot.shape for slot in tables)
    shape = max(times, key=lambda shape: (times[shape] == 2 and shape[0] >= _LEAST_ROWS, shape[0]))
    tokens = [slot for slot in tables if slot.shape == shape]
    pair = ("unembed", "embed.token") if turned and len(tokens) == 2 else ("embed.token", "unembed")
    claims = [Claim(slot, (role,)) for slot, role in zip(tokens, pair, strict=False)] if len(tokens) <= 2 else []
    places = [slot for slot in tables if slot.shape != shape and slot.shape[0] >= _LEAST_ROWS]
    if len(places) == 1 and places[0].order < first:
        claims.append(Claim(places[0], ("embed.position",)))
    return claims


def read_last_norm(vectors: Sequence[Slot], readings: Sequence[Reading]) -> list[Claim]:
    """Return the last norm, where layers have norms that stand before what they feed."""
    subtracts = any(reading.subtracts for reading in readings)
    if len(vectors) != 1 + subtracts or not any("norm.attn" in reading.roles for reading in readings):
        return []
    (norm,) = norms_of(vectors, readings[0].biases, subtracts=subtracts)
    return norm_claims(norm, "norm.final")
