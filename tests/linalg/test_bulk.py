"""The Marchenko-Pastur law, its fit by the median, and the spikes above its edge."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.linalg.bulk import density, fit, law


def values(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize("shape", [(96, 96), (32, 96), (256, 96)])
def test_edge_covers_nearly_every_random_matrix_whatever_its_scale(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    bulks = [fit(values(0.02 * rng.standard_normal(shape)), shape) for _ in range(100)]
    # 1 in 100 by the margin alone; sigma is estimated too, which costs some per cent at 32 values.
    assert sum(bulk.spikes > 0 for bulk in bulks) <= 12
    # The median of 32 correlated values has a relative spread of 3 per cent.
    np.testing.assert_allclose([bulk.sigma for bulk in bulks], 0.02, rtol=0.1)
    assert np.mean([bulk.distance for bulk in bulks]) < 0.1


def test_planted_spike_is_counted_once_and_hardly_moves_the_fit() -> None:
    rng = np.random.default_rng(1)
    noise, left, right = rng.standard_normal((96, 64)), rng.standard_normal(96), rng.standard_normal(64)
    planted = noise + 40 * np.outer(left, right) / np.linalg.norm(left) / np.linalg.norm(right)
    without, with_spike = fit(values(noise), (96, 64)), fit(values(planted), (96, 64))
    assert (without.spikes, with_spike.spikes) == (0, 1)
    assert abs(with_spike.sigma / without.sigma - 1) < 0.03  # one value of 64 more lies above the median


def test_law_of_a_square_matrix_is_the_quarter_circle() -> None:
    # beta = 1: singular values over sqrt(n) have density sqrt(4 - t^2) / pi on [0, 2], so half lie below t with
    # (t sqrt(4 - t^2) / 2 + 2 arcsin(t / 2)) / pi = 1 / 2: t = 0.8079.
    x, below = law(1.0)
    assert abs(np.sqrt(np.interp(0.5, below, x)) - 0.8079) < 1e-3
    bulk = fit(np.linspace(0, 2, 101) * 10 * 0.8079, (100, 100))  # the median is 10 * 0.8079
    assert abs(bulk.sigma - 1) < 1e-3
    assert (bulk.lower, round(bulk.upper, 1)) == (0.0, 20.0)
    # Density at 10 for sigma 1, n = 100: t = 1, sqrt(3) / pi / 10.
    np.testing.assert_allclose(density(np.array([10.0]), bulk, (100, 100)), np.sqrt(3) / np.pi / 10, atol=1e-4)


def test_law_has_all_its_mass_between_its_edges() -> None:
    for beta in (0.1, 1 / 3, 1.0):
        x, below = law(beta)
        assert abs(below[-1] - 1) < 1e-3
        assert (1 - np.sqrt(beta)) ** 2 <= x[0] < x[-1] <= (1 + np.sqrt(beta)) ** 2


def test_distance_tells_values_that_do_not_follow_the_law() -> None:
    heavy = np.exp(np.random.default_rng(2).standard_normal(200) * 1.5)
    assert fit(heavy, (200, 200)).distance > 0.1
    assert fit(np.zeros(8), (8, 8)).distance == 1.0
