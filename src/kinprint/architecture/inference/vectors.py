"""Vectors: biases of matrices, by a shared path or by neighbourhood, and the norms that can be placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kinprint.architecture.family import ROLES
from kinprint.architecture.inference.records import Biases, Claim, Reading, Slot, grouped


def biases_of(claims: Sequence[Claim], slots: Sequence[Slot]) -> Biases:
    """Return the biases of matrices: by a path that they share with one matrix, else by lying next to it."""
    able = [claim for claim in claims if len(claim.slot.shape) == 2 and f"{claim.roles[0]}.bias" in ROLES]
    modules = grouped(slots, key=lambda slot: slot.module)
    twos = [(claim, modules[claim.slot.module]) for claim in able if len(modules[claim.slot.module]) == 2]
    pairs = [(claim, slot) for claim, both in twos for slot in both if _is_long_enough(claim, slot)]
    if pairs:
        return Biases(tuple(pairs), frozenset(slot.word for _, slot in pairs))
    places = {slot: at for at, slot in enumerate(slots)}
    found: list[Biases] = []
    for step in (1, -1):
        near = [(claim, places[claim.slot] + step) for claim in able]
        beside = [(claim, slots[at]) for claim, at in near if 0 <= at < len(slots)]
        fitting = [(claim, slot) for claim, slot in beside if _is_long_enough(claim, slot)]
        found.append(Biases(tuple(_plausible(able, fitting)), ahead=step < 0))
    return max(found, key=lambda one: len(one.pairs))


def _is_long_enough(claim: Claim, slot: Slot) -> bool:
    return slot.shape == (claim.rows,) and slot.experts == claim.slot.experts


def _plausible(claims: Sequence[Claim], pairs: Sequence[tuple[Claim, Slot]]) -> Iterator[tuple[Claim, Slot]]:
    """Yield neighbours that are no norms: what writes has a bias only where all that reads has one."""
    paired = {claim.roles for claim, _ in pairs}
    reading = {claim.roles for claim in claims if not claim.roles[0].endswith((".o", ".down", ".router"))}
    for claim, slot in pairs:
        stem = claim.roles[0].rpartition(".")[0] + "."
        if claim.roles[0].endswith(".router") or paired.issuperset(r for r in reading if r[0].startswith(stem)):
            yield claim, slot


def norms_of(vectors: Sequence[Slot], biases: Biases, *, subtracts: bool) -> list[tuple[Slot, ...]]:
    """Return vectors as norms: gains, each with its bias where they come with biases.

    Args:
        vectors: In file order; an even number where they come with biases.
        biases: Of matrices beside them: a norm's bias is called, or else lies, as theirs.
        subtracts: Whether norms come with biases.
    """
    if not subtracts:
        return [(slot,) for slot in vectors]
    found: list[tuple[Slot, ...]] = []
    for first, second in zip(vectors[::2], vectors[1::2], strict=True):
        ahead = first.word in biases.words if first.word != second.word and biases.words else biases.ahead
        found.append((second, first) if ahead else (first, second))
    return found


def norm_claims(norm: Sequence[Slot], role: str) -> list[Claim]:
    """Return the roles of a gain and, where it has one, of its bias."""
    return [Claim(slot, (name,)) for slot, name in zip(norm, (role, f"{role}.bias"), strict=False)]


def _subtracts(vectors: Sequence[Slot], reading: Reading, outside: int) -> bool | None:
    """Return whether norms have biases, None where nothing tells.

    Args:
        vectors: What no matrix accounts for in a layer.
        reading: The layer.
        outside: Vectors of the same length outside: one is a last norm without a bias, two one with a bias.
    """
    held = Counter(slot.module for slot in reading.slots)
    beside = {held[slot.module] for slot in vectors}
    if beside == {2} and len(vectors) == 2 * len({slot.module for slot in vectors}):
        return True
    if beside == {1} and reading.biases.words:
        return False
    if len(vectors) % 2:
        return False if len(vectors) == 1 or outside == 1 else None
    if outside in (1, 2):
        return outside == 2
    return any(claim.roles[0].startswith("mlp.") for claim, _ in reading.biases.pairs)


def read_vectors(reading: Reading, width: int, outside: int) -> None:
    """Add the roles of biases and of the norms that can be placed.

    Args:
        reading: A kind of layer with the roles of its matrices.
        width: Length of the stream.
        outside: How many vectors of that length stand in no layer.
    """
    reading.biases = biases = biases_of(reading.claims, reading.slots)
    reading.claims += [Claim(slot, tuple(f"{role}.bias" for role in claim.roles)) for claim, slot in biases.pairs]
    free = [slot for slot in reading.free if len(slot.shape) == 1 and not slot.experts]
    vectors = [slot for slot in free if slot.shape == (width,)]
    subtracts = _subtracts(vectors, reading, outside)
    headwise = _read_head_norms(reading, [slot for slot in free if slot.shape != (width,)])
    if subtracts is None:
        return
    reading.subtracts = subtracts and bool(vectors)
    norms = norms_of(vectors, biases, subtracts=subtracts)
    if len(norms) not in (1, 2) or headwise is False or "cross.q" in reading.roles:
        return
    stems = ("attn.",) if "attn.q" in reading.roles else ("attn.", "mlp.", "moe.")
    first = min((claim.slot.order for claim in reading.claims if claim.roles[0].startswith(stems)), default=0)
    ahead = min(gain.order for gain, *_ in norms) < first
    if not ahead and (subtracts or outside != 1):
        return
    reading.notes.append("norms taken to stand before attention and MLP")
    for role, norm in zip(("norm.attn", "norm.mlp"), norms, strict=False):
        reading.claims += norm_claims(norm, role)


def _read_head_norms(reading: Reading, free: Sequence[Slot]) -> bool | None:
    """Add norms of q and k; return None where there are none, else whether they are as long as a head."""
    rows = {role: claim.rows for claim in reading.claims for role in claim.roles if len(claim.roles) == 1}
    query, key = rows.get("attn.q"), rows.get("attn.k")
    if query is None or key is None or len(free) != 2:
        return None
    lengths = tuple(slot.shape[0] for slot in free)
    short = lengths[0] == lengths[1] > 1 and not query % lengths[0] and not key % lengths[0]
    if not short and lengths != (query, key):
        return None
    reading.claims += [Claim(slot, (role,)) for slot, role in zip(free, ("norm.q", "norm.k"), strict=True)]
    return short
