"""Every transformation leaves the logits of real (tiny, random) models as they were, or says why it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.architecture import view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.errors import UsageError
from kinprint.transform import PRESERVING, ModelState, preserve
from support.tiny import KINDS, Model


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> Model:
    return Model(request.param)


def change(after: np.ndarray, before: np.ndarray) -> float:
    return float(np.abs(after - before).max() / np.abs(before).max())


def test_a_state_written_back_is_the_same_model(model: Model) -> None:
    source = view(model.checkpoint)
    again = ModelState.from_view(source).checkpoint(np.float64)
    assert set(again.tensors) == set(model.checkpoint.tensors)
    for name in again.tensors:
        np.testing.assert_array_equal(again.read(name), model.checkpoint.read(name))


@pytest.mark.parametrize("name", list(PRESERVING))
def test_logits_stay_and_weights_move(model: Model, name: str) -> None:
    source = view(model.checkpoint)
    state = ModelState.from_view(source)
    if PRESERVING[name].obstacle(state) is not None:
        with pytest.raises(UsageError, match="would change this model"):
            preserve(state, [name], np.random.default_rng(0))
        return
    changed = preserve(state, [name], np.random.default_rng(0))
    moved = changed.view(np.float64)
    assert any(not np.array_equal(changed.parts[key], state.parts[key]) for key in state.parts)
    # transformers computes its norms in float32, so a few times 1e-7 of rounding remains
    assert change(model.logits(moved), model.logits(source)) < 1e-4


def test_all_together_leave_the_logits(model: Model) -> None:
    source = view(model.checkpoint)
    state = ModelState.from_view(source)
    names = [name for name, transform in PRESERVING.items() if transform.obstacle(state) is None]
    moved = preserve(state, names, np.random.default_rng(1)).view(np.float64)
    assert change(model.logits(moved), model.logits(source)) < 1e-4


def test_what_each_kind_of_model_allows() -> None:
    def refused(kind: str) -> set[str]:
        state = ModelState.from_view(view(Model(kind).checkpoint))
        return {name for name, transform in PRESERVING.items() if transform.obstacle(state) is not None}

    assert refused("llama") == refused("llama-tied") == {"expert-permutation"}
    assert refused("mixtral") == set()
    assert refused("gemma2") == {"residual-rotation", "expert-permutation"}
    assert refused("olmo2") == {"residual-rotation", "expert-permutation"}
    layer_norm = {"residual-signs", "residual-rotation", "norm-gain-replacement", "ffn-rescaling"}
    assert refused("gpt2") == layer_norm | {"expert-permutation", "query-head-permutation"}


def test_a_forgotten_compensation_is_noticed() -> None:
    model = Model("llama")
    source = view(model.checkpoint)
    state = ModelState.from_view(source)
    key = next(key for key in state.parts if key.role == "mlp.up")
    half = state.updated({key: state.parts[key] * 2})
    assert change(model.logits(half.view(np.float64)), model.logits(source)) > 1e-3


def test_a_model_with_an_unmapped_tensor_is_refused() -> None:
    model = Model("llama")
    arrays = {name: model.checkpoint.read(name) for name in model.checkpoint.tensors}
    extra = MemoryCheckpoint({**arrays, "adapter.weight": np.ones((2, 2))}, config=model.checkpoint.config)
    with pytest.raises(UsageError, match=r"adapter\.weight has no role"):
        ModelState.from_view(view(extra))
