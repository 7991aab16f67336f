"""Function-preserving transformations of a model, generated from its family table.

They have two uses: property tests of what each method declares to ignore, and attacks that a verdict must survive.
"""

from kinprint.transform.preserving import PRESERVING, Transform, preserve
from kinprint.transform.state import ModelState

__all__ = ["PRESERVING", "ModelState", "Transform", "preserve"]
