"""Correlation of the standard deviation of each layer's weights, over depth: "Intrinsic Fingerprint".

Axes: L, M = layers of one model.

For each role, sigma(l) is the standard deviation of all entries in layer l (unbiased, as ``torch.std``). The sequences
of two models are z-scored over their layers (population deviation), the shorter is interpolated linearly onto the
longer grid, and their Pearson correlation is taken; the similarity is the mean over Q, K, V and O.

Unchanged by: permutations of residual coordinates, MLP units, heads and experts. Changed by: everything that rescales
a layer without changing the model, such as exchanging a norm gain with the next matrix or mixing V against O.

No null exists for it: layers share a trend with depth, so unrelated models correlate far above zero.

Of latent attention Q, K and V are the products of the low-rank factors, the part without positions, with the gain of
the norm between the factors: what mixing the latent coordinates leaves alone, and the factors themselves do not. Layers
without attention have no Q, K, V and O; the others keep their order.

Source: HonestAGI, "Intrinsic Fingerprint of LLMs", arXiv 2507.03014; the same statistic as "PDF" in LeaFBench.
How the paper pools the experts of a mixture is not known: both obvious ways are reported (all entries of a layer's
experts together, and the mean of the experts' deviations), with each expert's deviation in a table. Sequences of
state-space blocks, linear attention and short convolutions are an extension, and no part of the similarity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.architecture import ModelView, PartKey
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import Extractor, Fingerprint, FingerprintMethod
from kinprint.linalg import resample, zscore
from kinprint.linalg.threads import LARGE_BYTES, side_by_side
from kinprint.shapes import Float
from kinprint.spectra import attention_notes
from kinprint.types import Cell, MethodResult, Table, Value

VERSION = 1

ATTENTION = ("attn.q", "attn.k", "attn.v", "attn.o")
"""The four roles whose mean correlation is the method's similarity."""

EXPERTS = {"mlp.gate": "moe.gate", "mlp.up": "moe.up", "mlp.down": "moe.down"}
"""What a mixture layer has in place of each dense matrix."""

VECTORS = (
    "attn.q.bias", "attn.k.bias", "attn.v.bias", "attn.o.bias",
    "norm.attn", "norm.mlp", "norm.attn_post", "norm.mlp_post", "norm.q", "norm.k",
)  # fmt: skip
"""Biases and norm gains: the paper's extensions."""

MIXERS = (
    "ssm.in", "ssm.out", "linear.in", "linear.q", "linear.k", "linear.v", "linear.out", "conv.in", "conv.out",
)  # fmt: skip
"""Projections of what stands in the place of attention: an extension of ours."""

MEAN_OF_EXPERTS = " (mean of experts)"
"""Ending of the sequence that averages the experts' deviations; without it experts are pooled by concatenation."""

EACH_EXPERT = " (each expert)"
"""Ending of the array that holds every expert's deviation; it is shown and not correlated."""

MINIMUM_LAYERS = 3
"""Two points always correlate at plus or minus one."""

SHUFFLES, SEED = 200, 0

_PRODUCT_ROWS = 2048
"""Rows of a left factor that are widened at a time."""

_BLOCK_BYTES = 1 << 20
"""Small blocks: each is widened to float64 twice over."""

_ROUNDING = 1e-12
"""Relative variation below which a sequence is constant: what differs is the rounding of the sums."""

TREND_NOTE = (
    "no null distribution: layers share a trend with depth, so unrelated models correlate far above 0. Unrelated "
    "pairs: deepseek-llm-7b and Llama-2-7b .91 (published); of 8,698 in TensorLock's published matrix of 137 models "
    "the median is .44, the 99th percentile .91, the largest .93"
)

MIXERS_NOTE = "sequences of state-space blocks, linear attention and convolutions are kinprint's extension"


# -- once per model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of some numbers."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Return the moments of an array, in two passes in float64, so that a large mean costs no digits."""
        deviations = values.astype(np.float64).reshape(-1)
        mean = float(deviations.mean())
        deviations -= mean
        return cls(values.size, mean, float(deviations @ deviations))

    @classmethod
    def of_product(cls, left_HR: Array, right_RD: Array) -> Moments:
        """Return the moments of a product of two factors, in float64, without forming it.

        The sum of its squares is the inner product of two R x R Gram matrices. Entries of projections are centred
        nearly enough that subtracting the mean's square costs no digits.
        """
        right_RD = right_RD.astype(np.float64, copy=False)
        rank = right_RD.shape[0]
        sum_R, gram_RR = np.zeros(rank), np.zeros((rank, rank))
        for first in range(0, left_HR.shape[0], _PRODUCT_ROWS):
            block_HR = left_HR[first : first + _PRODUCT_ROWS].astype(np.float64)
            sum_R += block_HR.sum(axis=0)
            gram_RR += block_HR.T @ block_HR
        count = left_HR.shape[0] * right_RD.shape[1]
        mean = float(sum_R @ right_RD.sum(axis=1)) / count
        squares = float(np.vdot(gram_RR, right_RD @ right_RD.T))
        return cls(count, mean, max(0.0, squares - count * mean * mean))

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets together (Chan, Golub & LeVeque 1983, equation 2.1)."""
        count = self.count + other.count
        if count == 0:
            return self
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * other.count / count,
            self.squares + other.squares + gap * gap * self.count * other.count / count,
        )

    @property
    def deviation(self) -> float:
        """Unbiased standard deviation; NaN for fewer than two numbers."""
        return float(np.sqrt(self.squares / (self.count - 1))) if self.count > 1 else float("nan")


def deviations(model: ModelView) -> Fingerprint:
    """Return the standard deviation of every role in every layer.

    Returns:
        ``layers`` [L], and for each role float64 [L], NaN in layers that lack it or hold NaN or Inf in it. Routed
        experts stand under the dense matrix that they replace, pooled by concatenation, and a second time with
        ``MEAN_OF_EXPERTS`` where the model has experts, and each by itself with ``EACH_EXPERT``, [L, experts].
    """
    roles = {*ATTENTION, *EXPERTS, *EXPERTS.values(), *VECTORS, *MIXERS}
    layers = sorted({layer for role in roles for layer in model.layers(role)})
    problems: list[str] = [] if layers else [f"family {model.family.name}: no layer has a role that this method reads"]
    arrays: dict[str, Array] = {"layers": np.array(layers, dtype=np.int64)}
    large = any(info.nbytes >= LARGE_BYTES for info in model.checkpoint.tensors.values())
    for role in (*ATTENTION, *EXPERTS, *VECTORS, *MIXERS):
        found = side_by_side(lambda layer, role=role: _layer_deviations(model, role, layer), layers, large=large)
        problems += [problem for _, problem in found if problem]
        rows = [row for row, _ in found]
        pooled_L = np.array([pooled for pooled, _, _ in rows], dtype=np.float64)
        if model.layers(role) or model.layers(EXPERTS.get(role, "")):
            arrays[role] = pooled_L
        if model.layers(EXPERTS.get(role, "")):
            arrays[role + MEAN_OF_EXPERTS] = np.array([mean for _, mean, _ in rows], dtype=np.float64)
            arrays[role + EACH_EXPERT] = _filled([each for _, _, each in rows])
    return Fingerprint(EXTRACTOR.id, arrays, (*problems, *attention_notes(model)))


def _filled(rows: Sequence[Sequence[float]]) -> Array:
    """Return rows of unequal length as one array, NaN behind the shorter ones."""
    filled_LE = np.full((len(rows), max(len(row) for row in rows)), np.nan)
    for place, row in zip(filled_LE, rows, strict=True):
        place[: len(row)] = row
    return filled_LE


def _layer_deviations(
    model: ModelView, role: str, layer: int
) -> tuple[tuple[float, float, Sequence[float]], str | None]:
    """Return one layer's deviation, experts pooled, the mean of its experts', and theirs; NaN, and why, without one."""
    nothing = float("nan"), float("nan"), ()
    try:
        if model.has(role, layer):
            alone = _moments(model, role, layer, None).deviation
            return (alone, alone, ()), None
        expert_role = EXPERTS.get(role, "")
        experts = [_moments(model, expert_role, layer, expert) for expert in model.experts(expert_role, layer)]
    except NonFiniteError as error:
        return nothing, f"{role}, layer {layer} left out: {error}"
    if not experts:
        return nothing, None
    pooled = Moments()
    for one in experts:
        pooled = pooled.merged(one)
    each = [one.deviation for one in experts]
    return (pooled.deviation, float(np.mean(each)), each), None


def _moments(model: ModelView, role: str, layer: int, expert: int | None) -> Moments:
    product = model.products.get(PartKey(role, layer, expert))
    if product is not None:
        gain_R = model.gain(product.norm, layer)
        return Moments.of_product(model.array(product.left, layer), model.array(product.right, layer) * gain_R[:, None])
    found = Moments()
    for _, block in model.row_blocks(role, layer, expert, block_bytes=_BLOCK_BYTES):
        found = found.merged(Moments.of(block))
    return found


EXTRACTOR = Extractor(method_id("deviations", 1, ddof=1), deviations)


# -- once per pair -------------------------------------------------------------------------------------------------


def compare(suspect: Fingerprint, base: Fingerprint) -> MethodResult:
    """Correlate two models' deviations over depth.

    Returns:
        Similarity (mean over Q, K, V, O) and every sequence's own correlation. Controls: the suspect's layers reversed
        and shuffled, and how far a straight line in depth alone explains each model's sequences.
    """
    names = _names(suspect, base)
    values = [_correlation(name, suspect, base) for name in names]
    if all(value.value is None for value in values):
        empty = [f"{side}: {fp.problems[0]}" for side, fp in _sides(suspect, base) if fp.arrays["layers"].size == 0]
        reason = empty[0] if empty else next((value.reason for value in values if value.reason), "no role in common")
        return MethodResult(method=NAME, id=ID, status="not_applicable", reason=reason, source=SOURCE)
    return MethodResult(
        method=NAME,
        id=ID,
        status="measured",
        values=(_mean_of(values[: len(ATTENTION)]), *values),
        controls=_controls(suspect, base) if all(value.value is not None for value in values[: len(ATTENTION)]) else (),
        tables=(_role_table(suspect, base, values, names), _layer_table(suspect, base), *_expert_tables(suspect, base)),
        notes=(TREND_NOTE, *_notes(suspect, base)),
        source=SOURCE,
    )


def correlate(a_L: Float[Array, " L"], b_M: Float[Array, " M"], *, paired: bool) -> tuple[float | None, str | None]:
    """Return the Pearson correlation of two sequences over depth, or None and the reason.

    Args:
        a_L: One model's sequence; NaN where a layer has no number.
        b_M: The other's.
        paired: Whether the two models have the same layers, so that a layer missing in one is left out of both.
    """
    if paired:
        both_L = np.isfinite(a_L) & np.isfinite(b_M)
        a_L, b_M = a_L[both_L], b_M[both_L]
    a_L, b_M = a_L[np.isfinite(a_L)], b_M[np.isfinite(b_M)]
    for side, sequence in (("suspect", a_L), ("base", b_M)):
        if sequence.size < MINIMUM_LAYERS:
            return None, f"{side}: {sequence.size} usable layers, at least {MINIMUM_LAYERS} are needed"
        if np.ptp(sequence) <= _ROUNDING * np.abs(sequence).max():
            return None, f"{side}: the same in every layer"
    longest = max(a_L.size, b_M.size)
    # Z-scores before the interpolation would change nothing: it is linear, and these are taken after it.
    a_N, b_N = (zscore(resample(sequence, longest)) for sequence in (a_L, b_M))
    return float(np.clip(np.mean(a_N * b_N), -1.0, 1.0)), None


def _correlation(name: str, suspect: Fingerprint, base: Fingerprint) -> Value:
    label = f"{name} pearson"
    a_L, b_M = _sequence(suspect, name), _sequence(base, name)
    if a_L is None or b_M is None:
        missing = f"{'suspect' if a_L is None else 'base'} has no usable {name}"
        return Value(name=label, value=None, kind="similarity", identical=1.0, reason=missing)
    number, reason = correlate(a_L, b_M, paired=_same_layers(suspect, base))
    return Value(name=label, value=number, kind="similarity", identical=1.0, reason=reason)


def _mean_of(values: Sequence[Value]) -> Value:
    found = [value.value for value in values if value.value is not None]
    missing = next((value for value in values if value.value is None), None)
    return Value(
        name="similarity",
        value=float(np.mean(found)) if missing is None else None,
        kind="similarity",
        identical=1.0,
        reason=None if missing is None else f"{missing.name}: {missing.reason}",
        note="mean over attn.q, attn.k, attn.v, attn.o",
    )


def _controls(suspect: Fingerprint, base: Fingerprint) -> tuple[Value, ...]:
    depth, paired = suspect.arrays["layers"].size, _same_layers(suspect, base)
    # Only layers with attention change places: others hold nothing that could be held against the base's.
    held = np.flatnonzero(np.any([np.isfinite(suspect.arrays[role]) for role in ATTENTION], axis=0))

    def among_held(order: Array) -> Array:
        places_L = np.arange(depth)
        places_L[held] = held[order]
        return places_L

    def similarity(order_L: Array) -> float | None:
        found = [correlate(suspect.arrays[r][order_L], base.arrays[r], paired=paired)[0] for r in ATTENTION]
        known = [number for number in found if number is not None]
        return float(np.mean(known)) if len(known) == len(found) else None

    rng = np.random.default_rng(SEED)
    orders = np.array([rng.permutation(held.size) for _ in range(SHUFFLES)])
    if all(_held_alike(suspect.arrays[role], base.arrays[role], held) for role in ATTENTION):
        # Both lack the same layers and nothing is interpolated: shuffled z-scores are z-scores of what was shuffled.
        both = ((zscore(suspect.arrays[role][held])[orders], zscore(base.arrays[role][held])) for role in ATTENTION)
        draws = np.mean([shuffled_SL @ b_L / held.size for shuffled_SL, b_L in both], axis=0).tolist()
    else:
        draws = [drawn for order in orders if (drawn := similarity(among_held(order))) is not None]
    mean, q95 = (float(np.mean(draws)), float(np.quantile(np.abs(draws), 0.95))) if draws else (None, None)
    shuffled = f"{SHUFFLES} shuffles of the suspect's layers, seed {SEED}"
    line = "mean |r| of attn.q, attn.k, attn.v, attn.o with the layer number"
    return (
        _control(
            "similarity, layers reversed",
            similarity(among_held(np.arange(held.size)[::-1])),
            "the suspect's layers reversed",
        ),
        _control("similarity, layers shuffled: mean", mean, shuffled),
        _control("similarity, layers shuffled: q95 of |r|", q95, shuffled),
        _control("depth trend, suspect", _trend(suspect), line),
        _control("depth trend, base", _trend(base), line),
    )


def _held_alike(a_L: Array, b_M: Array, held: Array) -> bool:
    """Return whether two sequences have numbers in the same layers, those held, and correlate at all."""
    return (
        a_L.size == b_M.size
        and all(np.array_equal(np.flatnonzero(np.isfinite(side)), held) for side in (a_L, b_M))
        and correlate(a_L, b_M, paired=False)[0] is not None
    )


def _control(name: str, value: float | None, note: str) -> Value:
    return Value(
        name=name,
        value=value,
        kind="similarity" if name.startswith("similarity") else "statistic",
        reason="too few layers are left" if value is None else None,
        note=note,
    )


def _trend(fingerprint: Fingerprint) -> float | None:
    depth_L = fingerprint.arrays["layers"].astype(np.float64)
    found = [correlate(fingerprint.arrays[role], depth_L, paired=True)[0] for role in ATTENTION]
    known = [abs(number) for number in found if number is not None]
    return float(np.mean(known)) if known else None


# -- what is shown -------------------------------------------------------------------------------------------------


def _names(suspect: Fingerprint, base: Fingerprint) -> list[str]:
    """Return the sequences to report: attention always, others where at least one side has them."""
    others: list[str] = []
    for role in (*EXPERTS, *VECTORS, *MIXERS):
        others += [name for name in (role, role + MEAN_OF_EXPERTS) if name in suspect.arrays or name in base.arrays]
    return [*ATTENTION, *others]


def _sequence(fingerprint: Fingerprint, name: str) -> Array | None:
    """Return a sequence; a dense model's own matrices stand for the mean of its experts."""
    found = fingerprint.arrays.get(name, fingerprint.arrays.get(name.removesuffix(MEAN_OF_EXPERTS)))
    return found if found is not None and np.isfinite(found).any() else None


def _same_layers(suspect: Fingerprint, base: Fingerprint) -> bool:
    return np.array_equal(suspect.arrays["layers"], base.arrays["layers"])


def _sides(suspect: Fingerprint, base: Fingerprint) -> Iterable[tuple[str, Fingerprint]]:
    return (("suspect", suspect), ("base", base))


def _role_table(suspect: Fingerprint, base: Fingerprint, values: Sequence[Value], names: Sequence[str]) -> Table:
    def usable(fingerprint: Fingerprint, name: str) -> int:
        sequence = _sequence(fingerprint, name)
        return 0 if sequence is None else int(np.isfinite(sequence).sum())

    rows: list[tuple[Cell, ...]] = [
        (name, usable(suspect, name), usable(base, name), value.value, value.reason)
        for name, value in zip(names, values, strict=True)
    ]
    return Table(
        title="correlation over depth, by sequence",
        columns=("sequence", "suspect layers", "base layers", "pearson", "reason"),
        rows=tuple(rows),
    )


def _layer_table(suspect: Fingerprint, base: Fingerprint) -> Table:
    def cell(fingerprint: Fingerprint, role: str, layer: int) -> Cell:
        sequence = fingerprint.arrays.get(role)
        place = np.flatnonzero(fingerprint.arrays["layers"] == layer)
        if sequence is None or place.size == 0 or not np.isfinite(sequence[place[0]]):
            return None
        return float(sequence[place[0]])

    layers = sorted({int(layer) for _, side in _sides(suspect, base) for layer in side.arrays["layers"]})
    return Table(
        title="standard deviation of all entries, by layer",
        columns=("layer", *(f"{role} {side}" for role in ATTENTION for side in ("suspect", "base"))),
        rows=tuple(
            (layer, *(cell(side, role, layer) for role in ATTENTION for _, side in _sides(suspect, base)))
            for layer in layers
        ),
    )


def _expert_tables(suspect: Fingerprint, base: Fingerprint) -> tuple[Table, ...]:
    """Return how far the experts of each layer differ, where a model has any."""
    rows: list[tuple[Cell, ...]] = []
    for who, side in _sides(suspect, base):
        for role in EXPERTS:
            each_LE = side.arrays.get(role + EACH_EXPERT, np.zeros((0, 0)))
            for layer, row_E in zip(side.arrays["layers"], each_LE, strict=False):
                known = row_E[np.isfinite(row_E)]
                if known.size:
                    least, mean, most = float(known.min()), float(known.mean()), float(known.max())
                    rows.append((who, role, int(layer), int(known.size), least, mean, most))
    columns = ("model", "role", "layer", "experts", "least", "mean", "largest")
    title = "standard deviation of each routed expert's entries"
    return (Table(title=title, columns=columns, rows=tuple(rows)),) if rows else ()


def _notes(suspect: Fingerprint, base: Fingerprint) -> list[str]:
    notes = [f"{side}: {problem}" for side, fingerprint in _sides(suspect, base) for problem in fingerprint.problems]
    if any(role in side.arrays for _, side in _sides(suspect, base) for role in MIXERS):
        notes.append(MIXERS_NOTE)
    if not _same_layers(suspect, base):
        notes.append("the models differ in their layers: each shorter sequence was interpolated onto the longer grid")
    return notes


NAME = "intrinsic"
ID = method_id(NAME, VERSION, seed=SEED, shuffles=SHUFFLES)
SOURCE = "HonestAGI, Intrinsic Fingerprint of LLMs, arXiv 2507.03014 (2025); z-score and interpolation as in LeaFBench"

METHOD = FingerprintMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    extractor=EXTRACTOR,
    compare=compare,
    ignores=frozenset(
        {
            "residual-permutation",
            "ffn-permutation",
            "kv-group-permutation",
            "query-head-permutation",
            "expert-permutation",
        }
    ),
    notices=frozenset({"norm-gain-replacement", "ffn-rescaling", "vo-gauge", "qk-gauge"}),
)
