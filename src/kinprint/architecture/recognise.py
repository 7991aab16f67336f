"""Which family table fits a checkpoint: by the names and shapes of its tensors, never by the model's own name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kinprint.architecture import layout
from kinprint.architecture.components import config_of, split
from kinprint.architecture.family import (
    EXCHANGEABLE,
    OTHER,
    OWN,
    UNKNOWN,
    Family,
    Rule,
    families,
    rule_skeleton,
    skeleton,
)
from kinprint.architecture.geometry import Geometry, config_tables, lookup, solve
from kinprint.architecture.inference import infer, inferred_names, inferred_notes
from kinprint.architecture.lexicon import Names
from kinprint.architecture.naming import GENERIC, propose
from kinprint.architecture.selected import Renamed, Selected
from kinprint.architecture.view import ModelView, PartKey, Place
from kinprint.checkpoint import Checkpoint
from kinprint.errors import CheckpointError

_MOST_EXPERTS = 1 << 14
"""More experts than any model has: a longer first axis means that the table misreads the tensor."""

_ROUTED = frozenset({"moe.gate", "moe.up", "moe.down", "moe.gate.bias", "moe.up.bias", "moe.down.bias"})
"""Roles of which every layer with experts has one for each."""

_SCALES = ("_scale_inv", "_scale")
"""What is appended to a tensor's name where its scales lie in a tensor of their own (fp8 in blocks)."""


def view(checkpoint: Checkpoint, tables: tuple[Family, ...] | None = None) -> ModelView:
    """Find the family that fits a checkpoint's names and shapes, and return the model by role.

    First the tables of ``families/``: of several that fit, the one that maps most elements is taken, and the lexicon
    adds what it leaves out. Where none fits, a family is made from the names that the lexicon knows. Where it knows too
    few, roles are inferred from shapes and repetition; where those say too little, the view has no parts and the family
    ``unknown``. Towers, encoders and heads that look ahead are components.

    Args:
        checkpoint: The model.
        tables: Tables to choose among instead; the lexicon is left out then.

    Raises:
        CheckpointError: The names fit a table, and shapes contradict each other or the config.
    """
    if tables is not None:
        return _noted(*_tabled(checkpoint, _by_skeleton(checkpoint.tensors), tables))
    trunk, components = split(checkpoint)
    # In the order of the file: where two names may play one role, the first has it.
    names = _by_skeleton(name for name in checkpoint.tensors if name in trunk)
    found, rivals = _tabled(checkpoint, names, families())
    found = _named_by_lexicon(checkpoint, names) if found.family is UNKNOWN else _completed(found, names)
    if found.family is UNKNOWN:
        found = _from_shapes(checkpoint, trunk, found)
    towers = {title: _component(checkpoint, title, held) for title, held in components.items()}
    return _noted(replace(found, components=towers), rivals)


def view_like(model: ModelView, checkpoint: Checkpoint) -> ModelView | None:
    """Return a model's view over another checkpoint with the same config and headers, or None where they differ.

    Roles depend on nothing else, and finding them anew in a mixture's thousands of names would take as long again: most
    pairs in question are a model and its fine-tuned copy.
    """
    known = model.checkpoint
    if type(known) is Renamed or known.config != checkpoint.config or _headers(known) != _headers(checkpoint):
        return None
    towers: dict[str, ModelView] = {}
    for title, part in model.components.items():
        held = Selected(checkpoint, part.checkpoint.tensors, title=title, config=part.checkpoint.config)
        towers[title] = replace(part, checkpoint=held)
    return replace(model, checkpoint=checkpoint, components=towers)


def _headers(checkpoint: Checkpoint) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(info.name, info.dtype, info.shape) for info in checkpoint.tensors.values()]


def _by_skeleton(tensors: Iterable[str]) -> Names:
    names: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name in tensors:
        if ("#" in name and "#" in name.split(".")) or "{" in name or "}" in name:
            continue  # it spells what stands for a number
        text, numbers = skeleton(name)
        names.setdefault(text, []).append((name, numbers))
    return names


def _tabled(checkpoint: Checkpoint, names: Names, tables: tuple[Family, ...]) -> tuple[ModelView, list[str]]:
    """Return the best of the tables that fit, and those that only a config could rule out."""
    best: tuple[int, ModelView] | None = None
    faults: list[CheckpointError] = []
    rivals: list[str] = []
    for family in tables:
        for prefix in family.prefixes:
            if not _named(family, prefix, names, checkpoint.config):
                continue
            allowed = _allowed(family, checkpoint.config)
            if allowed is None:
                rivals.append(family.name)
            if not allowed:
                continue
            try:
                found = _fit(family, prefix, names, checkpoint)
            except CheckpointError as fault:
                faults.append(fault)
                continue
            weight = sum(math.prod(checkpoint.tensors[name].shape) for name in _tensors(found))
            if best is None or weight > best[0]:
                best = (weight, found)
    if best is None and faults:
        raise faults[0]
    return ModelView(checkpoint, UNKNOWN, "", Geometry(), {}) if best is None else best[1], rivals


def _named_by_lexicon(checkpoint: Checkpoint, names: Names) -> ModelView:
    """Return a checkpoint through the family that its names propose.

    Where the model type is one that nobody has described, a contradiction means that its names mean something else.

    Raises:
        CheckpointError: Shapes contradict each other or the config, in a model whose type is known.
    """
    family = propose(names, checkpoint.tensors, checkpoint.config)
    if family is None:
        return ModelView(checkpoint, UNKNOWN, "", Geometry(), {})
    try:
        return _fit(family, "", names, checkpoint)
    except CheckpointError as fault:
        if family.name != GENERIC:
            raise
        return ModelView(checkpoint, UNKNOWN, "", Geometry(), {}, notes=(f"names as others use them, but: {fault}",))


def _from_shapes(checkpoint: Checkpoint, trunk: frozenset[str], unknown: ModelView) -> ModelView:
    """Return a checkpoint with the roles that shapes and repetition propose, or the unknown view."""
    stored = {name: info for name, info in checkpoint.tensors.items() if name in trunk}

    def candidates() -> Iterator[Checkpoint]:
        yield checkpoint
        renamed = inferred_names(_by_skeleton(stored), stored) if len(stored) == len(checkpoint.tensors) else None
        if renamed is not None:
            yield Renamed(checkpoint, renamed)

    for candidate in candidates():
        tensors = stored if candidate is checkpoint else candidate.tensors
        names = _by_skeleton(tensors)
        family = infer(names, tensors, checkpoint.config)
        if family is None:
            continue
        try:
            found = _fit(family, "", names, candidate)
        except CheckpointError:
            continue
        return replace(found, notes=(*unknown.notes, *inferred_notes(family)))
    return unknown


def _completed(model: ModelView, names: Names) -> ModelView:
    """Return a view through a table, with what only the lexicon knows added to it."""
    left = set(model.unmapped)
    if not left:
        return model
    tensors = model.checkpoint.tensors
    proposed = propose(names, tensors, model.checkpoint.config)
    if proposed is None:
        return model
    own = {rule_skeleton(name, "") for name in (skeleton(name)[0] for name in left)}
    taken = {(key.role, key.layer) for key in model.parts}
    rules = [rule for rule in proposed.tensor if rule_skeleton(rule.name, "") in own]
    ignore = [entry for entry in proposed.ignore if rule_skeleton(entry.name, "") in own]
    update = {"tensor": (*model.family.tensor, *rules), "ignore": (*model.family.ignore, *ignore)}
    try:
        wider = _fit(model.family.model_copy(update=update), model.prefix, names, model.checkpoint)
    except CheckpointError:
        return model
    return wider if taken <= {(key.role, key.layer) for key in wider.parts} else model


def _component(checkpoint: Checkpoint, title: str, names: frozenset[str]) -> ModelView:
    """Return one component through whatever fits it; the language model's config entries are not its own."""
    part = Selected(checkpoint, names, title=title, config=config_of(checkpoint.config, title))
    try:
        found, rivals = _tabled(part, _by_skeleton(part.tensors), families())
        if found.family is UNKNOWN:
            found = _named_by_lexicon(part, _by_skeleton(part.tensors))
    except CheckpointError as fault:
        return ModelView(part, UNKNOWN, "", Geometry(), {}, notes=(str(fault),))
    return _noted(found, rivals)


def _tensors(model: ModelView) -> set[str]:
    return {place.tensor for place in model.parts.values()}


def _named(family: Family, prefix: str, names: Names, config: Mapping[str, Any]) -> bool:
    """Return whether all names are there that a family needs, and none that rules it out."""
    arch = config.get("general.architecture")
    if bool(family.archs) != (arch is not None) or (family.archs and arch not in family.archs):
        return False
    return all(rule_skeleton(name, prefix) in names for name in family.requires) and not any(
        rule_skeleton(name, prefix) in names for name in family.excludes
    )


def _allowed(family: Family, config: Mapping[str, Any]) -> bool | None:
    """Return whether the config lets a family be, None where it is needed and silent."""
    tables = config_tables(config)

    def said(key: str) -> set[str]:
        return {str(table[key]) for table in tables if table.get(key) is not None}

    if any(said(key) & set(values) for key, values in family.config_excludes.items()):
        return False
    if any(not said(key) for key in family.config_requires):
        return None
    return all(said(key) & set(values) for key, values in family.config_requires.items())


# -- reading a checkpoint through one table ------------------------------------------------------------------------


def _fit(family: Family, prefix: str, names: Names, checkpoint: Checkpoint) -> ModelView:
    """Return a checkpoint through one table.

    Raises:
        CheckpointError: Its shapes contradict the table, each other or the config.
    """
    ignored = dict(_ignored(family, prefix, names))
    in_rows = int(lookup(checkpoint.config, family, "experts") or 0)
    parts: dict[PartKey, Place] = {}
    packed = {name.removesuffix(ending) for ending in _SCALES for name in checkpoint.tensors if name.endswith(ending)}
    for rule in family.tensor:
        checked: set[tuple[int, ...]] = set()
        for name, numbers in names.get(rule_skeleton(rule.name, prefix), ()):
            info = checkpoint.tensors[name]
            if name in ignored or not info.floating or name in packed:
                continue
            if (at := rule.numbers(numbers)) is None or (rule.layers and at.get("layer") not in rule.layers):
                continue
            if info.shape not in checked:
                _check_axes(name, info.shape, rule)
                checked.add(info.shape)
            for key, place in _places(name, info.shape, rule, at, family.blocks, in_rows):
                if key in parts:
                    raise CheckpointError(
                        f"tensors {parts[key].tensor!r} and {name!r} both play {key}: keep one of them"
                    )
                parts[key] = place
    layers = _layers(parts)
    used = _without_idle(parts)
    idle = {place.tensor for place in parts.values()} - {place.tensor for place in used.values()}
    ignored |= dict.fromkeys(idle, "an expert that no output matrix has")
    parts, experts = used, _experts(used)
    geometry = solve(family, checkpoint.config, _lengths(parts, checkpoint), layers=len(layers), experts=experts)
    parts = {key: place for key, place in parts.items() if layout.splittable(place.rule, geometry)}
    model = ModelView(checkpoint, _labelled(family, checkpoint.config), prefix, geometry, parts, ignored)
    _check_shapes(model)
    return model


def _labelled(family: Family, config: Mapping[str, Any]) -> Family:
    """Return the family without exchangeable experts where the config says that they are routed in groups."""
    groups = lookup(config, family, "expert_groups") or 1
    if groups == 1 or family.labels.get("expert") != EXCHANGEABLE:
        return family
    reason = f"the router chooses among {groups} groups of experts first: they are exchangeable only within one"
    return family.model_copy(update={"labels": {**family.labels, "expert": reason}})


def _ignored(family: Family, prefix: str, names: Names) -> Iterator[tuple[str, str]]:
    for entry in family.ignore:
        if entry.copy_of and rule_skeleton(entry.copy_of, prefix) not in names:
            continue
        for name, _ in names.get(rule_skeleton(entry.name, prefix), ()):
            yield name, entry.reason


def _check_axes(name: str, shape: tuple[int, ...], rule: Rule) -> None:
    """Refuse a tensor whose axes its role cannot have, or too many experts."""
    axes = layout.axes_stored(rule)
    plain = rule.parts[0].role.startswith(OTHER)  # kept as it is, whatever its axes
    if (not plain and (len(shape) != axes if axes is not None else len(shape) < 2)) or 0 in shape:
        raise CheckpointError(
            f"tensor {name!r} has shape {list(shape)}, which {rule.parts[0].role} cannot have: the checkpoint is "
            "damaged, or of a family that kinprint does not know"
        )
    if rule.stacked and shape[0] > _MOST_EXPERTS:
        raise CheckpointError(f"tensor {name!r} has shape {list(shape)}: no model has {shape[0]} experts in a layer")


def _places(
    name: str, shape: tuple[int, ...], rule: Rule, at: Mapping[str, int], blocks: int, in_rows: int
) -> Iterator[tuple[PartKey, Place]]:
    layer = at["layer"] * blocks + at.get("block", 0) if "layer" in at else None
    stacked = range(shape[0]) if rule.stacked else range(in_rows)
    experts = stacked if rule.stacked or rule.rows else (at.get("expert"),)
    if len(experts) > _MOST_EXPERTS:
        raise CheckpointError(
            f"tensor {name!r} has shape {list(shape)}: no model has {len(experts)} experts in a layer"
        )
    for index, part in enumerate(rule.parts):
        place = Place(name, rule, index)
        for expert in experts:
            yield PartKey(part.role, layer, expert), place


def _lengths(parts: Mapping[PartKey, Place], checkpoint: Checkpoint) -> dict[str, frozenset[int]]:
    """Return the lengths that each kind of axis has in any layer."""
    found: dict[str, set[int]] = {}
    seen: set[tuple[tuple[int, ...], int, int]] = set()
    for place in {id(place): place for place in parts.values()}.values():
        shape = checkpoint.tensors[place.tensor].shape
        if (like := (shape, id(place.rule), place.index)) in seen:
            continue
        seen.add(like)
        for kind, length in layout.axis_lengths(shape, place.rule, place.index):
            found.setdefault(kind, set()).add(length)
    return {kind: frozenset(lengths) for kind, lengths in found.items()}


# -- what must agree -----------------------------------------------------------------------------------------------


def _layers(parts: Mapping[PartKey, Place]) -> list[int]:
    """Return the layers found, which must be numbered without a gap."""
    layers = sorted({key.layer for key in parts if key.layer is not None})
    for expected, layer in enumerate(layers):
        if layer != expected:
            raise CheckpointError(f"there is a layer {layer} and no layer {expected}: a shard is missing")
    return layers


def _without_idle(parts: dict[PartKey, Place]) -> dict[PartKey, Place]:
    """Leave out experts that only some tensors have room for, where the router also weighs what is no expert."""
    if not any(key.role == "moe.router" and place.part.out == OWN for key, place in parts.items()):
        return parts
    found: dict[str, int] = {}
    for key in parts:
        if key.expert is not None and key.role in ("moe.gate", "moe.up", "moe.down"):
            found[key.role] = max(found.get(key.role, 0), key.expert + 1)
    least = min(found.values(), default=0)
    return {key: place for key, place in parts.items() if key.role not in found or (key.expert or 0) < least}


def _experts(parts: Mapping[PartKey, Place]) -> int:
    """Return the number of experts, which must be whole and the same wherever there are any."""
    found: dict[tuple[int | None, str], set[int]] = {}
    for key in parts:
        if key.expert is not None and key.role in _ROUTED:
            found.setdefault((key.layer, key.role), set()).add(key.expert)
    if not found:
        return 0
    most = max(max(experts) + 1 for experts in found.values())
    sparse = {layer for layer, _ in found}
    sparse |= {key.layer for key in parts if key.role == "moe.router"}
    for layer in sorted(sparse, key=str):
        for role in sorted({role for _, role in found}):
            missing = set(range(most)) - found.get((layer, role), set())
            if missing:
                raise CheckpointError(
                    f"layer {layer} has no {role} of expert {min(missing)}, though there are {most} experts: a shard "
                    "is missing or the checkpoint is damaged"
                )
    return most


def _check_shapes(model: ModelView) -> None:
    """Every axis has one length; raises CheckpointError naming the tensor that breaks it."""
    lengths: dict[tuple[str, int | None, int | None], tuple[int, str]] = {}
    shapes: dict[tuple[tuple[int, ...], int, int], tuple[int, ...]] = {}
    for key, place in model.parts.items():
        like = model.checkpoint.tensors[place.tensor].shape, id(place.rule), place.index
        if like not in shapes:
            shapes[like] = model.shape(key.role, key.layer, key.expert)
        part = place.part
        for axis, length in zip((part.out, part.input), shapes[like], strict=False):
            if axis in (OWN, ""):
                continue
            layer, expert = key.layer if "{layer}" in axis else None, key.expert if "{expert}" in axis else None
            known, by = lengths.setdefault((axis, layer, expert), (length, place.tensor))
            if known != length:
                label = axis.format(layer=layer, expert=expert)
                raise CheckpointError(
                    f"tensor {place.tensor!r} has {length} along {label}, {by!r} has {known}: the checkpoint is "
                    "damaged, mixes two models, or is of a family that kinprint does not know"
                )
    for layer in model.layers("moe.router"):
        if model.parts[PartKey("moe.router", layer)].part.out == OWN:
            continue  # it also weighs what is no routed expert
        rows, experts = model.shape("moe.router", layer)[0], len(model.experts("moe.up", layer))
        if experts and rows != experts:
            raise CheckpointError(
                f"tensor {model.tensor_name('moe.router', layer)!r} chooses among {rows} experts, layer {layer} has "
                f"{experts}: a shard is missing or the checkpoint is damaged"
            )


# -- for people ----------------------------------------------------------------------------------------------------


def _noted(model: ModelView, rivals: Sequence[str]) -> ModelView:
    """Return the view with what a reader must know about it."""
    name = model.family.name
    notes = [
        f"no config tells {name} from {rival}, whose tensors have the same names and another meaning: read as {name}"
        for rival in sorted(set(rivals))
    ]
    notes += [f"ignored {_tensor(count)}: {why}" for why, count in sorted(Counter(model.ignored.values()).items())]
    tensors = model.checkpoint.tensors
    apart = [name for name in model.unmapped if any(name + ending in tensors for ending in _SCALES)]
    if apart:
        notes.append(f"not read because their scales lie apart: {_tensor(len(apart))}, the first {apart[0]}")
    depth = model.geometry.layers or 0
    absent: dict[tuple[int, ...], list[str]] = {}
    for role in sorted(role for role in model.roles if role.startswith(("norm.", "attn."))):
        missing = tuple(sorted(set(range(depth)) - set(model.layers(role))))
        if model.layers(role) and missing:
            absent.setdefault(missing, []).append(role)
    for missing, roles in absent.items():
        verb = "is" if len(roles) == 1 else "are"
        notes.append(
            f"{', '.join(roles)} {verb} missing in {len(missing)} of {depth} layers, first in layer {missing[0]}"
        )
    return replace(model, notes=(*model.notes, *notes))


def _tensor(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
