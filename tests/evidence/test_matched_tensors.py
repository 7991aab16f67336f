"""Matrices matched by shape and content: no name is read, and strangers stay near zero."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.evidence.matched_tensors import LEAST_VALUES, measure
from kinprint.evidence.matched_tensors import test as compared

SHAPES = ((32, 48),) * 6 + ((64, 32),) * 4


def model(seed: int, *, names: str = "t", noise: float = 0.0, order: np.ndarray | None = None) -> ModelView:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    other = np.random.default_rng(seed + 1000)
    arrays = [array + noise * other.standard_normal(array.shape).astype(np.float32) for array in arrays]
    order = np.arange(len(arrays)) if order is None else order
    return view(MemoryCheckpoint({f"{names}{at}": arrays[i] for at, i in enumerate(order)}, config={}, name="m"))


def size(suspect: ModelView, base: ModelView) -> float:
    found = measure(suspect, base)
    assert found is not None
    return found[0]


def test_a_copy_with_other_names_in_another_order_has_size_one() -> None:
    shuffled = model(1, names="renamed", order=np.random.default_rng(5).permutation(len(SHAPES)))
    assert size(shuffled, model(1)) == pytest.approx(1.0, abs=1e-5)


def test_the_table_says_which_matrix_is_which() -> None:
    order = np.random.default_rng(5).permutation(len(SHAPES))
    found = measure(model(1, names="r", order=order), model(1))
    assert found is not None
    assert {mine: theirs for mine, theirs, _ in found[1]} == {f"r{at}": f"t{i}" for at, i in enumerate(order)}


def test_noise_of_the_same_size_leaves_the_expected_cosine() -> None:
    assert size(model(1, noise=1.0), model(1)) == pytest.approx(1 / np.sqrt(2), abs=0.03)


def test_strangers_stay_near_zero_though_each_matrix_takes_its_best_match() -> None:
    sizes = [size(model(seed), model(seed + 500)) for seed in range(40)]
    assert abs(float(np.mean(sizes))) < 0.05  # the better half of ten noisy cosines is a little above 0
    assert max(sizes) < 0.1


def test_rows_in_another_order_defeat_it() -> None:
    base = model(1)
    rng = np.random.default_rng(0)
    moved = {
        name: base.checkpoint.read(name)[rng.permutation(info.shape[0])]
        for name, info in base.checkpoint.tensors.items()
    }
    assert size(view(MemoryCheckpoint(moved, config={}, name="moved")), base) < 0.1


def test_one_answer_by_hand() -> None:
    left = np.tile(np.array([1.0, -1.0, 1.0, 1.0], dtype=np.float32), (LEAST_VALUES // 4, 1))
    left[::2] *= -1  # no half is constant
    right = left.copy()
    right[:, 3] *= -1  # of the tested half, one column agrees and one is opposite
    one, other = (view(MemoryCheckpoint({"a": array}, config={}, name="h")) for array in (left, right))
    assert size(one, other) == pytest.approx(0.0, abs=1e-6)


def test_nan_leaves_out_that_matrix_alone() -> None:
    base = model(1)
    tensors = {name: np.array(base.checkpoint.read(name)) for name in base.checkpoint.tensors}
    tensors["t0"][:] = np.nan
    found = measure(view(MemoryCheckpoint(tensors, config={}, name="broken")), base)
    assert found is not None
    assert len(found[1]) == len(SHAPES) - 1
    assert found[0] == pytest.approx(1.0, abs=1e-5)


def test_models_without_a_common_shape_are_not_applicable() -> None:
    other = view(MemoryCheckpoint({"a": np.ones((50, 50), dtype=np.float32)}, config={}, name="o"))
    found = compared(model(1), other)
    assert found.status == "not_applicable"
    assert "share no shape" in (found.reason or "")


# -- what no training made -----------------------------------------------------------------------------------------


def with_further(seed: int, further: dict[str, np.ndarray]) -> ModelView:
    base = model(seed)
    arrays = {name: base.checkpoint.read(name) for name in base.checkpoint.tensors}
    return view(MemoryCheckpoint({**arrays, **further}, config={}, name="m"))


def decays(seed: int, *, trained: float = 0.0) -> dict[str, np.ndarray]:
    """The logarithms of 1 to 64 in every row, from which the state-space blocks of all models start."""
    rng = np.random.default_rng(seed)
    start = np.tile(np.log(np.arange(1, 65)), (40, 1))
    return {
        f"a{at}": (start + trained * rng.standard_normal(start.shape)).astype(np.float32) for at in range(len(SHAPES))
    }


@pytest.mark.parametrize("trained", [0.0, 0.05])
def test_strangers_that_start_from_the_same_numbers_in_every_row_stay_near_zero(trained: float) -> None:
    ours, theirs = (with_further(seed, decays(seed, trained=trained)) for seed in (1, 501))
    assert size(ours, theirs) < 0.1


def test_tables_that_both_models_compute_are_left_out_and_counted() -> None:
    angles = np.outer(np.arange(48), 1.0 / 10.0 ** np.linspace(0, 4, 40))
    waves = {f"w{at}": np.sin(angles + at).astype(np.float32) for at in range(4)}
    found = measure(with_further(1, waves), with_further(501, waves))
    assert found is not None
    assert found[0] < 0.1
    assert found[2] == len(waves)


def test_a_copy_that_keeps_most_matrices_frozen_is_not_left_out() -> None:
    base = model(1)
    arrays = {name: base.checkpoint.read(name).copy() for name in base.checkpoint.tensors}
    arrays["t0"] += 0.1 * np.random.default_rng(0).standard_normal(arrays["t0"].shape).astype(np.float32)
    found = measure(view(MemoryCheckpoint(arrays, config={}, name="m")), base)
    assert found is not None
    assert found[0] > 0.99
    assert found[2] == 0
