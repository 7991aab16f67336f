"""Are p-values of pairs uniform, when pairs share models? Statistics, and how many independent draws are behind them.

Axes: M = pairs, N = models, S = simulations. A set of pairs is a graph: models are its points, pairs its lines.

What is independent. Under the null every model's numbering is uniform and independent of all else, and the p-value of a
pair depends on the two numberings only through the relabelling that leads from one to the other. So, given everything
about both models but the numbering of *one* of them, the p-value is uniform. Take a set of pairs without a cycle (a
forest) and remove its leaves one by one: each leaf's numbering enters one p-value only, which is therefore uniform and
independent of those that remain. Hence

* p-values of any forest are mutually independent: models - 1 draws for models that are all tested with each other;
* any two p-values are independent, also where they share a model: covariances, and so the variance of a mean over all
  pairs, are those of independent draws;
* three pairs in a triangle are not: the third relabelling follows from the other two. All N(N-1)/2 pairs look like
  independent draws to second moments and not to higher ones.

(Monte Carlo relabellings are one seeded set for all pairs with the same number of labels. That leaves each p-value
uniform; given the set, means of two pairs' p-values covary by some 1e-4 of their variance.)

So Kolmogorov and Smirnov's and Anderson and Darling's tests are made on one seeded random forest, where they are exact.
Dispersion, the mean square of z, is tested on all pairs: its logarithm against the standard error of the jackknife that
leaves out one *model* at a time with all its pairs, by Student's t with N - 1 degrees of freedom. For such sums over
pairs the jackknife's variance is about twice the true one (Efron & Stein 1981, Ann. Statist. 9:586), so this is
conservative, and it notices what ties pairs of one model together. It is approximate all the same: simulated with 9, 12
and 33 models it rejects at most 9 times in 1000 at level .01 and twice in 1000 at .001, most often where a model has no
more than 4 two-valued labels.

For comparison, rounds: a tournament in which every pair meets once and no two pairs of a round share a model. One
p-value a round, combined by twice their mean, which is valid whatever their dependence (Vovk & Wang 2020, Biometrika
107:791). It needs the least and sees the least: the mean is small only if every round is.

Source: distribution of Anderson and Darling's statistic: Marsaglia & Marsaglia 2004, J. Stat. Softw. 9(2); far out its
leading term, sqrt(3) exp(-z) / sqrt(pi z), of the weighted sum of chi-squares, weights 1 / (j (j + 1)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import zip_longest
from typing import Any

import numpy as np

from kinprint.checkpoint import Array
from kinprint.shapes import Float64

Pairs = Sequence[tuple[int, int]]
"""Each pair as the numbers of its two models."""

POWER = 0.8
"""How often a spread must be found to count as one that is found."""

_SIMULATIONS = 400
_WIDEST = 16.0
"""Largest spread that is looked for."""


def _scipy() -> Any:  # noqa: ANN401 - scipy has no types
    return import_module("scipy.stats")


# -- which pairs -----------------------------------------------------------------------------------------------------


def forest(pairs: Pairs, seed: int = 0) -> list[int]:
    """Return places of a largest set of pairs without a cycle, taken in a random order.

    Example:
        >>> sorted(forest([(0, 1), (5, 6)])), len(forest([(0, 1), (1, 2), (2, 0)]))
        ([0, 1], 2)
    """
    leads = {model: model for pair in pairs for model in pair}
    kept: list[int] = []
    for place in map(int, np.random.default_rng(seed).permutation(len(pairs))):
        first, second = (_root(leads, model) for model in pairs[place])
        if first != second:
            leads[first] = second
            kept.append(place)
    return kept


def rounds(pairs: Pairs, seed: int = 0) -> list[list[int]]:
    """Return places of pairs in rounds: every pair in one round, no model twice in a round.

    Models that no chain of pairs connects play tournaments of their own, side by side.
    """
    leads = {model: model for pair in pairs for model in pair}
    for first, second in pairs:
        leads[_root(leads, first)] = _root(leads, second)
    groups: dict[int, list[int]] = {}
    for model in sorted(leads):
        groups.setdefault(_root(leads, model), []).append(model)
    places = {frozenset(pair): place for place, pair in enumerate(pairs)}
    generator = np.random.default_rng(seed)
    tournaments = [_tournament(generator.permutation(models).tolist(), places) for models in groups.values()]
    joined = ([place for held in together for place in held] for together in zip_longest(*tournaments, fillvalue=()))
    return [held for held in joined if held]


def _tournament(models: list[int], places: dict[frozenset[int], int]) -> list[list[int]]:
    """Return the rounds of one group by the circle method: one stays, the others move on by one seat."""
    seats: list[int | None] = [*models, *([None] if len(models) % 2 else [])]
    found: list[list[int]] = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
        met = [frozenset((a, b)) for a, b in facing if a is not None and b is not None]
        found.append([places[pair] for pair in met if pair in places])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return [held for held in found if held]


def _root(leads: dict[int, int], model: int) -> int:
    while leads[model] != model:
        model = leads[model]
    return model


# -- p-values of independent draws -------------------------------------------------------------------------------------


def kolmogorov(p_M: Float64[Array, " M"]) -> tuple[float, float]:
    """Return the largest distance from the uniform distribution function, and its exact p-value."""
    found = _scipy().kstest(p_M, "uniform")
    return float(found.statistic), float(found.pvalue)


def anderson(p_M: Float64[Array, " M"]) -> tuple[float, float]:
    """Return Anderson and Darling's statistic against the uniform distribution, and its p-value."""
    ordered_M, count = np.sort(p_M), p_M.size
    weights_M = 2 * np.arange(1, count + 1) - 1
    value = -count - float((weights_M * (np.log(ordered_M) + np.log1p(-ordered_M[::-1]))).sum()) / count
    return value, _anderson_tail(value, count)


def _anderson_tail(z: float, count: int) -> float:
    if z > 8:  # the fitted polynomials end where p is about 2e-6
        return math.sqrt(3 / (math.pi * z)) * math.exp(-z)
    if z < 2:
        series = (2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691)
        below = math.exp(-1.2337141 / z) / math.sqrt(z) * _polynomial(z, series) if z > 0 else 0.0
    else:
        series = (1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146)
        below = math.exp(-math.exp(_polynomial(z, series)))
    return min(1.0, max(0.0, 1 - below - _anderson_finite(below, count)))


def _anderson_finite(below: float, count: int) -> float:
    """Return what a finite number of draws adds to the limit's distribution function."""
    if below > 0.8:
        series = (-130.2137, 745.2337, -1705.091, 1950.646, -1116.360, 255.7844)
        return _polynomial(below, series) / count
    cut = 0.01265 + 0.1757 / count
    if below < cut:
        t = below / cut
        shape = math.sqrt(t) * (1 - t) * (49 * t - 102)
        return shape * (0.0037 / count**2 + 0.00078 / count + 0.00006) / count
    t = (below - cut) / (0.8 - cut)
    series = (-0.00022633, 6.54034, -14.6538, 14.458, -8.259, 1.91864)
    return _polynomial(t, series) * (0.04213 + 0.01365 / count) / count


def _polynomial(x: float, series: Sequence[float]) -> float:
    return sum(factor * x**power for power, factor in enumerate(series))


def dispersion(p_M: Float64[Array, " M"]) -> tuple[float, float]:
    """Return the mean square of z, and its two-sided chi-square p-value."""
    squares_M = squares(p_M)
    law, total = _scipy().chi2(squares_M.size), float(squares_M.sum())
    return total / squares_M.size, float(min(1.0, 2 * min(law.sf(total), law.cdf(total))))


def squares(p_M: Float64[Array, " M"]) -> Float64[Array, " M"]:
    """Return z squared, where z is the normal quantile of 1 - p: mean 1 under the null."""
    return np.square(_scipy().norm.isf(p_M))


# -- p-values of pairs that share models -------------------------------------------------------------------------------


def jackknifed_dispersion(p_M: Float64[Array, " M"], pairs: Pairs) -> float:
    """Return the two-sided p-value of a mean square of z other than 1, leaving out one model at a time."""
    means_S, errors_S, models = _left_out(squares(p_M)[None], pairs)
    if not math.isfinite(errors_S[0]) or errors_S[0] <= 0:
        return 1.0
    return float(2 * _scipy().t.sf(abs(math.log(means_S[0])) / (errors_S[0] / means_S[0]), models - 1))


def _left_out(
    squares_SM: Float64[Array, "S M"], pairs: Pairs
) -> tuple[Float64[Array, " S"], Float64[Array, " S"], int]:
    """Return means over pairs, their jackknife errors (infinite where it cannot be said) and the number of models."""
    ends_M2 = np.array(pairs)
    models_N, ends = np.unique(ends_M2, return_inverse=True)
    holds_MN = np.zeros((len(pairs), models_N.size))
    np.put_along_axis(holds_MN, ends.reshape(ends_M2.shape), 1.0, axis=1)
    means_S = squares_SM.mean(axis=1)
    others_N = len(pairs) - holds_MN.sum(axis=0)
    if models_N.size < 3 or others_N.min() < 1:
        return means_S, np.full(len(squares_SM), np.inf), models_N.size
    without_SN = (squares_SM.sum(axis=1, keepdims=True) - squares_SM @ holds_MN) / others_N
    about_SN = without_SN - without_SN.mean(axis=1, keepdims=True)
    errors_S = np.sqrt((models_N.size - 1) / models_N.size * np.square(about_SN).sum(axis=1))
    return means_S, errors_S, models_N.size


def over_rounds(
    p_M: Float64[Array, " M"],
    held: Sequence[Sequence[int]],
    test: Callable[[Float64[Array, " M"]], tuple[float, float]],
) -> float:
    """Return twice the mean of a test's p-values over rounds, at most 1."""
    return min(1.0, 2 * float(np.mean([test(p_M[list(places)])[1] for places in held])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


# -- power -------------------------------------------------------------------------------------------------------------


def found_from(pairs: Pairs, level: float, seed: int = 0) -> float | None:
    """Return the smallest spread above 1 that the jackknife finds 8 times in 10, by simulation; None for none.

    Args:
        pairs: The pairs.
        level: Level of the test.
        seed: Of the simulated z, normal and independent.
    """
    normal_SM = np.random.default_rng(seed).standard_normal((_SIMULATIONS, len(pairs)))
    means_S, errors_S, models = _left_out(np.square(normal_SM), pairs)
    if not np.isfinite(errors_S).all():
        return None
    # A spread s is found where log(s^2 mean) > t error / mean: the share that error is of the mean has no scale.
    needed_S = _scipy().t.isf(level / 2, models - 1) * errors_S / means_S - np.log(means_S)
    return _usual(np.exp(needed_S / 2))


def found_from_rounds(sizes: Sequence[int], level: float, seed: int = 0) -> float | None:
    """Return the smallest spread above 1 that twice the mean over rounds of these sizes finds 8 times in 10."""
    sizes_R = np.array(sizes)
    sums_SR = np.random.default_rng(seed).chisquare(sizes_R, size=(_SIMULATIONS, sizes_R.size))
    low_S, high_S = np.ones(_SIMULATIONS), np.full(_SIMULATIONS, _WIDEST * 2)
    for _ in range(12):
        middle_S = (low_S + high_S) / 2
        p_S = 2 * _scipy().chi2.sf(np.square(middle_S)[:, None] * sums_SR, sizes_R).mean(axis=1)
        # Two-sided in each round, and twice the mean.
        found_S = 2 * p_S < level
        low_S, high_S = np.where(found_S, low_S, middle_S), np.where(found_S, middle_S, high_S)
    return _usual(high_S)


def _usual(spreads_S: Float64[Array, " S"]) -> float | None:
    found = float(np.quantile(spreads_S, POWER))
    return found if found <= _WIDEST else None
