"""Two random starts of one architecture and a noisy copy, wide enough that chance is quiet."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import causal

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.verdict import decide

WIDER = {32: 96, 40: 160, 24: 72, 36: 144, 28: 84}
"""Sizes of the models in the tests, and what they become here: at a width of 32 chance is loud."""

OTHERS: dict[str, Any] = {
    "vocab_size": 300, "vocab_size_per_layer_input": 300, "unpadded_vocab_size": 300, "head_dim": 24, "dim_head": 24,
    "mamba_head_dim": 48, "mamba_d_head": 48, "mamba_d_ssm": 192, "attention_head_size": 24,
}  # fmt: skip

SPECIAL: dict[str, dict[str, Any]] = {
    "Mamba2ForCausalLM": {"head_dim": 48},
    "Qwen4ExpForCausalLM": {"indexer_head_dim": 24},
    "ReformerModelWithLMHead": {"axial_pos_embds_dim": [36, 60]},
}

NOISE = 0.1


@contextmanager
def wider() -> Generator[None]:
    """Make the models of the other tests three times as wide for a while."""
    sizes = {
        key: OTHERS.get(key, WIDER.get(value, value) if isinstance(value, int) else value)
        for key, value in causal.SIZES.items()
    }
    special = {name: {**causal.SPECIAL.get(name, {}), **settings} for name, settings in SPECIAL.items()}
    with mock.patch.dict(causal.SIZES, sizes), mock.patch.dict(causal.SPECIAL, special):
        yield


def models(name: str) -> Iterator[ModelView]:
    """Yield a random start of one class, a noisy copy of it, and another random start."""
    torch = causal.library("torch")
    for seed in (1, 2):
        module, config = causal.build(name, seed=seed, disturbed=False)
        state = {key: tensor.detach() for key, tensor in module.state_dict().items()}
        yield _view(state, config)
        if seed == 1:
            torch.manual_seed(5)
            noisy = {
                key: tensor + NOISE * tensor.std() * torch.randn_like(tensor)
                if tensor.is_floating_point() and tensor.dim() > 1
                else tensor
                for key, tensor in state.items()
            }
            yield _view(noisy, config)


def _view(state: dict[str, Any], config: Any) -> ModelView:
    arrays = {key: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for key, tensor in state.items()}
    return view(MemoryCheckpoint(arrays, config=config.to_dict()))


def judged(name: str) -> tuple[str, str, str]:
    """Return the family, the verdict on two random starts and the one on a noisy copy."""
    with wider():
        base, copy, other = models(name)
    return base.family.name, decide(other, base).conclusion, decide(copy, base).conclusion
