"""Norm gains of the residual stream: the statistics of the Solar-Open-100B and GLM-4.5-Air dispute, with controls.

Axes: L, M = layers, N = coordinates of the residual stream, S = shuffles, K = reference layers.

For each kind of norm (before and after attention and MLP, embedding, final) and each layer: plain cosine, cosine about
the means (Pearson), the same after shuffling, mean absolute difference, difference of the 99th percentiles,
relative distance, difference of the coefficients of variation, share of bit-equal values. Gains are effective gains
(1 + w where a family stores w). Layers are matched by index.

What it is worth: gains are positive and concentrated, so independent vectors have an expected plain cosine of
1 / sqrt((1 + cv_a^2)(1 + cv_b^2)), .99 at cv .1. Plain cosine, percentiles and variation therefore do not tell
a child from a stranger; the centred cosine (strangers: 0, standard deviation 1/sqrt(N - 1)) and bit-equal values do.
Distances are driven by scale: they can refute, not prove.

No p-value: all layers' gains carry the same residual coordinates, so they share one permutation under the hypothesis of
independent initialisation. Layers are not independent evidence, and one shuffle is therefore applied to all of them.

The claim's sigma. The original claim set 4 cross-model cosines of layers 10, 20, 30, 40 (.981094, .991792, .991429,
.991635) against 4 cosines of the base's layer 0 with its layers 10, 20, 30, 40 (.375810, .375664, .377255, .379035) and
called the difference of .612 "182 sigma". No formula is printed; of those tried (z by either spread or standard
error, Welch's and Student's t, pooled with n - 1, with either model's or both models' baseline) one gives 182: the
difference over the root of the mean population variance, 181.94 with the base's baseline. It is reproduced here as
a control, because it says nothing about descent: the numerator compares matched layers with a layer 0 that is
unlike all others in every model by itself, and the unit is the spread over four hand-picked layers.

Unchanged by: everything that leaves the residual basis and the gains alone. Changed by: permuting or rotating the
residual stream, and exchanging gains with the next matrix (T1, T3, T5).

Source: repositories sionic-ai/solar-vs-glm (claim: origin/README.md; revision: README.md),
hyunwoongko/solar-vs-glm-vs-phi, chahero/solar-vs-glm-critique, ANLGBOY/solar-vs-glm-sanity-check (January 2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import Extractor, Fingerprint, FingerprintMethod
from kinprint.linalg.gains import (
    coefficient_of_variation,
    cosine_table,
    effect_size,
    equal_share,
    expected_cosine,
    shuffled_cosines,
)
from kinprint.types import Cell, MethodResult, Table, Value

NAME = "layernorm"
VERSION = 1  # raise whenever any output can change
SHUFFLES, SEED = 32, 0
ID = method_id(NAME, VERSION, shuffles=SHUFFLES, seed=SEED)
GAINS_ID = method_id("norm-gains", 1)
SOURCE = (
    "sionic-ai/solar-vs-glm; hyunwoongko/solar-vs-glm-vs-phi; chahero/solar-vs-glm-critique; "
    "ANLGBOY/solar-vs-glm-sanity-check"
)

KINDS = ("norm.attn", "norm.mlp", "norm.attn_post", "norm.mlp_post", "norm.embed", "norm.final")
"""Norms whose gain has one entry for each residual coordinate."""

REFERENCE_LAYERS = (10, 20, 30, 40)
"""Layers of the published baseline."""

ZERO_CENTRED = "zero-centred"
"""Array that is 1 where the stored vectors are the gains minus one."""

SAMPLED = 128
"""Coordinates whose gains are kept to be looked at."""

COLUMNS = (
    "norm", "layer", "raw cosine", "centred cosine", "expected raw", "mean_abs_diff", "p99_abs_diff", "rel_l2",
    "cv_diff", "shuffled raw", "shuffled centred", "bit-equal",
)  # fmt: skip


# -- the fingerprint -----------------------------------------------------------------------------------------------


def extract(view: ModelView) -> Fingerprint:
    """Return every norm vector of the residual stream, in its stored dtype.

    Args:
        view: The model.

    Returns:
        Arrays named ``norm.attn@3`` (or ``norm.final``), and whether they are zero-centred. A vector that holds NaN or
        Inf is absent, and ``problems`` names it as ``norm.attn@3: tensor ... holds NaN or Inf``.
    """
    arrays: dict[str, Array] = {ZERO_CENTRED: np.array([view.family.gain == "zero-centred"], dtype=np.uint8)}
    problems: list[str] = []
    for key in view.parts:
        if key.role not in KINDS:
            continue
        vector_N = np.array(view.stored(key.role, key.layer))
        if np.isfinite(vector_N.astype(np.float64)).all():
            arrays[str(key)] = vector_N
        else:
            problems.append(f"{key}: {NonFiniteError(view.tensor_name(key.role, key.layer))}")
    if not view.parts:
        problems.append("unknown family: no tensor is known to be a norm")
    return Fingerprint(GAINS_ID, arrays, tuple(problems))


@dataclass(frozen=True, slots=True)
class _Gains:
    """One kind of norm in one model: stored vectors by layer (None for a norm outside the layers)."""

    stored: Mapping[int | None, Array]
    zero_centred: bool
    problem: str | None = None

    @property
    def layers(self) -> list[int | None]:
        """Layers in order."""
        return sorted(self.stored, key=lambda layer: -1 if layer is None else layer)

    def rows(self, layers: Iterable[int | None]) -> Array:
        """Return effective gains of chosen layers as float64 [L, N]."""
        return np.stack([self.stored[layer].astype(np.float64) for layer in layers]) + float(self.zero_centred)

    def comparable(self, layer: int | None, *, effective: bool) -> Array:
        """Return one vector as stored, or as the effective gain rounded to its own dtype."""
        stored_N = self.stored[layer]
        return self.rows([layer])[0].astype(stored_N.dtype) if effective and self.zero_centred else stored_N


def _gains(fingerprint: Fingerprint) -> dict[str, _Gains]:
    """Sort a fingerprint's arrays by kind of norm."""
    problems = {text.partition(":")[0].partition("@")[0]: text.partition(": ")[2] for text in fingerprint.problems}
    stored: dict[str, dict[int | None, Array]] = {kind: {} for kind in KINDS if kind in problems}
    for name, vector_N in fingerprint.arrays.items():
        kind, _, layer = name.partition("@")
        if kind in KINDS:
            stored.setdefault(kind, {})[int(layer) if layer else None] = vector_N
    zero_centred = bool(fingerprint.arrays[ZERO_CENTRED][0])
    return {kind: _Gains(vectors, zero_centred, problems.get(kind)) for kind, vectors in stored.items()}


# -- the comparison ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """What was measured on one kind of norm. ``rows`` are lines of the table under ``COLUMNS``."""

    name: str
    rows: tuple[tuple[Cell, ...], ...] = ()
    controls: tuple[Value, ...] = ()
    problem: str | None = None
    notes: tuple[str, ...] = ()


def compare(suspect: Fingerprint, base: Fingerprint) -> MethodResult:
    """Return the statistics of two models' norm gains.

    Args:
        suspect: Norm vectors of one model; relative distances are relative to it.
        base: Those of the other; the claim's baseline is its.

    Returns:
        Three values for each kind of norm; shuffles, expectations, mismatched layers, baselines inside each model and
        the claim's sigma as controls; one line for each layer in the table. ``not_applicable`` where a model has
        no norm gains or the widths differ.
    """
    left, right = _gains(suspect), _gains(base)
    kinds = [kind for kind in KINDS if kind in left and kind in right]
    reason = _obstacle(suspect, base, left, right, kinds)
    if reason is not None:
        return MethodResult(method=NAME, id=ID, status="not_applicable", reason=reason, source=SOURCE)
    found = [_compare_kind(kind, left[kind], right[kind]) for kind in kinds]
    notes = ["layers share one residual permutation: they are not independent evidence, and no p-value is given"]
    for who, here, there in (("suspect", left, right), ("base", right, left)):
        notes.extend(f"only the {who} has {kind}" for kind in here if kind not in there)
    notes.extend(note for kind in found for note in kind.notes)
    if any(value.name.endswith("sigma") for kind in found for value in kind.controls):
        notes.append(
            "the claim's sigma is matched layers minus layer 0, in units of the spread over a few chosen layers: where "
            "layer 0 is unlike later layers in each model by itself, strangers have it too"
        )
    return MethodResult(
        method=NAME,
        id=ID,
        status="measured",
        values=tuple(value for kind in found for value in _values(kind)),
        controls=tuple(value for kind in found for value in kind.controls),
        tables=(
            Table(title="Norm gains by layer", columns=COLUMNS, rows=tuple(r for k in found for r in k.rows)),
            *_sample([(kind, left[kind], right[kind]) for kind in kinds]),
        ),
        notes=tuple(notes),
        source=SOURCE,
    )


def _obstacle(
    suspect: Fingerprint, base: Fingerprint, left: dict[str, _Gains], right: dict[str, _Gains], kinds: Sequence[str]
) -> str | None:
    """Return why nothing can be compared, or None."""
    for who, fingerprint, gains in (("suspect", suspect, left), ("base", base, right)):
        if not any(found.stored for found in gains.values()):
            return f"the {who} has no norm gains: {'; '.join(fingerprint.problems) or 'none in its family table'}"
    if not kinds:
        return f"no kind of norm is in both: {', '.join(left)} against {', '.join(right)}"
    widths = [{v.size for found in gains.values() for v in found.stored.values()} for gains in (left, right)]
    if widths[0] != widths[1]:
        shown = [" and ".join(str(width) for width in sorted(side)) for side in widths]
        return f"the widths differ: {shown[0]} against {shown[1]} coordinates"
    return None


def _compare_kind(name: str, left: _Gains, right: _Gains) -> _Kind:
    layers = [layer for layer in left.layers if layer in right.stored]
    problem = left.problem or right.problem
    if not layers:
        return _Kind(name, problem=problem or "no layer has it in both")
    orders_SN = _orders(left.stored[layers[0]].size)
    rows: list[tuple[Cell, ...]] = []
    centred_LS: list[Array] = []
    for layer in layers:
        a_N, b_N = left.rows([layer])[0], right.rows([layer])[0]
        raw_S, centred_S = (shuffled_cosines(a_N, b_N, orders_SN, centred=centred) for centred in (False, True))
        centred_LS.append(centred_S)
        share = _bit_equal(left, right, layer)
        rows.append((name, layer, *_statistics(a_N, b_N), _mean(raw_S), _mean(centred_S), share))
    notes: list[str] = []
    if len(left.layers) != len(right.layers):
        depths = f"{len(left.layers)} layers against {len(right.layers)}"
        notes.append(f"{name}: {depths}, compared by index over the {len(layers)} in both")
    constant = [layer for layer, row in zip(layers, rows, strict=True) if row[-1] is None]
    if constant:
        where = "" if constant == [None] else f" in layers {', '.join(map(str, constant))}"
        notes.append(f"{name}: constant vectors{where} left out of centred cosine and bit-equal values")
    controls: list[Value] = []
    if problem is None:
        controls = _shuffle_controls(name, rows, np.array(centred_LS)) + _layer_controls(name, left, right, layers)
    return _Kind(name, tuple(rows), tuple(controls), problem, tuple(notes))


def _statistics(a_N: Array, b_N: Array) -> tuple[float | None, ...]:
    """Return the columns from ``raw cosine`` to ``cv_diff``."""
    cv_a, cv_b = coefficient_of_variation(a_N), coefficient_of_variation(b_N)
    norm = float(np.linalg.norm(a_N))
    return (
        _number(cosine_table(a_N[None], b_N[None])[0, 0]),
        _number(cosine_table(a_N[None], b_N[None], centred=True)[0, 0]),
        # Published for positive gains; with the sign of the means it is the mean over all shuffles of any gains.
        expected_cosine(cv_a, cv_b) * float(np.sign(a_N.mean() * b_N.mean())),
        float(np.mean(np.abs(a_N - b_N))),
        abs(float(np.quantile(np.abs(a_N), 0.99) - np.quantile(np.abs(b_N), 0.99))),
        float(np.linalg.norm(a_N - b_N)) / norm if norm > 0 else None,
        _number(abs(cv_a - cv_b)),
    )


def _bit_equal(left: _Gains, right: _Gains, layer: int | None) -> float | None:
    """Return the share of equal values, or None where one vector is constant: untrained norms are all equal."""
    effective = left.zero_centred != right.zero_centred
    a_N, b_N = (side.comparable(layer, effective=effective) for side in (left, right))
    if (a_N == a_N[0]).all() or (b_N == b_N[0]).all():
        return None
    return equal_share(a_N, b_N)


def _orders(size: int) -> Array:
    rng = np.random.default_rng(SEED)
    return np.stack([rng.permutation(size) for _ in range(SHUFFLES)])


# -- controls ------------------------------------------------------------------------------------------------------


def _shuffle_controls(name: str, rows: Sequence[tuple[Cell, ...]], centred_LS: Array) -> list[Value]:
    # One shuffle moves all layers together, so what matters is how the mean over layers varies from shuffle to shuffle.
    centred_LS = centred_LS[np.isfinite(centred_LS).all(axis=1)]
    spread = f"{SHUFFLES} shuffles"
    if centred_LS.size:
        spread += f", standard deviation {centred_LS.mean(axis=0).std():.4f}"
    return [
        _control(f"{name} shuffled raw cosine", _column(rows, "shuffled raw"), f"{SHUFFLES} shuffles"),
        _control(f"{name} shuffled centred cosine", _column(rows, "shuffled centred"), spread),
        _control(f"{name} expected raw cosine", _column(rows, "expected raw"), "independent, of these spreads"),
    ]


def _layer_controls(name: str, left: _Gains, right: _Gains, layers: Sequence[int | None]) -> list[Value]:
    """Return mismatched layers, both baselines inside each model, and the claim's sigma."""
    if len(left.layers) < 2 or len(right.layers) < 2:
        return []
    found: list[Value] = []
    words = ((False, "raw"), (True, "centred"))
    other_LM = np.array([[i != j for j in right.layers] for i in left.layers])
    for centred, word in words:
        table_LM = cosine_table(left.rows(left.layers), right.rows(right.layers), centred=centred)
        found.append(_control(f"{name} mismatched layers {word} cosine", _mean(table_LM[other_LM]), "all i != j"))
    chosen = reference_layers(layers)
    which = f"layer 0 with {', '.join(map(str, chosen))}"
    if tuple(chosen) != REFERENCE_LAYERS:
        which += " (published: 10, 20, 30, 40)"
    for who, side in (("suspect", left), ("base", right)):
        for centred, word in words:
            baseline = _mean(_layer_zero(side, chosen, centred=centred))
            found.append(_control(f"{name} layer-0 baseline {word} cosine, {who}", baseline, which))
        for centred, word in words:
            rows_LN = side.rows(side.layers)
            next_L = np.diagonal(cosine_table(rows_LN, rows_LN, centred=centred), 1)
            found.append(_control(f"{name} adjacent layers {word} cosine, {who}", _mean(next_L), "inside the model"))
    sigma = _sigma(left, right, chosen)
    if sigma is not None:
        note = "no evidence of descent: see below"
        found.append(Value(name=f"{name} claim's sigma", value=sigma, kind="statistic", note=note))
    return found


def reference_layers(layers: Sequence[int | None]) -> list[int]:
    """Return the published reference layers where all exist, else the ends of the quarters of the layers at hand.

    Example:
        >>> reference_layers(range(46)), reference_layers(range(9))
        ([10, 20, 30, 40], [2, 4, 6, 8])
    """
    there = [layer for layer in layers if layer is not None]
    if set(REFERENCE_LAYERS) <= set(there):
        return list(REFERENCE_LAYERS)
    quarters = {round(quarter * (len(there) - 1) / 4) for quarter in (1, 2, 3, 4)}
    return [there[place] for place in sorted(quarters) if there[place] != 0]


def _layer_zero(side: _Gains, chosen: Sequence[int], *, centred: bool) -> Array:
    """Return the cosines of layer 0 with the reference layers [K], or none where layer 0 cannot be used."""
    if 0 not in side.stored or not chosen:
        return np.empty(0)
    return cosine_table(side.rows([0]), side.rows(chosen), centred=centred)[0]


def _sigma(left: _Gains, right: _Gains, chosen: Sequence[int]) -> float | None:
    baseline_K = _layer_zero(right, chosen, centred=False)
    if baseline_K.size < 2:
        return None
    return effect_size(np.diagonal(cosine_table(left.rows(chosen), right.rows(chosen))), baseline_K)


# -- a sample to look at -------------------------------------------------------------------------------------------


def _sample(kinds: Sequence[tuple[str, _Gains, _Gains]]) -> tuple[Table, ...]:
    """Return gains of drawn coordinates in the first, middle and last layer, of the first kind of norm that has any.

    Beside each stands the base's gain at another drawn coordinate: what a shuffle would set there.
    """
    for name, left, right in kinds:
        layers = [layer for layer in left.layers if layer in right.stored]
        if not layers:
            continue
        chosen = list(dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1])))
        size = left.stored[layers[0]].size
        drawn_K = np.random.default_rng(SEED).permutation(size)[:SAMPLED]
        columns, cells = ["coordinate"], [drawn_K.tolist()]
        for layer in chosen:
            a_K, b_K = (side.rows([layer])[0][drawn_K] for side in (left, right))
            where = name if layer is None else f"{name}@{layer}"
            columns += [f"{where} suspect", f"{where} base", f"{where} base elsewhere"]
            cells += [[float(f"{gain:.6g}") for gain in gains_K] for gains_K in (a_K, b_K, np.roll(b_K, 1))]
        title = "Norm gains of sampled coordinates"
        rows = tuple(zip(*cells, strict=True))
        return (Table(title=title, columns=tuple(columns), rows=rows, plotted=True),)
    return ()


# -- records -------------------------------------------------------------------------------------------------------


def _values(kind: _Kind) -> list[Value]:
    columns = (
        ("raw cosine", "raw cosine", f"independent vectors: {_column(kind.rows, 'expected raw') or 0:.4f}"),
        ("centred cosine", "centred cosine", "independent vectors: 0"),
        ("bit-equal", "bit-equal fraction", "after rounding to the coarser dtype"),
    )
    found: list[Value] = []
    for column, what, note in columns:
        mean = None if kind.problem is not None else _column(kind.rows, column)
        reason = None if mean is not None else kind.problem or "constant gains"
        found.append(
            Value(name=f"{kind.name} {what}", value=mean, kind="similarity", identical=1.0, reason=reason, note=note)
        )
    return found


def _control(name: str, value: float | None, note: str) -> Value:
    reason = "constant gains, or no layer 0" if value is None else None
    return Value(name=name, value=value, kind="similarity", reason=reason, note=note)


def _column(rows: Sequence[tuple[Cell, ...]], column: str) -> float | None:
    cells = [row[COLUMNS.index(column)] for row in rows]
    return _mean([cell for cell in cells if isinstance(cell, float)])


def _mean(values: Iterable[float]) -> float | None:
    """Return the mean of what is a number, or None where nothing is."""
    found = [float(value) for value in values if np.isfinite(value)]
    return float(np.mean(found)) if found else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


METHOD = FingerprintMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    extractor=Extractor(GAINS_ID, extract),
    compare=compare,
    ignores=frozenset(
        {
            "residual-signs", "ffn-permutation", "ffn-rescaling", "kv-group-permutation", "query-head-permutation",
            "vo-gauge", "qk-gauge", "expert-permutation",
        }
    ),
    notices=frozenset({"residual-permutation", "residual-rotation", "norm-gain-replacement"}),
)  # fmt: skip
