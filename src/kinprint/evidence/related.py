"""Pairs that are known to be related, to show beside the innocents where a size falls. They enter no verdict.

A few dozen pairs of one small lineage, derived on the spot by kinds of ``zoo derive``. They show what sizes some
derivations leave in such models, not how common any of them is: no rate and no margin may be taken from them. The file
ships as ``related.json`` and is made by ``kinprint bench related``.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from kinprint.types import Record

GROUPS = ("rewritten", "cut or rounded", "trained or merged")
"""What was done: the function was kept; weights were taken away or moved; others were trained or mixed in."""


class RelatedPair(Record):
    """Sizes of one pair.

    Attributes:
        suspect: What it is: the model and the kinds that it went through.
        base: What it is set against.
        group: One of ``GROUPS``.
        sizes: By statistic, as of innocent pairs.
    """

    suspect: str
    base: str
    group: str
    sizes: dict[str, float]


class Related(Record):
    """All of them.

    Attributes:
        version: Raised when the pairs change.
        procedure: Id of how the sizes were measured.
        suite: Suite of the models that everything was derived from.
        pairs: The pairs.
    """

    version: int
    procedure: str
    suite: str
    pairs: tuple[RelatedPair, ...]


@cache
def related() -> Related:
    """Return the pairs that ship with the package."""
    text = resources.files("kinprint.evidence").joinpath("related.json").read_text(encoding="utf-8")
    return Related.model_validate_json(text)
