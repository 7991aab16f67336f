"""Family tables: which tensor name plays which role, in which orientation, and which axes it shares.

A table is a TOML file in ``families/``. Tensors that share an axis name must be transformed together to keep the
model's function, so the same table that reads a model also generates the transformations that it must survive.
An unknown key, role, axis or parent is an error, or the tables would rot.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from kinprint.types import Record

Axis = Literal[
    "residual", "vocab", "position", "type", "label", "pooled", "head",
    "query.{layer}", "key.{layer}", "value.{layer}", "context.{layer}",
    "query-rope.{layer}", "key-rope.{layer}", "query-rank.{layer}", "kv-rank.{layer}",
    "cross-query.{layer}", "cross-key.{layer}", "cross-value.{layer}", "cross-context.{layer}",
    "ffn.{layer}", "shared-ffn.{layer}", "shared-gate.{layer}",
    "expert.{layer}", "expert-ffn.{layer}.{expert}", "shared-expert-ffn.{layer}.{expert}",
    "feature", "special", "code", "own",
]  # fmt: skip
"""Every axis a table may name. ``query``/``key``/``value`` are the rows of the three projections, ``context`` the
columns of the output projection (query heads), ``head`` the coordinates of one head, ``expert`` the router's rows,
``feature`` the fixed features that describe an input where no table embeds it, ``code`` those of the token alone and
``special`` the tokens that have no fixed code. ``query-rank`` and ``kv-rank`` are the latent coordinates of multi-head
latent attention, ``query-rope`` and ``key-rope`` its rows that carry positions. ``cross-`` stands for attention to
another stream. ``own`` is an axis of one tensor alone, or one whose partners no table describes: never compared in
length, and nothing may be permuted along it."""

OWN = "own"

ROLES = (
    "embed.token", "embed.position", "embed.type", "embed.input", "embed.special", "unembed", "unembed.bias",
    "norm.embed", "norm.attn", "norm.mlp", "norm.attn_post", "norm.mlp_post", "norm.final", "norm.q", "norm.k",
    "norm.cross", "norm.cross_post", "norm.q_rank", "norm.kv_rank",
    "norm.embed.bias", "norm.attn.bias", "norm.mlp.bias", "norm.attn_post.bias", "norm.mlp_post.bias",
    "norm.final.bias", "norm.q.bias", "norm.k.bias", "norm.cross.bias", "norm.cross_post.bias",
    "attn.q", "attn.k", "attn.v", "attn.o", "attn.q.bias", "attn.k.bias", "attn.v.bias", "attn.o.bias",
    "attn.q_a", "attn.q_b", "attn.q_rope", "attn.kv_a", "attn.k_rope", "attn.k_b", "attn.v_b",
    "attn.q_a.bias", "attn.q_b.bias", "attn.kv_a.bias", "attn.gate", "attn.gate.bias", "attn.sinks",
    "cross.q", "cross.k", "cross.v", "cross.o", "cross.q.bias", "cross.k.bias", "cross.v.bias", "cross.o.bias",
    "mlp.gate", "mlp.up", "mlp.down", "mlp.gate.bias", "mlp.up.bias", "mlp.down.bias",
    "moe.router", "moe.router.bias", "moe.gate", "moe.up", "moe.down",
    "moe.gate.bias", "moe.up.bias", "moe.down.bias",
    "moe.shared.gate", "moe.shared.up", "moe.shared.down", "moe.shared.router",
    "ssm.in", "ssm.conv", "ssm.x", "ssm.dt", "ssm.A", "ssm.D", "ssm.norm", "ssm.out",
    "ssm.in.bias", "ssm.conv.bias", "ssm.dt.bias", "ssm.out.bias",
    "linear.q", "linear.k", "linear.v", "linear.gate", "linear.a", "linear.b", "linear.in", "linear.conv",
    "linear.A", "linear.dt.bias", "linear.norm", "linear.out",
    "conv.in", "conv.kernel", "conv.out", "conv.in.bias", "conv.kernel.bias", "conv.out.bias",
    "head.pooler", "head.pooler.bias", "head.transform", "head.transform.bias",
    "head.norm", "head.norm.bias", "head.classifier", "head.classifier.bias",
    "head.relationship", "head.relationship.bias",
)  # fmt: skip
"""Every role a table may name, besides ``other.`` and a word for what no other role describes. Those under ``head.``
are task heads: mapped, and no evidence by themselves. ``ssm.`` are state-space blocks (Mamba), ``linear.`` linear
attention (DeltaNet, KDA, lightning), ``conv.`` short convolutions: sequence mixers that are never judged as attention.
``cross.`` is attention to another stream."""

OTHER = "other."
"""Start of the roles of what the architecture adds to the common parts: mapped under its own name, compared as such."""


def _known(role: str) -> str:
    if role not in ROLES and not re.fullmatch(r"other(\.[\w-]+)+", role):
        raise ValueError(f"unknown role {role!r}")
    return role


Role = Annotated[str, AfterValidator(_known)]
"""One of ``ROLES``, or ``other.`` and a name."""

Size = Literal[
    "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "expert_ffn", "experts", "vocab",
    "rotary_share", "rotary_dims", "expert_groups", "nope_dim", "rope_dim", "value_dim",
]  # fmt: skip
"""Every size a table may look up in a config. ``rotary_share`` and ``rotary_dims`` say the same thing as a share and
as a count; ``expert_groups`` is how many groups a router chooses among before it chooses experts. ``nope_dim``,
``rope_dim`` and ``value_dim`` are coordinates of one head of multi-head latent attention: of queries and keys without
and with positions, and of values."""

LabelGroup = Literal["residual", "ffn", "kv", "expert"]
"""Numberings that training leaves arbitrary. ``residual``: the coordinates of the stream, one numbering for all tensors
that read or write it. ``ffn``: the units of each MLP, dense, shared or an expert's. ``kv``: the key/value heads of each
layer with their query heads. ``expert``: the experts of each layer with their router rows."""

EXCHANGEABLE = "exchangeable"
"""What a table declares of a group whose every numbering is equally likely under independent initialisation."""

TOGETHER = "exchangeable together"
"""The same, where all layers start as copies of one: only one renumbering for all of them is as likely as another."""

_NUMBER = re.compile(r"(?<![^.])[0-9]{1,6}(?![^.])")
"""A whole dot-separated word of digits: a layer or an expert. Longer ones are no index of anything."""

_SLOT = re.compile(r"\{(?:layer|expert|block)\}|(?<![^.])[0-9]{1,6}(?![^.])")


class Part(Record):
    """One role inside a stored tensor.

    Attributes:
        role: Canonical role; its array is [out, in] (or [out] for a vector).
        out: Name of the first axis.
        input: Name of the second axis (``in`` in the tables); empty for vectors.
        reads: Role of the norm whose gain multiplies this part's input; empty where none can be folded.
        normed: Role of the norm applied to this part's output rows (q and k norms); empty where none is.
        size: Which size counts this part's rows (of one head where the split is by head); empty for an equal share,
            or for the head size where the axis is query, key or value.
    """

    role: Role
    out: Axis
    input: Axis | Literal[""] = Field(default="", alias="in")
    reads: Role | Literal[""] = ""
    normed: Role | Literal[""] = ""
    size: Size | Literal[""] = ""


class Rule(Record):
    """How one stored tensor (for every layer and expert) becomes parts.

    In a table, keys of a part that stand beside ``name`` are shared by all its parts; a rule with one part needs no
    ``parts`` list.

    Attributes:
        name: Tensor name with ``{p}`` (prefix), ``{layer}``, ``{expert}`` and ``{block}`` (one of the blocks of a
            layer) where they stand; any other number stands for itself.
        parts: The roles in it, in stored order.
        layout: ``out-in`` as nn.Linear stores, ``in-out`` as Conv1D does, ``flat`` for kernels whose trailing axes are
            one (``flat-in-out`` where the first is the input), or heads before both: ``heads-out-in`` and
            ``heads-in-out``.
        split: How several parts share the out axis: ``blocks`` one after the other; ``per-head``
            [head, part, rows of a head]; ``per-group`` [kv head, queries + key + value, head_dim]; ``per-shard``
            [shard, part, heads of the shard]; ``interleaved`` [row, part].
        stacked: Whether the first stored axis counts experts.
        rows: Whether it is stacked, and the rows of all experts are one axis.
        shards: How many shards a ``per-shard`` split has.
        layers: The layers in which the name means this; empty for all.
    """

    name: str
    parts: tuple[Part, ...]
    layout: Literal["out-in", "in-out", "flat", "flat-in-out", "heads-out-in", "heads-in-out"] = "out-in"
    split: Literal["blocks", "per-head", "per-group", "per-shard", "interleaved"] = "blocks"
    stacked: bool = False
    rows: bool = False
    shards: int = 1
    layers: tuple[int, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _share(cls, table: dict[str, Any]) -> dict[str, Any]:
        shared = {key: table[key] for key in ("role", "out", "in", "reads", "normed", "size") if key in table}
        own = {key: value for key, value in table.items() if key not in shared}
        parts = [part if isinstance(part, Part) else {**shared, **part} for part in table.get("parts", [{}])]
        return {**own, "parts": parts}

    @model_validator(mode="after")
    def _slots_agree(self) -> Rule:
        for part in self.parts:
            for slot in ("{layer}", "{expert}"):
                there = slot in self.name or (slot == "{expert}" and (self.stacked or self.rows))
                if slot in part.out + part.input and not there:
                    raise ValueError(f"rule {self.name}: an axis of {part.role} needs {slot}, which the name lacks")
        if self.split == "per-group" and len(self.parts) != 3:
            raise ValueError(f"rule {self.name}: per-group holds exactly queries, key and value")
        return self

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """What the numbers of a tensor's name are, in order: ``layer``, ``expert``, ``block``, or a number itself."""
        return tuple(word.strip("{}") for word in _SLOT.findall(self.name))

    def numbers(self, found: tuple[int, ...]) -> dict[str, int] | None:
        """Return the layer, expert and block of a tensor from the numbers in its name; None where it is another's.

        Example:
            >>> Rule(name="block.{layer}.layer.0.w", parts=()).numbers((3, 0))
            {'layer': 3}
        """
        if len(found) != len(self.slots):
            return None  # a name that spells "#" itself
        at: dict[str, int] = {}
        for slot, number in zip(self.slots, found, strict=True):
            if not slot.isdigit():
                at[slot] = number
            elif int(slot) != number:
                return None
        return at

    @cached_property
    def vector(self) -> bool:
        """Whether the parts are vectors (gains, biases)."""
        return not any(part.input for part in self.parts)


class Ignored(Record):
    """A tensor that is no parameter (a mask, a frequency table), with the reason.

    ``copy_of`` names the tensor that holds the same numbers; then this one is ignored only where that one exists.
    """

    name: str
    reason: str
    copy_of: str = ""


class Family(Record):
    """One table.

    Attributes:
        name: Name of the family. Several tables may share it: spellings of one architecture.
        summary: One line for people.
        names: Whose tensor names they are, where the table is for no GGUF architecture; for people.
        prefixes: What ``{p}`` may be, most specific first.
        requires: Names that must exist (with ``{layer}`` any layer) for the family to be considered.
        excludes: Names whose existence rules the family out.
        config_requires: Config entries that must have one of these values, for architectures that differ in what a
            tensor means and not in any name or shape. Without a config such a family is never chosen.
        config_excludes: Config entries that must not have any of these values.
        archs: GGUF architectures the table is for; empty for every other format.
        norm: ``rms`` or ``layer``: what the residual stream's norms compute, hence which changes they allow.
        placement: ``pre`` (norms read the stream), ``post`` (norms stand after the addition or after the block) or
            ``sandwich`` (both).
        gain: ``plain``, or ``zero-centred`` where the stored vector is the gain minus one.
        ffn: ``gated`` (gate * up) or ``plain``.
        positions: ``rotary`` (rotate halves), ``learned``, ``fixed`` (waves added to the stream) or ``none``: what ties
            coordinates of q and k, or of the stream, together.
        blocks: Attention blocks in what the names number as one layer; each counts as a layer here.
        labels: For each group of numberings, ``exchangeable``, ``exchangeable together`` or the reason why it is
            neither. See :meth:`exchangeable`.
        geometry: For each size, the config keys that may hold it, first hit wins. ``{arch}`` is GGUF's architecture;
            a dot may also lead into a nested table.
        alternates: The same for heads of layers of another kind (sliding attention with heads of its own).
        tensor: The rules.
        ignore: Tensors that are no parameters.
    """

    name: str
    summary: str
    names: str = "Hugging Face"
    prefixes: tuple[str, ...]
    requires: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    config_requires: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    config_excludes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    archs: tuple[str, ...] = ()
    norm: Literal["rms", "layer"] = "rms"
    placement: Literal["pre", "post", "sandwich"] = "pre"
    gain: Literal["plain", "zero-centred"] = "plain"
    ffn: Literal["gated", "plain"] = "gated"
    positions: Literal["rotary", "learned", "fixed", "none"] = "rotary"
    blocks: int = 1
    labels: dict[LabelGroup, str] = Field(default_factory=dict)
    geometry: dict[Size, tuple[str, ...]] = Field(default_factory=dict)
    alternates: tuple[dict[Size, tuple[str, ...]], ...] = ()
    tensor: tuple[Rule, ...] = ()
    ignore: tuple[Ignored, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Family:
        names = [(rule.name, rule.layers) for rule in self.tensor]
        if len(set(names)) != len(names):
            raise ValueError(f"family {self.name}: two rules have one name")
        roles = {part.role for rule in self.tensor for part in rule.parts}
        needed = {role for rule in self.tensor for part in rule.parts for role in (part.reads, part.normed) if role}
        if needed - roles:
            raise ValueError(f"family {self.name}: no rule gives {', '.join(sorted(needed - roles))}")
        return self

    @model_validator(mode="after")
    def _labels_are_said(self) -> Family:
        for group, said in self.labels.items():
            # One word is a misspelt "exchangeable": as a reason it would switch tests off unseen.
            if said not in (EXCHANGEABLE, TOGETHER) and " " not in said.strip():
                raise ValueError(
                    f"family {self.name}: labels.{group} = {said!r} is neither {EXCHANGEABLE} nor a reason"
                )
        return self

    def exchangeable(self, group: LabelGroup) -> str | None:
        """Return None where exact tests may permute a group's numbering, and else the reason why they may not.

        What is declared: initialisation and training of the architecture give a model and the same model numbered
        otherwise the same probability, each layer numbered for itself (``residual``: all layers together). What a tool
        did to one file later (units sorted, layers or experts copied from each other) no table can know.

        Example:
            >>> UNKNOWN.exchangeable("ffn")
            'not declared in the family table'
        """
        said = self.labels.get(group, "not declared in the family table")
        return None if said in (EXCHANGEABLE, TOGETHER) else said

    def together(self, group: LabelGroup) -> bool:
        """Return whether a group's numbering may only be permuted alike in all layers."""
        return self.labels.get(group) == TOGETHER


class Product(Record):
    """A projection that a model holds as two factors with a norm between them (multi-head latent attention).

    ``role`` is ``left * diag(gain of norm) * right``. The norm divides each token's latent vector by one number, which
    no matrix can hold; up to that scale the product is what the projection computes.
    """

    role: Role
    left: Role
    norm: Role
    right: Role


PRODUCTS = (
    Product(role="attn.q", left="attn.q_b", norm="norm.q_rank", right="attn.q_a"),
    Product(role="attn.k", left="attn.k_b", norm="norm.kv_rank", right="attn.kv_a"),
    Product(role="attn.v", left="attn.v_b", norm="norm.kv_rank", right="attn.kv_a"),
)
"""What :class:`ModelView` multiplies where a model has the factors and not the projection."""

INFERRED = "inferred"
"""Name of a family whose roles come from shapes and repetition."""

UNKNOWN = Family(name="unknown", summary="no table fits: tensors keep their names", prefixes=("",), requires=())
"""The family of a model that no table fits."""


@lru_cache(maxsize=1 << 16)
def skeleton(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a tensor name with ``#`` for every layer or expert number, and the numbers.

    Example:
        >>> skeleton("model.layers.3.mlp.experts.11.w1.weight")
        ('model.layers.#.mlp.experts.#.w1.weight', (3, 11))
    """
    return _NUMBER.sub("#", name), tuple(int(number) for number in _NUMBER.findall(name))


def rule_skeleton(name: str, prefix: str) -> str:
    """Return what :func:`skeleton` makes of the names that a table's name stands for.

    Example:
        >>> rule_skeleton("{p}layers.{layer}.w", "model.")
        'model.layers.#.w'
    """
    return _SLOT.sub("#", name.replace("{p}", prefix))


def parse_family(text: str, parents: Mapping[str, Mapping[str, Any]] | None = None) -> Family:
    """Read one table.

    Args:
        text: TOML.
        parents: Raw tables by file name, for ``extends``: a child starts from its parent's keys, replaces rules of the
            same name, drops those in ``drop`` and adds its own.

    Raises:
        ValueError: An unknown key, role, axis, size, layout or parent, or a dropped rule that the parent lacks.
    """
    return Family.model_validate(_merged(tomllib.loads(text), parents or {}))


def _merged(table: dict[str, Any], parents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a raw table with what it inherits; ``extends`` and ``drop`` are used up."""
    parent_name = table.pop("extends", None)
    if parent_name is None:
        return table
    name = table.get("name", "?")
    if parent_name not in parents:
        raise ValueError(f"family {name}: extends unknown family {parent_name!r}")
    parent = _merged(dict(parents[parent_name]), parents)
    dropped = set(table.pop("drop", []))
    missing = dropped - {entry["name"] for entry in parent.get("tensor", [])}
    if missing:
        raise ValueError(f"family {name}: drops {', '.join(sorted(missing))}, which {parent_name} lacks")
    gone = {entry["name"] for entry in table.get("tensor", [])} | dropped
    kept = [entry for entry in parent.get("tensor", []) if entry["name"] not in gone]
    return {
        **parent,
        **table,
        "labels": {**parent.get("labels", {}), **table.get("labels", {})},
        "geometry": {**parent.get("geometry", {}), **table.get("geometry", {})},
        "tensor": kept + table.get("tensor", []),
        "ignore": [*parent.get("ignore", []), *table.get("ignore", [])],
    }


@cache
def families() -> tuple[Family, ...]:
    """Return every shipped table, sorted by file name."""
    texts = {
        path.name.removesuffix(".toml"): path.read_text(encoding="utf-8")
        for path in resources.files("kinprint.architecture").joinpath("families").iterdir()
        if path.name.endswith(".toml")
    }
    raw = {name: tomllib.loads(text) for name, text in texts.items()}
    return tuple(parse_family(texts[name], raw) for name in sorted(texts))
