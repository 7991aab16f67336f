"""Gram matrices of routers: whether the experts of two mixtures lie alike among each other, seen from their routers.

Axes: E, F = experts of a layer of suspect and base, D = residual width, N, M = layers with a router, P = pairs of
experts.

For every layer, W is the router with the gain of the norm that feeds it folded in, E x D, and G = W W^T. Rows are
centred over the layer's experts (a softmax does not see what all have in common) and scaled to unit length, which both
follow from G. Experts are matched one to one; the layer's number is the cosine of the two Gram matrices' entries above
the diagonal, about their means (Pearson's correlation, since centred rows have negative ones throughout). The
similarity is the mean over mapped layers.

Matching: rows of G without the diagonal and in sorted order are what no numbering changes; the linear assignment of
those rows is improved by further ones, each on the products of rows under the last matching, as long as the cosine
grows. Where one model has fewer experts they choose among the larger's, by the cosines of uncentred rows (removing
experts moves the centre), and are centred with their partners alone. Layers are mapped in order by their sorted
entries; models of equal depth layer by layer.

Unchanged by: every change of the weights that keeps the function: renumbering experts with their router rows, rotating
or permuting the residual stream, exchanging gains with the router, whatever is done to attention and MLPs. A shift
that all rows share, and a scale for each row, are ignored too. Changed by: training, and a router drawn anew: a
mixture that was made from a dense model shares no router with it or with its siblings.

What it is worth: matching finds likeness anywhere, the more the fewer experts there are. So each number stands beside
what the *same matching* finds in the suspect's own entries put in random places, and beside layers that do not
correspond. Fewer than four experts have too few pairs. There is no null distribution.

Source: RedHatResearch/aibom-security, router Gram matrices with experts aligned by assignment. Centring, folding, the
improved matching and the controls are kinprint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.alignment.posa import posa
from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.fingerprints import Extractor, Fingerprint, FingerprintMethod
from kinprint.spectra.gram import ROUNDS, cosines, likeness, matched
from kinprint.types import Cell, MethodResult, Table, Value

NAME = "router"
VERSION = 1  # raise whenever any output can change
SHUFFLES, SEED = 8, 0
MINIMUM_EXPERTS = 4
"""Three experts have three pairs, and the best of their six orders nearly always correlates."""

QUANTILES = 32
"""Points of a layer's sorted entries by which layers are mapped."""

SOURCE = "RedHatResearch/aibom-security, router Gram matrices; centring, folding and controls are kinprint's"
NOTES = (
    "no null distribution: matched Gram matrices of unrelated routers correlate above 0, see the entries shuffled",
    "seen from the routers alone: a mixture made from a dense model has a router of its own, whatever its experts are",
)


# -- once per model ------------------------------------------------------------------------------------------------


def grams(model: ModelView) -> Fingerprint:
    """Return the Gram matrix of every layer's router rows, gains folded.

    Returns:
        ``layers`` [N]; for each of them ``gram.<layer>`` float64 [E, E], since layers may differ in their experts.
    """
    arrays: dict[str, Array] = {}
    problems: list[str] = []
    for layer in model.layers("moe.router"):
        try:
            rows_ED = model.array("moe.router", layer, fold=True).astype(np.float64)
        except NonFiniteError as error:
            problems.append(f"layers {layer} left out: {error}")
            continue
        arrays[f"gram.{layer}"] = rows_ED @ rows_ED.T  # float64: the centre is subtracted from it later
    layers = [int(name.removeprefix("gram.")) for name in arrays]
    if not model.layers("moe.router"):
        problems.append(f"family {model.family.name}: no layer has a router")
    return Fingerprint(EXTRACTOR.id, {"layers": np.array(layers, dtype=np.int64), **arrays}, tuple(problems))


EXTRACTOR = Extractor(method_id("router-gram", 1, fold=True), grams)


# -- once per pair -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layers:
    """The usable routers of one model, by layer."""

    numbers: tuple[int, ...]
    grams: Mapping[int, Array]
    reason: str

    @classmethod
    def of(cls, who: str, fingerprint: Fingerprint) -> _Layers:
        found = {int(layer): fingerprint.arrays[f"gram.{layer}"] for layer in fingerprint.arrays["layers"]}
        usable = {layer: gram_EE for layer, gram_EE in found.items() if len(gram_EE) >= MINIMUM_EXPERTS}
        few = [f"fewer than {MINIMUM_EXPERTS} experts"] if found and not usable else []
        return cls(tuple(usable), usable, f"{who}: {'; '.join((*fingerprint.problems, *few))}")

    def profile(self, layer: int) -> Array:
        """Return quantiles of a layer's cosines, which no numbering of experts changes."""
        found_EE = cosines(self.grams[layer], centred=True)
        return np.quantile(found_EE[np.triu_indices(len(found_EE), 1)], np.linspace(0, 1, QUANTILES))


@dataclass(frozen=True, slots=True)
class _Row:
    """Two layers: the likeness of their routers, and of the suspect's shuffled entries."""

    suspect: int
    base: int
    experts: tuple[int, int]
    found: float
    shuffled: float
    in_place: float


def compare(suspect: Fingerprint, base: Fingerprint) -> MethodResult:
    """Return the likeness of two models' routers.

    Returns:
        Similarity; controls with the entries shuffled, the experts unmatched, and layers that do not correspond.
        ``not_applicable`` where one of the models is no mixture.
    """
    sides = _Layers.of("suspect", suspect), _Layers.of("base", base)
    for side in sides:
        if not side.numbers:
            return _nothing(side.reason)
    profiles = [np.stack([side.profile(layer) for layer in side.numbers]) for side in sides]
    apart_NM = ((profiles[0][:, None] - profiles[1][None]) ** 2).mean(axis=2)
    pairs = posa(apart_NM, 0.0).pairs
    rng = np.random.default_rng(SEED)
    rows = [_row(sides, row, column, rng) for row, column in pairs]
    usable = [row for row in rows if np.isfinite(row.found)]
    if not usable:
        return _nothing("all experts of every layer are equally far apart in one of the models")
    mean = float(np.mean([row.found for row in usable]))
    note = f"mean over {len(usable)} pairs of layers"
    return MethodResult(
        method=NAME,
        id=ID,
        status="measured",
        values=(Value(name="similarity", value=mean, kind="similarity", identical=1.0, note=note),),
        controls=(*_shuffled(usable, sides, rng), _mismatched(sides, pairs)),
        tables=(_table(rows),),
        notes=(*NOTES, *_notes(suspect, base, sides, rows)),
        source=SOURCE,
    )


def _nothing(reason: str) -> MethodResult:
    return MethodResult(method=NAME, id=ID, status="not_applicable", reason=reason, source=SOURCE)


def _row(sides: tuple[_Layers, _Layers], row: int, column: int, rng: np.random.Generator) -> _Row:
    layers = sides[0].numbers[row], sides[1].numbers[column]
    left_EE, right_FF = (side.grams[layer] for side, layer in zip(sides, layers, strict=True))
    found, partners, small = _likeness_of(left_EE, right_FF)
    drawn = [_entries_shuffled(left_EE, right_FF, rng) for _ in range(SHUFFLES)]
    kept = [value for value in drawn if np.isfinite(value)]
    return _Row(
        *layers,
        experts=(len(left_EE), len(right_FF)),
        found=found,
        shuffled=float(np.mean(kept)) if kept else float("nan"),
        in_place=float((partners == np.arange(small)).mean()),
    )


def _likeness_of(left_EE: Array, right_FF: Array) -> tuple[float, Array, int]:
    """Return the likeness of two Gram matrices, the partners of the smaller's experts, and how many those are."""
    small, large = (left_EE, right_FF) if len(left_EE) <= len(right_FF) else (right_FF, left_EE)
    equal = len(small) == len(large)
    partners = matched(cosines(small, centred=equal), cosines(large, centred=equal))
    inside = large[np.ix_(partners, partners)]
    return likeness(cosines(small, centred=True), cosines(inside, centred=True)), partners, len(small)


def _entries_shuffled(left_EE: Array, right_FF: Array, rng: np.random.Generator) -> float:
    """Return what matching finds where the suspect's cosines stand in random places."""
    found_EE, other_FF = cosines(left_EE, centred=True), cosines(right_FF, centred=True)
    above = np.triu_indices(len(found_EE), 1)
    drawn_EE = np.zeros_like(found_EE)
    drawn_EE[above] = rng.permutation(found_EE[above])
    drawn_EE += drawn_EE.T
    small, large = (drawn_EE, other_FF) if len(drawn_EE) <= len(other_FF) else (other_FF, drawn_EE)
    partners = matched(small, large)
    return likeness(small, large[np.ix_(partners, partners)])


def _shuffled(rows: Sequence[_Row], sides: tuple[_Layers, _Layers], rng: np.random.Generator) -> tuple[Value, Value]:
    unmatched: list[float] = []
    for row in rows:
        grams_of = sides[0].grams[row.suspect], sides[1].grams[row.base]
        count = min(row.experts)
        for _ in range(SHUFFLES):
            chosen = [rng.permutation(len(gram))[:count] for gram in grams_of]
            pair = [cosines(g[np.ix_(c, c)], centred=True) for g, c in zip(grams_of, chosen, strict=True)]
            unmatched.append(likeness(pair[0], pair[1]))
    again = [row.shuffled for row in rows if np.isfinite(row.shuffled)]
    known = [value for value in unmatched if np.isfinite(value)]
    return (
        _control(
            "similarity, entries shuffled and matched: mean",
            float(np.mean(again)) if again else None,
            f"{SHUFFLES} shuffles a layer of the suspect's cosines, seed {SEED}: what matching alone finds",
        ),
        _control(
            "similarity, experts shuffled: mean",
            float(np.mean(known)) if known else None,
            f"{SHUFFLES} random matchings a layer, seed {SEED}",
        ),
    )


def _mismatched(sides: tuple[_Layers, _Layers], pairs: Sequence[tuple[int, int]]) -> Value:
    """Return the mean likeness of every layer with its predecessor's partner, the first with the last's."""
    found: list[float] = []
    for at, (row, _) in enumerate(pairs):
        grams_of = sides[0].grams[sides[0].numbers[row]], sides[1].grams[sides[1].numbers[pairs[at - 1][1]]]
        found.append(_likeness_of(*grams_of)[0])
    known = [value for value in found if np.isfinite(value)] if len(pairs) > 1 else []
    note = "every layer against its predecessor's partner, matched the same way"
    return _control("similarity, mismatched layers", float(np.mean(known)) if known else None, note)


def _control(name: str, value: float | None, note: str) -> Value:
    reason = "there is nothing to shuffle or to mismatch" if value is None else None
    return Value(name=name, value=value, kind="similarity", reason=reason, note=note)


# -- what is shown -------------------------------------------------------------------------------------------------


def _table(rows: Sequence[_Row]) -> Table:
    lines: list[tuple[Cell, ...]] = [
        (
            row.suspect,
            row.base,
            *row.experts,
            row.found if np.isfinite(row.found) else None,
            row.shuffled if np.isfinite(row.shuffled) else None,
            row.in_place,
        )
        for row in rows
    ]
    columns = (
        "suspect layer", "base layer", "suspect experts", "base experts", "similarity", "entries shuffled",
        "share under one number",
    )  # fmt: skip
    return Table(title="routers by pair of layers", columns=columns, rows=tuple(lines))


def _notes(suspect: Fingerprint, base: Fingerprint, sides: tuple[_Layers, _Layers], rows: Sequence[_Row]) -> list[str]:
    notes = [f"{who}: {p}" for who, side in (("suspect", suspect), ("base", base)) for p in side.problems]
    counts = sorted({row.experts for row in rows if row.experts[0] != row.experts[1]})
    if counts:
        said = ", ".join(f"{mine} against {theirs}" for mine, theirs in counts)
        notes.append(f"{said} experts: the fewer choose their partners among the more, which favours them")
    depths = [len(side.numbers) for side in sides]
    if depths[0] != depths[1]:
        notes.append(f"{depths[0]} against {depths[1]} layers with a router: mapped in order by their sorted cosines")
    return notes


ID = method_id(NAME, VERSION, quantiles=QUANTILES, rounds=ROUNDS, seed=SEED, shuffles=SHUFFLES)

METHOD = FingerprintMethod(
    name=NAME,
    id=ID,
    source=SOURCE,
    extractor=EXTRACTOR,
    compare=compare,
    ignores=frozenset(
        {
            "residual-permutation", "residual-signs", "residual-rotation", "norm-gain-replacement", "ffn-permutation",
            "ffn-rescaling", "kv-group-permutation", "query-head-permutation", "vo-gauge", "qk-gauge",
            "expert-permutation",
        }
    ),
)  # fmt: skip
