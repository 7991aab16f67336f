"""Which tensor plays which role: family tables (data), and the view of a model by role."""

from kinprint.architecture.family import UNKNOWN, Axis, Family, LabelGroup, Part, Rule, families
from kinprint.architecture.geometry import Geometry
from kinprint.architecture.recognise import view, view_like
from kinprint.architecture.view import ModelView, PartKey, Place

__all__ = [
    "UNKNOWN",
    "Axis",
    "Family",
    "Geometry",
    "LabelGroup",
    "ModelView",
    "Part",
    "PartKey",
    "Place",
    "Rule",
    "families",
    "view",
    "view_like",
]
