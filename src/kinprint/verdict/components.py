"""What stands beside the language model, each judged on its own.

A vision tower, an encoder or a projector may be copied into a model that was trained from scratch: it is named beside
the verdict and does not make one.
"""

from __future__ import annotations

from kinprint.architecture import ModelView
from kinprint.evidence import identity, matched_tensors
from kinprint.types import ComponentVerdict
from kinprint.verdict import words


def towers(suspect: ModelView, base: ModelView) -> tuple[ComponentVerdict, ...]:
    """Return the verdict on every component that both models have, by their stored values.

    That is enough to recognise a copy, also a trained one, and never to clear one: a tower may have been permuted.
    """
    return tuple(
        _judged(title, suspect.components[title], base.components[title])
        for title in sorted(suspect.components.keys() & base.components.keys())
    )


def _judged(title: str, suspect: ModelView, base: ModelView) -> ComponentVerdict:
    same = identity.compare_values(suspect, base)
    if same.identical is not None:
        return ComponentVerdict(component=title, conclusion="identical", reason=words.identical(same.identical))
    tensors = matched_tensors.test(suspect, base)
    if tensors.status != "measured" or tensors.size is None or tensors.margin is None:
        reason = tensors.reason or "no matrices of one shape could be read"
        return ComponentVerdict(component=title, conclusion="not_comparable", reason=reason)
    said = f"matrices matched by content: size {tensors.size:z.3f}, margin {tensors.margin:.2f}"
    if tensors.beyond:
        return ComponentVerdict(component=title, conclusion="derived", reason=said)
    return ComponentVerdict(
        component=title, conclusion="inconclusive", reason=f"{said}; a copy turned or permuted would not be seen"
    )
