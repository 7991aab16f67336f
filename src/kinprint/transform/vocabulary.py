"""Vocabularies cut, reordered and extended; embeddings drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kinprint.architecture import PartKey
from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.transform.sizes import entry, resized, with_entry
from kinprint.transform.state import ModelState

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Config entries that hold ids of tokens."""


def with_tokens(model: ModelState, ids: Sequence[int]) -> ModelState:
    """Return a model whose token i is the old token ``ids[i]``: a cut or a reordering of the vocabulary.

    Special tokens of the config follow; one that is gone becomes null.

    Raises:
        UsageError: An id does not exist or is named twice, or none is named.
    """
    rows = vocabulary_rows(model)
    if not ids or len(set(ids)) < len(ids) or not all(0 <= token < rows for token in ids):
        raise UsageError(f"cannot keep {len(ids)} tokens of a vocabulary of {rows}: name ids below {rows}, each once")
    new = {old: place for place, old in enumerate(ids)}
    strings = model.vocabulary
    if strings is not None:
        strings = tuple(strings[token] if token < len(strings) else "" for token in ids)
    model = model.mapped("vocab", lambda array, position, _: np.take(array, np.array(ids), axis=position))
    for key in SPECIAL:
        said = entry(model, key)
        if isinstance(said, int):
            model = with_entry(model, key, new.get(said))
        elif isinstance(said, list):
            kept = [new[token] for token in said if token in new]  # pyright: ignore[reportUnknownVariableType]
            model = with_entry(model, key, kept or None)
    return replace(resized(model, {"vocab": len(ids)}), vocabulary=strings)


def with_more_tokens(
    model: ModelState, tokens: Sequence[str], rng: np.random.Generator, *, spread: float = 0.1
) -> ModelState:
    """Return a model with further tokens after its own; each starts as the mean of the others, plus noise.

    Source: Hewitt, Initializing New Word Embeddings for Pretrained Language Models (2021): with the mean, a new token
    takes little of the old ones' probability.

    Args:
        model: The model.
        tokens: Their strings.
        rng: Where the noise comes from.
        spread: Its standard deviation, as a share of the matrix's own.
    """
    rows = vocabulary_rows(model)

    def longer(array: Array, position: int, _: PartKey) -> Array:
        shape = tuple(len(tokens) if axis == position else size for axis, size in enumerate(array.shape))
        fresh = array.mean(axis=position, keepdims=True) + spread * array.std() * rng.standard_normal(shape)
        return np.concatenate([array, fresh], axis=position)

    strings = model.vocabulary
    if strings is not None:
        strings = (*strings, *[""] * (rows - len(strings)), *tokens)
    return replace(resized(model.mapped("vocab", longer), {"vocab": rows + len(tokens)}), vocabulary=strings)


def with_new_embedding(model: ModelState, rng: np.random.Generator) -> ModelState:
    """Return a model whose token embedding and output matrix are drawn anew, with their old standard deviations."""
    keys = [key for key in (PartKey("embed.token"), PartKey("unembed")) if key in model.parts]
    drawn: dict[PartKey, Array] = {
        key: model.parts[key].std() * rng.standard_normal(model.parts[key].shape) for key in keys
    }
    return model.updated(drawn)


def vocabulary_rows(model: ModelState) -> int:
    """Return the rows of the token embedding.

    Raises:
        UsageError: The model has none.
    """
    key = PartKey("embed.token")
    if key not in model.parts:
        raise UsageError("cannot change the vocabulary: this model has no token embedding")
    return model.parts[key].shape[0]
