"""The loop that every adapter runs: a pair of folders per line in, an answer per line out.

It runs inside a peer's own environment, so it needs nothing beyond Python.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping

Answer = Mapping[str, object]


def serve(compare: Callable[[str, str], Answer]) -> None:
    """Answer pairs from standard input until it ends.

    Whatever the peer prints goes to standard error, so that standard output holds answers alone.

    Args:
        compare: Takes the folders of the suspect and the base. Returns ``value``, ``verdict``, ``reason`` (where
            there is no value) and ``parts``: the similarities that the value is made of.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        suspect, base = json.loads(line)
        answers.write(json.dumps(_answer(compare, suspect, base), allow_nan=False) + "\n")


def _answer(compare: Callable[[str, str], Answer], suspect: str, base: str) -> dict[str, object]:
    """Return the peer's answer; an exception becomes a blank that says why."""
    started = time.perf_counter()
    answer: dict[str, object] = {"value": None, "verdict": None, "reason": None, "parts": {}}
    try:
        answer |= compare(suspect, base)
    except Exception as error:
        answer["reason"] = _reason(error, suspect, base)
    answer["seconds"] = round(time.perf_counter() - started, 4)
    answer["value"] = _finite(answer["value"])
    answer["parts"] = {name: _finite(value) for name, value in answer["parts"].items()}
    if answer["value"] is None and answer["reason"] is None:
        answer["reason"] = "the peer gave no number"
    return answer


def _reason(error: Exception, suspect: str, base: str) -> str:
    """Return an exception in one short line that names no folder of this machine."""
    text = " ".join(str(error).split())
    named = {suspect: "the suspect", base: "the base"}
    for folder in sorted(named, key=len, reverse=True):
        text = text.replace(folder, named[folder])
    return f"{type(error).__name__}: {text}"[:200]


def _finite(value: object) -> float | None:
    """Return a number that JSON can hold."""
    return float(value) if value is not None and math.isfinite(value) else None
