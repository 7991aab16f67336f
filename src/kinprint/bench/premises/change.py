"""Premise: large singular values stay and small ones move under further training.

Axes: L = layers, K = ranks, S = singular values.

The relative change of the k-th singular value, |s'_k - s_k| / s_k, for each matrix and for the folded products. By
Weyl's inequality no value moves by more than the norm of the change, so that the relative change of small values *may*
be larger whatever the training did. The control is therefore white noise: the same matrices plus Gaussian matrices of
the same Frobenius norm as the real change. Only what differs from that curve is a fact about training. A second
control is a stranger of the same shape, whose k-th value is set against the base's.

The premise is behind GhostSpec (arXiv 2511.06390), which keeps the leading values of a spectrum only.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from kinprint.architecture import ModelView
from kinprint.bench.premises.models import SEED, Models, Real, Told, gaussian, matrix_keys, smallness, spread_layers
from kinprint.bench.premises.records import Curves, Premise, Series, unmeasured
from kinprint.checkpoint import Array
from kinprint.linalg.bulk import Bulk, density, fit
from kinprint.spectra import attention_spectra
from kinprint.transform import ModelState
from kinprint.types import Cell, Table

NAME, REAL_NAME = "change", "bulk-real"
TITLE = "Large singular values stay, small ones move"
REAL_TITLE = "A bulk and its spikes, in a real model"
SOURCE = "GhostSpec, arXiv 2511.06390"

PRODUCTS = {"qk": "W_q^T W_k, folded", "vo": "W_o W_v, folded"}

CHANGE_COLUMNS = (
    "model", "matrix", "size of the change", "top tenth", "middle tenth", "last tenth", "noise: top tenth",
    "noise: middle tenth", "noise: last tenth",
)  # fmt: skip

BULK_COLUMNS = (
    "model", "matrix", "shape", "matrices", "KS distance", "spikes", "energy of spikes", "largest / edge",
    "control: KS distance", "control: spikes",
)  # fmt: skip

POINTS = 24
"""Of a curve over ranks: each is the median of some ranks, and of all layers."""

CONTROLS = 10
"""Gaussian matrices per role at most."""

MP_NOTE = (
    "bulk: Marchenko-Pastur, scale by the median of the singular values; a spike exceeds the edge by the Tracy-Widom "
    "margin (99 per cent); control: Gaussian matrices of the same shapes, judged the same way; numbers per matrix are "
    "means over layers"
)


REAL_NOTE = "weights as the file holds them: what a GGUF file rounded to few bits has the noise of that rounding"


def measure(models: Models, tell: Told) -> Premise:
    """Measure the premise on the base, its children, noise and a twin, and fit the base's bulk."""
    roster = models.roster
    names = (roster.base, *roster.children, *roster.twins[:1])
    if models.absent([roster.base]) or not models.present(roster.children):
        return unmeasured(NAME, TITLE, f"needs {roster.base} and one of {', '.join(roster.children)}")
    base = models.read(roster.base).state()
    rows: list[tuple[Cell, ...]] = []
    series: list[Series] = []
    skipped: list[str] = []
    for name in models.present(names[1:]):
        tell(f"change of spectra: {name}")
        other = models.read(name).state()
        if not _comparable(base, other):
            skipped.append(f"{name} has not the shapes of {roster.base}")
            continue
        change = relative_changes(base, other)
        # The size of the difference between strangers means nothing, nor would noise as large as it.
        noise = relative_changes(base, _noised(base, other)) if name in roster.children else {}
        rows += [_change_row(name, role, base, other, change, noise) for role in change]
        series += _lines(name, change)
        if name == roster.children[0]:
            series += _lines(f"noise as large as {name}", noise, dashed=True)
    picture = Curves(
        name="premises-change",
        title="Relative change of singular values by rank (medians)",
        x_label="rank / number of values",
        y_label="|s' - s| / s",
        y_log=True,
        series=tuple(series),
    )
    found = _bulk(roster.base, base, tell)
    return Premise(
        name=NAME,
        title=TITLE,
        status="measured",
        tables={
            "change-by-rank": Table(
                title="median relative change of singular values", columns=CHANGE_COLUMNS, rows=tuple(rows)
            ),
            "bulk": found[0],
        },
        curves=(picture, _bulk_picture("premises-bulk", roster.base, base)),
        notes=(MP_NOTE, smallness(base), *skipped, *models.missing_note(names)),
    )


def measure_real(real: Real, tell: Told) -> Premise:
    """Fit the bulk of every matrix of a real model: no second model is needed."""
    state = real.state
    table, spikes = _bulk(real.name, state, tell)
    by_layer = Curves(
        name="premises-spikes-real",
        title=f"Singular values above the edge, by layer: {real.name}",
        x_label="layer",
        y_label="spikes",
        series=tuple(
            Series(
                panel=f"{len(found)} layers",
                label=role,
                x=tuple(map(float, range(len(found)))),
                y=tuple(map(float, found)),
            )
            for role, found in spikes.items()
        ),
    )
    return Premise(
        name=REAL_NAME,
        title=REAL_TITLE,
        status="measured",
        tables={"bulk-real": table},
        curves=(_bulk_picture("premises-bulk-real", real.name, state), by_layer),
        notes=(MP_NOTE, REAL_NOTE),
    )


# -- change by rank ------------------------------------------------------------------------------------------------


def relative_changes(base: ModelState, other: ModelState) -> dict[str, Array]:
    """Return |s'_k - s_k| / s_k by matrix [L, K], and of the folded products; NaN where s_k is 0."""
    left, right = _spectra(base), _spectra(other)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {role: np.abs(right[role] - left[role]) / left[role] for role in left if role in right}
    return {role: np.where(np.isfinite(change), change, np.nan) for role, change in found.items()}


def _spectra(state: ModelState) -> dict[str, Array]:
    """Return the singular values of each matrix [L, S], by an SVD: a Gram matrix would lose the small ones."""
    singles = {
        role: np.stack([np.linalg.svd(state.parts[key], compute_uv=False) for key in keys])
        for role, keys in matrix_keys(state).items()
    }
    return singles | _products(state.view(np.float64))


def _products(model: ModelView) -> dict[str, Array]:
    found = attention_spectra(model, fold=True).arrays
    return {label: found[product] for product, label in PRODUCTS.items()}


def _comparable(base: ModelState, other: ModelState) -> bool:
    shapes = [{key: state.parts[key].shape for key in _all_keys(state)} for state in (base, other)]
    return shapes[0] == shapes[1]


def _all_keys(state: ModelState) -> list[Any]:
    return [key for keys in matrix_keys(state).values() for key in keys]


def _noised(base: ModelState, other: ModelState) -> ModelState:
    """Return the base plus white noise, in each matrix of the Frobenius norm that the other's change has."""
    rng = np.random.default_rng(SEED)
    noised: dict[Any, Array] = {}
    for key in _all_keys(base):
        noise = gaussian(rng, base.parts[key].shape)
        size = np.linalg.norm(other.parts[key] - base.parts[key])
        noised[key] = base.parts[key] + noise * (size / np.linalg.norm(noise))
    return base.updated(noised)


def _change_row(
    name: str, role: str, base: ModelState, other: ModelState, change: dict[str, Array], noise: dict[str, Array]
) -> tuple[Cell, ...]:
    keys = matrix_keys(base).get(role, [])
    sizes = [np.linalg.norm(other.parts[k] - base.parts[k]) / np.linalg.norm(base.parts[k]) for k in keys]
    size = float(np.mean(sizes)) if sizes else None
    return (name, role, size, *_tenths(change[role]), *(_tenths(noise[role]) if noise else (None, None, None)))


def _tenths(change_LK: Array) -> tuple[float | None, ...]:
    """Return the median over layers and ranks of the first, the middle and the last tenth of the ranks."""
    rank_LK = np.isfinite(change_LK)
    ranks = int(rank_LK.any(axis=0).sum())  # products are padded with zeros, whose relative change is NaN
    tenth, middle = max(1, ranks // 10), ranks // 2
    parts = (slice(0, tenth), slice(middle - tenth // 2, middle - tenth // 2 + tenth), slice(ranks - tenth, ranks))
    return tuple(float(np.nanmedian(change_LK[:, part])) if ranks else None for part in parts)


def _lines(name: str, change: dict[str, Array], *, dashed: bool = False) -> list[Series]:
    lines: list[Series] = []
    for role, change_LK in change.items():
        kept_LK = change_LK[:, np.isfinite(change_LK).any(axis=0)]
        ranks = kept_LK.shape[1]
        count = min(ranks, POINTS)
        pieces = list(pairwise(round(piece * ranks / count) for piece in range(count + 1)))
        x = tuple((first + end) / 2 / ranks for first, end in pieces)
        medians = [float(np.nanmedian(kept_LK[:, first:end])) for first, end in pieces]
        y = tuple(median if median > 0 else None for median in medians)
        lines.append(Series(panel=role, label=name, x=x, y=y, style="dashed" if dashed else "line"))
    return lines


# -- the bulk ------------------------------------------------------------------------------------------------------


def _bulk(name: str, state: ModelState, tell: Told) -> tuple[Table, dict[str, list[int]]]:
    """Return the table of fitted bulks by role, and the spikes by role and layer."""
    rng = np.random.default_rng(SEED)
    rows: list[tuple[Cell, ...]] = []
    spikes: dict[str, list[int]] = {}
    for role, keys in matrix_keys(state).items():
        tell(f"bulk and spikes: {name}, {role}")
        values = [np.linalg.svd(state.parts[key], compute_uv=False) for key in keys]
        shape = state.parts[keys[0]].shape
        bulks = [fit(value, shape) for value in values]
        fresh = [_fresh(shape, rng) for _ in keys[:CONTROLS]]
        spikes[role] = [bulk.spikes for bulk in bulks]
        energy = [float((v[v > b.edge] ** 2).sum() / (v**2).sum()) for v, b in zip(values, bulks, strict=True)]
        largest = [float(v.max() / b.edge) for v, b in zip(values, bulks, strict=True)]
        rows.append((
            name, role, f"{shape[0]} x {shape[1]}", len(keys), _mean(b.distance for b in bulks),
            _mean(b.spikes for b in bulks), _mean(energy), _mean(largest),
            _mean(b.distance for b in fresh), _mean(b.spikes for b in fresh),
        ))  # fmt: skip
    return Table(title="Marchenko-Pastur bulk and spikes", columns=BULK_COLUMNS, rows=tuple(rows)), spikes


def _fresh(shape: tuple[int, ...], rng: np.random.Generator) -> Bulk:
    return fit(np.linalg.svd(gaussian(rng, shape), compute_uv=False), (shape[0], shape[1]))


def _bulk_picture(stem: str, name: str, state: ModelState) -> Curves:
    layers = spread_layers(state, 3)
    layer = layers[len(layers) // 2]
    series: list[Series] = []
    rng = np.random.default_rng(SEED)
    for role, keys in matrix_keys(state).items():
        key = next((key for key in keys if key.layer == layer), keys[0])
        series += _histogram(role, state.parts[key])
    query_HN = state.parts[matrix_keys(state)["attn.q"][0]]
    control = gaussian(rng, query_HN.shape) * query_HN.std()
    series += _histogram("control: Gaussian, as attn.q", control)
    return Curves(
        name=stem,
        title=f"Singular values of {name}, layer {layer}, and the fitted Marchenko-Pastur law",
        x_label="singular value",
        y_label="density",
        series=tuple(series),
    )


def _histogram(panel: str, matrix: Array) -> list[Series]:
    values_S = np.linalg.svd(matrix, compute_uv=False)
    shape: tuple[int, int] = matrix.shape[0], matrix.shape[1]
    bulk: Bulk = fit(values_S, shape)
    heights, edges = np.histogram(values_S, bins=40, density=True)
    grid_P = np.linspace(bulk.lower, bulk.upper, 200)
    return [
        Series(panel=panel, label="singular values", x=_floats(edges), y=(*_floats(heights), 0.0), style="steps"),
        Series(panel=panel, label="fitted law", x=_floats(grid_P), y=_floats(density(grid_P, bulk, shape))),
        Series(panel=panel, label="edge", x=(bulk.edge,), y=(None,), style="edge"),
    ]


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))
