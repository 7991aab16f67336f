"""Two models side by side: their common bases and layer map, worked out once for all tests.

Nothing here depends on names of files, folders or tensors beyond what the family table reads, nor on the stored order
of heads, units or experts; so tests that permute any of those, given what is worked out here, stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock

import numpy as np

from kinprint.alignment.basis import (
    Basis,
    BasisKind,
    Refusal,
    coordinate_basis,
    form_similarities,
    stored_basis,
    token_basis,
    token_rows,
)
from kinprint.alignment.forms import FORMS, Form
from kinprint.alignment.layer_map import DepthMap, layer_map
from kinprint.alignment.trunk import HELD_BYTES, Layer, Trunk, layer_bytes, make_room
from kinprint.alignment.unit_basis import UnitTables, unit_basis
from kinprint.alignment.whitening import brought_into, whitened
from kinprint.architecture import ModelView
from kinprint.checkpoint import Array
from kinprint.linalg.device import CPU, Device
from kinprint.linalg.threads import side_by_side

BASES: tuple[BasisKind, ...] = ("stored", "tokens", "coordinates", "units")
"""Every basis that is tried, in this order, for every pair."""

AGREEING_LAYERS = 8
"""Layers of the suspect, spread over the depth, by which bases are told apart; against all of the base's."""

WHITENED_LAYERS = 4
"""Layers of each model, spread over the depth, whose rows say how loud each direction of the stream is."""

ENOUGH = 0.5
"""Mean cosine of whitened value forms from which on a basis is taken without trying the dearer ones. It decides nothing
but which bases are tried: what is tested in the basis has its own margin."""


@dataclass(frozen=True, slots=True)
class Facing:
    """A layer of the suspect and the layer of the base that it faces, by position in ``Trunk.layers``."""

    suspect: int
    base: int


class Pair:
    """A suspect and a base, with what all tests share.

    Attributes:
        suspect: One model's layers.
        base: The other's.
        device: Where rows are matched.
    """

    def __init__(
        self,
        suspect: Trunk,
        base: Trunk,
        *,
        rows: tuple[Array, Array] | Refusal | None = None,
        device: Device = CPU,
    ) -> None:
        """Work nothing out yet.

        Args:
            suspect: One model's layers.
            base: The other's.
            rows: Embeddings of the tokens that both know, where they are not to be read from the models.
            device: Where rows are matched.
        """
        self.suspect, self.base = suspect, base
        self.device = device
        self._rows = rows
        self._tried: dict[BasisKind, Basis | Refusal] = {}
        self._whitened: dict[BasisKind, tuple[Basis, Basis]] = {}
        self._agreements: dict[BasisKind, float] = {}
        self._brought: dict[tuple[int, int], Layer] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, suspect: ModelView, base: ModelView, device: Device = CPU, *, held_bytes: int = HELD_BYTES) -> Pair:
        """Return the pair of two views, each of which keeps so many bytes of layers."""
        return cls(Trunk(suspect, held_bytes=held_bytes), Trunk(base, held_bytes=held_bytes), device=device)

    @cached_property
    def obstacle(self) -> str | None:
        """Why layers cannot be compared at all, or None."""
        # Each reads a layer: side by side, a thread to each model.
        side_by_side(lambda trunk: trunk.width, (self.suspect, self.base), large=self.suspect.large)
        for who, trunk in (("suspect", self.suspect), ("base", self.base)):
            if trunk.view.family.name == "unknown":
                return f"no family table fits the {who}, so its tensors have no roles"
            if not trunk.width:
                problems = "; ".join(trunk.problems[:2])
                return f"no layer of the {who} has attention or an MLP that could be read" + (
                    f" ({problems})" if problems else ""
                )
        return None

    @property
    def at_once(self) -> int:
        """How many layers may be at work at the same time."""
        return min(self.suspect.at_once, self.base.at_once)

    @cached_property
    def token_rows(self) -> tuple[Array, Array] | Refusal:
        """Embeddings of the tokens that both know."""
        return token_rows(self.suspect.view, self.base.view) if self._rows is None else self._rows

    @cached_property
    def unit_tables(self) -> UnitTables:
        """What no basis changes of MLP units."""
        return UnitTables(self.suspect, self.base, self.device)

    def basis(self, kind: BasisKind) -> Basis | Refusal:
        """Return a common basis of one kind, or why there is none."""
        if kind not in self._tried:
            made = self._made(kind)
            self._tried[kind] = made if isinstance(made, Refusal) else replace(made, device=self.device)
        return self._tried[kind]

    def _made(self, kind: BasisKind) -> Basis | Refusal:
        if kind == "stored":
            return stored_basis(self.suspect, self.base)
        if kind == "units":
            return unit_basis(self.suspect, self.base, device=self.device, tables=self.unit_tables)
        rows = self.token_rows
        if isinstance(rows, Refusal):
            return rows
        if (rows[0].shape[1], rows[1].shape[1]) != (self.suspect.width, self.base.width):
            return Refusal("the token embeddings are not as wide as the layers")
        return token_basis(rows, self.device) if kind == "tokens" else coordinate_basis(rows)

    def whitened_in(self, basis: Basis) -> tuple[Basis, Basis]:
        """Return a basis for what layers read and one for what they write, each direction scaled by its energy."""
        if basis.kind not in self._whitened:
            suspect, base = _some(self.suspect), _some(self.base)
            self._whitened[basis.kind] = whitened(suspect, base, basis, large=self.suspect.large)
        return self._whitened[basis.kind]

    @cached_property
    def whitened(self) -> tuple[Basis, Basis] | None:
        """The best basis, whitened."""
        return None if self.best is None else self.whitened_in(self.best)

    def compared(self, facing: Facing) -> tuple[Layer, Layer, Basis, Basis]:
        """Return two facing layers and the best basis, whitened, for reading and for writing, to compare them in.

        Layers of wide models come brought into it, once each, and the basis is then that in which they stand.
        """
        return self._in_common((0, facing.suspect), (1, facing.base))

    def compared_within(self, here: int, there: int) -> tuple[Layer, Layer, Basis, Basis]:
        """Return the same of two layers of the suspect, by position."""
        return self._in_common((0, here), (0, there))

    def _in_common(self, *both: tuple[int, int]) -> tuple[Layer, Layer, Basis, Basis]:
        assert self.whitened is not None
        read, write = (
            replace(basis, suspect_AK=self._side(basis, both[0][0]), base_BK=self._side(basis, both[1][0]))
            for basis in self.whitened
        )
        trunks = self.suspect, self.base
        if not all(trunk.wide for trunk in trunks):
            first, second = (trunks[side].layer(trunks[side].layers[at]) for side, at in both)
            return first, second, read, write
        own = np.eye(read.directions, dtype=np.float32)
        first, second = (self._brought_layer(*one) for one in both)
        read, write = (replace(basis, suspect_AK=own, base_BK=own) for basis in (read, write))
        return first, second, read, write

    def _brought_layer(self, side: int, at: int) -> Layer:
        assert self.whitened is not None
        found = self._brought.get((side, at))
        if found is None:
            trunk = (self.suspect, self.base)[side]
            read, write = (self._side(basis, side) for basis in self.whitened)
            found = brought_into(trunk.layer(trunk.layers[at]), read, write, self.device)
            with self._lock:
                make_room(self._brought, layer_bytes(found), HELD_BYTES)
                self._brought[side, at] = found
        return found

    @staticmethod
    def _side(basis: Basis, side: int) -> Array:
        return basis.base_BK if side else basis.suspect_AK

    def agreement(self, basis: Basis) -> float:
        """Return how well attention's value paths agree in a basis: mean over layers of the best partner's cosine."""
        read, write = self.whitened_in(basis)
        some = _spread(len(self.suspect.layers), AGREEING_LAYERS)
        table = form_similarities(self.suspect, self.base, read, ("vo",), write, rows=some)["vo"]
        rows = table[~np.isnan(table).all(axis=1)]
        return float(np.nanmax(rows, axis=1).mean()) if rows.size else 0.0

    @cached_property
    def best(self) -> Basis | None:
        """The basis in which attention agrees best; the search ends early where a copy is plain to see."""
        return self._best_of(BASES)

    @cached_property
    def best_free(self) -> Basis | None:
        """The same among the bases in which, and in whose choice, the numbering of coordinates has no part."""
        return self._best_of(BASES[1:])

    def _best_of(self, kinds: Sequence[BasisKind]) -> Basis | None:
        best: tuple[float, Basis] | None = None
        for kind in kinds:
            if best is not None and best[0] >= ENOUGH:
                break
            basis = self.basis(kind)
            if isinstance(basis, Refusal):
                continue
            if kind not in self._agreements:
                self._agreements[kind] = self.agreement(basis)
            agreement = self._agreements[kind]
            if best is None or agreement > best[0]:
                best = agreement, basis
        if self.suspect.wide:
            # Four of the bases of a wide model are as large as a layer: those that lost are made anew if asked for.
            for kind in self._whitened.keys() - ({best[1].kind} if best is not None else set()):
                del self._whitened[kind]
        return None if best is None else best[1]

    @cached_property
    def map(self) -> DepthMap:
        """The layer map in the best basis, from the mean cosine of all forms."""
        if self.best is None:
            return DepthMap("free", (None,) * len(self.suspect.layers), (None,) * len(self.suspect.layers))
        return layer_map(mean_table(self.forms))

    @cached_property
    def forms(self) -> Mapping[Form, Array]:
        """Cosines of every layer of the suspect with every one of the base in the best basis, by form."""
        return {} if self.best is None else self._forms_in(self.best)

    @cached_property
    def layer_basis(self) -> Basis | None:
        """A basis on which embeddings had no say, fitted on MLP units of layers that face each other in the map."""
        middle = [self.numbers(facing) for facing in self.facing[len(self.facing) // 2 :][:1]]
        basis = unit_basis(self.suspect, self.base, starts=middle, device=self.device, tables=self.unit_tables)
        return None if isinstance(basis, Refusal) else basis

    def map_in(self, basis: Basis) -> DepthMap:
        """Return the layer map in a basis, from the mean cosine of all forms."""
        return layer_map(mean_table(self._forms_in(basis)))

    def _forms_in(self, basis: Basis) -> Mapping[Form, Array]:
        read, write = self.whitened_in(basis)
        return form_similarities(self.suspect, self.base, read, FORMS, write)

    @cached_property
    def facing(self) -> list[Facing]:
        """Pairs of layers that face each other in the map."""
        return _facing(self.map)

    def facing_in(self, kind: BasisKind) -> list[Facing]:
        """Return the pairs of layers that face each other in one kind of basis; none where there is no such basis."""
        basis = self.basis(kind)
        return [] if isinstance(basis, Refusal) else _facing(self.map_in(basis))

    def spread(self, most: int) -> list[Facing]:
        """Return at most so many facing layers, spread over the depth."""
        return spread(self.facing, most)

    def numbers(self, facing: Facing) -> tuple[int, int]:
        """Return the numbers of two facing layers in their models."""
        return self.suspect.layers[facing.suspect], self.base.layers[facing.base]

    def layers(self, facing: Facing) -> tuple[Layer, Layer]:
        """Return the layers of a pair."""
        here, there = self.numbers(facing)
        return self.suspect.layer(here), self.base.layer(there)


def mean_table(forms: Mapping[Form, Array]) -> Array:
    """Return the mean over forms of their cosines, layer by layer; NaN where two layers have no form in common.

    Example:
        >>> mean_table({"qk": np.array([[0.5, np.nan]]), "vo": np.array([[0.1, np.nan]])}).tolist()
        [[0.3, nan]]
    """
    tables = np.stack(list(forms.values()))
    known = ~np.isnan(tables)
    total = np.where(known, tables, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _facing(depth_map: DepthMap) -> list[Facing]:
    return [Facing(row, partner) for row, partner in enumerate(depth_map.partners) if partner is not None]


def spread(facing: list[Facing], most: int) -> list[Facing]:
    """Return at most so many of a list, evenly spread, first and last among them."""
    return [facing[at] for at in _spread(len(facing), most)]


def _some(trunk: Trunk) -> Iterator[Layer]:
    return (trunk.layer(trunk.layers[at]) for at in _spread(len(trunk.layers), WHITENED_LAYERS))


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many positions, evenly spread, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})
