"""Pruning, noise and quantisation change what they should by as much as they should, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.transform import ModelState
from kinprint.transform.damaging import Scheme, block_matrices, noised, prune_magnitude, quantised
from support.loaded import load, tiny

Q = PartKey("attn.q", 0)


def with_matrix(rows: list[list[float]]) -> ModelState:
    return tiny("llama").updated({Q: np.array(rows)})


def changed(after: ModelState, before: ModelState) -> set[str]:
    return {key.role for key in before.parts if not np.array_equal(after.parts[key], before.parts[key])}


MATRICES = {"attn.q", "attn.k", "attn.v", "attn.o"}


def test_the_smaller_half_of_a_matrix_is_pruned() -> None:
    pruned = prune_magnitude(with_matrix([[1.0, -4.0], [3.0, 2.0]]), 0.5)
    np.testing.assert_array_equal(pruned.parts[Q], [[0.0, -4.0], [3.0, 0.0]])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_exactly_the_share_is_pruned_even_where_all_weights_are_equal(share: float) -> None:
    pruned = prune_magnitude(with_matrix([[1.0, -1.0] * 5] * 10), share)
    assert int((pruned.parts[Q] == 0).sum()) == round(share * 100)


@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen2_moe", "gpt2"])
def test_pruning_and_quantisation_leave_embeddings_norms_biases_and_routers(kind: str) -> None:
    state = tiny(kind)
    mlp = {
        "llama": {"mlp.gate", "mlp.up", "mlp.down"},
        "mixtral": {"moe.gate", "moe.up", "moe.down"},
        "qwen2_moe": {"moe.gate", "moe.up", "moe.down", "moe.shared.gate", "moe.shared.up", "moe.shared.down"},
        "gpt2": {"mlp.up", "mlp.down"},
    }[kind]
    assert changed(prune_magnitude(state, 0.5), state) == MATRICES | mlp
    assert changed(quantised(state, "int8"), state) == MATRICES | mlp


def test_noise_has_the_share_of_each_matrix_s_own_spread_and_leaves_vectors() -> None:
    state = tiny("llama")
    after = noised(state, 0.05, np.random.default_rng(1))
    for key, array in state.parts.items():
        difference = after.parts[key] - array
        if array.ndim == 1:
            assert not difference.any()
        else:
            # 512 draws or more: the standard deviation of their spread is 0.05 / sqrt(2 * 512) = 0.0016 at most
            assert difference.std() / array.std() == pytest.approx(0.05, abs=0.008)


def test_the_same_seed_gives_the_same_noise() -> None:
    state = tiny("gpt_neox")
    one, two, other = (noised(state, 0.1, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert changed(one, two) == set()
    assert changed(one, other)


def test_whole_numbers_up_to_127_survive_8_bits_and_what_lies_between_is_rounded() -> None:
    row = [127.0, 3.0, -5.0, 0.4, -0.6]
    for scheme in ("int8", "int8-channel"):
        rounded = quantised(with_matrix([row]), scheme).parts[Q]
        np.testing.assert_allclose(rounded, [[127.0, 3.0, -5.0, 0.0, -1.0]], atol=1e-12)  # scale 1 is exact in float16


def test_4_bits_leave_16_levels() -> None:
    row = [-8.0, 7.0, 6.4, -3.6, 0.0]
    np.testing.assert_allclose(quantised(with_matrix([row]), "q4").parts[Q], [[-8.0, 7.0, 6.0, -4.0, 0.0]], atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "levels", "steps"),
    [
        ("int8", 127, 0.5),
        ("int8-channel", 127, 0.5),
        ("q4", 8, 1.0),  # 16 levels from -8 to 7: the far end is cut off by up to one step
    ],
)
def test_no_weight_moves_by_more_than_the_scheme_s_step(scheme: Scheme, levels: int, steps: float) -> None:
    state = tiny("llama")
    after = quantised(state, scheme)
    assert block_matrices(state)
    for key in block_matrices(state):
        before = state.parts[key]
        largest = np.abs(before).max(axis=1, keepdims=True)
        half_precision = levels * 2.0**-11  # the scale is rounded to float16, in the last of `levels` steps
        bound = largest / levels * (steps + half_precision)
        assert (np.abs(after.parts[key] - before) <= bound).all()


def test_a_matrix_of_zeros_stays_zero() -> None:
    for scheme in ("int8", "int8-channel", "q4"):
        assert not quantised(with_matrix([[0.0] * 40] * 2), scheme).parts[Q].any()


def test_what_is_pruned_loads() -> None:
    load(prune_magnitude(tiny("gpt_neox"), 0.5))
