"""JSON from untrusted files: capped in size, an object at the top, keys unique where two could hide a lie."""

from __future__ import annotations

import json
from typing import Any, cast

from kinprint.checkpoint.faults import FETCH_AGAIN, fault, shown
from kinprint.checkpoint.source import ByteSource


def parse_object(text: bytes, where: str, *, unique: bool = False) -> dict[str, Any]:
    """Parse UTF-8 JSON whose top is an object.

    Args:
        text: The bytes. A byte-order mark is skipped.
        where: File, for messages.
        unique: Refuse an object that holds one key twice.

    Raises:
        CheckpointError: Not UTF-8, not JSON, not an object, nested too deeply, or a repeated key.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            # Each key leaves the dict at its first turn and is missing at its second.
            twice = next(key for key, _ in items if found.pop(key, items) is items)
            raise fault(where, f"holds the key {shown(twice)} twice", "the header lies or is damaged: " + FETCH_AGAIN)
        return found

    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=pairs if unique else None)
    except (ValueError, RecursionError) as error:
        # ValueError covers broken UTF-8, broken JSON and integers of more than 4300 digits.
        what = "JSON nested too deeply" if isinstance(error, RecursionError) else "malformed JSON"
        raise fault(where, f"holds {what}", FETCH_AGAIN) from error
    if not isinstance(value, dict):
        raise fault(where, "holds JSON that is no object", FETCH_AGAIN)
    return cast("dict[str, Any]", value)


def read_object(source: ByteSource, *, max_bytes: int, unique: bool = False) -> dict[str, Any]:
    """Read a JSON file whose top is an object.

    Args:
        source: The file.
        max_bytes: Longest file that is read.
        unique: Refuse an object that holds one key twice.

    Raises:
        CheckpointError: The file cannot be read, is too long, or is not such JSON.
    """
    return parse_object(read_bytes(source, max_bytes=max_bytes), source.where, unique=unique)


def read_bytes(source: ByteSource, *, max_bytes: int) -> bytes:
    """Read a small file whole.

    Raises:
        CheckpointError: The file cannot be read or is longer than ``max_bytes``.
    """
    if source.size > max_bytes:
        raise fault(source.where, f"is longer than {max_bytes} bytes", "this is not such a file: " + FETCH_AGAIN)
    return bytes(source.view(0, source.size))
