"""Families for architectures without a table of their own: made from the names that a checkpoint holds.

The names are looked up in the lexicon without the path of the trunk, so that an architecture that nobody has seen is
read as far as its names are those that others use; what they cannot say (norms that subtract the mean, gains stored
minus one, how fused rows are cut) comes from the lexicon's facts about a model type, and from shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cache
from typing import Any, Literal

from kinprint.architecture import layout
from kinprint.architecture.family import EXCHANGEABLE, OTHER, OWN, ROLES, Family, Ignored, LabelGroup, Part, Rule
from kinprint.architecture.geometry import config_tables
from kinprint.architecture.lexicon import Entry, Fact, Names, gguf_words, lexicon, roles_by_name
from kinprint.checkpoint import TensorInfo

GENERIC = "generic"
"""Name of a family whose model type the lexicon does not know."""

_LAYER_WORDS = frozenset(
    {"layers", "layer", "h", "blocks", "block", "blk", "resblocks", "encoders", "stages"} | {"albert_layer_groups"}
)
"""What lists of layers are called; any other word before a number belongs to the tensor's own name."""

_ENDINGS = (".weight", ".bias", "")

_TRUNK = frozenset({"attn.q", "attn.q_a", "attn.k_b", "mlp.up", "moe.up", "ssm.in", "linear.in", "linear.q", "conv.in"})
"""A model without any of these is not read by names."""

_SHARED = ("shared_transf", "shared_transformer")
"""A block that reads the stream and the embeddings side by side (Zamba)."""

_MAY_DIFFER = ("embed.", "unembed", "head.", "cross.", "norm.embed", "norm.final", "attn.gate", OTHER)
"""Roles whose width may be another than the stream's (factorised embeddings, states of another stream)."""


# -- names ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Name:
    """One skeleton, taken apart.

    Attributes:
        skeleton: The whole.
        inner: The name inside a layer (or, outside, without the trunk's path candidates), without its ending.
        ending: ``.weight``, ``.bias`` or nothing.
        layered: Whether it stands in a layer.
        shape: Shape of one of the tensors.
        numbers: The numbers behind the layer's that occur.
        beside: What else stands in the same layers, as the lexicon may spell it.
        layers: The layers, where others under the same name are of another kind.
    """

    skeleton: str
    inner: str
    ending: str
    layered: bool
    shape: tuple[int, ...]
    numbers: frozenset[tuple[int, ...]]
    beside: frozenset[str] = frozenset()
    layers: tuple[int, ...] = ()


def _taken_apart(
    skeleton: str, members: Sequence[tuple[str, tuple[int, ...]]], tensors: Mapping[str, TensorInfo]
) -> _Name:
    ending = next(ending for ending in _ENDINGS if skeleton.endswith(ending))
    words = skeleton.removesuffix(ending).split(".")
    shape = tensors[members[0][0]].shape
    at = words.index("#", 1) if "#" in words[1:] else len(words)
    # A list of norms by layer ends in the number; so do lists of codebooks, which are no layers.
    if at < len(words) - 1 or (at == len(words) - 1 and words[at - 1] in roles_by_name("layer")):
        first = at if words[at - 1] in _LAYER_WORDS else at - 1
        inner = words[at + 1 :] if first == at else [words[at - 1], *words[at + 1 :]]
        rest = frozenset(numbers[1:] for _, numbers in members)
        return _Name(skeleton, ".".join(inner), ending, True, shape, rest)
    return _Name(skeleton, ".".join(words), ending, False, shape, frozenset())


def _spellings(name: _Name) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield how the lexicon may call a name: its inner numbers as experts, as blocks, or as they are."""
    if not name.layered:
        words = name.inner.split(".")
        for first in range(len(words)):
            yield ".".join(words[first:]), None
        return
    yield name.inner, None
    if "#" in name.inner:
        yield name.inner.replace("#", "@"), None
        for numbers in sorted(name.numbers):
            yield _with(name.inner, numbers), numbers


def _full(name: _Name, spelling: str, numbers: tuple[int, ...] | None) -> str:
    """Return a rule's name for a skeleton: ``{layer}``, then experts, blocks or the numbers themselves."""
    slots = ["{layer}"] if name.layered else []
    if numbers is not None:
        slots += [str(number) for number in numbers]
    elif "@" in spelling:
        slots += ["{block}"]
    else:
        slots += ["{expert}"]
    text = name.skeleton
    for slot in slots:
        text = text.replace("#", slot, 1)
    return text


# -- one family ----------------------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """A family while it is put together."""

    names: list[_Name]
    config: Mapping[str, Any]
    facts: Fact
    rules: list[tuple[_Name, Rule]] = field(default_factory=list[tuple[_Name, Rule]])
    ignored: list[Ignored] = field(default_factory=list[Ignored])

    @property
    def roles(self) -> set[str]:
        return {part.role for _, rule in self.rules for part in rule.parts}


def propose(names: Names, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Family | None:
    """Return a family for the names of one trunk, or None where too little of them is known.

    Args:
        names: Names by skeleton.
        tensors: Their headers.
        config: The parsed config, possibly empty.
    """
    draft = _Draft(_by_kind(names, tensors), config, _facts(config))
    for name in draft.names:
        _look_up(draft, name)
    for skeleton, members in names.items():
        if not any(tensors[name].floating for name, _ in members):
            _ignore(draft, _taken_apart(skeleton, members, tensors))
    if not draft.roles & _TRUNK:
        return None
    return _finished(draft)


def _by_kind(names: Names, tensors: Mapping[str, TensorInfo]) -> list[_Name]:
    """Return all names taken apart, those of layers of another kind (other names inside) each for itself."""
    floating = {
        skeleton: [member for member in members if tensors[member[0]].floating] for skeleton, members in names.items()
    }
    apart = [(_taken_apart(key, members, tensors), members) for key, members in floating.items() if members]
    inside: dict[int, set[str]] = {}
    for name, members in apart:
        for layer in {numbers[0] for _, numbers in members} if name.layered else ():
            inside.setdefault(layer, set()).add(name.inner)
    kinds = {layer: frozenset(held) for layer, held in inside.items()}
    spelt = {
        kind: frozenset(text for inner in kind for text in (inner, inner.replace("#", "@")))
        for kind in set(kinds.values())
    }
    found: list[_Name] = []
    for name, members in apart:
        by_kind: dict[frozenset[str], list[tuple[str, tuple[int, ...]]]] = {}
        for member in members if name.layered else ():
            by_kind.setdefault(kinds[member[1][0]], []).append(member)
        found += [] if name.layered else [name]
        for kind, there in by_kind.items():
            one = _taken_apart(name.skeleton, there, tensors)
            found.append(replace(one, beside=spelt[kind], layers=tuple(sorted({n[0] for _, n in there}))))
    return found


def _facts(config: Mapping[str, Any]) -> Fact:
    """Return what is known of the model type that a config names, all facts together."""
    types = {str(table["model_type"]) for table in config_tables(config) if table.get("model_type")}
    arch = config.get("general.architecture")
    types |= set() if arch is None else {str(arch)}
    found = Fact(model_type=tuple(sorted(types & set(lexicon().known))))
    for fact in lexicon().fact:
        if types & set(fact.model_type) and _said(config, fact.when):
            said = {key: value for key, value in fact if value and key not in ("model_type", "when")}
            if arch is not None:
                said.pop("gain", None)  # GGUF stores gains as they act
            merged = {"labels": {**found.labels, **fact.labels}, "geometry": {**found.geometry, **fact.geometry}}
            found = found.model_copy(update={**said, **merged})
    return found


def _look_up(draft: _Draft, name: _Name) -> None:
    """Add the rule (or the rules, one for each inner number) of one name."""
    if not name.shape:
        draft.ignored.append(Ignored(name=_full(name, name.inner, None), reason="one number, learnt or not"))
        return
    where: Literal["layer", "top"] = "layer" if name.layered else "top"
    seen: set[tuple[int, ...]] = set()
    for spelling, numbers in _spellings(name):
        rule = _from_entry(draft, name, spelling, numbers) if name.layered else None
        if rule is None:
            role = roles_by_name(where).get(spelling + (name.ending if name.ending == ".bias" else ""))
            vector = role is not None
            role = role or roles_by_name(where).get(spelling)
            if role is None:
                continue
            rule = _plain(name, spelling, numbers, role, "" if vector else name.ending)
        draft.rules.append((name, rule))
        if numbers is None:
            return
        seen.add(numbers)
    if seen:
        return
    if not _from_gguf(draft, name):
        _from_lists(draft, name)


def _from_gguf(draft: _Draft, name: _Name) -> bool:
    base = name.skeleton.removesuffix(name.ending)
    word = gguf_words().get(base) or gguf_words().get(base.replace(".experts.#.", ".experts."))
    if word is None:
        word = name.inner
    entry = _from_entry(draft, name, word, None) if name.layered else None
    role = lexicon().gguf.get(word)
    if entry is None and (role is None or name.layered == (role in lexicon().top)):
        return False
    draft.rules.append((name, entry or _plain(name, word, None, role or "", name.ending)))
    return True


def _ignore(draft: _Draft, name: _Name) -> bool:
    """Leave out what is no parameter, with the reason."""
    for reason, known in _ignored().items():
        if known.match(name.inner + name.ending) or known.match(name.skeleton):
            draft.ignored.append(Ignored(name=_full(name, name.inner, None), reason=reason))
            return True
    return False


@cache
def _ignored() -> Mapping[str, re.Pattern[str]]:
    """Return what names each reason of the lexicon covers."""
    return {reason: _any_of(patterns) for reason, patterns in lexicon().ignore.items()}


@cache
def _others() -> re.Pattern[str]:
    """Return what names the lexicon keeps as they are."""
    return _any_of([pattern for patterns in lexicon().other.values() for pattern in patterns])


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))


def _from_lists(draft: _Draft, name: _Name) -> None:
    """Map what is known to have no common role, or to be no parameter."""
    if _ignore(draft, name):
        return
    if not (_others().match(name.inner) or _others().match(name.inner + name.ending)):
        return
    ending = ".bias" if name.ending == ".bias" else ""
    # One number is an expert's or a block's; with several each tensor has a role of its own.
    places = sorted(name.numbers) if name.inner.count("#") > 1 else [None]
    for numbers in places:
        word = name.inner.replace("#", "n") if numbers is None else _with(name.inner, numbers)
        draft.rules.append((name, _plain(name, name.inner, numbers, OTHER + word + ending, "")))


def _with(text: str, numbers: tuple[int, ...]) -> str:
    """Put numbers in the place of ``#``."""
    for number in numbers:
        text = text.replace("#", str(number), 1)
    return text


def _from_entry(draft: _Draft, name: _Name, spelling: str, numbers: tuple[int, ...] | None) -> Rule | None:
    """Return the rule of the first entry whose conditions hold."""
    plain = spelling.removesuffix("_bias") if name.ending == "" else spelling
    for entry in lexicon().entry:
        hit = spelling if spelling in entry.names else plain if plain in entry.names else None
        if hit is None or not _holds(entry, draft, name):
            continue
        role = entry.roles.get(hit, entry.role)
        if role.startswith(OTHER):
            return _plain(name, spelling, numbers, role, "")
        tables = entry.parts or ({"role": role},)
        vector = name.ending == ".bias" or spelling.endswith("_bias")
        parts = [_part(table, vector) for table in tables]
        if any(part is None for part in parts):
            return None
        entry_layout = "out-in" if vector else entry.layout
        if entry.layout.startswith("flat") and len(name.shape) < 3:
            continue
        return Rule.model_validate(
            {
                "name": _full(name, spelling, numbers),
                "parts": [part for part in parts if part is not None],
                "layout": entry_layout,
                "split": entry.split,
                "rows": entry.rows,
                "shards": entry.shards,
                "layers": name.layers,
                "stacked": entry.stacked and len(name.shape) == (2 if vector else 3),
            }
        )
    return None


def _said(config: Mapping[str, Any], when: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a config has one of the values that are asked of each entry."""
    tables = config_tables(config)
    return all(
        {str(table[key]) for table in tables if table.get(key) is not None} & set(values)
        for key, values in when.items()
    )


def _holds(entry: Entry, draft: _Draft, name: _Name) -> bool:
    if not _said(draft.config, entry.when):
        return False
    if (entry.beside and not name.beside & set(entry.beside)) or name.beside & set(entry.without):
        return False
    if entry.post and draft.facts.placement != "post":
        return False
    if entry.stacked and len(name.shape) != (2 if name.ending == ".bias" or name.inner.endswith("_bias") else 3):
        return False
    return not entry.gated or _is_gated(draft, name)


def _is_gated(draft: _Draft, name: _Name) -> bool:
    """Return whether a tensor has twice the rows that the matrix behind it has columns."""
    known = roles_by_name("layer")
    columns = {
        other.shape[-1]
        for other in draft.names
        if len(other.shape) == 2 and "mlp.down" in (known.get(other.inner), lexicon().gguf.get(other.inner))
    }
    if name.inner == "shared_mlp.input_linear" or "shared" in name.inner:
        columns |= {
            other.shape[-1] for other in draft.names if "output_linear" in other.inner or "shared" in other.inner
        }
    return any(name.shape[0] == 2 * length for length in columns)


def _plain(name: _Name, spelling: str, numbers: tuple[int, ...] | None, role: str, ending: str) -> Rule:
    """Return the rule of a tensor that holds one part as nn.Linear stores it, or in as many axes as it has."""
    part = _part({"role": role}, ending == ".bias") or _other(role + ".bias")
    table: dict[str, Any] = {"name": _full(name, spelling, numbers), "layers": name.layers}
    if role.startswith(OTHER):
        return Rule.model_validate({**table, "parts": [part]})
    axes = len(name.shape)
    if not part.input and axes > 1:
        part = part.model_copy(update={"out": OWN, "input": OWN})
    if part.input and axes == 1:
        part = part.model_copy(update={"input": "", "reads": "", "normed": ""})
    if axes > 2:
        if role.startswith("moe.") and axes == 3:
            table["stacked"] = True
            if role.startswith("moe.shared."):
                part = part.model_copy(update={_side(part): "shared-expert-ffn.{layer}.{expert}"})
        else:
            part = part.model_copy(update={"out": OWN, "input": OWN, "reads": "", "normed": ""})
            table["layout"] = "flat"
    return Rule.model_validate({**table, "parts": [part]})


def _side(part: Part) -> Literal["out", "input"]:
    return "out" if part.out.startswith("shared-ffn") else "input"


def _part(table: Mapping[str, str], vector: bool) -> Part | None:
    """Return a part with what the lexicon says of its role; None where a role has no bias."""
    role = table["role"]
    if role.startswith(OTHER):
        return _other(role)
    known = lexicon().roles.get(role) or ({"out": "residual"} if role.startswith("norm.") else {"out": OWN})
    merged = {**known, **table}
    if not vector:
        return Part.model_validate(merged)
    if f"{role}.bias" not in ROLES:
        return None
    return Part.model_validate({"role": f"{role}.bias", "out": merged["out"], "size": merged.get("size", "")})


def _other(role: str) -> Part:
    """Return a part under its own name, without what no role may hold."""
    words = [re.sub(r"[^\w-]+", "_", word) or "_" for word in role.removeprefix(OTHER).split(".")]
    return Part(role=OTHER + ".".join(words), out=OWN)


# -- what must agree -----------------------------------------------------------------------------------------------


def _finished(draft: _Draft) -> Family:
    roles = draft.roles
    placement = draft.facts.placement or _placement(roles)
    moe = any(role.startswith("moe.") for role in roles)
    biased = {"norm.attn.bias", "norm.mlp.bias", "norm.attn_post.bias", "norm.mlp_post.bias"} & roles
    known = draft.facts.model_type
    groups: tuple[LabelGroup, ...] = ("residual", "ffn", "kv", *(("expert",) if moe else ()))
    labels: dict[LabelGroup, str] = {**dict.fromkeys(groups, EXCHANGEABLE), **draft.facts.labels} if known else {}
    width = _width(draft)
    wide = draft.facts.wide_router
    settled = [(name, _settled(rule, roles, placement, width, name, wide_router=wide)) for name, rule in draft.rules]
    rules, copies = _without_doubles(_with_one_vocabulary(settled))
    return Family(
        name=known[0] if known else GENERIC,
        summary="read by the names that its tensors have, without a table of its own",
        prefixes=("",),
        requires=(),
        norm=draft.facts.norm or ("layer" if biased else "rms"),
        placement=placement,
        gain=draft.facts.gain or "plain",
        ffn="gated" if roles & {"mlp.gate", "moe.gate"} else "plain",
        positions=draft.facts.positions or ("learned" if "embed.position" in roles else "rotary"),
        labels=labels,
        geometry={**lexicon().geometry, **draft.facts.geometry},
        alternates=lexicon().alternate,
        tensor=tuple(rules),
        ignore=(*draft.ignored, *copies),
        blocks=2 if any("{block}" in rule.name for rule in rules) else 1,
    )


def _placement(roles: Iterable[str]) -> Literal["pre", "post", "sandwich"]:
    before, after = {"norm.attn", "norm.mlp"} & set(roles), {"norm.attn_post", "norm.mlp_post"} & set(roles)
    return "sandwich" if before and after else "post" if after else "pre"


def _width(draft: _Draft) -> int | None:
    """Return the width of the stream: the commonest length of that axis inside the layers."""
    lengths: Counter[int] = Counter()
    for name, rule in draft.rules:
        if name.layered and not rule.parts[0].role.startswith(_MAY_DIFFER):
            for index in range(len(rule.parts)):
                lengths.update(n for kind, n in layout.axis_lengths(name.shape, rule, index) if kind == "residual")
    return lengths.most_common(1)[0][0] if lengths else None


def _settled(rule: Rule, roles: set[str], placement: str, width: int | None, name: _Name, *, wide_router: bool) -> Rule:
    """Return a rule with the norm that really feeds each part, and with the axes that its shape allows."""
    parts: list[Part] = []
    for index, part in enumerate(rule.parts):
        changed: dict[str, str] = {}
        reads = part.reads
        if reads == "norm.mlp" and reads not in roles:
            reads = "norm.attn"
        if reads and (reads not in roles or (placement == "post" and reads in ("norm.attn", "norm.mlp"))):
            reads = ""
        changed["reads"] = reads
        if wide_router and part.role in ("moe.router", "moe.router.bias"):
            changed["out"] = OWN
        if part.normed and part.normed not in roles:
            changed["normed"] = ""
        if (part.role.startswith(_MAY_DIFFER) or name.inner.startswith(_SHARED)) and width is not None:
            for kind, length in layout.axis_lengths(name.shape, rule, index):
                if kind == "residual" and length != width:
                    side = "out" if part.out == "residual" else "input"
                    changed |= {side: OWN, "reads": ""}
                    # A table of another width (factorised embeddings) is not what the layers read or write.
                    if part.role.startswith(("embed.", "unembed")):
                        changed |= {"role": OTHER + part.role}
        parts.append(part.model_copy(update=changed))
    return rule.model_copy(update={"parts": tuple(parts)})


def _with_one_vocabulary(rules: list[tuple[_Name, Rule]]) -> list[tuple[_Name, Rule]]:
    """Give the output matrix rows of its own where it has others than the token embedding (prompts, extra tokens)."""
    rows = {name.shape[0] for name, rule in rules if rule.parts[0].role == "embed.token"}
    return [
        (name, rule.model_copy(update={"parts": (rule.parts[0].model_copy(update={"out": OWN}),)}))
        if rule.parts[0].role in ("unembed", "unembed.bias") and rows and name.shape[0] not in rows
        else (name, rule)
        for name, rule in rules
    ]


def _rank(name: str) -> tuple[int, str]:
    """Return where a name outside the layers stands among those that the lexicon lists for its role, and itself."""
    base = name.removesuffix(".weight").removesuffix(".bias")
    listed = (
        place for names in lexicon().top.values() for place, end in enumerate(names) if f".{base}".endswith(f".{end}")
    )
    return min(listed, default=len(name)), name


def _without_doubles(rules: Sequence[tuple[_Name, Rule]]) -> tuple[list[Rule], list[Ignored]]:
    """Return rules that differ: one for all layers where every kind of layer has the same, one for each role outside.

    Outside the layers the name that the lexicon lists first has a role, wherever it stands in the file. A second output
    matrix or bias is a copy of the first (models of masked tokens store theirs under two names); anything else is kept
    under its own name.
    """
    by_name: dict[str, dict[Rule, set[int]]] = {}
    for _, rule in rules:
        by_name.setdefault(rule.name, {}).setdefault(rule.model_copy(update={"layers": ()}), set()).update(rule.layers)
    found: list[Rule] = []
    ignored: list[Ignored] = []
    taken: dict[str, str] = {}
    outside = [name for name in by_name if "{" not in name]
    for name in sorted(outside, key=_rank):
        for rule in by_name[name]:
            taken.setdefault(rule.parts[0].role, name)
    for name, kinds in by_name.items():
        for rule, layers in kinds.items():
            role = rule.parts[0].role
            if layers or "{" in name:
                found.append(rule if len(kinds) == 1 else rule.model_copy(update={"layers": tuple(sorted(layers))}))
            elif taken[role] == name:
                found.append(rule)
            elif role in ("unembed", "unembed.bias"):
                ignored.append(Ignored(name=name, reason=f"a copy of {taken[role]}"))
            else:
                other = rule.parts[0].model_copy(update={"role": _other(name.removesuffix(".weight")).role})
                found.append(rule.model_copy(update={"parts": (other, *rule.parts[1:])}))
    return found, ignored
