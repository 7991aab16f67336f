"""Transformations of a model without training, generated from its family table.

Function-preserving ones (:mod:`~kinprint.transform.preserving`) have two uses: property tests of what each method
declares to ignore, and attacks that a verdict must survive. Damaging ones (:mod:`~kinprint.transform.cutting`,
:mod:`~kinprint.transform.damaging`, :mod:`~kinprint.transform.merging`, :mod:`~kinprint.transform.upcycling`,
:mod:`~kinprint.transform.vocabulary`) change the function: they make the derived models on which methods are judged.
"""

from kinprint.transform.preserving import PRESERVING, Transform, preserve
from kinprint.transform.state import ModelState

__all__ = ["PRESERVING", "ModelState", "Transform", "preserve"]
