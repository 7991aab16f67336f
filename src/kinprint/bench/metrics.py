"""How well each column separates derived from unrelated pairs.

Axes: N = pairs, L = distinct values of a column (the most similar first), R = resamples, G = base models.

Everything but the thresholds and the Mahalanobis distance depends on the order of a column's values alone. A pair
without a value counts as the least similar of all, and no threshold reaches it: whoever abstains accuses nobody.

Source: McClish, Analyzing a portion of the ROC curve, Medical Decision Making 9(3), 1989 (the standardised partial
area); Field and Welsh, Bootstrapping clustered data, JRSS B 69(3), 2007, section 3 (whole clusters are resampled).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinprint.bench.records import Column, Interval, Rates, Row
from kinprint.errors import optional
from kinprint.shapes import Bool, Float64, Int64

RESAMPLES = 1000
"""Bootstrap resamples behind every interval."""

MAX_FPR_PERCENT = 1
"""False-positive rate up to which the partial area goes and at which the true-positive rate is read."""

EXPLAINED = 1e-12
"""A spread below this share of the largest value is rounding, and no Mahalanobis distance follows from it."""


def rates(
    columns: Sequence[Column], rows: Sequence[Row], *, seed: int, resamples: int = RESAMPLES
) -> tuple[Rates, ...]:
    """Judge every column on the derived and the unrelated pairs; pairs that are only shown change nothing.

    Args:
        columns: What was measured.
        rows: One per pair.
        seed: Of the bootstrap. Columns with the same pairs see the same resamples.
        resamples: How many.

    Returns:
        One record per column, in their order.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    counted = [row for row in rows if row.case.label != "shown"]
    weights: dict[tuple[str, ...], Int64[np.ndarray, "R N"]] = {}
    found: list[Rates] = []
    for column in columns:
        kept = judged(column, counted)
        names = tuple(row.case.name for row in kept)
        if names not in weights:
            weights[names] = _resamples(kept, seed=seed, resamples=resamples)
        share = sum(measured(column, row) is not None for row in counted) / len(counted) if counted else 0.0
        found.append(_rates(column, kept, weights[names], share))
    return tuple(found)


def judged(column: Column, rows: Sequence[Row]) -> list[Row]:
    """Return the pairs by which a column is judged: abstaining earns nothing.

    A derived pair without a value counts, as missed. An unrelated one without a value does not count: a method that
    cannot look has not acquitted anybody. Pairs that are only shown never count.
    """
    return [
        row
        for row in rows
        if row.case.label == "derived" or (row.case.label == "unrelated" and measured(column, row) is not None)
    ]


def hard_rates(
    columns: Sequence[Column], rows: Sequence[Row], *, seed: int, resamples: int = RESAMPLES
) -> tuple[Rates, ...]:
    """Judge every column with the hard negatives as the only unrelated pairs: see ``rates``."""
    kept = [row for row in rows if row.case.label != "unrelated" or row.case.category == "hard negatives"]
    return rates(columns, kept, seed=seed, resamples=resamples)


def area(column: Column, rows: Sequence[Row]) -> float | None:
    """Return the area under the ROC curve of some pairs; None without both classes or without any value.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    counted = judged(column, rows)
    similarity_N, derived_N = _similarities(column, counted), _derived(counted)
    if not _comparable(similarity_N, derived_N):
        return None
    return _area(similarity_N, derived_N)


def operating_points(
    column: Column, rows: Sequence[Row]
) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]] | None:
    """Return the false- and true-positive rate of every threshold that a column can have.

    Returns:
        Both rates, rising from 0 (a threshold that accuses nobody) to what accusing every measured pair gives;
        None without both classes or without any value.
    """
    counted = judged(column, rows)
    similarity_N, derived_N = _similarities(column, counted), _derived(counted)
    if not _comparable(similarity_N, derived_N):
        return None
    found_RL, accused_RL = _counts(similarity_N, derived_N, np.ones((1, len(counted)), np.int64))
    levels = _measured_levels(similarity_N)
    false_RK, true_RK = _steps(found_RL, accused_RL)
    return false_RK[0, : levels + 1], true_RK[0, : levels + 1]


def accuses(column: Column, value: float | None, threshold: float | None) -> bool:
    """Return whether a threshold in the column's own units calls a pair derived; a missing value is never accused.

    Example:
        >>> column = Column(method="m", id="m/v1", value="d", kind="distance", identical=0.0, headline=True)
        >>> [accuses(column, value, 0.5) for value in (0.1, 0.5, 0.9, None)]
        [True, True, False, False]
    """
    if value is None or threshold is None:
        return False
    return value <= threshold if column.kind == "distance" else value >= threshold


def measured(column: Column, row: Row) -> float | None:
    """Return what a column measured on a pair."""
    cell = row.cells.get(column.name)
    return None if cell is None else cell.value


def base_group(row: Row) -> tuple[str, ...]:
    """Return the roots of a pair's base: the group whose pairs are drawn, judged and reported together."""
    return row.case.base_roots or (row.case.base,)


# -- one column ----------------------------------------------------------------------------------------------------


def _rates(column: Column, rows: Sequence[Row], weight_RN: Int64[np.ndarray, "R N"], share: float) -> Rates:
    similarity_N, derived_N = _similarities(column, rows), _derived(rows)
    held = np.isfinite(similarity_N)
    absent = Interval(value=None)
    counts: dict[str, Any] = {
        "column": column.name,
        "derived": int(derived_N.sum()),
        "unrelated": int((~derived_N).sum()),
        "measured": share,
        "mahalanobis": _mahalanobis(similarity_N[held & derived_N], similarity_N[held & ~derived_N]),
    }
    if not _comparable(similarity_N, derived_N):
        empty = dict.fromkeys(("auc", "partial_auc", "tpr_at_1_fpr", "max_f1"), absent)
        unknown = dict.fromkeys(("max_f1_threshold", "held_out_f1", "held_out_fpr", "held_out_tpr"))
        return Rates(**counts, **empty, **unknown)
    levels = _measured_levels(similarity_N)
    found_RL, accused_RL = _counts(similarity_N, derived_N, weight_RN)
    threshold = _best_threshold(similarity_N, derived_N)
    held_out_f1, held_out_fpr, held_out_tpr = _held_out(similarity_N, derived_N, rows)
    return Rates(
        **counts,
        auc=_interval(_areas(found_RL, accused_RL), _area(similarity_N, derived_N)),
        partial_auc=_interval(
            _partial_areas(found_RL, accused_RL), _area(similarity_N, derived_N, max_fpr=MAX_FPR_PERCENT / 100)
        ),
        tpr_at_1_fpr=_interval(_strict_tpr(found_RL, accused_RL, levels)),
        max_f1=_interval(_f1(found_RL, accused_RL)[:, :levels].max(axis=1)),
        # A difference and not a sign, or zero would become minus zero.
        max_f1_threshold=0.0 - threshold if column.kind == "distance" else threshold,
        held_out_f1=held_out_f1,
        held_out_fpr=held_out_fpr,
        held_out_tpr=held_out_tpr,
    )


def _similarities(column: Column, rows: Sequence[Row]) -> Float64[np.ndarray, " N"]:
    """Higher is more alike; a missing value is -inf."""
    sign = -1.0 if column.kind == "distance" else 1.0
    values = [measured(column, row) for row in rows]
    return np.array([-np.inf if value is None else sign * value for value in values], np.float64)


def _derived(rows: Sequence[Row]) -> Bool[np.ndarray, " N"]:
    return np.array([row.case.label == "derived" for row in rows], np.bool_)


def _comparable(similarity_N: Float64[np.ndarray, " N"], derived_N: Bool[np.ndarray, " N"]) -> bool:
    return bool(derived_N.any() and not derived_N.all() and np.isfinite(similarity_N).any())


def _area(
    similarity_N: Float64[np.ndarray, " N"], derived_N: Bool[np.ndarray, " N"], *, max_fpr: float | None = None
) -> float:
    library = optional("sklearn.metrics", "bench", "the area under the ROC curve")
    # Ranks instead of values: scikit-learn refuses -inf, and the area knows only the order.
    rank_N = np.unique(similarity_N, return_inverse=True)[1]
    return float(library.roc_auc_score(derived_N, rank_N, max_fpr=max_fpr))


def _mahalanobis(derived: Float64[np.ndarray, " P"], unrelated: Float64[np.ndarray, " Q"]) -> float | None:
    """Difference of the means by the pooled within-group deviation, of measured values only.

    Divided by the deviation of all pairs together, as some evaluations do, the distance has an upper limit that depends
    on the shares of the two groups; such numbers cannot be compared with these.
    """
    if min(derived.size, unrelated.size) < 2:
        return None
    freedom = derived.size + unrelated.size - 2
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in (derived, unrelated))
    spread = float(np.sqrt(squares / freedom))
    largest = float(max(np.abs(derived).max(), np.abs(unrelated).max()))
    if spread <= EXPLAINED * largest:
        return None
    return abs(float(derived.mean() - unrelated.mean())) / spread


# -- thresholds ----------------------------------------------------------------------------------------------------


def _best_threshold(similarity_N: Float64[np.ndarray, " N"], derived_N: Bool[np.ndarray, " N"]) -> float:
    """Return the similarity from which on calling a pair derived gives the highest F1; inf where nothing is measured.

    It lies midway between two neighbouring values. Of several that are equally good it is the strictest.
    """
    levels = _measured_levels(similarity_N)
    if not levels:
        return float("inf")
    value_L = np.unique(similarity_N)[::-1]
    found_RL, accused_RL = _counts(similarity_N, derived_N, np.ones((1, similarity_N.size), np.int64))
    best = int(np.argmax(_f1(found_RL, accused_RL)[0, :levels]))
    if best + 1 == levels:
        return float(value_L[best])
    middle = float(value_L[best] + value_L[best + 1]) / 2
    # Between two floats without another in between, the middle rounds to one of them.
    return middle if middle > value_L[best + 1] else float(value_L[best])


def _held_out(
    similarity_N: Float64[np.ndarray, " N"], derived_N: Bool[np.ndarray, " N"], rows: Sequence[Row]
) -> tuple[float | None, float | None, float | None]:
    """Judge each base model's pairs by the threshold that was best on the pairs that share no root with it.

    Returns:
        F1, false- and true-positive rate over all pairs; None where some base model leaves no derived or no
        unrelated pair to choose from.
    """
    accused_N = np.zeros(len(rows), np.bool_)
    for base in dict.fromkeys(base_group(row) for row in rows):
        judged_N = np.array([base_group(row) == base for row in rows])
        apart_N = np.array([not {*base} & {*row.case.roots, *base_group(row)} for row in rows])
        if not derived_N[apart_N].any() or derived_N[apart_N].all():
            return None, None, None
        threshold = _best_threshold(similarity_N[apart_N], derived_N[apart_N])
        accused_N |= judged_N & (similarity_N >= threshold)
    found, wrong = int((accused_N & derived_N).sum()), int((accused_N & ~derived_N).sum())
    total, others = int(derived_N.sum()), int((~derived_N).sum())
    return 2 * found / (found + wrong + total), wrong / others, found / total


# -- many resamples at once ----------------------------------------------------------------------------------------


def _resamples(rows: Sequence[Row], *, seed: int, resamples: int) -> Int64[np.ndarray, "R N"]:
    """Draw base models with replacement, each with all its pairs; a model with several roots goes with the first.

    Returns:
        How often each pair counts: first once each, as measured, then for every resample that holds both classes.
        There are no resamples where fewer than half of them do, or where there is only one base model, of which
        every resample is a copy.
    """
    once_RN = np.ones((1, len(rows)), np.int64)
    names, group_N = np.unique(np.array([base_group(row)[0] for row in rows], np.str_), return_inverse=True)
    if names.size < 2:
        return once_RN
    rng = np.random.default_rng(seed)
    drawn_RG = rng.multinomial(names.size, np.full(names.size, 1 / names.size), size=resamples)
    drawn_RN = drawn_RG[:, group_N].astype(np.int64)
    derived_N = _derived(rows)
    kept_R = drawn_RN[:, derived_N].any(axis=1) & drawn_RN[:, ~derived_N].any(axis=1)
    if 2 * int(kept_R.sum()) < resamples:
        return once_RN
    return np.concatenate([once_RN, drawn_RN[kept_R]])


def _interval(value_R: Float64[np.ndarray, " R"], value: float | None = None) -> Interval:
    """Return the value as measured, which comes first, with the percentile interval of the resamples.

    ``value`` replaces the first where a library gives it.
    """
    point = float(value_R[0]) if value is None else value
    if value_R.size == 1:
        return Interval(value=point)
    low, high = np.percentile(value_R[1:], [2.5, 97.5])
    return Interval(value=point, low=float(low), high=float(high))


def _measured_levels(similarity_N: Float64[np.ndarray, " N"]) -> int:
    """Number of distinct values; -inf, if any, comes after them and is no threshold."""
    return int(np.unique(similarity_N[np.isfinite(similarity_N)]).size)


def _counts(
    similarity_N: Float64[np.ndarray, " N"], derived_N: Bool[np.ndarray, " N"], weight_RN: Int64[np.ndarray, "R N"]
) -> tuple[Int64[np.ndarray, "R L"], Int64[np.ndarray, "R L"]]:
    """Count the derived and the unrelated pairs that are at least as similar as each distinct value."""
    level_N = np.unique(-similarity_N, return_inverse=True)[1]
    order_N = np.argsort(level_N, kind="stable")
    last_L = np.append(np.flatnonzero(np.diff(level_N[order_N])), order_N.size - 1)
    sorted_RN = weight_RN[:, order_N]
    found_RN, all_RN = np.cumsum(sorted_RN * derived_N[order_N], axis=1), np.cumsum(sorted_RN, axis=1)
    return found_RN[:, last_L], (all_RN - found_RN)[:, last_L]


def _f1(found_RL: Int64[np.ndarray, "R L"], accused_RL: Int64[np.ndarray, "R L"]) -> Float64[np.ndarray, "R L"]:
    return 2 * found_RL / (found_RL + accused_RL + found_RL[:, -1:])


def _steps(
    found_RL: Int64[np.ndarray, "R L"], accused_RL: Int64[np.ndarray, "R L"]
) -> tuple[Float64[np.ndarray, "R points"], Float64[np.ndarray, "R points"]]:
    """False- and true-positive rates from (0, 0) to (1, 1)."""
    false_RL, true_RL = accused_RL / accused_RL[:, -1:], found_RL / found_RL[:, -1:]
    return np.pad(false_RL, ((0, 0), (1, 0))), np.pad(true_RL, ((0, 0), (1, 0)))


def _areas(found_RL: Int64[np.ndarray, "R L"], accused_RL: Int64[np.ndarray, "R L"]) -> Float64[np.ndarray, " R"]:
    """Area under each ROC curve by trapezia, so that a tie between the classes counts half."""
    false_RK, true_RK = _steps(found_RL, accused_RL)
    return np.trapezoid(true_RK, false_RK, axis=1)


def _partial_areas(
    found_RL: Int64[np.ndarray, "R L"], accused_RL: Int64[np.ndarray, "R L"]
) -> Float64[np.ndarray, " R"]:
    """Area up to the false-positive rate m, rescaled so that chance is 1/2 and the best is 1.

    (1 + (A - m^2 / 2) / (m - m^2 / 2)) / 2, as in McClish (1989) and in scikit-learn.
    """
    limit = MAX_FPR_PERCENT / 100
    false_RK, true_RK = _steps(found_RL, accused_RL)
    width_RL, rise_RL = np.diff(false_RK, axis=1), np.diff(true_RK, axis=1)
    inside_RL = np.clip(limit - false_RK[:, :-1], 0, width_RL)
    share_RL = np.divide(inside_RL, width_RL, out=np.zeros_like(width_RL), where=width_RL > 0)
    area_R = (inside_RL * (true_RK[:, :-1] + share_RL * rise_RL / 2)).sum(axis=1)
    chance = limit**2 / 2
    return (1 + (area_R - chance) / (limit - chance)) / 2


def _strict_tpr(
    found_RL: Int64[np.ndarray, "R L"], accused_RL: Int64[np.ndarray, "R L"], levels: int
) -> Float64[np.ndarray, " R"]:
    """Share of derived pairs found while at most 1 per cent of the unrelated are accused."""
    # In whole numbers: 0.01 is not a float.
    allowed_RL = 100 * accused_RL[:, :levels] <= MAX_FPR_PERCENT * accused_RL[:, -1:]
    return np.where(allowed_RL, found_RL[:, :levels], 0).max(axis=1) / found_RL[:, -1]
