"""GhostSpec's spectra against the dense reference, as ratios in one run.

The dense reference is what the paper describes: form the d x d product in float32 and take ``numpy.linalg.svd`` without
vectors. Ours is ``product_singular_values`` in float64. Errors are against a dense float64 decomposition, on the values
inside the effective rank (the bar is 1e-6).

Usage: python benchmarks/spectra.py [--width 4096] [--no-accuracy]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinprint.linalg import effective_rank, product_singular_values
from kinprint.linalg.heads import grouped_query_sum

HEAD_DIM = 128
SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE")
CASES = (("GQA", 4, 20.0), ("MHA", 1, 2.0))
"""Name, query heads per key/value head, and the ratio that must be reached."""


def factor(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A float32 projection whose spectrum decays like a learned one: a heavy head over a Gaussian bulk."""
    weight = 0.02 * rng.standard_normal((rows, columns), dtype=np.float32)
    rank = 64
    strengths = (0.5 * np.arange(1, rank + 1, dtype=np.float32) ** -0.7) / np.sqrt(np.float32(rows))
    left = rng.standard_normal((rows, rank), dtype=np.float32)
    return weight + (left * strengths) @ rng.standard_normal((rank, columns), dtype=np.float32)


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return (seconds, result)."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def machine() -> str:
    """Return what the numbers are measured on. Settings of the BLAS are reported, never changed."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    parts = [names[0] if names else platform.machine(), f"{os.cpu_count()} cores", f"numpy {np.__version__}"]
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} before the start")
    return "# " + ", ".join((*parts, *settings))


def main() -> None:
    """Print one row for each case; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--no-accuracy", action="store_true")
    options = parser.parse_args()
    width, heads = options.width, options.width // HEAD_DIM
    print(machine())
    print("| layer | dense float32 s | ours s | ratio | bar | largest error inside effective rank |")
    print("|---|---|---|---|---|---|")
    missed = False
    for name, group, bar in CASES:
        rng = np.random.default_rng(0)
        kv_heads = heads // group
        query, key = factor(rng, width, width), factor(rng, kv_heads * HEAD_DIM, width)

        def dense(
            query: np.ndarray = query, key: np.ndarray = key, group: int = group, kv: int = kv_heads
        ) -> np.ndarray:
            expanded = np.repeat(key.reshape(kv, HEAD_DIM, width), group, axis=0).reshape(-1, width)
            return np.linalg.svd(query.T @ expanded, compute_uv=False)

        def ours(query: np.ndarray = query, key: np.ndarray = key, kv: int = kv_heads) -> np.ndarray:
            grouped = grouped_query_sum(query, heads=heads, kv_heads=kv, head_dim=HEAD_DIM)
            return product_singular_values(grouped, key)

        fast, values = timed(ours)
        slow, _ = timed(dense)
        error = "not measured"
        if not options.no_accuracy:
            true = dense(query.astype(np.float64), key.astype(np.float64))
            kept = int(effective_rank(true))
            worst = float(np.max(np.abs(values[:kept] / true[:kept] - 1)))
            error = f"{worst:.1e} ({kept} values)"
            missed |= worst > 1e-6
        missed |= slow / fast < bar
        print(f"| {name}, d={width} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {bar:.0f} | {error} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
