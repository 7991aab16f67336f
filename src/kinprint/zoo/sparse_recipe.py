"""What a sparse checkpoint holds where: the values of every unit, or that it is a hole."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from kinprint.checkpoint import Array, Checkpoint
from kinprint.errors import UsageError
from kinprint.zoo.sparse_plan import Unit, sized
from kinprint.zoo.sparse_shapes import Shape
from kinprint.zoo.sparse_values import Rows, Taken, derived, drawn, laundering, source_expert, stream, upcycling

Kind = Literal["stranger", "finetuned", "upcycled", "laundered"]

_SAMPLE = 4096
"""Values of a base's unit that are looked at to tell data from a hole."""


def filled_layers(
    shape: Shape | str,
    seed: int,
    *,
    layers: int | None = None,
    filled: int | None = 6,
    filled_experts: int | None = 8,
) -> dict[int, tuple[int, ...]]:
    """Return which layers hold data, and which experts of each; a dense layer has none.

    Args:
        shape: A shape or its name.
        seed: The checkpoint's seed.
        layers: As in :func:`write_sparse`, like the others.
        filled: How many layers hold data.
        filled_experts: How many experts.

    Raises:
        UsageError: There is no such shape, or it has fewer layers.
    """
    found = sized(shape, layers)
    count = found.layers if filled is None else min(filled, found.layers)
    chosen = sorted(stream(seed, "filled").permutation(found.layers)[:count].tolist())
    return {layer: _experts(found, seed, layer, filled_experts) for layer in chosen}


def _experts(shape: Shape, seed: int, layer: int, count: int | None) -> tuple[int, ...]:
    if not shape.is_mixture(layer):
        return ()
    return tuple(sorted(stream(seed, "filled", layer).permutation(shape.experts)[:count].tolist()))


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint that another comes from, unit by unit."""

    checkpoint: Checkpoint
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, unit: Unit, expert: int | None) -> Array | None:
        """Return a unit's values, or None where there is a hole.

        Args:
            unit: The unit.
            expert: The expert of the base that it comes from, which may have another number.

        Raises:
            UsageError: The base has no such tensor.
            CheckpointError: It cannot be read.
        """
        where, tensors, name = self.checkpoint.location, self.checkpoint.tensors, unit.name
        if expert is not None:
            name = name.replace(f".experts.{unit.expert}.", f".experts.{expert}.")
        with self.lock:
            if name in tensors:
                values = self.checkpoint.read(name)
            elif expert is not None and (stacked := unit.stacked)[0] in tensors:
                values = self.checkpoint.read(stacked[0], slice(expert, expert + 1))
                values = values.reshape(values.shape[-2:])[stacked[1] * unit.shape[0] :][: unit.shape[0]]
            else:
                raise UsageError(f"{where} has no tensor {name}: give a base of the same shape")
        if values.shape != unit.shape:
            raise UsageError(
                f"{where}: {name} has shape {list(values.shape)}, not {list(unit.shape)}: give a base of the same shape"
            )
        return values if np.any(values.ravel()[:_SAMPLE]) else None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is written where.

    Attributes:
        shape: Of the checkpoint, with as many layers as it has.
        kind: What it is to its base.
        seed: Seed of everything drawn.
        base: What it comes from.
        filled: Without a base: layers that hold data, and experts of each.
        experts: How many experts hold data where they come from a dense base; all when None.
        embeddings: Whether embedding and output matrix may hold data.
        change: Size of the noise, relative to what it lies on.
    """

    shape: Shape
    kind: Kind
    seed: int
    base: Base | None
    filled: Mapping[int, tuple[int, ...]]
    experts: int | None
    embeddings: bool
    change: float

    def rows(self, unit: Unit) -> Rows | None:
        """Return the values of a unit, or None for a hole.

        Raises:
            UsageError: The base does not fit.
            CheckpointError: The base cannot be read.
        """
        if unit.role in ("embed", "output") and not self.embeddings:
            return None
        if self.base is None:
            return drawn(self.shape, unit, self.seed) if self._is_filled(unit) else None
        match self.kind:
            case "stranger":
                return drawn(self.shape, unit, self.seed) if self.base.read(unit, unit.expert) is not None else None
            case "finetuned":
                return self._changed(unit, self.base.read(unit, unit.expert), Taken())
            case "laundered":
                source = self.base.read(unit, source_expert(self.shape, unit, self.seed))
                return self._changed(unit, source, laundering(self.shape, unit, self.seed))
            case "upcycled":
                return self._upcycled(unit, self.base)

    def _is_filled(self, unit: Unit) -> bool:
        if unit.role == "output":
            return len(self.filled) == self.shape.layers
        if unit.layer is None:
            return True
        experts = self.filled.get(unit.layer)
        return experts is not None and (unit.expert is None or unit.expert in experts)

    def _changed(self, unit: Unit, source: Array | None, taken: Taken) -> Rows | None:
        return None if source is None else derived(source, taken, unit, change=self.change, seed=self.seed)

    def _upcycled(self, unit: Unit, base: Base) -> Rows | None:
        dense, hidden = self.shape.intermediate, self.shape.hidden
        if unit.layer is None or not self.shape.is_mixture(unit.layer):
            return self._changed(unit, base.read(unit, None), Taken())
        stem = f"model.layers.{unit.layer}"
        match unit.role:
            case "router" | "router.bias":
                norm = Unit(f"{stem}.input_layernorm.weight", "norm", (hidden,), unit.layer)
                return drawn(self.shape, unit, self.seed) if base.read(norm, None) is not None else None
            case "gate" | "up" | "down":
                if unit.expert not in (None, *_experts(self.shape, self.seed, unit.layer, self.experts)):
                    return None
                mlp = Unit(f"{stem}.mlp.{unit.role}_proj.weight", unit.role, (dense, hidden), unit.layer)
                mlp = replace(mlp, shape=mlp.shape[::-1]) if unit.role == "down" else mlp
                return self._changed(unit, base.read(mlp, None), upcycling(unit, dense, self.seed))
            case _:
                return self._changed(unit, base.read(unit, None), Taken())
