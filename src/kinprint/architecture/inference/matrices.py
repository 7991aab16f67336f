"""The roles of the matrices of one kind of layer: what explains most of them, and what contradicts it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from kinprint.architecture.inference.blocks import Block, Key, attention, by_key, met, mixture, mlps, reader
from kinprint.architecture.inference.records import (
    MOST_EXPERTS,
    QKV,
    Claim,
    Layout,
    Reading,
    Roles,
    Slot,
    elements,
    grouped,
    without,
)
from kinprint.architecture.inference.vectors import biases_of

_MOST_LENGTHS = 16
_MOST_CHOICES = 256

_GATED = 3
"""Matrices of a gated MLP whose gate lies apart."""

_LONGEST_KERNEL = 16
"""Up to this length the last of three axes is a convolution's window."""

_EXPERT = re.compile(r"(?<=\.)[0-9]{1,6}(?![^.])")


def read_matrices(layers: tuple[int, ...], held: Sequence[Slot], width: int) -> Reading:
    """Return one kind of layer with the roles of its matrices."""
    slots = _with_experts(held, width)
    experts = _experts(slots, width)
    count = experts[0].slot.count if experts else 0
    plain = [slot for slot in slots if len(slot.shape) == 2 and not slot.experts]
    upright, turned = (_best(by_key(plain, width, laid), width, laid, count) for laid in ("out-in", "in-out"))
    weights = [(elements(claims), biases_of(claims, slots).weight) for claims in (upright, turned)]
    chosen = turned if weights[0] < weights[1] else upright
    notes: list[str] = []
    if chosen and weights[0] == weights[1]:
        notes.append("matrices taken to be stored outputs first, which their shapes do not tell")
    claims = _uncontradicted([*chosen, *experts], slots, width)
    if sorted_by_name(claims):
        claims = _by_name(claims)
        notes.append("the file is taken to be sorted by names (down before gate and up): k, o, q, v")
    return Reading(layers, slots, claims, [*notes, *told_by_order(claims)])


def _with_experts(slots: Sequence[Slot], width: int) -> list[Slot]:
    """Return the slots with one for each list of experts: all numbers from 0 on, each an MLP of the same shapes."""
    lists: dict[str, dict[str, dict[int, Slot]]] = {}
    for slot in slots:
        found = _EXPERT.search(slot.text, slot.text.find("{layer}"))
        if found:
            tails = lists.setdefault(slot.text[: found.start()], {})
            tails.setdefault(slot.text[found.end() :], {})[int(found[0])] = slot
    merged: dict[str, Slot] = {}
    for head, tails in lists.items():
        count = max(len(numbered) for numbered in tails.values())
        whole = all(
            numbered.keys() == set(range(count)) and len({slot.shape for slot in numbered.values()}) == 1
            for numbered in tails.values()
        )
        if not 2 <= count <= MOST_EXPERTS or not whole:
            continue
        firsts = {
            tail: replace(numbered[0], text=head + "{expert}" + tail, experts=count) for tail, numbered in tails.items()
        }
        if mixture([slot for slot in firsts.values() if len(slot.shape) == 2], width):
            merged |= {slot.text: firsts[tail] for tail, numbered in tails.items() for slot in numbered.values()}
    return list(dict.fromkeys(merged.get(slot.text, slot) for slot in slots))


def _experts(slots: Sequence[Slot], width: int) -> list[Claim]:
    """Return the roles of the matrices of numbered experts, or of those stacked in one tensor."""
    numbered = [slot for slot in slots if slot.experts and len(slot.shape) == 2]
    if numbered:
        return mixture(numbered, width)
    stacked = [
        slot for slot in slots if len(slot.shape) == 3 and 2 <= slot.count <= MOST_EXPERTS and width in slot.shape[1:]
    ]
    found = [mixture(held, width) for held in grouped(stacked, key=lambda slot: slot.count).values()]
    return max(found, key=elements, default=list[Claim]())


def _best(held: Mapping[Key, Sequence[Slot]], width: int, laid: Layout, experts: int) -> list[Claim]:
    """Return the attention, MLP and routers that explain most elements; of equal ones, the narrower attention."""
    router = reader(experts, width), ("moe.router",)
    routers = (Block((router,)), Block((router, (("reads", 1), ("moe.shared.router",)))))
    choices = [
        [Block(), *(block for block in blocks if block.fits(held))]
        for blocks in (
            attention(held, width) if len(held) <= _MOST_LENGTHS else (),
            mlps(held, width, "moe.shared" if experts else "mlp"),
            routers if experts else (),
        )
    ]
    if math.prod(len(blocks) for blocks in choices) > _MOST_CHOICES:
        return []
    gated = [block for block in choices[1] if len(block.needs) == _GATED and met((block,), held, laid)]
    best: tuple[int, int] = (0, 0)
    claims: list[Claim] = []
    for blocks in product(*choices):
        if blocks[1].needs and not blocks[0].needs and gated != [blocks[1]]:
            continue  # attention of a kind that is not known here can have the matrices of a plain MLP
        found = met(blocks, held, laid)
        rank = elements(found), -blocks[0].query
        if found and rank > best:
            best, claims = rank, found
    return claims


def _uncontradicted(claims: Sequence[Claim], slots: Sequence[Slot], width: int) -> list[Claim]:
    """Return the claims without attention or an MLP whose own lengths other matrices or convolutions have too.

    Such a layer mixes its sequence in another way (a state-space block has the matrices of a gated MLP).
    """
    taken = {claim.slot for claim in claims}
    others = [slot for slot in slots if slot not in taken and len(slot.shape) in (2, 3)]
    kept = list(claims)
    headed, dense = ("attn.", "cross."), ("mlp.",)
    twice = Counter(other.shape for other in others if len(other.shape) == 2 and width in other.shape)
    if any(claim.roles == QKV for claim in claims) and max(twice.values(), default=0) > 1:
        kept = without(kept, headed)  # k and v lie beside it
    for stems in (headed, dense):
        lengths = {length for claim in claims if claim.roles[0].startswith(stems) for length in claim.slot.shape}
        if any(_contradicts(other, lengths, width) for other in others):
            kept = without(kept, stems)
    if not {QKV, QKV[:1], ("mlp.gate",)} & {claim.roles for claim in kept}:
        kept = without(kept, dense)  # as in _best
    return kept


def _contradicts(other: Slot, lengths: set[int], width: int) -> bool:
    if len(other.shape) == 3:
        return other.shape[-1] <= _LONGEST_KERNEL and other.shape[0] in lengths
    return not lengths.isdisjoint(set(other.shape) - {width})


def sorted_by_name(claims: Sequence[Claim]) -> bool:
    """Return whether a gated MLP's down lies before its gate and up, as where a writer sorts tensors by name."""
    places = {role: claim.slot.order for claim in claims for role in claim.roles}
    gated = [role.rpartition(".")[0] for role in places if role.endswith(".gate")]
    return any(places[f"{stem}.down"] < min(places[f"{stem}.gate"], places[f"{stem}.up"]) for stem in gated)


def _by_name(claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims with roles of attention that only the order tells apart given in alphabetical order."""
    heads = [claim for claim in claims if claim.roles[0].startswith("attn.")]
    found: dict[Slot, Roles] = {}
    for held in grouped(heads, key=lambda claim: claim.slot.shape).values():
        slots = sorted((claim.slot for claim in held), key=lambda slot: slot.order)
        found |= zip(slots, sorted(claim.roles for claim in held), strict=True)
    return [replace(claim, roles=found.get(claim.slot, claim.roles)) for claim in claims]


def told_by_order(claims: Sequence[Claim]) -> Iterator[str]:
    """Yield which roles only the order of tensors, or of rows in one tensor, told apart."""
    if any(claim.roles == QKV for claim in claims):
        yield "rows of attn.q, attn.k and attn.v in one tensor taken to lie one after the other"
    for held in grouped(claims, key=lambda claim: claim.slot.shape).values():
        *most, last = [" with ".join(claim.roles) for claim in held]
        if most:
            yield f"{', '.join(most)} and {last} have one shape and are told apart by their order"
