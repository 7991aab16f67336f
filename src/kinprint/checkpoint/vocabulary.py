"""Token strings by id, from the tokenizer files that lie beside a model. No tokenizer is built and nothing is run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from kinprint.checkpoint.faults import FETCH_AGAIN, fault, natural, shown
from kinprint.checkpoint.jsonfile import read_bytes, read_object
from kinprint.checkpoint.source import ByteSource, Files

TOKENIZER_BYTES = 200_000_000
"""Longest tokenizer file that is read; the largest known ones have about 40 MB."""

SPARE_IDS = 1 << 16
"""How far the highest id may lie above twice the number of tokens. Reserved ids leave some gaps; lies leave more."""


def folder_vocabulary(files: Files) -> tuple[str, ...] | None:
    """Return the tokens of a model folder by id; an id that no token has is ``""``.

    The first of ``tokenizer.json``, ``vocab.json`` (with ``added_tokens.json``) and ``vocab.txt`` is read. A
    sentencepiece model alone gives None.

    Raises:
        CheckpointError: The file is malformed, or its ids are negative or absurdly high.
    """
    if files.has("tokenizer.json"):
        return _tokenizer_json(files.source("tokenizer.json"))
    if files.has("vocab.json"):
        tokens = read_object(files.source("vocab.json"), max_bytes=TOKENIZER_BYTES)
        added = "added_tokens.json"
        more = read_object(files.source(added), max_bytes=TOKENIZER_BYTES) if files.has(added) else {}
        return _by_id([*tokens.items(), *more.items()], files.where("vocab.json"))
    if files.has("vocab.txt"):
        text = read_bytes(files.source("vocab.txt"), max_bytes=TOKENIZER_BYTES).decode("utf-8", "backslashreplace")
        # Not splitlines(): tokens may be characters that it takes for line breaks.
        lines = text.replace("\r\n", "\n").split("\n")
        return tuple(lines[:-1] if lines[-1] == "" else lines)
    return None


def _tokenizer_json(source: ByteSource) -> tuple[str, ...]:
    """Return the tokens of a ``tokenizer.json``: a map to ids, or for Unigram a list in the order of ids."""
    content = read_object(source, max_bytes=TOKENIZER_BYTES)
    model = content.get("model")
    vocabulary: object = cast("dict[str, Any]", model).get("vocab") if isinstance(model, dict) else None
    pairs: list[tuple[object, object]]
    if isinstance(vocabulary, dict):
        pairs = list(cast("dict[object, object]", vocabulary).items())
    elif isinstance(vocabulary, list):
        rows = cast("list[object]", vocabulary)
        pairs = [(row[0] if isinstance(row, list) and row else None, index) for index, row in enumerate(rows)]  # pyright: ignore[reportUnknownArgumentType]
    else:
        raise fault(source.where, "holds no vocabulary", FETCH_AGAIN)
    added = content.get("added_tokens", [])
    for entry in cast("list[object]", added) if isinstance(added, list) else [None]:
        token = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        pairs.append((token.get("content"), token.get("id")))
    return _by_id(pairs, source.where)


def _by_id(pairs: Iterable[tuple[object, object]], where: str) -> tuple[str, ...]:
    """Order tokens by id; of two with one id the later wins, for added tokens replace."""
    found: dict[int, str] = {}
    count = 0
    for token, number in pairs:
        count += 1
        if not isinstance(token, str) or not natural(number):
            raise fault(where, f"gives token {shown(token)} the id {shown(number)}", "damaged: " + FETCH_AGAIN)
        found[number] = _encodable(token)
    highest = max(found, default=-1)
    if highest > 2 * count + SPARE_IDS:
        raise fault(where, f"gives {count} tokens ids up to {shown(highest)}", "damaged: " + FETCH_AGAIN)
    return tuple(found.get(number, "") for number in range(highest + 1))


def _encodable(token: str) -> str:
    """Return a token that can be written out: JSON may hold halves of surrogate pairs."""
    return token if token.isascii() else token.encode("utf-8", "backslashreplace").decode()
