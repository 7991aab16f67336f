"""Which layers and experts of two models are looked at first: a seeded sample of those that hold anything.

A region of zeros holds nothing: files may have holes. A layer counts if rows of it are not zero in both models. Layers
of the same number face each other where both models have as many, unless the norm gains of others resemble each other
more; where depths differ, norm gains alone say which do. That depends on the numbering of residual coordinates and on
none of units, heads or experts.

Of a mixture the experts with the largest router rows (about the mean over experts) are read: a choice that no order of
experts and no rotation changes, so that two numberings of the same experts give the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kinprint.alignment.layer_map import layer_map
from kinprint.architecture import ModelView, PartKey
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.evidence.records import SEED

EXPERTS = 4
"""Experts of a mixture's layer that are read."""

PROBED = 16
"""Layers, or experts, that are probed in one go: each costs one row, and over a network one request."""

STEMS = ("mlp", "moe.shared", "moe")
"""Stems of the roles of a layer's MLPs, those that are not numbered by expert first."""

MOVED = 0.1
"""How much more alike the norm gains of other layers must be, in mean cosine, for layers to count as moved."""

ALIKE = 0.5
"""And how alike at least: the best of many cosines of few coordinates is large between strangers too."""

_NORMS = ("norm.attn", "norm.mlp")


@dataclass(frozen=True, slots=True)
class Mlp:
    """One MLP of two layers that face each other, and where its units are."""

    suspect: int
    base: int
    stem: str
    experts: tuple[int | None, int | None] = (None, None)

    def keys(self, part: str) -> tuple[PartKey, PartKey]:
        """Return where ``gate``, ``up`` or ``down`` is in suspect and base."""
        role = f"{self.stem}.{part}"
        return PartKey(role, self.suspect, self.experts[0]), PartKey(role, self.base, self.experts[1])


class Sampling:
    """The seeded order in which facing layers of two models are read, holes left out.

    Attributes:
        suspect: One model.
        base: The other.
    """

    def __init__(self, suspect: ModelView, base: ModelView) -> None:
        """Read nothing yet."""
        self.suspect, self.base = suspect, base
        self._live: list[tuple[int, int]] = []
        self._probed = 0

    @cached_property
    def layers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of the layers of suspect and base that have attention or an MLP."""
        return _numbers(self.suspect), _numbers(self.base)

    @cached_property
    def same_places(self) -> bool:
        """Whether layers of the same number face each other: there are as many, and norm gains speak for no others."""
        here, there = self.layers
        if len(here) != len(there):
            return False
        table = self._gain_cosines
        if table is None:
            return True
        partners = layer_map(table).partners
        moved = [table[at, at if partner is None else partner] for at, partner in enumerate(partners)]
        return float(np.mean(moved)) <= max(ALIKE, float(np.diagonal(table).mean()) + MOVED)

    @cached_property
    def facing(self) -> tuple[tuple[int, int], ...]:
        """All pairs of layers that face each other, in the order in which they are read."""
        here, there = self.layers
        pairs = list(zip(here, there, strict=True)) if self.same_places else self._by_norms()
        order: list[int] = np.random.default_rng(SEED).permutation(len(pairs)).tolist()
        return tuple(pairs[at] for at in order)

    def live(self, most: int) -> tuple[tuple[int, int], ...]:
        """Return at most so many pairs of layers that hold something in both models, in the order of reading."""
        while len(self._live) < most and self._probed < len(self.facing):
            batch = self.facing[self._probed : self._probed + PROBED]
            self._fetch_probes(batch)
            for pair in batch:
                self._probed += 1
                if all(_holds(view, number) for view, number in zip((self.suspect, self.base), pair, strict=True)):
                    self._live.append(pair)
                if len(self._live) == most:
                    break
        return tuple(self._live[:most])

    @property
    def empty(self) -> int:
        """Pairs of layers that were probed and hold nothing in one of the models."""
        return self._probed - len(self._live)

    def mlp(self, pair: tuple[int, int]) -> Mlp | None:
        """Return an MLP that two facing layers have both, of the same kind; None where there is none that holds any."""
        here, there = pair
        for stem in STEMS:
            numbers = [
                view.experts(f"{stem}.up", layer) if stem == "moe" else [None] * view.has(f"{stem}.up", layer)
                for view, layer in ((self.suspect, here), (self.base, there))
            ]
            if not numbers[0] or len(numbers[0]) != len(numbers[1]):
                continue
            for first in range(0, len(numbers[0]), PROBED):
                both = [slice(first, first + PROBED)]
                found = [
                    Mlp(here, there, stem, (mine, theirs))
                    for mine, theirs in zip(numbers[0][both[0]], numbers[1][both[0]], strict=True)
                ]
                if (one := next((mlp for mlp in found if self._alive(mlp)), None)) is not None:
                    return one
        return None

    def restricted(self, pairs: Sequence[tuple[int, int]]) -> tuple[ModelView, ModelView]:
        """Return both models with these layers alone, and of mixtures few experts.

        Where layers do not face each other in their places, all layers of the base stay: any of them may be the origin.
        """
        here = sorted({pair[0] for pair in pairs})
        there = sorted({pair[1] for pair in pairs}) if self.same_places else list(self.layers[1])
        return few_experts(self.suspect, here), few_experts(self.base, there)

    def _by_norms(self) -> list[tuple[int, int]]:
        table = self._gain_cosines
        if table is None:
            return []
        here, there = self.layers
        return [
            (here[at], there[partner]) for at, partner in enumerate(layer_map(table).partners) if partner is not None
        ]

    @cached_property
    def _gain_cosines(self) -> Array | None:
        """Cosines of the norm gains of every layer with every layer's of the base; None where there are none."""
        views = self.suspect, self.base
        for view, layers in zip(views, self.layers, strict=True):
            fetch_rows(
                view,
                [
                    (key, slice(0, view.shape(role, layer)[0]))
                    for role in _NORMS
                    for layer in layers
                    if (key := PartKey(role, layer)) in view.parts
                ],
            )
        tables: list[Array] = []
        for role in _NORMS:
            sides = [_gains(view, role, layers) for view, layers in zip(views, self.layers, strict=True)]
            if sides[0].shape[1] == sides[1].shape[1] and sides[0].any() and sides[1].any():
                tables.append(sides[0] @ sides[1].T)
        return np.mean(tables, axis=0) if tables else None

    def _fetch_probes(self, batch: Sequence[tuple[int, int]]) -> None:
        for side, view in enumerate((self.suspect, self.base)):
            keys = [key for pair in batch if (key := _probe(view, pair[side])) is not None]
            fetch_rows(view, [(key, slice(0, 1)) for key in keys])

    def _alive(self, mlp: Mlp) -> bool:
        return all(_any(view, key) for view, key in zip((self.suspect, self.base), mlp.keys("up"), strict=True))


def few_experts(view: ModelView, layers: Sequence[int]) -> ModelView:
    """Return a model with some layers alone, and of mixtures with few experts."""
    return view.only(layers, {layer: chosen_experts(view, layer) for layer in layers if view.experts("moe.up", layer)})


def fetch_rows(view: ModelView, wanted: Sequence[tuple[PartKey, slice]]) -> None:
    """Have rows of several parts fetched together, where the model is not on this machine."""
    stored = [
        (view.parts[key].tensor, rows)
        for key, part_rows in wanted
        if key in view.parts and (rows := view.rows_stored(key, part_rows)) is not None
    ]
    view.checkpoint.fetch(stored)


def chosen_experts(view: ModelView, layer: int, most: int = EXPERTS) -> tuple[int, ...]:
    """Return the experts of a layer to read: those with the largest router rows among the ones that hold anything."""
    experts = view.experts("moe.up", layer)
    if len(experts) <= most:
        return tuple(experts)
    order = list(range(len(experts)))
    if view.has("moe.router", layer):
        try:
            router = view.array("moe.router", layer, fold=True)
        except NonFiniteError:
            router = np.zeros((0, 1))
        if len(router) == len(experts):
            order = np.argsort(-np.linalg.norm(router - router.mean(axis=0), axis=1), kind="stable").tolist()
    found: list[int] = []
    for first in range(0, len(order), PROBED):
        batch = [experts[at] for at in order[first : first + PROBED]]
        fetch_rows(view, [(PartKey("moe.up", layer, expert), slice(0, 1)) for expert in batch])
        found += [expert for expert in batch if _any(view, PartKey("moe.up", layer, expert))]
        if len(found) >= most:
            break
    return tuple(sorted(found[:most] or [experts[at] for at in order[:most]]))


def _numbers(view: ModelView) -> tuple[int, ...]:
    roles = ("attn.k", "attn.k_b", *(f"{stem}.up" for stem in STEMS), "ssm.in")
    return tuple(sorted({layer for role in roles for layer in view.layers(role)}))


def _probe(view: ModelView, layer: int) -> PartKey | None:
    """Return the part whose first row tells whether a layer holds anything."""
    for role in ("attn.k", "attn.k_b", "mlp.up", "moe.shared.up", "ssm.in"):
        if PartKey(role, layer) in view.parts:
            return PartKey(role, layer)
    experts = view.experts("moe.up", layer)
    return PartKey("moe.up", layer, experts[0]) if experts else None


def _holds(view: ModelView, layer: int) -> bool:
    key = _probe(view, layer)
    return key is not None and _any(view, key)


def _any(view: ModelView, key: PartKey) -> bool:
    """Return whether the first row of a part has a value other than zero."""
    return bool(view.stored_rows(key.role, key.layer, key.expert, rows=slice(0, 1)).any())


def _gains(view: ModelView, role: str, layers: Sequence[int]) -> Array:
    """Return norm gains about their means at unit length, [layers, D]; zeros where there are none."""
    found: Mapping[int, Array] = {layer: gain for layer in layers if (gain := _gain(view, role, layer)) is not None}
    width = max((len(gain) for gain in found.values()), default=0)
    rows = np.zeros((len(layers), width))
    for at, layer in enumerate(layers):
        gain = found.get(layer)
        if gain is not None and len(gain) == width:
            centred = gain - gain.mean()
            rows[at] = centred / (np.linalg.norm(centred) or 1.0)
    return rows


def _gain(view: ModelView, role: str, layer: int) -> Array | None:
    if not view.has(role, layer):
        return None
    try:
        return view.gain(role, layer)
    except NonFiniteError:
        return None


def mlps_of(sampling: Sampling, pairs: Sequence[tuple[int, int]]) -> Iterator[Mlp]:
    """Yield an MLP of every pair of facing layers that has one."""
    for pair in pairs:
        if (mlp := sampling.mlp(pair)) is not None:
            yield mlp
