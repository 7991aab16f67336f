"""kinprint: decide from weights whether one language model was derived from another, and show the evidence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kinprint.version import __version__

if TYPE_CHECKING:
    from kinprint.api import compare, fingerprint
    from kinprint.api import open_model as open  # noqa: A004 - the public name is kinprint.open
    from kinprint.behaviour.entry import behave

__all__ = ["__version__", "behave", "compare", "fingerprint", "open"]

_PUBLIC = {
    "behave": ("kinprint.behaviour.entry", "behave"),
    "compare": ("kinprint.api", "compare"),
    "fingerprint": ("kinprint.api", "fingerprint"),
    "open": ("kinprint.api", "open_model"),
}


def __getattr__(name: str) -> object:
    """Load the API on first use, so that importing the package (and ``--help``) stays fast."""
    if name in _PUBLIC:
        module, function = _PUBLIC[name]
        return getattr(import_module(module), function)
    raise AttributeError(f"module 'kinprint' has no attribute {name!r}")
