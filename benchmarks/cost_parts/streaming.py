"""The streaming limit: how fast one process can look at weights at all.

As many bytes as were read of a checkpoint are read again from its mapped files, widened to float32 and summed, once,
in blocks that stay in the cache. Nothing can be computed from weights in less time on one core without leaving some of
them unread.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK = 1 << 18
"""Elements of a block: half a megabyte of bf16 and one of float32 was the fastest size, between L2 and L3."""

DTYPES: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def tensors(folder: Path) -> dict[str, Array]:
    """Return all float tensors of a folder of safetensors files, mapped, by name; those of other dtypes are left out.

    Written for the benchmark, so that what is measured against shares no code with what is measured.
    """
    found: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        whole = np.memmap(path, np.uint8, "r", offset=8 + length)
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] in DTYPES:
                first, last = entry["data_offsets"]
                found[name] = whole[first:last].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def limit_seconds(read: Sequence[tuple[Path, int]], *, runs: int = 3) -> float:
    """Return the least seconds in which that many bytes of each folder were read, widened and summed.

    Args:
        read: Folders, with the bytes of each.
        runs: Timed runs, after one that brings the bytes into the page cache.
    """
    parts = [part for folder, count in read for part in _parts(folder, count)]
    _pass(parts)
    return min(_pass(parts) for _ in range(runs))


def _parts(folder: Path, count: int) -> Iterator[Array]:
    """Yield flat mapped tensors of so many bytes in all: the embedding first, then the files' order."""
    found = tensors(folder)
    for name in sorted(found, key=lambda name: "embed" not in name):
        if count <= 0:
            return
        flat = found[name].reshape(-1)
        part = flat[: math.ceil(count / flat.itemsize)]
        count -= part.nbytes
        yield part


def _pass(parts: Sequence[Array]) -> float:
    total = 0.0
    wide = np.empty(BLOCK, np.float32)
    started = time.perf_counter()
    for part in parts:
        for first in range(0, part.size, BLOCK):
            block = part[first : first + BLOCK]
            out = wide[: block.size]
            np.copyto(out, block, casting="unsafe")
            total += float(out.sum())
    seconds = time.perf_counter() - started
    assert math.isfinite(total)
    return seconds
