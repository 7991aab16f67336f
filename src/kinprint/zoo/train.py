"""Training of small decoders on bytes, reproducible to the bit on one processor and library version.

Everything random (initialisation, order of the text) is drawn by numpy, so that only arithmetic depends on torch; it
runs on one thread with deterministic algorithms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from kinprint.checkpoint import Array
from kinprint.shapes import Float32, Int64, UInt8
from kinprint.zoo import networks
from kinprint.zoo.kinds import Settings
from kinprint.zoo.model import Model

Told = Callable[[int, float], None]
"""Called after each update with the number of updates done and the loss (nats per token)."""

Loss = Callable[[Any, Any], Any]
"""Loss of a module on a batch of token rows [B, T + 1], as a torch scalar."""

HELD_OUT_BYTES = 1 << 15
"""End of each text that is never trained on."""

TAIL_STEPS = 100
"""Updates whose mean loss is reported as the training loss."""

LONGEST_TEXT = 1 << 20
"""Bytes that are tokenised for a model whose tokens are longer than bytes: brief fine-tunes need no more."""

_QUIET = ("o_proj", "down_proj", "c_proj", "attention.dense", "dense_4h_to_h")
"""Matrices that write into the residual stream: their first spread is divided by sqrt(2 layers) (GPT-2)."""


class Training(Settings):
    """How weights are trained: AdamW, linear warm-up, cosine decay to a tenth, gradients clipped to norm 1.

    Attributes:
        corpus: Name of the text.
        steps: Updates.
        batch: Sequences per update, each as long as the context.
        learning_rate: Highest rate. Norm gains have the same rate as matrices, as in common practice.
        warmup: Updates until that rate.
        weight_decay: Decoupled decay of matrices. Norm gains are not decayed: they start at 1, not 0, and pulling
            them to 0 would only rescale the matrices that read them.
        beta1: Decay of AdamW's mean of gradients.
        beta2: Decay of its mean of squared gradients.
        seed_data: Seed of the order in which the text is seen.
    """

    corpus: str
    steps: int = Field(ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(ge=1)
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    seed_data: int

    @property
    def work(self) -> int:
        """Updates."""
        return self.steps


def initial(model: Model, *, seed: int, std: float) -> Model:
    """Draw a model's weights before training.

    Args:
        model: Config and tokenizer; its weights are not looked at.
        seed: Seed of numpy's PCG64.
        std: Standard deviation of matrices; of those that write into the stream it is ``std / sqrt(2 layers)``.

    Returns:
        Every tensor, drawn in the module's own order; norm gains are 1, biases 0.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    rng = np.random.default_rng(seed)
    with networks.reproducible() as torch, torch.no_grad():
        module = networks.blank(dict(model.config))
        quiet = std / math.sqrt(2 * module.config.num_hidden_layers)
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) == 1:
                drawn = np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
            else:
                spread = quiet if any(part in name for part in _QUIET) else std
                drawn = (spread * rng.standard_normal(shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn))
        return networks.unload(module, model)


def with_random_gains(model: Model, *, seed: int, std: float) -> Model:
    """Return a model whose norm gains are drawn about 1 with a standard deviation, and nothing else is changed."""
    rng = np.random.default_rng([seed, 1])
    drawn: dict[str, Array] = {
        name: np.asarray(array + std * rng.standard_normal(array.shape), np.float32)
        for name, array in sorted(model.weights.items())
        if array.ndim == 1 and not name.endswith("bias")
    }
    return replace(model, weights={**model.weights, **drawn})


def train(model: Model, training: Training, text: bytes, *, tell: Told | None = None) -> tuple[Model, float]:
    """Train a model on all of a text but its held-out end.

    Returns:
        The trained model, and the mean loss of the last 100 updates in nats per token.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with networks.reproducible():
        module = networks.load(model)
        loss = train_module(module, training, training_tokens(model, text), context=model.context, tell=tell)
        return networks.unload(module, model), loss


def train_module(
    module: Any,  # noqa: ANN401 - a transformers or peft model
    training: Training,
    tokens_N: Int64[np.ndarray, " N"],
    *,
    context: int,
    loss: Loss | None = None,
    after_step: Callable[[], None] | None = None,
    tell: Told | None = None,
) -> float:
    """Train a module's parameters that require gradients, in place; call inside `networks.reproducible`.

    Args:
        module: What is trained.
        training: Settings.
        tokens_N: The text.
        context: Tokens per sequence.
        loss: What is made small; by default the cross-entropy of the next token.
        after_step: Called after each update, to put back what must not change.
        tell: Hears of every update.

    Returns:
        Mean loss of the last 100 updates.
    """
    torch, measure = networks.extra("torch"), loss or next_token_loss
    starts_SB = np.random.default_rng(training.seed_data).integers(
        0, tokens_N.size - context, size=(training.steps, training.batch)
    )
    optimizer = _optimizer(torch, module, training)
    losses: list[float] = []
    module.train()
    for step, starts_B in enumerate(starts_SB):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, training)
        rows_BT = np.stack([tokens_N[start : start + context + 1] for start in starts_B])
        found = measure(module, torch.from_numpy(rows_BT))
        optimizer.zero_grad()
        found.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if after_step is not None:
            after_step()
        losses.append(found.item())
        if tell is not None:
            tell(step + 1, losses[-1])
    module.eval()
    return float(np.mean(losses[-TAIL_STEPS:]))


def next_token_loss(module: Any, rows_BT: Any) -> Any:  # noqa: ANN401
    """Return the cross-entropy of each next token, with a mixture's own balancing loss where it has experts."""
    torch, mixture = networks.extra("torch"), hasattr(module.config, "router_aux_loss_coef")
    more = {"output_router_logits": True} if mixture and module.training else {}
    outputs = module(input_ids=rows_BT[:, :-1], use_cache=False, **more)
    found = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), rows_BT[:, 1:].flatten())
    # Without it, tiny mixtures send every token to the same two experts and the others stay as drawn.
    return found + module.config.router_aux_loss_coef * outputs.aux_loss if more else found


def held_out_loss(model: Model, text: bytes) -> float:
    """Return the loss on a text's held-out end, cut into contexts, in nats per token.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with networks.reproducible() as torch, torch.no_grad():
        module, rows_BT = networks.load(model), torch.from_numpy(held_out_rows(model, text))
        parts = [(next_token_loss(module, rows).item(), len(rows)) for rows in rows_BT.split(64)]
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)


def held_out_logits(model: Model, text: bytes, *, rows: int = 8) -> Float32[np.ndarray, "N vocab"]:
    """Return a model's logits in float32 on the first ``rows`` contexts of a text's held-out end.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with networks.reproducible() as torch, torch.no_grad():
        inputs = torch.from_numpy(held_out_rows(model, text)[:rows, :-1])
        logits: Any = networks.load(model)(input_ids=inputs, use_cache=False).logits
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


# -- tokens --------------------------------------------------------------------------------------------------------


def byte_tokenizer() -> dict[str, Any]:
    """Return a ``tokenizer.json`` that maps every byte to its own value: byte-level BPE without a merge."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: byte for byte, token in enumerate(byte_characters())},
            "merges": [],
        },
    }


def byte_characters() -> list[str]:
    """Return the printable character that byte-level BPE writes for each byte (GPT-2's ``bytes_to_unicode``)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def encode(model: Model, text: bytes) -> Int64[np.ndarray, " N"]:
    """Return a text as the ids of a model's tokens; a byte for which it has no token is left out."""
    tokenizer = model.tokenizer.get("model", {})
    if not model.files.get("tokenizer.json"):
        return np.frombuffer(text, np.uint8).astype(np.int64)
    if not tokenizer.get("merges"):
        ids = np.array([tokenizer["vocab"].get(token, -1) for token in byte_characters()], np.int64)
        found = ids[np.frombuffer(text, np.uint8)]
        return found[found >= 0]
    whole = networks.extra("tokenizers").Tokenizer.from_str(json.dumps(model.tokenizer))
    lines = text[:LONGEST_TEXT].decode(errors="replace").splitlines(keepends=True)
    parts = whole.encode_batch(lines, add_special_tokens=False)
    return np.concatenate([np.array(part.ids, np.int64) for part in parts])


def training_tokens(model: Model, text: bytes) -> Int64[np.ndarray, " N"]:
    """Return all of a text but its held-out end, as tokens."""
    return encode(model, text[:-HELD_OUT_BYTES])


def held_out_rows(model: Model, text: bytes) -> Int64[np.ndarray, "B T"]:
    """Return the held-out end of a text as rows of tokens, each one longer than the context."""
    held_out, context = encode(model, text[-HELD_OUT_BYTES:]), model.context
    starts = np.arange((held_out.size - 1) // context) * context
    return np.stack([held_out[start : start + context + 1] for start in starts])


# -- torch ---------------------------------------------------------------------------------------------------------


def _optimizer(torch: Any, module: Any, training: Training) -> Any:  # noqa: ANN401
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(training.beta1, training.beta2))


def _rate(step: int, training: Training) -> float:
    """Linear warm-up times a cosine from 1 to 0.1."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return training.learning_rate * min(1.0, (step + 1) / training.warmup) * (0.1 + 0.9 * cosine)
