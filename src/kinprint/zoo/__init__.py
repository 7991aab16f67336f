"""Small models made for testing kinprint: trained for real, then derived from one another in known ways.

A suite is a tuple of recipes (data, see :mod:`kinprint.zoo.recipes`); building it writes one folder per model in the
usual Hugging Face layout and a manifest that says what each was made from.
"""

from kinprint.zoo.manifest import Manifest, ModelEntry
from kinprint.zoo.suite import build

__all__ = ["Manifest", "ModelEntry", "build"]
