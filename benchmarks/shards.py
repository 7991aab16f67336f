"""What is read of a model in many shards: at opening, and when one layer is read.

The shards are sparse files, so that 20 GB take a few MB of disk; a hole reads as zeros and is paged in as any other
byte. Beside the bytes that the reader hands out stand those of pages that are in memory (mincore) after all were
dropped (posix_fadvise). They are more by what the system reads ahead around every header: up to its read_ahead_kb.

Bars: opening takes 2 s and hands out 1 MB, headers with index and config; a layer hands out its own bytes and brings no
page of another shard into memory. Linux only.

Usage: python benchmarks/shards.py [--shards 100] [--megabytes 200]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kinprint.architecture import view
from kinprint.checkpoint import LocalFile, open_checkpoint

HIDDEN, VOCAB, HEADS = 4096, 32000, 32
BAR_SECONDS, BAR_BYTES = 2.0, 1_000_000
INDEX = "model.safetensors.index.json"


def shapes(layer: int, ffn: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of one layer."""
    stem = f"model.layers.{layer}."
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{stem}{name}.weight", (HIDDEN,)
    for name, rows in (("q", HIDDEN), ("k", HIDDEN // 4), ("v", HIDDEN // 4), ("o", HIDDEN)):
        yield f"{stem}self_attn.{name}_proj.weight", (rows, HIDDEN)
    for name, shape in (("gate", (ffn, HIDDEN)), ("up", (ffn, HIDDEN)), ("down", (HIDDEN, ffn))):
        yield f"{stem}mlp.{name}_proj.weight", shape


def write_sparse(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file of bf16 zeros that are not on the disk."""
    header: dict[str, object] = {}
    position = 0
    for name, shape in tensors.items():
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)


def build(folder: Path, shards: int, megabytes: int) -> int:
    """Write a Llama of one layer a shard, embeddings in the last one; return the bytes of a layer."""
    attention = 2 * (HIDDEN * HIDDEN * 5 // 2 + 2 * HIDDEN)
    ffn = max(128, (megabytes * 1_000_000 - attention) // (2 * 3 * HIDDEN) // 128 * 128)
    weight_map: dict[str, str] = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        tensors = dict(shapes(number - 1, ffn))
        if number == shards:
            tensors |= {f"{end}.weight": (VOCAB, HIDDEN) for end in ("model.embed_tokens", "lm_head")}
            tensors["model.norm.weight"] = (HIDDEN,)
        write_sparse(folder / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "model_type": "llama", "num_hidden_layers": shards, "hidden_size": HIDDEN, "intermediate_size": ffn,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 4, "vocab_size": VOCAB,
        "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return sum(2 * int(np.prod(shape)) for _, shape in shapes(0, ffn))


class Handed:
    """Ranges of bytes that local files hand out, by file."""

    def __init__(self) -> None:
        self.ranges: dict[str, set[tuple[int, int]]] = {}
        ranges, own = self.ranges, LocalFile.view

        def noted(self: LocalFile, offset: int, length: int) -> memoryview:
            ranges.setdefault(self.name, set()).add((offset, offset + length))
            return own(self, offset, length)

        LocalFile.view = noted

    def take(self) -> dict[str, int]:
        """Return how many different bytes of each file were handed out since the last call."""
        found = {name: covered(ranges) for name, ranges in self.ranges.items()}
        self.ranges.clear()
        return found


def covered(ranges: set[tuple[int, int]]) -> int:
    """Return the bytes in any of the ranges."""
    count, reached = 0, 0
    for start, end in sorted(ranges):
        count += max(0, end - max(start, reached))
        reached = max(reached, end)
    return count


def drop(files: list[Path]) -> None:
    """Ask the system to forget the pages of files."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def resident(file: Path) -> int:
    """Return the bytes of a file's pages that are in memory."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as pages:
        count = -(-len(pages) // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * count)()
        start = ctypes.addressof(held := ctypes.c_char.from_buffer(pages))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(start), ctypes.c_size_t(len(pages)), ctypes.byref(flags)
        )
        del held  # or the map could not be closed
        if failed:
            sys.exit(f"mincore: {os.strerror(ctypes.get_errno())}")
        return mmap.PAGESIZE * sum(flag & 1 for flag in bytes(flags))


def main() -> None:
    """Print one row for each step; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=200, help="of one shard")
    settings = parser.parse_args()
    handed = Handed()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        layer_bytes = build(folder, settings.shards, settings.megabytes)
        files: list[Path] = sorted(folder.glob("*.safetensors"))
        drop(files)
        total = sum(file.stat().st_size for file in files)
        rows = [("all shards", total, sum(map(resident, files)), 0.0)]

        started = time.perf_counter()
        model = view(open_checkpoint(folder))
        opening = time.perf_counter() - started
        read = handed.take()
        opened = sum(read.values())
        pages: dict[Path, int] = {file: resident(file) for file in files}
        rows.append(("open: headers", sum(read[file.name] for file in files), sum(pages.values()), opening))
        rows.append(("open: index and config", opened - rows[-1][1], 0, 0.0))

        number: int = settings.shards // 2
        mine, started = files[number], time.perf_counter()
        for key in model.parts:
            if key.layer == number:
                for _, block in model.row_blocks(key.role, number):
                    block.sum()
        seconds, read = time.perf_counter() - started, handed.take()
        rows.append((f"layer {number}", sum(read.values()), resident(mine) - pages[mine], seconds))
        others = sum(resident(file) > before for file, before in pages.items() if file != mine)

    print(f"{settings.shards} shards; a layer has {layer_bytes:,} bytes; other shards with new pages: {others}\n")
    print("| what | bytes | share of all | pages brought into memory, bytes | seconds |\n|---|---|---|---|---|")
    for what, count, touched, taken in rows:
        print(f"| {what} | {count:,} | {count / total:.2e} | {touched:,} | {taken:.2f} |")
    sys.exit(opening > BAR_SECONDS or opened > BAR_BYTES or rows[-1][1] != layer_bytes or others > 0)


if __name__ == "__main__":
    main()
