"""One family of what was read: its rules, what it needs to be believed, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from kinprint.architecture import layout
from kinprint.architecture.family import INFERRED, Family, Part, Rule
from kinprint.architecture.geometry import solve
from kinprint.architecture.inference.matrices import read_matrices, sorted_by_name, told_by_order
from kinprint.architecture.inference.outside import outside_of, read_last_norm, read_tables, vectors_outside
from kinprint.architecture.inference.records import LEAST_SHARE, QKV, Claim, Reading, without
from kinprint.architecture.inference.repeats import Layered, Parsed, at_words, kinds, parsed, stacks, width_of
from kinprint.architecture.inference.vectors import read_vectors
from kinprint.architecture.lexicon import Names, lexicon
from kinprint.checkpoint import TensorInfo
from kinprint.errors import CheckpointError

_START = "roles inferred from shapes and repetition: "

_MOST_KINDS = 512

_HEADED = ("attn.", "cross.", "norm.q", "norm.k")


def infer(names: Names, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Family | None:
    """Return a family for names that mean nothing, or None where shapes and repetition say too little.

    Args:
        names: Names by skeleton, of one trunk.
        tensors: Headers, in file order: it decides between tensors of equal shape. The order of ``names`` has no part.
        config: The parsed config, possibly empty; read for the sizes of heads only.
    """
    return inferred(parsed({name for members in names.values() for name, _ in members}, tensors, at_words), config)


def inferred(tensors: Sequence[Parsed], config: Mapping[str, Any]) -> Family | None:
    """Return a family for tensors in file order, their names apart at the numbers that are words."""
    told = [one for one in tensors if not set("{}#") & set(one.name)]  # a rule could not spell a table's own signs
    for layered in stacks(told):
        if sorted(layered) == list(range(len(layered))):
            family = _family(layered, told, config)
            if family is not None:
                return family
    return None


def inferred_notes(family: Family) -> tuple[str, ...]:
    """Return what was inferred and how, in sentences; nothing for a family that names speak for."""
    return tuple(family.summary.removeprefix(_START).split("; ")) if family.name == INFERRED else ()


def _family(layered: Layered, tensors: Sequence[Parsed], config: Mapping[str, Any]) -> Family | None:
    found = list(islice(kinds(layered), _MOST_KINDS + 1))
    width = width_of(found) if len(found) <= _MOST_KINDS else None
    if width is None:
        return None
    readings = [read_matrices(layers, slots, width) for layers, slots in found]
    _with_one_mixture(readings)
    outside = outside_of(layered, tensors)
    vectors = vectors_outside(outside, width)
    for reading in readings:
        read_vectors(reading, width, len(vectors))
    first = min(slot.order for reading in readings for slot in reading.slots)
    turned = any(sorted_by_name(reading.claims) for reading in readings)
    tables = read_tables(outside, width, first, turned=turned)
    top = [*tables, *read_last_norm(vectors, readings)]
    if not _enough(readings, top, sum(one.size for one in tensors)):
        return None
    said = list(told_by_order(tables))
    family = _made(readings, top, said, config)
    if family is None and any("attn.q" in reading.roles for reading in readings):
        # Where the config contradicts attention, the rest may still stand.
        for reading in readings:
            reading.claims = without(reading.claims, _HEADED)
            reading.notes = [note for note in reading.notes if "attn." not in note]
        family = _made(readings, top, said, config) if _enough(readings, top, 0) else None
    return family


def _with_one_mixture(readings: Sequence[Reading]) -> None:
    """Drop the experts where layers differ in how many there are, and fused grouped attention where they differ."""
    claims = [claim for reading in readings for claim in reading.claims]
    sizes = {claim.slot.count for claim in claims if claim.roles[0] in ("moe.up", "moe.gate")}
    fused = {claim.slot.shape for claim in claims if claim.roles in (QKV, QKV[:1])}
    for reading in readings:
        if len(sizes) > 1:
            reading.claims = without(reading.claims, "moe.")
        if len(fused) > 1 and QKV in {claim.roles for claim in reading.claims}:
            reading.claims = without(reading.claims, "attn.")


def _enough(readings: Sequence[Reading], top: Sequence[Claim], total: int) -> bool:
    """Return whether roles speak for two layers, each layer, half of what layers hold and a quarter of the whole.

    A lone reader and writer (adapters, a small projection) are no sign of a layer: a plain MLP needs attention beside.
    """
    told = [reading for reading in readings if reading.roles & {"attn.q", "mlp.gate", "moe.up"}]
    if sum(len(reading.layers) for reading in told) < 2 or not all(reading.claims for reading in readings):
        return False
    held = sum(len(one.layers) * slot.total for one in readings for slot in one.slots)
    read = sum(len(one.layers) * claim.slot.total for one in readings for claim in one.claims)
    return 2 * read >= held and LEAST_SHARE * (read + sum(claim.slot.size for claim in top)) >= total


def _made(
    readings: Sequence[Reading], top: Sequence[Claim], said: Sequence[str], config: Mapping[str, Any]
) -> Family | None:
    """Return the family of what was read; None where it is too little, or the config contradicts it."""
    depth = sum(len(reading.layers) for reading in readings)
    outer = {role for claim in top for role in claim.roles}
    held: dict[Rule, set[int]] = {}
    lengths: dict[str, set[int]] = {}
    for reading in readings:
        known = reading.roles | outer
        for claim in reading.claims:
            rule = _rule(claim, known)
            held.setdefault(rule, set()).update(reading.layers)
            _add_lengths(lengths, claim, rule)
    rules = [
        rule if len(layers) == depth else rule.model_copy(update={"layers": tuple(sorted(layers))})
        for rule, layers in held.items()
    ]
    for claim in top:
        rules.append(_rule(claim, outer))
        _add_lengths(lengths, claim, rules[-1])
    roles = outer.union(*(reading.roles for reading in readings))
    family = Family(
        name=INFERRED,
        summary=_START + "; ".join(_sentences(readings, depth, lengths, said)),
        names="any",
        prefixes=("",),
        requires=(),
        norm="layer" if any(reading.subtracts for reading in readings) else "rms",
        ffn="gated" if roles & {"mlp.gate", "moe.gate"} else "plain",
        positions="learned" if "embed.position" in roles else "rotary",
        geometry=lexicon().geometry,
        alternates=lexicon().alternate,
        tensor=tuple(rules),
    )
    experts = max((claim.slot.count for reading in readings for claim in reading.claims), default=0)
    sizes = {kind: frozenset(found) for kind, found in lengths.items()}
    try:
        solve(family, config, sizes, layers=depth, experts=experts)
    except CheckpointError:
        return None
    return family


def _add_lengths(lengths: dict[str, set[int]], claim: Claim, rule: Rule) -> None:
    for index in range(len(rule.parts)):
        for kind, length in layout.axis_lengths(claim.slot.shape, rule, index):
            lengths.setdefault(kind, set()).add(length)


def _sentences(
    readings: Sequence[Reading], depth: int, lengths: Mapping[str, set[int]], said: Sequence[str]
) -> Iterator[str]:
    yield f"{depth} layers, counted by what repeats with the same shapes"
    yield f"width {min(lengths['residual'])}, the length that most of their matrices share"
    yield from dict.fromkeys(note for reading in readings for note in reading.notes)
    yield from said


def _rule(claim: Claim, known: set[str]) -> Rule:
    """Return the rule of one claim; no norm is folded that has no role."""
    axes = len(claim.slot.shape)
    parts = tuple(_part(role, known, vector=axes == 1) for role in claim.roles)
    return Rule(name=claim.slot.text, parts=parts, layout=claim.layout, stacked=axes == 3)


def _part(role: str, known: set[str], *, vector: bool) -> Part:
    base = role.removesuffix(".bias")
    table = lexicon().roles.get(base, {"out": "residual"})
    if vector:
        out = "head" if base in ("norm.q", "norm.k") else table["out"]
        return Part.model_validate({"role": role, "out": out})
    reads, normed = table.get("reads", ""), table.get("normed", "")
    if reads == "norm.mlp" and reads not in known:
        reads = "norm.attn"
    folded = {"reads": reads if reads in known else "", "normed": normed if normed in known else ""}
    return Part.model_validate({**table, **folded, "role": role})
