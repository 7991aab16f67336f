"""kinprint: decide from weights whether one language model was derived from another, and show the evidence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kinprint.version import __version__

if TYPE_CHECKING:
    from kinprint.api import compare, fingerprint
    from kinprint.api import open_model as open  # noqa: A004 - the public name is kinprint.open

__all__ = ["__version__", "compare", "fingerprint", "open"]

_PUBLIC = {"compare": "compare", "fingerprint": "fingerprint", "open": "open_model"}


def __getattr__(name: str) -> object:
    """Load the API on first use, so that importing the package (and ``--help``) stays fast."""
    if name in _PUBLIC:
        return getattr(import_module("kinprint.api"), _PUBLIC[name])
    raise AttributeError(f"module 'kinprint' has no attribute {name!r}")
