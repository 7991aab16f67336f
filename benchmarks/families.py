"""Does every causal language model of transformers get the verdict that it should?

Usage: python benchmarks/families.py [CLASS]...

Of every class a small model is made twice with other seeds, and once more with a tenth of noise on every matrix. The
two random starts of one config must be ``independent``, the noisy copy ``derived``. Exits with 1 where one is not.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "architecture"))

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


def widen() -> None:
    """Make the models of the tests three times as wide."""
    for key, value in causal.SIZES.items():
        causal.SIZES[key] = OTHERS.get(key, WIDER.get(value, value) if isinstance(value, int) else value)
    for name, settings in SPECIAL.items():
        causal.SPECIAL[name] = {**causal.SPECIAL.get(name, {}), **settings}


def models(name: str) -> Iterator[ModelView]:
    """Yield two random starts of one class, and a noisy copy of the first."""
    import torch

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


def _view(state: dict[str, Any], config: Any) -> ModelView:  # noqa: ANN401 - transformers' own
    arrays = {key: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for key, tensor in state.items()}
    return view(MemoryCheckpoint(arrays, config=config.to_dict()))


def judged(name: str) -> tuple[str, str, str]:
    """Return the family, the verdict on two random starts and the one on a noisy copy."""
    base, copy, other = models(name)
    return base.family.name, decide(other, base).conclusion, decide(copy, base).conclusion


def main(names: list[str]) -> int:
    """Judge all classes; return the exit code."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    widen()
    print("| class | family | another random start | noisy copy | seconds |\n|---|---|---|---|---|", flush=True)
    wrong: list[str] = []
    for name in names or causal.classes():
        start = time.perf_counter()
        try:
            family, strangers, copy = judged(name)
        except Exception as error:
            family, strangers, copy = "-", "-", f"{type(error).__name__}: {str(error)[:80]}".replace("\n", " ")
        print(f"| {name} | {family} | {strangers} | {copy} | {time.perf_counter() - start:.1f} |", flush=True)
        wrong += [name] if (strangers, copy) != ("independent", "derived") else []
    print(f"\n{len(wrong)} of {len(names or causal.classes())} classes are not judged as they should be: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
