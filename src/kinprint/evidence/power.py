"""Would a copy have been seen? Copies planted in the suspect's own weights, and put through the same matched tests.

A planted copy is a layer of the suspect fine-tuned and pruned by simulation: Gaussian noise whose norm is half that of
each matrix (relative change .5), then the smaller half of each matrix set to zero. It stands against the layer that it
was made from, as a suspect stands against its base. Gains are folded before, so that all weights change alike. The
copies are not scrambled as well: the tests do not change under permutation, rotation and rescaling, which is proved by
tests of this package on generated transformations, and the basis in which they are judged is one that no scrambling
touches (fitted on tokens or on units, never the stored one).

What is counted is how many are found beyond the margin. The bound is Clopper and Pearson's, one-sided, 95 %.

Source: Clopper & Pearson, Biometrika 26 (1934). Planting in the suspect's own weights: the weights that matter are
those with this model's spectra and outliers, not Gaussian ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from kinprint.alignment.basis import Basis, Refusal, token_basis
from kinprint.alignment.forms import WIDE_DIRECTIONS, Form, FormValue
from kinprint.alignment.trunk import Attention, Layer, Trunk, Units, forms_of
from kinprint.alignment.unit_basis import unit_basis
from kinprint.alignment.whitening import brought_into, whitened
from kinprint.checkpoint import Array
from kinprint.evidence.pair import Pair
from kinprint.evidence.population import innocents
from kinprint.evidence.sizes import matched_heads, matched_units
from kinprint.linalg.threads import side_by_side
from kinprint.types import Planting, Power

PLANTINGS = 300
"""All of them seen puts the lower end of the interval at .99."""

REQUIRED = 0.99
RELATIVE_CHANGE = 0.5
PRUNED = 0.5
BASES = 6
"""Draws of the noise for which a basis is fitted anew; plantings take turns among them."""

LAYERS = 6
"""Most layers that copies are planted in, spread over the depth."""

UNITS = 192
"""Units of a planted MLP: fewer are harder to find, and quicker."""

TOKENS = 1024

WIDE_GROUPS, WIDE_HEAD_ROWS, WIDE_UNITS, WIDE_BASES, WIDE_TOKENS, WIDE_AXES = 2, 16, 32, 2, 512, 128
"""The same of wide models: key/value groups of a planted layer and rows of each, units, bases, tokens and directions of
the basis. With fewer of them chance is larger and a copy no easier to see, so what is counted is no more than would be
seen."""

MEDIAN_OF = 1 << 14
"""Entries, drawn at random, that the median of a larger matrix is taken from: half of it to a per cent."""

CHANGE = "relative change .5 (Gaussian), then half of each matrix set to zero; scrambled in any way or not"

NOT_EXCLUDED = (
    "training so long that nothing of the weights is left, which is training from scratch",
    "distillation and training on a model's answers, which copy behaviour and no weights",
    "parts of the base below the margin: less than about a tenth of the trunk, unless a single layer stands out",
    "a copied embedding under a trunk of its own, if it was rotated",
)


def power(pair: Pair, *, seed: int = 0) -> Power:
    """Return how often copies planted in the suspect would have been seen in a test against their origin.

    Args:
        pair: The pair; tokens are used where it has them, as in the test itself.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    trunk = pair.suspect
    last = len(trunk.layers) - 1
    numbers = [trunk.layers[at] for at in sorted({round(last * step / (LAYERS - 1)) for step in range(LAYERS)})]
    originals = {number: _cut(trunk.layer(number), rng, wide=trunk.wide) for number in numbers}
    tokens = WIDE_TOKENS if trunk.wide else TOKENS
    rows = None if isinstance(pair.token_rows, Refusal) else pair.token_rows[0][:tokens]
    draws = WIDE_BASES if trunk.wide else BASES
    bases = [_basis(trunk, originals[numbers[draw % len(numbers)]], rows, rng) for draw in range(draws)]
    margins = {name: innocents().margin(name) for name in ("heads", "units")}
    against = {
        (at, draw): _against(originals[number], both)
        for at, number in enumerate(numbers)
        for draw, both in enumerate(bases)
        if both is not None
    }

    def is_seen(planting: tuple[int, np.random.Generator]) -> bool:
        turn, noise = planting
        at, draw = turn % len(numbers), turn % draws
        if (at, draw) not in against:
            return False
        original, both = against[at, draw]
        copy = _changed(originals[numbers[at]], noise)
        found = {"heads": matched_heads(copy, original, *both), "units": matched_units(copy, original, *both)}
        return any(size is not None and size > margins[name] for name, size in found.items())

    plantings = enumerate(rng.spawn(PLANTINGS))
    # Side by side where there is work for it: see side_by_side.
    seen = sum(side_by_side(is_seen, plantings) if trunk.wide else map(is_seen, plantings))
    return Power(
        plantings=(Planting(change=CHANGE, plantings=PLANTINGS, seen=seen, lower_bound=lower_bound(seen, PLANTINGS)),),
        sufficient=seen >= REQUIRED * PLANTINGS,
        not_excluded=NOT_EXCLUDED,
    )


def lower_bound(seen: int, plantings: int) -> float:
    """Return the lower end of the one-sided 95 % Clopper-Pearson interval of a share.

    Example:
        >>> round(lower_bound(300, 300), 4)
        0.9901
    """
    if seen in (0, plantings):
        return 0.05 ** (1 / plantings) if seen else 0.0  # as below, without scipy's import
    from scipy import special  # pyright: ignore[reportMissingTypeStubs] - a tenth of the time of scipy.stats

    return float(cast("Any", special).betaincinv(seen, plantings - seen + 1, 0.05))


def _basis(trunk: Trunk, original: Layer, rows: Array | None, rng: np.random.Generator) -> tuple[Basis, Basis] | None:
    """Return the whitened basis that would be found between a planted copy and its origin, without the stored one."""
    planted, source = (_One(trunk, layer) for layer in (_changed(original, rng), original))
    found = Refusal("no shared tokens") if rows is None else token_basis((damaged(rows, rng), rows))
    enough = WIDE_DIRECTIONS if trunk.wide else trunk.width
    if isinstance(found, Refusal) or len(rows if rows is not None else ()) < enough:
        found = unit_basis(planted, source)
    if isinstance(found, Refusal):
        return None
    if trunk.wide:
        found = replace(found, suspect_AK=found.suspect_AK[:, :WIDE_AXES], base_BK=found.base_BK[:, :WIDE_AXES])
    return whitened([planted.layer(0)], [source.layer(0)], found)


def _against(original: Layer, both: tuple[Basis, Basis]) -> tuple[Layer, tuple[Basis, Basis]]:
    """Return a layer brought into the bases for reading and writing, and the bases in which copies stand against it."""
    read, write = both
    turned = brought_into(original, read.base_BK, write.base_BK)
    own = tuple(replace(basis, base_BK=np.eye(basis.directions, dtype=np.float32)) for basis in both)
    return turned, (own[0], own[1])


class _One(Trunk):
    """A trunk of one layer that is in memory."""

    def __init__(self, like: Trunk, layer: Layer) -> None:
        super().__init__(like.view)
        self.layers = [0]
        self._held = layer
        self._made = forms_of(layer)

    def layer(self, number: int) -> Layer:
        del number
        return self._held

    def forms(self, number: int) -> Mapping[Form, FormValue]:
        del number
        return self._made


def _cut(layer: Layer, rng: np.random.Generator, *, wide: bool) -> Layer:
    """Return a layer with few of its units (and heads), so that many copies can be made of it."""
    mlps: list[Units] = []
    for units in layer.mlps[:1]:
        chosen = _some(len(units.up_FD), WIDE_UNITS if wide else UNITS, rng)
        gate = None if units.gate_FD is None else units.gate_FD[chosen]
        mlps.append(Units(gate, units.up_FD[chosen], units.down_FD[chosen]))
    attention = layer.attention
    if wide and attention is not None and attention.heads == attention.kv_heads:
        attention = _some_heads(attention, rng)
    return Layer(attention, tuple(mlps))


def _some_heads(attention: Attention, rng: np.random.Generator) -> Attention:
    groups = _some(attention.heads, WIDE_GROUPS, rng)

    def cut(left: Array, right: Array) -> tuple[Array, Array]:
        # Rows of two matrices that belong together: a form is the sum of their outer products.
        size = len(left) // attention.heads
        rows = (groups[:, None] * size + _some(size, WIDE_HEAD_ROWS, rng)).ravel()
        return left[rows], right[rows]

    q, k = cut(attention.q_HD, attention.k_KD)
    o, v = cut(attention.o_HD, attention.v_KD)
    return Attention(q, k, v, o, len(groups), len(groups))


def _some(count: int, most: int, rng: np.random.Generator) -> Array:
    return np.sort(rng.choice(count, min(count, most), replace=False))


def _changed(layer: Layer, rng: np.random.Generator) -> Layer:
    attention = layer.attention
    if attention is not None:
        q, k, v, o = (damaged(rows, rng) for rows in (attention.q_HD, attention.k_KD, attention.v_KD, attention.o_HD))
        attention = Attention(q, k, v, o, attention.heads, attention.kv_heads)
    mlps = tuple(
        Units(
            None if units.gate_FD is None else damaged(units.gate_FD, rng),
            damaged(units.up_FD, rng),
            damaged(units.down_FD, rng),
        )
        for units in layer.mlps
    )
    return Layer(attention, mlps)


def damaged(rows_ND: Array, rng: np.random.Generator) -> Array:
    """Return rows with noise of half their norm, the smaller half of the result set to zero."""
    noise = cast("Array", rng.standard_normal(rows_ND.shape, dtype=np.float32))
    share = RELATIVE_CHANGE * float(np.linalg.norm(rows_ND)) / max(float(np.linalg.norm(noise)), 1e-30)
    noise *= np.float32(share)
    noise += rows_ND
    sizes = np.abs(noise)
    some: Array = sizes.ravel()
    if some.size > MEDIAN_OF:
        some = some[rng.integers(some.size, size=MEDIAN_OF)]
    at = int(PRUNED * some.size)
    noise *= sizes >= float(np.partition(some, at)[at])
    return noise
