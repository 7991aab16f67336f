"""A dense model made a mixture computes what it computed, until the experts differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.errors import UsageError
from kinprint.transform import ModelState
from kinprint.transform.upcycling import ROUTER_STD, upcycled
from support.loaded import logits, tiny
from support.tiny import GROUPED, KINDS

FORMS = {"llama-tied": "mixtral", "mistral": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}


@pytest.fixture(autouse=True)
def _mistral(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "mistral", ("Mistral", GROUPED))


def made(state: ModelState, *, experts: int = 3, active: int = 2, noise: float = 0.0) -> ModelState:
    return upcycled(state, experts=experts, active=active, noise=noise, rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("active", [1, 2])
def test_a_mixture_of_equal_experts_has_the_dense_model_s_logits(kind: str, active: int) -> None:
    state = tiny(kind)
    mixture = made(state, active=active)
    assert mixture.config["model_type"] == mixture.family.name == FORMS[kind]
    before = logits(state)
    # the router's softmax is computed in float32
    assert np.abs(logits(mixture) - before).max() / np.abs(before).max() < 1e-5


@pytest.mark.parametrize("kind", FORMS)
def test_what_is_written_is_read_as_the_same_mixture(kind: str) -> None:
    mixture = made(tiny(kind))
    again = ModelState.from_view(mixture.view(np.float64))
    assert again.family.name == FORMS[kind]
    assert again.geometry == mixture.geometry
    assert set(again.parts) == set(mixture.parts)


def test_every_expert_is_a_copy_of_the_dense_mlp() -> None:
    state = tiny("llama-tied")
    mixture = made(state)
    for layer in range(4):
        for projection in ("gate", "up", "down"):
            dense = state.parts[PartKey(f"mlp.{projection}", layer)]
            for expert in range(3):
                np.testing.assert_array_equal(mixture.parts[PartKey(f"moe.{projection}", layer, expert)], dense)
    routers = np.concatenate([mixture.parts[PartKey("moe.router", layer)].ravel() for layer in range(4)])
    assert routers.std() == pytest.approx(ROUTER_STD, rel=0.15)  # 384 draws: 0.036


def test_noise_tells_experts_apart_by_its_share_of_their_spread() -> None:
    state = tiny("llama-tied")
    mixture = made(state, noise=0.2)
    first, second = (mixture.parts[PartKey("moe.up", 1, expert)] for expert in (0, 1))
    dense = state.parts[PartKey("mlp.up", 1)]
    # the difference of two independent draws is larger by sqrt(2); 1,280 draws: 0.006
    assert (first - second).std() / dense.std() == pytest.approx(0.2 * np.sqrt(2), abs=0.03)
    before = logits(state)
    assert np.abs(logits(mixture) - before).max() / np.abs(before).max() > 1e-2


def test_what_transformers_would_take_another_default_for_is_written_out() -> None:
    state = tiny("llama-tied")
    bare = {k: v for k, v in state.config.items() if k not in ("rms_norm_eps", "rope_parameters", "rope_theta")}
    config = made(replace(state, config=bare)).config
    assert (config["rms_norm_eps"], config["rope_theta"]) == (1e-6, 10000.0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("llama", "no form with experts has its biases"),
        ("mixtral", "it has experts already"),
        ("qwen2_moe", "it has experts already"),
        ("gpt_neox", "this is gpt_neox"),
        ("olmo2", "this is olmo2"),
    ],
)
def test_what_cannot_be_made_a_mixture_is_refused_with_the_reason(kind: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        made(tiny(kind))


def test_more_active_experts_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot send a token to 4 of 3 experts"):
        made(tiny("llama-tied"), active=4)
