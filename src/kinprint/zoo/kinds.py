"""What a kind of derivation is, and how one is written in words: ``prune:method=wanda,share=0.5``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from kinprint.errors import UsageError
from kinprint.types import Record
from kinprint.zoo.model import Model


@dataclass(frozen=True, slots=True)
class Context:
    """What a derivation may use besides the model and its settings.

    Attributes:
        rng: Where everything random comes from.
        text: Returns a training text by its name.
        model: Returns another model by its name in the suite, or by its path.
        tell: Hears ``tell(what, done)``; ``done`` counts up to the kind's work.
    """

    rng: np.random.Generator
    text: Callable[[str], bytes]
    model: Callable[[str], Model]
    tell: Callable[[str, int], None]


class Settings(Record):
    """Settings of a kind. One that needs other models has them in ``others``; lists are written ``a+b+c``."""

    @property
    def work(self) -> int:
        """Units of work for a progress bar; for training, updates."""
        return 1


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to derive a model from another.

    Attributes:
        name: What recipes and the command line call it.
        summary: What it does, in one line.
        settings: Its settings with their defaults.
        apply: The derived model.
        preserving: Whether the function stays as it was; then the logits are checked.
        keeps_weights: Whether weights of the model are left; not so for a student that starts from random ones.
    """

    name: str
    summary: str
    settings: type[Settings]
    apply: Callable[[Model, Any, Context], Model]
    preserving: bool = False
    keeps_weights: bool = True

    def describe_settings(self) -> str:
        """Return the settings with their defaults, as the command line writes them."""
        fields = self.settings.model_fields.items()
        return ", ".join(name if field.is_required() else f"{name}={_written(field.default)}" for name, field in fields)


@dataclass(frozen=True, slots=True)
class Step:
    """A kind with its settings: one link of a chain."""

    kind: Kind
    settings: Settings

    @property
    def others(self) -> tuple[str, ...]:
        """Other models that it needs, by name or path."""
        return getattr(self.settings, "others", ())


def _written(value: object) -> str:
    return "+".join(str(part) for part in value) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def listed(value: object) -> object:
    """Split ``a+b+c`` into its words: how a list is written in a kind's settings. Use as a ``BeforeValidator``."""
    return tuple(word for word in value.split("+") if word) if isinstance(value, str) else value


def parse(words: str, kinds: dict[str, Kind]) -> Step:
    """Read a kind with its settings.

    Args:
        words: ``NAME`` or ``NAME:setting=value,setting=value``.
        kinds: Every kind by name.

    Raises:
        UsageError: An unknown kind or setting, or a value that the setting cannot have.
    """
    name, _, rest = words.partition(":")
    if name not in kinds:
        raise UsageError(f"unknown kind {name!r}: choose from {', '.join(kinds)}")
    kind = kinds[name]
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise UsageError(f"kind {words!r}: {bad[0]!r} has no value: write {name}:setting=value,setting=value")
    try:
        return Step(kind, kind.settings.model_validate({key: value for key, _, value in pairs}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its settings"
        known = ", ".join(kind.settings.model_fields) or "none"
        raise UsageError(f"kind {words!r}: {where}: {first['msg']} (settings: {known})") from None
