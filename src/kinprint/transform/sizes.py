"""Sizes of a model, changed in its geometry and in its config together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from kinprint.architecture import Geometry
from kinprint.architecture.family import Size
from kinprint.architecture.geometry import lookup
from kinprint.transform.state import ModelState


def resized(model: ModelState, sizes: Mapping[Size, int]) -> ModelState:
    """Return a model whose geometry and config say other sizes; its parts are as they were.

    A size goes where the family table looks for it: into the entry that the config has, else into the first one that
    it could have. A model without a config stays without one.
    """
    known = {size: number for size, number in sizes.items() if size in Geometry.__slots__}
    model = replace(model, geometry=replace(model.geometry, **known))
    for size, number in sizes.items():
        keys = [key.replace("{arch}", str(model.config.get("general.architecture", ""))) for key in _keys(model, size)]
        if keys and model.config:
            model = with_entry(model, next((key for key in keys if entry(model, key) is not None), keys[0]), number)
    return model


def entry(model: ModelState, key: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return what the config says of the language model under a key, None where it says nothing."""
    nested = _nested(model)
    return model.config.get(key) if nested is None or nested.get(key) is None else nested[key]


def with_entry(model: ModelState, key: str, value: object) -> ModelState:
    """Return a model whose config says something else: where it said so before, else where it speaks of language."""
    nested = _nested(model)
    if nested is None or (key in model.config and key not in nested):
        return replace(model, config={**model.config, key: value})
    return replace(model, config={**model.config, "text_config": {**nested, key: value}})


def size_in_config(model: ModelState, size: Size) -> int | None:
    """Return a size as the config has it, None where it does not say."""
    found = lookup(model.config, model.family, size) if size in model.family.geometry else None
    return None if found is None else int(found)


def _keys(model: ModelState, size: Size) -> tuple[str, ...]:
    return model.family.geometry.get(size, ())


def _nested(model: ModelState) -> Mapping[str, Any] | None:
    nested = model.config.get("text_config")
    return cast("Mapping[str, Any]", nested) if isinstance(nested, Mapping) else None
