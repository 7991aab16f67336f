"""What is left of each layer, part by part: one strip for each part, one cell for each layer of the suspect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from kinprint.report.figures.layers import MOST_LAYERS
from kinprint.report.figures.records import Figure, Grid, Missing
from kinprint.report.figures.tables import as_number, column, evidence, method, numbers, table
from kinprint.types import Comparison, LayerMatch

FORMS = {"qk": "Q with K", "vo": "V with O", "gate": "FFN gate", "ud": "FFN up with down"}
"""Forms of a layer by name in the record."""

STORED = {"attn.q": "Q", "attn.k": "K", "attn.v": "V", "attn.o": "O"}

MOST_EXPERTS = 8
"""Strips of experts: as many of each layer as were matched, which are few."""

CAPTION = (
    "Layers are set against those they face in the map of layers, norms and what stands 'as stored' against the layer "
    "of the same number. Q with K and V with O are products, since each can be mixed against the other without "
    "changing the model. An empty cell was not measured; 0 is what strangers have, 1 the same."
)

Strips = Mapping[str, Sequence[float | None]]


def parts(comparison: Comparison) -> Figure | Missing:
    """Return the strips of every part that the record holds by layer."""
    found = comparison.verdict.layer_map if comparison.verdict is not None else None
    layers = [one.suspect for one in found.layers] if found is not None else _numbered(comparison)
    layers = layers[:MOST_LAYERS]
    strips: dict[str, Sequence[float | None]] = {}
    for made in (_mapped(found.layers if found is not None else ()), _experts(comparison), _norms(comparison),
                 _stored(comparison)):  # fmt: skip
        for name, by_layer in made:
            values = [by_layer.get(layer) for layer in layers]
            if any(value is not None for value in values):
                strips[name] = values
    if not strips:
        return Missing("parts", "nothing was measured layer by layer; compare without --quick")
    return Figure(
        kind="parts",
        title=_finding(strips),
        caption=CAPTION,
        panels=(
            Grid(
                title="",
                across="layer of the suspect",
                down="",
                columns=tuple(map(str, layers)),
                rows=tuple(strips),
                cells=tuple(tuple(values) for values in strips.values()),
                scale="similarity",
                square=False,
            ),
        ),
    )


def _finding(strips: Strips) -> str:
    means = {name: sum(known) / len(known) for name, values in strips.items() if (known := _known(values))}
    least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if len(means) == 1:
        return f"{most}: {means[most]:.2f} of 1, mean over layers."
    return f"Most alike over all layers: {most} ({means[most]:.2f} of 1); least: {least} ({means[least]:.2f})."


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _numbered(comparison: Comparison) -> list[int]:
    return list(range(comparison.suspect.geometry.layers or 0))


# -- sources: each gives strips by name, numbers by layer --------------------------------------------------------------

_Strip = tuple[str, dict[int, float | None]]


def _mapped(layers: Sequence[LayerMatch]) -> Iterator[_Strip]:
    taken: list[tuple[str, Callable[[LayerMatch], float | None]]] = [
        ("heads, matched", lambda one: one.heads),
        *((words, lambda one, form=form: one.forms.get(form)) for form, words in FORMS.items()),
        ("units, matched", lambda one: one.units),
    ]
    for name, take in taken:
        yield name, {one.suspect: take(one) for one in layers}


def _experts(comparison: Comparison) -> Iterator[_Strip]:
    """Yield the experts that were matched, one strip for each of those a layer was sampled by."""
    one = evidence(comparison, "matched-units")
    held = None if one is None else table(one.tables, "experts of facing layers")
    if held is None:
        return
    found: dict[str, dict[int, float | None]] = {}
    for layer, expert, size in zip(*(column(held, name) for name in ("suspect", "expert", "size")), strict=False):
        if isinstance(layer, int) and isinstance(expert, int):
            found.setdefault(f"expert {expert}", {})[layer] = as_number(size)
    yield from list(found.items())[:MOST_EXPERTS]


def _norms(comparison: Comparison) -> Iterator[_Strip]:
    result = method(comparison, "layernorm")
    held = None if result is None else table(result.tables, "Norm gains by layer")
    if held is None:
        return
    found: dict[str, dict[int, float | None]] = {}
    cells = zip(column(held, "norm"), column(held, "layer"), numbers(held, "centred cosine"), strict=False)
    for norm, layer, cosine in cells:
        if isinstance(layer, int):
            found.setdefault(f"{norm} gains, centred", {})[layer] = cosine
    yield from found.items()


def _stored(comparison: Comparison) -> Iterator[_Strip]:
    """Yield what tensor-cosine says of each matrix in its stored order, where it was asked for."""
    result = method(comparison, "tensor-cosine")
    held = None if result is None else table(result.tables, "Centred cosine, layer by role")
    if held is None:
        return
    layers = column(held, "layer")
    for role in held.columns[1:]:
        if role.startswith(("attn.", "mlp.", "moe.")):
            by_layer = dict(zip(layers, numbers(held, role), strict=False))
            yield f"{STORED.get(role, role)} as stored", {at: by_layer[at] for at in by_layer if isinstance(at, int)}
