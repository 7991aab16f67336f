"""A whole model in memory, by role, in float64: what transformations start from and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kinprint.architecture import Family, Geometry, ModelView, PartKey, Rule, layout, view
from kinprint.checkpoint import Array, MemoryCheckpoint
from kinprint.errors import UsageError


@dataclass(frozen=True, slots=True)
class ModelState:
    """Every part of one model. Meant for small models: all of it is in memory, in float64.

    Attributes:
        family: The table that names the parts and their axes.
        prefix: What the table's ``{p}`` stands for.
        geometry: Sizes.
        config: The model's config.
        parts: Canonical arrays, [out, in] or [out].
        rules: The rule that stores each role.
        extra: Tensors that are no parameters (masks, tables), kept as they are.
        vocabulary: Token strings by id, if known.
    """

    family: Family
    prefix: str
    geometry: Geometry
    config: Mapping[str, Any]
    parts: Mapping[PartKey, Array]
    rules: Mapping[str, Rule]
    extra: Mapping[str, Array]
    vocabulary: tuple[str, ...] | None = None

    @classmethod
    def from_view(cls, model: ModelView) -> ModelState:
        """Load a model.

        Raises:
            UsageError: A tensor has no role, so nothing that is done to the others is known to keep the function.
        """
        if model.family.name == "unknown" or model.unmapped:
            first = model.unmapped[0] if model.unmapped else "every tensor"
            raise UsageError(f"cannot transform {model.checkpoint.name}: {first} has no role in a family table")
        return cls(
            family=model.family,
            prefix=model.prefix,
            geometry=model.geometry,
            config=model.checkpoint.config,
            parts={key: _double(model.stored(key.role, key.layer, key.expert)) for key in model.parts},
            rules={key.role: place.rule for key, place in model.parts.items()},
            extra={name: model.checkpoint.read(name) for name in model.checkpoint.tensors if _is_extra(model, name)},
            vocabulary=model.checkpoint.vocabulary,
        )

    def axes(self, key: PartKey) -> tuple[str, ...]:
        """Return the names of a part's axes, with its layer and expert filled in."""
        part = next(part for part in self.rules[key.role].parts if part.role == key.role)
        names = (part.out, part.input) if part.input else (part.out,)
        return tuple(name.format(layer=key.layer, expert=key.expert) for name in names)

    def axis_names(self) -> list[str]:
        """Return every axis that occurs, sorted."""
        return sorted({axis for key in self.parts for axis in self.axes(key)})

    def along(self, axis: str) -> Iterator[tuple[PartKey, int]]:
        """Yield (part, position of the axis in it) for every part that has an axis."""
        for key in self.parts:
            for position, name in enumerate(self.axes(key)):
                if name == axis:
                    yield key, position

    def reads(self, key: PartKey) -> PartKey | None:
        """Return the norm whose gain feeds a part, if the model has it."""
        part = next(part for part in self.rules[key.role].parts if part.role == key.role)
        if not part.reads:
            return None
        for norm in (PartKey(part.reads, key.layer), PartKey(part.reads)):
            if norm in self.parts:
                return norm
        return None

    def gain(self, norm: PartKey) -> Array:
        """Return the effective gain of a norm, [out]."""
        return self.parts[norm] + (1.0 if self.family.gain == "zero-centred" else 0.0)

    def updated(self, changed: Mapping[PartKey, Array]) -> ModelState:
        """Return the model with some parts replaced or added."""
        return replace(self, parts={**self.parts, **changed})

    def mapped(self, axis: str, change: Callable[[Array, int, PartKey], Array]) -> ModelState:
        """Return the model with ``change(array, position, part)`` applied wherever an axis occurs."""
        return self.updated({key: change(self.parts[key], position, key) for key, position in self.along(axis)})

    def untied(self) -> ModelState:
        """Return the model with an output matrix of its own, where it used the token embedding."""
        embedding, output = PartKey("embed.token"), PartKey("unembed")
        rule = next((r for r in self.family.tensor if r.parts[0].role == "unembed"), None)
        if output in self.parts or embedding not in self.parts or rule is None:
            return self
        return replace(
            self,
            parts={**self.parts, output: self.parts[embedding]},
            rules={**self.rules, "unembed": rule},
            config={**self.config, "tie_word_embeddings": False},
        )

    def checkpoint(self, dtype: Any = np.float32, *, name: str = "memory") -> MemoryCheckpoint:  # noqa: ANN401 - any dtype
        """Return the model as named tensors in the family's own layout, rounded to ``dtype``."""
        gathered: dict[str, tuple[Rule, dict[int, dict[int, Array]]]] = {}
        for key, array in self.parts.items():
            rule = self.rules[key.role]
            stored = rule.name.replace("{p}", self.prefix).format(layer=key.layer, expert=key.expert)
            index = next(i for i, part in enumerate(rule.parts) if part.role == key.role)
            expert = (key.expert or 0) if rule.stacked else 0
            gathered.setdefault(stored, (rule, {}))[1].setdefault(expert, {})[index] = array
        tensors = {
            stored: layout.join(
                [[parts[expert][i] for i in sorted(parts[expert])] for expert in sorted(parts)], rule, self.geometry
            ).astype(dtype)
            for stored, (rule, parts) in gathered.items()
        }
        return MemoryCheckpoint({**tensors, **self.extra}, config=self.config, vocabulary=self.vocabulary, name=name)

    def view(self, dtype: Any = np.float32, *, name: str = "memory") -> ModelView:  # noqa: ANN401 - any dtype
        """Return the model as a view again."""
        return view(self.checkpoint(dtype, name=name))


def _double(stored: Array) -> Array:
    return np.array(stored, dtype=np.float64)


def _is_extra(model: ModelView, name: str) -> bool:
    return name in model.ignored or not model.checkpoint.tensors[name].floating
