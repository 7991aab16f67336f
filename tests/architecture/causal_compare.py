"""What the checks of one traced model have in common: what was found, and how numbers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from causal_trace import Trace, Values

from kinprint.architecture import ModelView, PartKey

CLOSE = 1e-4
"""Share of the largest entry by which numbers may differ: the models compute in float32."""

CHECKS = ("mapped", "saved", "qkv", "o", "mlp", "experts")


@dataclass
class Examined:
    """What the checks found in one class.

    Attributes:
        complaints: By check, what is wrong; a check without an entry had nothing to do.
        done: By check, how many times it compared.
        weak: How many projections were compared with their own module only, because what attention takes is not a
            norm or a multiple of them.
    """

    name: str
    model_type: str = ""
    family: str = ""
    coverage: float = 0.0
    layouts: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    fault: str = ""
    complaints: dict[str, list[str]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    weak: int = 0

    def note(self, check: str, wrong: str = "") -> None:
        """Count one comparison, and what is wrong with it."""
        self.done[check] = self.done.get(check, 0) + 1
        if wrong:
            self.complaints.setdefault(check, []).append(wrong)


def close(found: Values, wanted: Values) -> bool:
    """Return whether numbers agree to ``CLOSE`` of the largest."""
    return found.shape == wanted.shape and bool(
        np.abs(found - wanted).max(initial=0.0) <= CLOSE * max(np.abs(wanted).max(initial=0.0), 1e-6)
    )


def parallel(found: Values, wanted: Values) -> bool:
    """Return whether numbers agree up to one positive factor (a scaling of attention)."""
    if found.shape != wanted.shape:
        return False
    scale = float(found @ wanted) / max(float(wanted @ wanted), 1e-12)
    return scale > 0 and close(found, scale * wanted)


def owner(model: ModelView, role: str, layer: int | None, expert: int | None = None) -> str:
    """Return the path of the module that owns a part's tensor."""
    return model.tensor_name(role, layer, expert).rpartition(".")[0]


def linear(model: ModelView, role: str, layer: int | None, values: Values, expert: int | None = None) -> Values:
    """Apply a part and its bias."""
    out = model.array(role, layer, expert).astype(np.float64) @ values
    bias = f"{role}.bias"
    return out + model.array(bias, layer, expert) if model.has(bias, layer, expert) else out


def normed(model: ModelView, norm: str, layer: int, values: Values, width: int) -> Iterator[Values]:
    """Yield what a q or k norm of any usual kind makes of values: by head or over all rows, centred or not."""
    gain = model.gain(norm, layer).reshape(-1) if norm and model.has(norm, layer) else None
    shift = f"{norm}.bias"
    bias = model.array(shift, layer).reshape(-1) if norm and model.has(shift, layer) else None
    for size in {width, values.size}:
        if size == 0 or values.size % size:
            continue
        for centred in (False, True):
            blocks = values.reshape(-1, size)
            blocks = blocks - blocks.mean(axis=1, keepdims=True) if centred else blocks
            unit = blocks / np.sqrt((blocks**2).mean(axis=1, keepdims=True) + 1e-12)
            if gain is None:
                yield unit.reshape(-1)
            elif values.size % gain.size == 0:
                repeats = values.size // gain.size
                yield unit.reshape(-1) * np.tile(gain, repeats) + (0.0 if bias is None else np.tile(bias, repeats))


def behind(seen: Trace, values: Values) -> list[Values]:
    """Return what modules made of these values: a norm of the rows that carry positions."""
    return [
        seen.outputs[path]
        for path, taken in seen.inputs.items()
        if path in seen.outputs and seen.outputs[path].shape == values.shape and close(taken, values)
    ]


def before(seen: Trace, at: str, values: Values) -> list[Values]:
    """Return what modules beside the one at a path took where they gave these values: a norm in between."""
    around = at.rpartition(".")[0] + "."
    return [
        seen.inputs[path]
        for path, given in seen.outputs.items()
        if path.startswith(around) and path != at and path in seen.inputs and close(given, values)
    ]


def plain(model: ModelView, role: str, layer: int) -> bool:
    rule = model.parts[PartKey(role, layer)].rule
    return len(rule.parts) == 1 and not rule.stacked
