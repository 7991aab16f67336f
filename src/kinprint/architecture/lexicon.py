"""How published models call their tensors, for architectures without a table of their own: ``lexicon.toml``.

gguf.TensorNameMap (MIT) adds the names that it knows and the lexicon leaves out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from kinprint.architecture.family import LabelGroup, Size
from kinprint.types import Record

Names = Mapping[str, Sequence[tuple[str, tuple[int, ...]]]]
"""Tensor names with their numbers, by skeleton."""


class Entry(Record):
    """A tensor that is fused, transposed, or called as others call something else.

    Attributes:
        names: Names inside a layer.
        when: Config entries and the values one of which each must have.
        beside: Names one of which must be in the same layers.
        without: Names none of which may be there.
        post: Whether norms must stand behind the additions.
        gated: Whether it must have twice the rows that the matrix behind it has columns.
        roles: Role by name, where the names of one entry differ in it.
        role: The role, or ``parts`` the several; with ``layout``, ``split``, ``stacked``, ``rows`` and ``shards`` as in
            a :class:`Rule`.
    """

    names: tuple[str, ...]
    when: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    beside: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    post: bool = False
    gated: bool = False
    roles: dict[str, str] = Field(default_factory=dict)
    role: str = ""
    parts: tuple[dict[str, str], ...] = ()
    layout: str = "out-in"
    split: str = "blocks"
    stacked: bool = False
    rows: bool = False
    shards: int = 1


class Fact(Record):
    """What holds for some model types and shows in no name or shape.

    ``when`` are further config entries and the values one of which each must have; ``geometry`` replaces where the
    config keeps a size; ``wide_router`` says that routers also weigh what is no routed expert (shared ones, or none).
    """

    model_type: tuple[str, ...]
    when: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    norm: Literal["rms", "layer"] | None = None
    gain: Literal["plain", "zero-centred"] | None = None
    placement: Literal["pre", "post", "sandwich"] | None = None
    positions: Literal["rotary", "learned", "fixed", "none"] | None = None
    labels: dict[LabelGroup, str] = Field(default_factory=dict)
    geometry: dict[Size, tuple[str, ...]] = Field(default_factory=dict)
    wide_router: bool = False


class Lexicon(Record):
    """``lexicon.toml``."""

    entry: tuple[Entry, ...]
    layer: dict[str, tuple[str, ...]]
    top: dict[str, tuple[str, ...]]
    roles: dict[str, dict[str, str]]
    gguf: dict[str, str]
    geometry: dict[Size, tuple[str, ...]]
    alternate: tuple[dict[Size, tuple[str, ...]], ...] = ()
    components: dict[str, tuple[str, ...]]
    fact: tuple[Fact, ...]
    known: tuple[str, ...] = ()
    other: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    ignore: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@cache
def lexicon() -> Lexicon:
    """Return the shipped lexicon."""
    text = (resources.files("kinprint.architecture") / "lexicon.toml").read_text(encoding="utf-8")
    return Lexicon.model_validate(tomllib.loads(text))


@cache
def roles_by_name(where: Literal["layer", "top"]) -> Mapping[str, str]:
    """Return the role of every name inside a layer, or outside.

    Raises:
        ValueError: The lexicon gives one name two roles.
    """
    table = lexicon().layer if where == "layer" else lexicon().top
    found: dict[str, str] = {}
    for role, names in table.items():
        for name in names:
            if found.setdefault(name, role) != role:
                raise ValueError(f"lexicon: {name} plays both {found[name]} and {role}")
    return found


@cache
def gguf_words() -> Mapping[str, str]:
    """Return GGUF's word for every name of Hugging Face that gguf knows, ``#`` for a layer or an expert."""
    from gguf import TENSOR_NAMES
    from gguf.tensor_mapping import TensorNameMap

    found: dict[str, str] = {}
    for table in (TensorNameMap.mappings_cfg, TensorNameMap.block_mappings_cfg):
        for tensor, names in table.items():
            for name in names:
                word = TENSOR_NAMES[tensor].replace("blk.{bid}.", "")
                found.setdefault(name.replace("{bid}", "#").replace("{xid}", "#"), word)
    return found
