"""Training of small Llama-form decoders on bytes, reproducible to the bit on one processor and library version.

torch and transformers are imported when first needed. Everything random (initialisation, order of the text) is drawn
by numpy, so that only arithmetic depends on torch; it runs on one thread with deterministic algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from kinprint.checkpoint import Array
from kinprint.errors import MissingExtraError
from kinprint.zoo.folder import config
from kinprint.zoo.recipes import Shape, Training

Weights = Mapping[str, Array]
"""Tensors by their Hugging Face names, in float32."""

Told = Callable[[int, float], None]
"""Called after each update with the number of updates done and the loss (nats per byte)."""

HELD_OUT_BYTES = 1 << 15
"""End of each text that is never trained on."""

TAIL_STEPS = 100
"""Updates whose mean loss is reported as the training loss."""


def initial_weights(shape: Shape, *, seed: int, std: float) -> Weights:
    """Draw a model's weights before training.

    Args:
        shape: Sizes.
        seed: Seed of numpy's PCG64.
        std: Standard deviation of matrices; of o and down it is ``std / sqrt(2 layers)``.

    Returns:
        Every tensor, drawn in the order of the layers; norm gains are 1.
    """
    rng = np.random.default_rng(seed)
    quiet = std / math.sqrt(2 * shape.layers)
    width, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def matrix(rows: int, columns: int, scale: float = std) -> Array:
        return (scale * rng.standard_normal((rows, columns))).astype(np.float32)

    weights: dict[str, Array] = {"model.embed_tokens.weight": matrix(shape.vocab, width)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}input_layernorm.weight": np.ones(width, np.float32),
            f"{prefix}self_attn.q_proj.weight": matrix(queries, width),
            f"{prefix}self_attn.k_proj.weight": matrix(keys, width),
            f"{prefix}self_attn.v_proj.weight": matrix(keys, width),
            f"{prefix}self_attn.o_proj.weight": matrix(width, queries, quiet),
            f"{prefix}post_attention_layernorm.weight": np.ones(width, np.float32),
            f"{prefix}mlp.gate_proj.weight": matrix(shape.ffn, width),
            f"{prefix}mlp.up_proj.weight": matrix(shape.ffn, width),
            f"{prefix}mlp.down_proj.weight": matrix(width, shape.ffn, quiet),
        }
    weights["model.norm.weight"] = np.ones(width, np.float32)
    weights["lm_head.weight"] = matrix(shape.vocab, width)
    return weights


def train(
    weights: Weights, shape: Shape, training: Training, text: bytes, *, tell: Told | None = None
) -> tuple[Weights, float]:
    """Train weights on all of a text but its held-out end.

    Args:
        weights: Where to start; left unchanged.
        shape: Sizes.
        training: Settings.
        text: The corpus.
        tell: Hears of every update.

    Returns:
        The trained weights, and the mean loss of the last 100 updates in nats per byte.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with _reproducible() as torch:
        model = _model(weights, shape)
        data = np.frombuffer(text, np.uint8)[:-HELD_OUT_BYTES]
        starts_SB = np.random.default_rng(training.seed_data).integers(
            0, data.size - shape.context, size=(training.steps, training.batch)
        )
        optimizer = _optimizer(torch, model, training)
        losses: list[float] = []
        for step, starts_B in enumerate(starts_SB):
            for group in optimizer.param_groups:
                group["lr"] = _rate(step, training)
            rows_BT = np.stack([data[start : start + shape.context + 1] for start in starts_B]).astype(np.int64)
            loss = _loss(torch, model, torch.from_numpy(rows_BT))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if tell is not None:
                tell(step + 1, losses[-1])
        trained = {name: tensor.detach().numpy().copy() for name, tensor in model.named_parameters()}
    return trained, float(np.mean(losses[-TAIL_STEPS:]))


def held_out_loss(weights: Weights, shape: Shape, text: bytes) -> float:
    """Return the loss on a text's held-out end, cut into contexts, in nats per byte.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with _reproducible() as torch, torch.no_grad():
        return _loss(torch, _model(weights, shape), torch.from_numpy(_held_out_rows(shape, text))).item()


def held_out_logits(weights: Weights, shape: Shape, text: bytes, *, rows: int = 8) -> Float32[np.ndarray, "N vocab"]:
    """Return a model's logits in float32 on the first ``rows`` contexts of a text's held-out end.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with _reproducible() as torch, torch.no_grad():
        inputs = torch.from_numpy(_held_out_rows(shape, text)[:rows, :-1])
        logits: Any = _model(weights, shape)(input_ids=inputs, use_cache=False).logits
        return np.asarray(logits.flatten(0, 1).numpy())


def unigram_entropy(content: UInt8[np.ndarray, " N"]) -> float:
    """Return the entropy of single bytes in nats: the loss of a model that knows frequencies and nothing else.

    Example:
        >>> round(unigram_entropy(np.frombuffer(b"abab", np.uint8)), 4)
        0.6931
    """
    counts = np.bincount(content)
    shares = counts[counts > 0] / content.size
    return float(-(shares * np.log(shares)).sum())


# -- torch ---------------------------------------------------------------------------------------------------------


def extra(module: str) -> Any:  # noqa: ANN401 - an optional package without types here
    """Import a package of the [torch] extra.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError("torch", f"training a model ({module})") from error


@contextmanager
def _reproducible() -> Generator[Any]:
    """Give torch with one thread, deterministic algorithms and its own random state; put everything back after."""
    torch = extra("torch")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        # More threads add up in another order, and the last bits differ.
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(mode=True)
        with torch.random.fork_rng(devices=[]):
            yield torch
    finally:
        torch.use_deterministic_algorithms(mode=deterministic)
        torch.set_num_threads(threads)


def _model(weights: Weights, shape: Shape) -> Any:  # noqa: ANN401 - a transformers model
    torch, transformers = extra("torch"), extra("transformers")
    settings = {**config(shape), "torch_dtype": "float32"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model


def _optimizer(torch: Any, model: Any, training: Training) -> Any:  # noqa: ANN401
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(training.beta1, training.beta2))


def _rate(step: int, training: Training) -> float:
    """Linear warm-up times a cosine from 1 to 0.1."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return training.learning_rate * min(1.0, (step + 1) / training.warmup) * (0.1 + 0.9 * cosine)


def _loss(torch: Any, model: Any, rows_BT: Any) -> Any:  # noqa: ANN401
    logits = model(input_ids=rows_BT[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows_BT[:, 1:].flatten())


def _held_out_rows(shape: Shape, text: bytes) -> Array:
    held_out = np.frombuffer(text, np.uint8)[-HELD_OUT_BYTES:].astype(np.int64)
    count = (held_out.size - 1) // shape.context
    starts = np.arange(count) * shape.context
    return np.stack([held_out[start : start + shape.context + 1] for start in starts])
