"""From p-values to rows: three statistics for each test and zoo, corrected for all of them together.

H0 of a row: the p-values of a test are uniform on pairs of models that were initialised and trained independently. That
is what exactness means, and it follows from exchangeability of each model's labels; see ``statistics`` for what is
independent of what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kinprint.bench.calibration import statistics
from kinprint.bench.calibration.measure import is_enumerated
from kinprint.bench.calibration.records import CalibrationRow, Check, Draw, Statistic
from kinprint.checkpoint import Array

SEED = 0

LEVEL = 0.01
"""A test is not calibrated if an adjusted p-value is below this."""

LEAST = 8
"""Independent draws below which a row says nothing: nine models, all tested with each other."""


def judged(tried: Sequence[Sequence[Draw]], names: Mapping[str, str] | None = None) -> list[CalibrationRow]:
    """Return a row for the draws of each test and zoo, with Holm's correction over all rows that say something.

    Args:
        tried: For each test and zoo its draws, one of them at least with a p-value.
        names: Tests for people, by id; the id itself where there is none.
    """
    rows = [evaluate(draws, names or {}) for draws in tried]
    said = [row for row in rows if row.independent >= LEAST]
    adjusted = iter(statistics.holm([check.p for row in said for check in row.checks]))
    strictest = LEVEL / max(1, sum(len(row.checks) for row in said))
    found: list[CalibrationRow] = []
    for row, draws in zip(rows, tried, strict=True):
        if row.independent < LEAST:
            found.append(row)
            continue
        pairs = _pairs([draw for draw in draws if draw.p is not None])
        sizes = [len(held) for held in statistics.rounds(pairs, SEED)]
        checks = tuple(check.model_copy(update={"adjusted": next(adjusted)}) for check in row.checks)
        changed = {
            "checks": checks,
            "calibrated": min(check.adjusted for check in checks) >= LEVEL,
            "found_from": statistics.found_from(pairs, strictest, SEED),
            "found_from_rounds": statistics.found_from_rounds(sizes, strictest, SEED),
        }
        found.append(row.model_copy(update=changed))
    return found


def evaluate(draws: Sequence[Draw], names: Mapping[str, str]) -> CalibrationRow:
    """Return the row of one test on one zoo, not yet judged. One draw at least has a p-value."""
    used = [draw for draw in draws if draw.p is not None]
    pairs = _pairs(used)
    p_M = np.array([draw.p for draw in used], dtype=np.float64)  # float64: -log10 p and z of small p
    free, played = statistics.forest(pairs, SEED), statistics.rounds(pairs, SEED)
    return CalibrationRow(
        test=used[0].test,
        name=names.get(used[0].test, used[0].test),
        zoo=used[0].zoo,
        models=len({model for pair in pairs for model in pair}),
        pairs=len(used),
        not_applicable=len(draws) - len(used),
        reasons=_reasons(draws),
        independent=len(free),
        disjoint=max(len(held) for held in played),
        rounds=len(played),
        enumerated=sum(is_enumerated(draw.outcome) for draw in used),
        spread=float(np.sqrt(statistics.squares(p_M).mean())),
        share_at_5=float((p_M <= 0.05).mean()),
        smallest=float(p_M.min()),
        checks=(
            _check("ks", statistics.kolmogorov, p_M, statistics.kolmogorov(p_M[free])[1], played),
            _check("ad", statistics.anderson, p_M, statistics.anderson(p_M[free])[1], played),
            _check("dispersion", statistics.dispersion, p_M, statistics.jackknifed_dispersion(p_M, pairs), played),
        ),
    )


def unused(draws: Sequence[Draw], names: Mapping[str, str]) -> str:
    """Return why a test applied to no pair of a zoo."""
    test = draws[0].test
    return f"{names.get(test, test)}: {draws[0].zoo}: {_reasons(draws)[0]}"


def _pairs(used: Sequence[Draw]) -> list[tuple[int, int]]:
    names = sorted({name for draw in used for name in (draw.suspect, draw.base)})
    numbers = {name: at for at, name in enumerate(names)}
    return [(numbers[draw.suspect], numbers[draw.base]) for draw in used]


def _reasons(draws: Sequence[Draw]) -> tuple[str, ...]:
    counted = Counter(draw.outcome.reason or "no reason given" for draw in draws if draw.p is None)
    return tuple(reason for reason, _ in counted.most_common(3))


def _check(
    statistic: Statistic,
    test: Callable[[Array], tuple[float, float]],
    p_M: Array,
    p: float,
    played: Sequence[Sequence[int]],
) -> Check:
    value, p_all = test(p_M)
    rounds = statistics.over_rounds(p_M, played, test)
    return Check(statistic=statistic, value=value, p_all=p_all, p=p, p_rounds=rounds)
