"""Premise: spectra of single matrices move under changes that keep the function, spectra of the products do not.

For each function-preserving transformation, the relative change of each spectrum, ||s' - s|| / ||s||, the largest over
layers. Everything is computed in float64, so that what stays is at the level of rounding (1e-16 for a single matrix,
some 1e-9 for a product, whose values come from a Gram matrix).

Source of the premise: GhostSpec, arXiv 2511.06390. The products there are not folded: norm gains are not mentioned.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kinprint.bench.premises.models import SEED, Models, Real, Told, matrix_keys, some_layers, spread_layers
from kinprint.bench.premises.records import Grid, HeatMap, Premise, unmeasured
from kinprint.checkpoint import Array
from kinprint.spectra import attention_spectra
from kinprint.transform import PRESERVING, ModelState, preserve
from kinprint.types import Cell, Table

NAME, REAL_NAME = "gauges", "gauges-real"
TITLE = "Products survive what single matrices do not"
REAL_TITLE = f"{TITLE}: a real model"
REAL_LAYERS = 2

SINGLE = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down")

PRODUCTS = {
    ("qk", False): "W_q^T W_k",
    ("vo", False): "W_o W_v",
    ("qk", True): "W_q^T W_k, folded",
    ("vo", True): "W_o W_v, folded",
}
"""Name of each product's spectrum by product and ``fold``."""

FLOOR = 1e-16
"""What is drawn in place of no change at all: the unit roundoff."""

NOTE = "relative change of each spectrum, the largest over layers; blank where the change would alter the model"


def measure(models: Models, tell: Told) -> Premise:
    """Try every transformation on every model that has something for it to act on."""
    roster = models.roster
    present = models.present(roster.gauged)
    if not present:
        return unmeasured(NAME, TITLE, f"needs one of {', '.join(roster.gauged)}")
    grids: list[Grid] = []
    for name in present:
        tell(f"gauges: {name}")
        grids.append(grid(name, models.read(name).state()))
    notes = (NOTE, *models.missing_note(roster.gauged))
    return _premise(NAME, TITLE, "premises-gauges", tuple(grids), notes)


def measure_real(real: Real, tell: Told) -> Premise:
    """Do the same on two layers of a real model."""
    tell(f"gauges: {real.name}")
    layers = spread_layers(real.state, REAL_LAYERS + 1)[:REAL_LAYERS]
    found = grid(real.name, some_layers(real.state, layers))
    notes = (NOTE, f"only layers {', '.join(map(str, layers))} of {real.state.geometry.layers}")
    return _premise(REAL_NAME, REAL_TITLE, "premises-gauges-real", (found,), notes)


def grid(name: str, state: ModelState) -> Grid:
    """Return the change of each spectrum (rows) under each transformation (columns); None where it does not apply."""
    before = spectra(state)
    columns: list[Mapping[str, float]] = []
    for transformation in PRESERVING.values():
        if transformation.obstacle(state) is not None:
            columns.append({})
            continue
        after = spectra(preserve(state, [transformation.name], np.random.default_rng(SEED)))
        columns.append({spectrum: _change(before[spectrum], after[spectrum]) for spectrum in before})
    return Grid(
        title=name,
        rows=tuple(before),
        columns=tuple(PRESERVING),
        values=tuple(tuple(column.get(spectrum) for column in columns) for spectrum in before),
    )


def spectra(state: ModelState) -> dict[str, Array]:
    """Return the spectra of single matrices and of the products, by name, [layers, values]."""
    found = {
        role: np.stack([np.linalg.svd(state.parts[key], compute_uv=False) for key in keys])
        for role, keys in matrix_keys(state, SINGLE).items()
    }
    model = state.view(np.float64)
    products = {fold: attention_spectra(model, fold=fold).arrays for fold in (False, True)}
    return found | {label: products[fold][product] for (product, fold), label in PRODUCTS.items()}


def _change(before: Array, after: Array) -> float:
    sizes_L = np.linalg.norm(before, axis=1)
    return float((np.linalg.norm(after - before, axis=1) / sizes_L).max()) if sizes_L.size else 0.0


def _premise(name: str, title: str, stem: str, grids: tuple[Grid, ...], notes: tuple[str, ...]) -> Premise:
    rows: list[tuple[Cell, ...]] = []
    for one in grids:
        rows += [(one.title, spectrum, *values) for spectrum, values in zip(one.rows, one.values, strict=True)]
    floored = tuple(
        one.model_copy(
            update={"values": tuple(tuple(None if v is None else max(v, FLOOR) for v in row) for row in one.values)}
        )
        for one in grids
    )
    return Premise(
        name=name,
        title=title,
        status="measured",
        tables={name: Table(title="change of spectra", columns=("model", "spectrum", *PRESERVING), rows=tuple(rows))},
        heat_maps=(
            HeatMap(
                name=stem,
                title="Relative change of spectra under changes that keep the function (log10)",
                grids=floored,
                low=-16.0,
                high=0.0,
                log=True,
            ),
        ),
        notes=notes,
    )
