"""Premise: removing the spikes hurts perplexity far more than removing as many bulk directions.

Axes: M, N = rows and columns of a matrix, S = singular values.

In each matrix W = sum_k s_k u_k v_k^T a set of k is left out. Sets: the *spikes* (s_k above the edge of the fitted
bulk); as many of the bulk, drawn at random, or the smallest. Both controls remove far less of the matrix, for a spike
carries more energy (s_k^2) than a bulk direction by definition. The fair controls therefore remove as much *energy*:
bulk directions in random order until their energy is that of the spikes (or until no bulk is left), and white noise of
the same Frobenius norm, which is no choice of directions at all. The curve shows perplexity against energy removed:
largest first, smallest first, and for noise.

The premise is behind GhostSpec (arXiv 2511.06390), which holds spectra to be hard to change without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import PartKey
from kinprint.bench.premises.models import (
    REAL_TEXT_BYTES,
    SEED,
    Models,
    Real,
    Told,
    gaussian,
    matrix_keys,
    smallness,
    spread_layers,
)
from kinprint.bench.premises.records import Curves, Premise, Series, unmeasured
from kinprint.checkpoint import Array
from kinprint.linalg.bulk import fit
from kinprint.shapes import Bool, Float64
from kinprint.transform import ModelState
from kinprint.types import Cell, Table
from kinprint.zoo import train
from kinprint.zoo.model import Model

NAME, REAL_NAME = "removal", "removal-real"
TITLE = "Without its spikes a model is lost, without as many bulk directions it is not"
REAL_TITLE = f"{TITLE}: a real model"
ALL = "all matrices"
COLUMNS = ("matrices", "removed", "directions", "energy removed", "perplexity", "times unharmed")
DRAWS = 3
"""Random draws behind a number on all matrices; one role alone has one."""

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Energy removed along the curve. The largest directions come in lumps; the others remove what these remove."""

REAL_SHARES = (0.1, 0.3, 0.6)
REAL_LAYERS = 3


@dataclass(frozen=True, slots=True)
class Decomposed:
    """One matrix by its singular directions.

    Attributes:
        left_MS: Left directions, in columns.
        values_S: Singular values, largest first.
        right_SN: Right directions, in rows.
        spikes: How many lead, above the edge of the fitted bulk.
    """

    left_MS: Float64[Array, "M S"]
    values_S: Float64[Array, " S"]
    right_SN: Float64[Array, "S N"]
    spikes: int

    @classmethod
    def of(cls, weight_MN: Float64[Array, "M N"]) -> Decomposed:
        """Decompose a matrix and fit its bulk."""
        left_MS, values_S, right_SN = np.linalg.svd(weight_MN, full_matrices=False)
        return cls(left_MS, values_S, right_SN, fit(values_S, (weight_MN.shape[0], weight_MN.shape[1])).spikes)

    @property
    def energy_S(self) -> Float64[Array, " S"]:
        """Share of the squared Frobenius norm in each direction."""
        return self.values_S**2 / (self.values_S**2).sum()

    def without(self, removed_S: Bool[Array, " S"]) -> Float64[Array, "M N"]:
        """Return the matrix without some directions."""
        return (self.left_MS * np.where(removed_S, 0.0, self.values_S)) @ self.right_SN


Chosen = Callable[[Decomposed, np.random.Generator], Bool[Array, " S"]]
"""Which directions of a matrix are removed."""


def spikes(matrix: Decomposed, _: np.random.Generator) -> Bool[Array, " S"]:
    """Choose the spikes."""
    return np.arange(matrix.values_S.size) < matrix.spikes


def random_bulk(matrix: Decomposed, rng: np.random.Generator) -> Bool[Array, " S"]:
    """Choose as many directions of the bulk as there are spikes, at random."""
    return _marked(matrix, rng.permutation(np.arange(matrix.spikes, matrix.values_S.size))[: matrix.spikes])


def smallest(matrix: Decomposed, _: np.random.Generator) -> Bool[Array, " S"]:
    """Choose as many of the smallest directions as there are spikes."""
    return np.arange(matrix.values_S.size)[::-1] < min(matrix.spikes, matrix.values_S.size - matrix.spikes)


def random_energy(matrix: Decomposed, rng: np.random.Generator) -> Bool[Array, " S"]:
    """Choose bulk directions at random until they hold the energy of the spikes, or until no bulk is left."""
    order = rng.permutation(np.arange(matrix.spikes, matrix.values_S.size))
    return _up_to(matrix, order, float(matrix.energy_S[: matrix.spikes].sum()))


def largest_first(share: float) -> Chosen:
    """Choose the largest directions that hold at least a share of the energy."""

    def choose(matrix: Decomposed, _: np.random.Generator) -> Bool[Array, " S"]:
        before_S = np.cumsum(matrix.energy_S) - matrix.energy_S
        return before_S < share

    return choose


def smallest_first(share: float) -> Chosen:
    """Choose the smallest directions that hold what the same share, taken from the largest, holds."""

    def choose(matrix: Decomposed, rng: np.random.Generator) -> Bool[Array, " S"]:
        energy = float(matrix.energy_S[largest_first(share)(matrix, rng)].sum())
        return _up_to(matrix, np.arange(matrix.values_S.size)[::-1], energy)

    return choose


def _marked(matrix: Decomposed, chosen: Array) -> Bool[Array, " S"]:
    removed_S = np.zeros(matrix.values_S.size, np.bool_)
    removed_S[chosen] = True
    return removed_S


def _up_to(matrix: Decomposed, order: Array, energy: float) -> Bool[Array, " S"]:
    """Mark directions in order, as many as bring their energy closest to what is asked."""
    held = np.concatenate([[0.0], np.cumsum(matrix.energy_S[order])])
    return _marked(matrix, order[: int(np.argmin(np.abs(held - energy)))])


# -- what the removal does to a model ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model without some directions.

    Attributes:
        directions: Removed per matrix, on average; None for noise.
        energy: Share removed of the squared Frobenius norm, averaged over matrices.
        loss: On held-out text, in nats per token.
    """

    directions: float | None
    energy: float
    loss: float


@dataclass(frozen=True, slots=True)
class Surgery:
    """A model with its decomposed matrices, and the text on which the damage is measured."""

    model: Model
    state: ModelState
    matrices: Mapping[PartKey, Decomposed]
    text: bytes

    @classmethod
    def on(cls, model: Model, state: ModelState, keys: Iterable[PartKey], text: bytes) -> Surgery:
        """Decompose chosen matrices of a model."""
        return cls(model, state, {key: Decomposed.of(state.parts[key]) for key in keys}, text)

    def remove(self, keys: Sequence[PartKey], choose: Chosen, seed: int) -> Outcome:
        """Leave directions out of some matrices and measure the loss."""
        rng = np.random.default_rng((SEED, seed))
        chosen = {key: choose(self.matrices[key], rng) for key in keys}
        return Outcome(
            directions=float(np.mean([int(removed.sum()) for removed in chosen.values()])),
            energy=float(np.mean([self.matrices[key].energy_S[removed].sum() for key, removed in chosen.items()])),
            loss=self.loss({key: self.matrices[key].without(removed) for key, removed in chosen.items()}),
        )

    def noise(self, keys: Sequence[PartKey], choose: Chosen, seed: int) -> Outcome:
        """Add to some matrices white noise that is as large as what would be removed."""
        rng = np.random.default_rng((SEED, seed))
        noised: dict[PartKey, Array] = {}
        shares: list[float] = []
        for key in keys:
            matrix, weight_MN = self.matrices[key], self.state.parts[key]
            shares.append(float(matrix.energy_S[choose(matrix, rng)].sum()))
            noise = gaussian(rng, weight_MN.shape)
            size = np.sqrt(shares[-1]) * np.linalg.norm(matrix.values_S)
            noised[key] = weight_MN + noise * (size / np.linalg.norm(noise))
        return Outcome(None, float(np.mean(shares)), self.loss(noised))

    def loss(self, changed: Mapping[PartKey, Array]) -> float:
        """Return the loss with some matrices replaced, in nats per token."""
        return train.held_out_loss(self.model.with_state(self.state.updated(changed)), self.text)


KINDS: tuple[tuple[str, Chosen, bool], ...] = (
    ("spikes", spikes, False),
    ("as many of the bulk, at random", random_bulk, True),
    ("as many, the smallest", smallest, False),
    ("as much energy of the bulk, at random", random_energy, True),
)
"""What is removed, and whether it is drawn."""

NOISE = "nothing; white noise as large as the spikes added"


def measure(models: Models, tell: Told) -> Premise:
    """Remove spikes and controls from the base: from all matrices at once, and from each role alone."""
    base = models.roster.base
    if models.absent([base]):
        return unmeasured(NAME, TITLE, f"needs {base}")
    model = models.read(base)
    state = model.state()
    by_role = matrix_keys(state)
    keys = [key for found in by_role.values() for key in found]
    surgery = Surgery.on(model, state, keys, models.text())
    unharmed = surgery.loss({})
    rows = _rows(surgery, ALL, keys, unharmed, DRAWS, tell)
    for role, found in by_role.items():
        rows += _rows(surgery, role, found, unharmed, 1, tell)
    return Premise(
        name=NAME,
        title=TITLE,
        status="measured",
        tables={"removal": Table(title=f"{base} without some directions", columns=COLUMNS, rows=tuple(rows))},
        curves=(_sweep("premises-removal", base, surgery, keys, unharmed, SHARES, tell),),
        notes=(_note(f"held-out {models.roster.text}", DRAWS), smallness(state)),
    )


def measure_real(real: Real, text: bytes, tell: Told) -> Premise:
    """Do the same to a few layers of a real model, on the end of the text."""
    state = real.state
    layers = spread_layers(state, REAL_LAYERS)
    keys = [key for found in matrix_keys(state).values() for key in found if key.layer in layers]
    surgery = Surgery.on(real.model, state, keys, text[-REAL_TEXT_BYTES:])
    unharmed = surgery.loss({})
    where = f"layers {', '.join(map(str, layers))}"
    rows = _rows(surgery, where, keys, unharmed, 1, tell)
    note = f"{_note(f'the last {REAL_TEXT_BYTES} bytes of the text', 1)}; only in {where}, of {state.geometry.layers}"
    return Premise(
        name=REAL_NAME,
        title=REAL_TITLE,
        status="measured",
        tables={"removal-real": Table(title=f"{real.name} without some directions", columns=COLUMNS, rows=tuple(rows))},
        curves=(_sweep("premises-removal-real", real.name, surgery, keys, unharmed, REAL_SHARES, tell),),
        notes=(note,),
    )


def _rows(
    surgery: Surgery, where: str, keys: Sequence[PartKey], unharmed: float, draws: int, tell: Told
) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [(where, "nothing", 0.0, 0.0, float(np.exp(unharmed)), 1.0)]
    for label, choose, drawn in KINDS:
        tell(f"removal: {where}, {label}")
        rows.append(
            _row(where, label, [surgery.remove(keys, choose, s) for s in range(draws if drawn else 1)], unharmed)
        )
    tell(f"removal: {where}, noise")
    rows.append(_row(where, NOISE, [surgery.noise(keys, spikes, seed) for seed in range(draws)], unharmed))
    return rows


def _row(where: str, label: str, outcomes: Sequence[Outcome], unharmed: float) -> tuple[Cell, ...]:
    counts = [outcome.directions for outcome in outcomes if outcome.directions is not None]
    loss = float(np.mean([outcome.loss for outcome in outcomes]))
    energy = float(np.mean([outcome.energy for outcome in outcomes]))
    directions = float(np.mean(counts)) if counts else None
    return (where, label, directions, energy, float(np.exp(loss)), float(np.exp(loss - unharmed)))


def _sweep(
    stem: str,
    name: str,
    surgery: Surgery,
    keys: Sequence[PartKey],
    unharmed: float,
    shares: Sequence[float],
    tell: Told,
) -> Curves:
    found: dict[str, list[Outcome]] = {"largest first": [], "smallest first": [], "white noise": []}
    for share in shares:
        tell(f"removal: {name}, {share:.0%} of the energy")
        found["largest first"].append(surgery.remove(keys, largest_first(share), 0))
        found["smallest first"].append(surgery.remove(keys, smallest_first(share), 0))
        found["white noise"].append(surgery.noise(keys, largest_first(share), 0))
    start = Outcome(0.0, 0.0, unharmed)
    return Curves(
        name=stem,
        title=f"Perplexity of {name} when directions are removed",
        x_label="energy removed, share of each matrix (mean)",
        y_label="perplexity",
        y_log=True,
        series=tuple(
            Series(
                panel=f"{len(keys)} matrices at once",
                label=label,
                x=tuple(outcome.energy for outcome in (start, *outcomes)),
                y=tuple(float(np.exp(outcome.loss)) for outcome in (start, *outcomes)),
                style="marked",
            )
            for label, outcomes in found.items()
        ),
    )


def _note(text: str, draws: int) -> str:
    drawn = (
        "one draw" if draws == 1 else f"the mean of {draws} draws (of the loss) on all matrices, one on a single role"
    )
    return (
        f"perplexity per token on {text}; what is drawn is {drawn}; directions and energy are means over matrices; "
        "where the bulk holds less energy than the spikes, all of the bulk is removed"
    )
