"""Towers beside the language model: named, judged on their own, and never part of its verdict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from kinprint import api
from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.errors import UsageError
from kinprint.verdict import decide
from methods import tiny


def tower(seed: int, *, width: int = 32) -> dict[str, np.ndarray]:
    """The tensors of a vision tower and a projector."""
    rng = np.random.default_rng(seed)
    shapes = {"vision_tower.vision_model.embeddings.patch_embedding.weight": (width, 3, 4, 4)}
    for layer in range(3):
        at = f"vision_tower.vision_model.encoder.layers.{layer}."
        shapes |= {f"{at}self_attn.{name}_proj.weight": (width, width) for name in ("q", "k", "v", "out")}
        shapes |= {f"{at}mlp.fc1.weight": (3 * width, width), f"{at}mlp.fc2.weight": (width, 3 * width)}
        shapes |= {f"{at}layer_norm{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
    shapes["multi_modal_projector.linear_1.weight"] = (width, width)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def multimodal(language: Mapping[str, np.ndarray], vision: Mapping[str, np.ndarray]) -> ModelView:
    return view(MemoryCheckpoint({**language, **vision}, config={"head_dim": 4}))


def test_towers_and_projectors_are_components_and_read_by_role() -> None:
    model = multimodal(tiny.llama(0), tower(0))
    assert list(model.components) == ["projector", "vision"]
    vision = model.components["vision"]
    assert {"attn.q", "attn.o", "mlp.up", "norm.attn"} <= vision.roles
    assert vision.geometry.layers == 3
    assert model.unmapped == ()
    assert [part.name for part in model.info().components] == ["projector", "vision"]


def test_a_copied_tower_is_named_beside_strangers_and_does_not_make_them_derived() -> None:
    ours, theirs = multimodal(tiny.llama(0), tower(5)), multimodal(tiny.llama(1), tower(5))
    verdict = decide(ours, theirs)
    assert verdict.conclusion != "derived"
    found = {part.component: part.conclusion for part in verdict.components}
    assert found["vision"] == "identical"
    assert found["projector"] == "identical"
    assert "vision" in verdict.headline


def test_a_trained_copy_of_a_tower_is_derived() -> None:
    rng = np.random.default_rng(1)
    copied = {
        name: (array + 0.1 * rng.standard_normal(array.shape)).astype(np.float32) for name, array in tower(5).items()
    }
    verdict = decide(multimodal(tiny.llama(0), copied), multimodal(tiny.llama(1), tower(5)))
    assert {part.component: part.conclusion for part in verdict.components}["vision"] == "derived"


def test_strangers_towers_are_never_cleared_by_content_alone() -> None:
    verdict = decide(multimodal(tiny.llama(0), tower(5)), multimodal(tiny.llama(0), tower(6)))
    assert verdict.conclusion == "derived"
    assert {part.component: part.conclusion for part in verdict.components}["vision"] == "inconclusive"


def test_a_component_can_be_compared_in_place_of_the_language_model() -> None:
    ours, theirs = multimodal(tiny.llama(0), tower(5)), multimodal(tiny.llama(1), tower(5))
    assert api.compare(ours, theirs, mode="quick", component="vision").verdict is not None
    result = api.compare(ours, theirs, mode="quick", component="vision")
    assert result.verdict is not None
    assert result.verdict.conclusion == "identical"
    assert result.suspect.name.endswith(":vision")
    assert api.inspect(ours, component="vision").model.geometry.layers == 3


def test_a_component_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UsageError, match="has no component 'audio': it has projector, vision"):
        api.inspect(multimodal(tiny.llama(0), tower(5)), component="audio")
    with pytest.raises(UsageError, match="it has none"):
        api.inspect(tiny.model(tiny.llama(0)), component="vision")
