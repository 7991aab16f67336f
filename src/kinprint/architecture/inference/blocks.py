"""What the lengths say: the attention, MLPs and experts that matrices of given shapes can be part of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from kinprint.architecture.inference.records import QKV, Claim, Layout, Roles, Slot, grouped

Key = tuple[Literal["reads", "writes", "square"], int]
"""Whether a matrix reads from the stream, writes to it or both, and the length of its other axis."""


@dataclass(frozen=True, slots=True)
class Block:
    """Attention, an MLP or routers: which matrices it needs, in order, and the rows of its queries."""

    needs: tuple[tuple[Key, Roles], ...] = ()
    query: int = 0

    def fits(self, held: Mapping[Key, Sequence[Slot]]) -> bool:
        """Return whether there are enough matrices of every kind."""
        return all(count <= len(held.get(key, ())) for key, count in Counter(key for key, _ in self.needs).items())


def reader(length: int, width: int) -> Key:
    """Return the kind of a matrix that reads from the stream."""
    return ("square" if length == width else "reads"), length


def by_key(slots: Iterable[Slot], width: int, laid: Layout) -> dict[Key, list[Slot]]:
    """Return matrices that read from the stream or write to it by their kind, in file order."""
    found: dict[Key, list[Slot]] = {}
    for slot in slots:
        rows, columns = slot.shape[-2:] if laid == "out-in" else slot.shape[-2:][::-1]
        if width in (rows, columns):
            key: Key = reader(rows, width) if columns == width else ("writes", columns)
            found.setdefault(key, []).append(slot)
    return found


def attention(keys: Collection[Key], width: int) -> Iterator[Block]:
    """Yield every attention that matrices of these kinds could be part of."""
    queries = [width, *(length for kind, length in keys if kind == "writes")]
    rows = [width, *(length for kind, length in keys if kind == "reads")]
    for query, key in product(queries, rows):
        writes: Key = ("square" if query == width else "writes"), query
        into, out = reader(key, width), (writes, ("attn.o",))
        apart = ((reader(query, width), QKV[:1]), (into, QKV[1:2]), (into, QKV[2:]), out)
        fused = ((into, QKV), out)
        for needs, kept in ((apart, key), (fused, (key - query) // 2)):
            if not 0 < kept <= query or query % kept or (needs is fused and key != query + 2 * kept):
                continue
            yield Block(needs, query)
            if kept == width:
                # A decoder beside an encoder: the same shapes twice, attention to its own stream first.
                again = tuple((need, tuple(role.replace("attn.", "cross.") for role in roles)) for need, roles in needs)
                yield Block((*needs, *again), query)


def mlps(keys: Iterable[Key], width: int, stem: str) -> Iterator[Block]:
    """Yield every MLP that matrices of these kinds could be part of."""
    gate, up = (f"{stem}.gate",), (f"{stem}.up",)
    for key in keys:
        if key[0] == "writes":
            into, out = reader(key[1], width), (key, (f"{stem}.down",))
            yield Block(((into, gate), (into, up), out))
            if stem != "moe.shared":  # shared experts have the form of the others
                yield Block(((into, up), out))
            yield Block(((reader(2 * key[1], width), (*gate, *up)), out))


def mixture(slots: Sequence[Slot], width: int) -> list[Claim]:
    """Return the roles of all matrices of one expert; nothing where they are not one MLP."""
    for laid in ("out-in", "in-out"):
        held = by_key(slots, width, laid)
        for block in mlps(held, width, "moe"):
            claims = met((block,), held, laid)
            if claims and len(claims) == len(slots):
                return claims
    return []


def met(blocks: Iterable[Block], held: Mapping[Key, Sequence[Slot]], laid: Layout) -> list[Claim]:
    """Return what plays which role; nothing where a kind of matrix has more or fewer tensors than roles."""
    needs = grouped((need for block in blocks for need in block.needs), key=lambda need: need[0])
    if any(len(held.get(key, ())) != len(wanted) for key, wanted in needs.items()):
        return []
    return [
        Claim(slot, roles, laid)
        for key, wanted in needs.items()
        for slot, (_, roles) in zip(held[key], wanted, strict=True)
    ]
