"""Small decoders and a text for kinds of derivation that train: seconds for a whole test file."""

from __future__ import annotations

from functools import cache

import numpy as np

from kinprint.zoo.kinds import Context
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import Form, Shape
from kinprint.zoo.shapes import untrained
from kinprint.zoo.train import HELD_OUT_BYTES, Training, initial, train

FORMS: tuple[Form, ...] = ("llama", "qwen3", "gpt_neox", "gpt2", "mixtral", "olmo2")


@cache
def text() -> bytes:
    """Words drawn from a short list: an order that a small model learns within a hundred updates."""
    words = np.array(["alpha ", "beta ", "gamma ", "delta ", "epsilon ", "zeta.\n"])
    return "".join(np.random.default_rng(0).choice(words, size=2 * HELD_OUT_BYTES // 6).tolist()).encode()


def context(seed: int = 0) -> Context:
    def no_model(name: str) -> Model:
        raise AssertionError(name)

    return Context(np.random.default_rng(seed), lambda _: text(), no_model, lambda *_: None)


@cache
def drawn(form: Form = "llama", layers: int = 2, seed: int = 0) -> Model:
    """A decoder as it was drawn, with a spread that makes every layer matter."""
    grouped = form not in {"gpt_neox", "gpt2"}
    shape = Shape(
        form=form,
        hidden=16,
        layers=layers,
        heads=2,
        kv_heads=1 if grouped else 2,
        head_dim=8,
        ffn=16,
        experts=4 if form == "mixtral" else 0,
        context=32,
    )
    return initial(untrained(shape), seed=seed, std=0.3)


@cache
def trained() -> Model:
    """A decoder after two hundred updates."""
    settings = Training(corpus="words", steps=200, learning_rate=1e-2, warmup=10, seed_data=0)
    return train(drawn(), settings, text())[0]
