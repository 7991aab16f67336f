"""Tokenizers cut and extended with the vocabulary of their model: ``tokenizer.json``, rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kinprint.errors import UsageError
from kinprint.zoo.model import Model, as_json
from kinprint.zoo.train import encode

_FILE = "tokenizer.json"


def frequent_ids(model: Model, text: bytes, count: int, *, rows: int) -> list[int]:
    """Return the ids of the tokens that occur most often in a text, and of all special tokens, in order.

    Args:
        model: Its tokenizer reads the text.
        text: The text.
        count: How many to return; of equally frequent tokens the lower id is kept.
        rows: Rows of the embedding, of which the tokenizer may know fewer.

    Raises:
        UsageError: There are no more than ``count`` tokens, so nothing would be cut, or too many special ones.
        MissingExtraError: The tokenizer has merges, and tokenizers is not installed.
    """
    if count >= rows:
        raise UsageError(f"keeping {count} of {rows} tokens cuts nothing: lower keep")
    special = [token["id"] for token in model.tokenizer.get("added_tokens", [])]
    if len(special) > count:
        raise UsageError(f"cannot keep {count} tokens: {len(special)} are special and stay")
    counts = np.bincount(encode(model, text), minlength=rows)[:rows]
    counts[special] = counts.max() + 1
    return sorted(int(token) for token in np.argsort(-counts, kind="stable")[:count])


def tokenizer_cut(model: Model, ids: Sequence[int]) -> Model:
    """Return a model whose tokenizer knows the tokens ``ids`` only, renumbered from 0; merges that need others go.

    Raises:
        UsageError: The tokenizer is none of byte pairs, or puts tokens of its own around a text.
    """
    tokenizer = model.tokenizer
    if not tokenizer:
        return model
    table: dict[str, Any] = tokenizer["model"]
    around: dict[str, Any] = tokenizer.get("post_processor") or {}
    if table.get("type") != "BPE" or around.get("special_tokens"):
        raise UsageError(f"cannot cut a tokenizer of type {table.get('type')}: only plain BPE can be rewritten")
    new = {old: place for place, old in enumerate(ids)}
    vocabulary = {token: new[old] for token, old in table["vocab"].items() if old in new}
    merges = [merge for merge in table["merges"] if _possible(merge, vocabulary)]
    added = [{**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"] if token["id"] in new]
    return _with_tokenizer(
        model, {**tokenizer, "added_tokens": added, "model": {**table, "vocab": vocabulary, "merges": merges}}
    )


def tokenizer_extended(model: Model, strings: Sequence[str], *, first: int) -> Model:
    """Return a model whose tokenizer knows further tokens, with ids from ``first`` on."""
    tokenizer = model.tokenizer
    if not tokenizer:
        return model
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    more = [{"id": first + place, "content": token, **flags} for place, token in enumerate(strings)]
    return _with_tokenizer(model, {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *more]})


def _possible(merge: str | list[str], vocabulary: dict[str, int]) -> bool:
    """Return whether both parts of a merge and what it makes are tokens. Older files write a merge in one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in vocabulary and right in vocabulary and left + right in vocabulary


def _with_tokenizer(model: Model, tokenizer: dict[str, Any]) -> Model:
    return replace(model, files={**model.files, _FILE: as_json(tokenizer)})
