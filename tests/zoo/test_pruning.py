"""Pruning on calibration text, and training that leaves zeros alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kinprint.errors import UsageError
from kinprint.zoo import networks
from kinprint.zoo.model import Model
from kinprint.zoo.pruning import Calibrated, SparseTraining, pruned_on_text, sparsegpt, sparsely_trained, wanda
from kinprint.zoo.recipes import Form
from support.small import FORMS, context, drawn, trained


def correlated() -> tuple[np.ndarray, np.ndarray]:
    """A matrix and the Gram matrix of inputs that lie near a few directions."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 24)) + 0.3 * rng.standard_normal((200, 24))
    return rng.standard_normal((10, 24)), inputs.T @ inputs


def lost(before: np.ndarray, after: np.ndarray, gram: np.ndarray) -> float:
    """Squared error of the outputs."""
    return float(np.trace((before - after) @ gram @ (before - after).T))


def by_magnitude(weight: np.ndarray, share: float) -> np.ndarray:
    pruned = weight.copy().reshape(-1)
    pruned[np.argsort(np.abs(pruned))[: int(share * pruned.size)]] = 0
    return pruned.reshape(weight.shape)


def test_wanda_drops_in_each_row_the_smallest_products_of_weight_and_input_norm() -> None:
    weight = np.array([[1.0, -3.0, 2.0], [6.0, 1.0, -1.0]])
    # Norms 4, 1 and 2: products 4, 3, 4 and 24, 1, 2. Off the diagonal nothing is looked at.
    gram = np.array([[16.0, 9.0, 0.0], [9.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
    np.testing.assert_array_equal(wanda(weight, gram, share=0.34), [[1, 0, 2], [6, 0, -1]])
    np.testing.assert_array_equal(wanda(weight, gram, share=0.67), [[0, 0, 2], [6, 0, 0]])


def test_sparsegpt_on_inputs_that_are_alike_and_uncorrelated_is_magnitude_pruning() -> None:
    weight, _ = correlated()
    np.testing.assert_array_equal(sparsegpt(weight, np.eye(24), share=0.5), by_magnitude(weight, 0.5))


def test_sparsegpt_moves_a_dropped_weight_to_the_input_that_says_the_same() -> None:
    # Two inputs that are equal: dropping the first loses nothing where the second takes its weight over. The damping of
    # 0.01 holds back 0.01 / 1.01 of it.
    pruned = sparsegpt(np.array([[1.0, 2.0]]), np.ones((2, 2)), share=0.5)
    np.testing.assert_allclose(pruned, [[0.0, 2.0 + 1 / 1.01]], atol=1e-12)


def test_sparsegpt_drops_the_asked_share_of_every_block_of_columns() -> None:
    pruned = sparsegpt(*correlated(), share=0.3, block=8)
    assert [int((pruned[:, first : first + 8] == 0).sum()) for first in (0, 8, 16)] == [24, 24, 24]


def test_sparsegpt_loses_less_of_the_output_than_wanda_and_magnitude_on_correlated_inputs() -> None:
    weight, gram = correlated()
    losses = [
        lost(weight, pruned, gram)
        for pruned in (
            sparsegpt(weight, gram, share=0.5),
            wanda(weight, gram, share=0.5),
            by_magnitude(weight, 0.5),
        )
    ]
    # A half of theirs at most: the numbers are 1877, 7217 and 6295.
    assert losses[0] < 0.5 * min(losses[1:])


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("form", FORMS)
def test_every_matrix_of_the_layers_is_pruned_and_nothing_else(form: Form, method: str) -> None:
    model = drawn(form)
    pruned = pruned_on_text(model, Calibrated.model_validate({"method": method, "rows": 2}), context())
    assert set(pruned.weights) == set(model.weights)
    for name, before in model.weights.items():
        after = pruned.weights[name]
        if "layers." in name or ".h." in name:
            matrix = before.ndim == 2 and not name.endswith("block_sparse_moe.gate.weight")
        else:
            matrix = False
        assert (after == 0).mean() == 0.5 if matrix else np.array_equal(before, after), name


def test_later_layers_see_what_earlier_ones_lost() -> None:
    """The first layer is pruned to nearly nothing, so a second layer measured before that would have other inputs."""
    model, settings = drawn(), Calibrated(method="sparsegpt", share=0.9, rows=2)
    once = pruned_on_text(model, settings, context())
    first_pruned = {name: array for name, array in once.weights.items() if ".layers.0." in name}
    again = pruned_on_text(replace(model, weights={**model.weights, **first_pruned}), settings, context())
    # The first layer is pruned already, and its zeros stay: so both runs gave the second one the same inputs.
    second = "model.layers.1.mlp.up_proj.weight"
    zeros = once.weights[second] == 0
    assert np.array_equal(zeros, again.weights[second] == 0)


def test_the_same_seed_prunes_to_the_same_bits_and_another_text_does_not() -> None:
    settings = Calibrated(method="sparsegpt", rows=2)
    digests = [pruned_on_text(drawn(), settings, context(seed)).content_digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_retraining_moves_weights_and_leaves_every_zero_of_a_matrix_zero() -> None:
    pruned = pruned_on_text(trained(), Calibrated(share=0.5, rows=2), context()).rounded()
    after = sparsely_trained(pruned, SparseTraining(steps=5, batch=2), context())
    for name, before in pruned.weights.items():
        if before.ndim > 1:
            np.testing.assert_array_equal(after.weights[name] == 0, before == 0)
            assert not np.array_equal(after.weights[name], before)


def test_retraining_a_model_without_a_zero_says_to_prune_it_first() -> None:
    with pytest.raises(UsageError, match="prune the model first"):
        sparsely_trained(drawn(), SparseTraining(steps=1), context())


def test_experts_that_are_stored_in_an_unknown_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load = networks.load

    def transposed(model: Model) -> Any:
        module = load(model)
        for layer in module.model.layers:
            layer.mlp.experts.is_transposed = True
        return module

    monkeypatch.setattr(networks, "load", transposed)
    with pytest.raises(UsageError, match="MixtralExperts stores its experts in an unknown way: use prune"):
        pruned_on_text(drawn("mixtral"), Calibrated(rows=1), context())
