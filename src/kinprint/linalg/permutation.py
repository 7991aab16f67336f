"""Exact and bounded tails of linear permutation statistics: does label i of one model resemble label i of another?

Axes: N = labels of one group, S = permutations, B = rows of one block. A group is a real matrix, scores_NN: entry
(i, j) says how much label i of one model resembles label j of the other. The statistic is T, the sum of the diagonals
of all groups. Null: labels of each group are paired by an independent uniform permutation, so that every pairing is
equally likely; |G| is the product of the N!.

Ignores constants added to rows and columns, and one relabelling of both models. Notices labels that resemble each
other more than they resemble the rest. It cannot say more than 1 in |G|, however alike two models are.

Small |G| is enumerated. Otherwise the p-value is Monte Carlo's, and below Monte Carlo's resolution Chernoff's bound:
P(T(pi) >= T) <= exp(-lambda T) E exp(lambda T(pi)) for every lambda >= 0. The moment generating function of one group
is per(exp(lambda scores)) / N!: summed over all permutations up to N = 8, and bounded above that by

    per(A) / N! <= product over rows i of (mean over j of A_ij^p)^(1/p),    p = N log N / log N!,    A >= 0.    (1)

(1) is an equality for the identity and for constant A, so it reaches 1/|G| for a dominant diagonal, and loses only the
factor p (1.16 at N = 1536) in the exponent of a normal tail. It is never above the product of row sums over N!, nor
above (1) with p = 2 (Carlen, Lieb & Loss 2006). Scaling column j by c_j divides out and can sharpen it.

Bristiel & Caputo, Entropy inequalities for random walks and permutations (arXiv 2109.06009), announce a sharp bound of
this kind by entropy. What is used here is proved here, since innocents depend on the constant. D is relative entropy
to the uniform law (given one label: to the uniform law on the others).

1. Let q be the law of a uniform value other than X, where X has law x on N values. Then D(q) <= t D(x), with
   t = 1 - log(N-1) / log N. Written out, the claim is sum g(x_i) >= 0, g(x) = t x log x - (1-x) log(1-x) / (N-1).
   N = 2 is an equality. For N > 2, g is convex and then concave, so the sum is least where all x_i but one are equal:
   h(x) = g(1 - (N-1) x) + (N-1) g(x) on [0, 1/N]. There h(0) = h(1/N) = h'(1/N) = 0, and h'' times
   x (1-x) (1 - (N-1) x) is linear in x, negative at 0 since t < 1/(N-1). So h is concave and then convex: h >= 0.
2. For any law of a permutation s and any j, the sum over i != j of D(s_j | s_i) is at least
   (N-1) (1-t) D(s_j): it is convex in the law, so shuffling the positions other than j only lowers it, and after that
   s_i is uniform given s_j, whence D(s_j | s_i) = D(s_j) - D(s_i) >= (1-t) D(s_j) by 1.
3. D(s) >= (1/p) sum of D(s_j). An equality for N = 2. The chain rule, averaged over which position i comes first, and
   induction give N D(s) >= sum_i D(s_i) + (1/p_{N-1}) sum_{i != j} D(s_j | s_i), which by 2 is at least
   (1 + log (N-1)! / log N) sum_j D(s_j) = (N/p_N) sum_j D(s_j).
4. log E prod A(i, s_i) is the largest value of sum_i E log A(i, s_i) - D(s) over laws of s (Gibbs), by 3 at most
   sum_i of the largest E log A(i, s_i) - D(s_i) / p, which is (1/p) log mean_j A_ij^p. That is (1).

Source of the moments: Hoeffding, A combinatorial central limit theorem, Ann. Math. Statist. 22 (1951), theorem 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kinprint.errors import NonFiniteError, UsageError
from kinprint.shapes import Float, Float64

Array = np.ndarray[Any, np.dtype[Any]]
Groups = Sequence[Float[Array, "_ _"]]

_ENUMERATED_LABELS = 8
"""Labels up to which all permutations of one group are summed: 40,320 of them."""

_ENUMERATED_PAIRINGS = 20_000
"""Pairings of all groups up to which the p-value is exact."""

_BLOCK = 1 << 18
"""Numbers converted to float64 at once: 2 MB, which stay in a core's cache."""

_ROUNDING = 1e-12
"""Share of the largest possible sum within which two sums count as equal, and a tie as reached: rounding must never
lower a p-value. Float64 sums of some thousand terms agree to about 1e-14."""

_PASSES = 24
"""Evaluations of the bound at most; each one is valid, so stopping early only costs sharpness."""

_ENOUGH = 2e-3
"""Share of the logarithm of the bound below which a further improvement is not worth a pass over the scores."""


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """One test. The p-value is ``log10_p``; ``z`` is for display, since no normal tail is assumed anywhere.

    Attributes:
        observed: T, in units of the scores.
        mean: Exact mean of T under the null.
        sd: Exact standard deviation of T under the null, above 0.
        z: (observed - mean) / sd.
        draws: Permutations tried: all of them where ``bound_used`` is "enumeration".
        count: How many reached ``observed``.
        log10_p: Logarithm of the p-value, finite, 0 at most and ``log10_floor`` at least.
        log10_floor: Minus log10 |G|: the most that any data could say.
        bound_used: What gave the p-value.
    """

    observed: float
    mean: float
    sd: float
    z: float
    draws: int
    count: int
    log10_p: float
    log10_floor: float
    bound_used: Literal["enumeration", "monte-carlo", "permanent"]


def permutation_test(
    groups: Groups, *, draws: int = 999, seed: int = 0, noise: float = _ROUNDING
) -> PermutationTest | None:
    """Return how surprising the sum of the diagonals is, or None where every pairing gives the same sum.

    Up to 20,000 pairings p is exact. Else, with c of n draws reaching T: p = (1 + c) / (1 + n) where c > 0, and
    the smaller of 1 / (1 + n) and the bound where c = 0. That p is valid at every level a. For a >= 1 / (1 + n), p <= a
    implies that Monte Carlo's own p, (1 + c) / (1 + n), is at most a. For a < 1 / (1 + n), p <= a implies that the
    bound is at most a, and with it the exact p below the bound.

    Args:
        groups: One square matrix for each group, any float dtype. Columns may be reordered by a match, but only by one
            that was made on other data: a match made on these scores breaks the null.
        draws: Random pairings, at least 1.
        seed: Of the random pairings.
        noise: Share of the largest score that is rounding: scores that differ by no more do not differ.

    Raises:
        UsageError: A matrix is not square, or there are no draws.
        NonFiniteError: A score is NaN or infinite.

    Example:
        >>> round(10 ** permutation_test([np.eye(3)]).log10_p, 6)
        0.166667
    """
    _check(groups)
    if draws < 1:
        raise UsageError(f"a permutation test needs at least 1 draw, not {draws}")
    observed, (mean, variance) = _observed(groups), _moments(groups, noise)
    if variance <= 0:
        return None
    size = log_pairings(groups)
    if size <= math.log(_ENUMERATED_PAIRINGS) + _ROUNDING:
        count, draws = exact_by_enumeration(groups)
        log_p, used = math.log(count / draws), "enumeration"
    else:
        count, draws = monte_carlo(groups, draws, seed)
        log_p, used = math.log((1 + count) / (1 + draws)), "monte-carlo"
        if count == 0 and (bound := _log_bound(groups, mean, variance)) < log_p:
            log_p, used = bound, "permanent"
    return PermutationTest(
        observed=observed,
        mean=mean,
        sd=math.sqrt(variance),
        z=(observed - mean) / math.sqrt(variance),
        draws=draws,
        count=count,
        log10_p=max(log_p, -size) / math.log(10),
        log10_floor=-size / math.log(10),
        bound_used=used,
    )


def moments_of(scores_NN: Float[Array, "N N"], noise: float = _ROUNDING) -> tuple[float, float]:
    """Return mean and variance of one group's sum over all permutations; the variance of rounding noise is 0.

    Example:
        >>> moments_of(np.array([[1.0, 0.0], [0.0, 1.0]]))
        (1.0, 1.0)
    """
    labels = len(scores_NN)
    if labels == 0:
        return 0.0, 0.0
    rows_N1 = scores_NN.mean(axis=1, keepdims=True, dtype=np.float64)
    centred_NN = scores_NN - rows_N1
    centred_NN -= centred_NN.mean(axis=0, keepdims=True)
    squares = float(np.einsum("ij,ij->", centred_NN, centred_NN))
    rounding = noise * labels * _largest(scores_NN)
    return float(rows_N1.sum()), squares / (labels - 1) if squares > rounding**2 and labels > 1 else 0.0


def log_pairings(groups: Groups) -> float:
    """Return log |G|, the natural logarithm of the number of pairings."""
    return math.fsum(math.lgamma(len(scores) + 1) for scores in groups)


def exact_by_enumeration(groups: Groups) -> tuple[int, int]:
    """Return how many of all pairings reach the observed sum, and how many there are; their ratio is the exact p.

    Raises:
        UsageError: There are more than 50,000 pairings.

    Example:
        >>> exact_by_enumeration([np.eye(2), np.eye(3)])
        (1, 12)
    """
    _check(groups)
    if log_pairings(groups) > math.log(50_000):
        raise UsageError("more than 50,000 pairings are not enumerated: use permutation_test")
    sums = np.zeros(1)
    for scores in groups:
        sums = np.add.outer(sums, _all_sums(scores)).ravel()
    return int((sums >= _reached(groups)).sum()), sums.size


def monte_carlo(groups: Groups, draws: int, seed: int) -> tuple[int, int]:
    """Return how many of several random pairings reach the observed sum, and how many were drawn.

    Args:
        groups: One square matrix for each group.
        draws: Pairings to draw.
        seed: Of the generator; the same seed gives the same pairings.
    """
    _check(groups)
    generator = np.random.default_rng(seed)
    sums_S = np.zeros(draws)
    for scores in groups:
        rows_N, flat = np.arange(len(scores)), scores.ravel()
        batch = max(1, _BLOCK // max(1, len(scores)))
        for first in range(0, draws, batch):
            part_S = sums_S[first : first + batch]
            orders_SN = generator.permuted(np.tile(rows_N, (part_S.size, 1)), axis=1)
            part_S += flat.take(orders_SN + len(scores) * rows_N).sum(axis=1, dtype=np.float64)
    return int((sums_S >= _reached(groups)).sum()), draws


def log_bound(groups: Groups) -> float:
    """Return the natural logarithm of an upper bound of P(T(pi) >= T): 0 at most, -log |G| at least.

    Chernoff's bound with the moment generating functions of the module's docstring. It holds at every lambda and for
    every scaling of the columns, so the search for the best ones needs no guarantee: the best one met counts.
    """
    _check(groups)
    return _log_bound(groups, *_moments(groups))


def _log_bound(groups: Groups, mean: float, variance: float) -> float:
    slope = mean - _observed(groups)  # of the exponent at lambda = 0
    tilt = -slope / variance if variance > 0 else 0.0  # the best one for a normal tail
    if not 0 < tilt < math.inf:
        return 0.0
    tails = [_Enumerated.of(s) if len(s) <= _ENUMERATED_LABELS else _Bounded.of(s) for s in groups]
    floor = -log_pairings(groups)
    best, low, high = 0.0, (0.0, slope), (math.inf, math.inf)
    for _ in range(_PASSES):
        pairs = [tail.exponent(tilt) for tail in tails]
        value, slope = math.fsum(value for value, _ in pairs), math.fsum(slope for _, slope in pairs)
        gain, best = best - value, min(best, value)
        last = low if slope < 0 else high
        low, high = ((tilt, slope), high) if slope < 0 else (low, (tilt, slope))
        following = _next_tilt(low, high, last)
        promise = max(gain, abs(slope * (following - tilt)))
        # Without a minimum in sight the exponent falls to its limit, which for equal models is the floor itself.
        if best <= floor or promise <= -(_ROUNDING if math.isinf(high[0]) else _ENOUGH) * best:
            break
        tilt = following
    return max(best * (1 - _ROUNDING), floor)


def _next_tilt(low: tuple[float, float], high: tuple[float, float], last: tuple[float, float]) -> float:
    """Return where the slope of a convex function should vanish, from (place, slope) on either side of that."""
    if math.isinf(high[0]):
        rise = (low[1] - last[1]) / (low[0] - last[0])
        return min(max(low[0] - low[1] / rise, 1.5 * low[0]), 4.0 * low[0]) if rise > 0 else 4.0 * low[0]
    # Kept off the ends, so that both of them move.
    share = min(max(-low[1] / (high[1] - low[1]), 0.1), 0.9)
    return low[0] + share * (high[0] - low[0])


@dataclass(frozen=True, slots=True)
class _Enumerated:
    """One group whose sums over all permutations are known, less the observed one."""

    gaps_S: Float64[Array, " S"]

    @classmethod
    def of(cls, scores_NN: Array) -> _Enumerated:
        return cls(_all_sums(scores_NN) - np.trace(scores_NN, dtype=np.float64))

    def exponent(self, tilt: float) -> tuple[float, float]:
        """Return log E exp(tilt (T(pi) - T)) and its derivative."""
        top = float(self.gaps_S.max())
        weights_S = np.exp(tilt * (self.gaps_S - top))
        return tilt * top + math.log(weights_S.mean()), float(weights_S @ self.gaps_S / weights_S.sum())


@dataclass(frozen=True, slots=True)
class _Bounded:
    """Inequality (1), with logarithms of column scales (over tilt) that every evaluation improves by Sinkhorn's step.

    Attributes:
        scores_NN: In any float dtype; float64 blocks are made on the way, so that nothing of this size is copied.
        power: p of inequality (1).
        shift_N: What is added to the columns of the scores.
    """

    scores_NN: Float[Array, "N N"]
    power: float
    shift_N: Float64[Array, " N"] = field(repr=False)

    @classmethod
    def of(cls, scores_NN: Array) -> _Bounded:
        labels = len(scores_NN)
        power = labels * math.log(labels) / math.lgamma(labels + 1)
        return cls(scores_NN, power, -scores_NN.mean(axis=0, dtype=np.float64))

    def exponent(self, tilt: float) -> tuple[float, float]:
        """Return a bound of log E exp(tilt (T(pi) - T)) and the bound's derivative; improve the shifts."""
        labels, sharp = len(self.scores_NN), self.power * tilt
        total, slope, columns_N = 0.0, 0.0, np.zeros(labels)
        for first in range(0, labels, rows := max(1, _BLOCK // labels)):
            # Everything relative to the diagonal: each row then adds at least 0, and no large numbers cancel.
            gaps_BN = self.scores_NN[first : first + rows] + self.shift_N
            gaps_BN -= np.diagonal(gaps_BN, first)[:, None].copy()
            tops_B1 = gaps_BN.max(axis=1, keepdims=True)
            weights_BN = gaps_BN - tops_B1
            weights_BN *= sharp
            np.exp(weights_BN, out=weights_BN)
            sums_B = weights_BN.sum(axis=1)
            total += float((sharp * tops_B1[:, 0] + np.log(sums_B)).sum())
            slope += float((np.einsum("bn,bn->b", weights_BN, gaps_BN) / sums_B).sum())
            columns_N += (1.0 / sums_B) @ weights_BN
        self.shift_N[:] -= np.log(np.maximum(columns_N, np.finfo(np.float64).tiny)) / sharp
        return (total - labels * math.log(labels)) / self.power, slope


def _all_sums(scores_NN: Array) -> Float64[Array, " S"]:
    rows = range(len(scores_NN))
    orders_SN = np.array(list(itertools.permutations(rows)), dtype=np.int64)
    return scores_NN[np.arange(len(scores_NN)), orders_SN].sum(axis=1, dtype=np.float64)


def _moments(groups: Groups, noise: float = _ROUNDING) -> tuple[float, float]:
    """Return mean and variance of the sum of all groups, which are independent."""
    pairs = [moments_of(scores, noise) for scores in groups]
    return math.fsum(mean for mean, _ in pairs), math.fsum(variance for _, variance in pairs)


def _observed(groups: Groups) -> float:
    return math.fsum(float(np.trace(scores, dtype=np.float64)) for scores in groups)


def _reached(groups: Groups) -> float:
    """Return the sum from which on a pairing counts as reaching the observed one."""
    largest = math.fsum(len(scores) * _largest(scores) for scores in groups)
    return _observed(groups) - _ROUNDING * largest


def _largest(scores_NN: Array) -> float:
    return max(float(scores_NN.max(initial=0.0)), -float(scores_NN.min(initial=0.0)))


def _check(groups: Groups) -> None:
    for place, scores in enumerate(groups):
        if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
            raise UsageError(f"scores of group {place} are {list(scores.shape)}: pass one square matrix for each group")
        if not np.isfinite(scores).all():
            raise NonFiniteError(f"scores of group {place}")
