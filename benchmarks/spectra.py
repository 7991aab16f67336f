"""Time and error of one layer's product spectrum against the dense way, as ratios in one run.

The dense way forms the d x d product in float32 and takes ``numpy.linalg.svd`` of it, values only. Bars: at least 20 times
faster for d = 4096 with 32 heads on 8 key/value heads, at least 2 times faster with 32 on 32. Errors are relative, the
largest inside the effective rank, against a float64 SVD; ``--errors`` computes that reference at full size (a minute for
each case), and prints the dense float32 error beside it.

Usage: python benchmarks/spectra.py [--width 4096] [--errors] [--repeat 2]
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
from kinprint.linalg import effective_rank, grouped_query_sum, product_singular_values, singular_values

HEAD_DIM, HEADS = 128, 32
BARS = {8: 20.0, 32: 2.0}
TOLERANCE = 1e-6


def gaussian(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return a matrix as initialised."""
    return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)


def learned(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return a matrix with what training leaves: log-normal singular values, unequal gains, a few loud channels.

    The singular values' logarithms have a standard deviation of 1.2 (condition about 1e4), the gains' of 0.4; 4 channels
    are 20 times as loud as the rest.
    """
    inner = min(rows, columns)
    left = np.linalg.qr(rng.standard_normal((rows, inner), dtype=np.float32))[0]
    right = np.linalg.qr(rng.standard_normal((columns, inner), dtype=np.float32))[0]
    weight = (left * np.exp(1.2 * rng.standard_normal(inner)).astype(np.float32)) @ right.T
    gains = np.exp(0.4 * rng.standard_normal(columns))
    gains[rng.choice(columns, 4, replace=False)] *= 20
    return weight * gains.astype(np.float32)


def timed(function: Callable[[], np.ndarray], repeat: int) -> tuple[float, np.ndarray]:
    """Return the shortest of several wall times in seconds, and the result."""
    best, result = float("inf"), np.zeros(0)
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def expanded(key_KN: np.ndarray, group: int) -> np.ndarray:
    """Repeat every key/value head for its query heads."""
    heads = key_KN.reshape(-1, 1, HEAD_DIM, key_KN.shape[1])
    return np.repeat(heads, group, axis=1).reshape(-1, key_KN.shape[1])


def largest_error(values: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest relative error inside the effective rank of the exact values."""
    inside = int(effective_rank(exact) + 1e-6)
    return float(np.max(np.abs(values[:inside] / exact[:inside] - 1)))


def report(name: str, seconds: tuple[float, float], bar: float, rank: float, errors: str) -> bool:
    """Print one line and return whether it reaches its bar."""
    ratio = seconds[0] / seconds[1]
    print(
        f"{name:28} dense {seconds[0]:7.2f} s   kinprint {seconds[1]:6.2f} s   ratio {ratio:6.1f} (bar {bar:g})"
        f"   erank {rank:7.1f}{errors}",
        flush=True,
    )
    return ratio >= bar


def attention(
    make: Callable[[np.random.Generator, int, int], np.ndarray], width: int, kv_heads: int, repeat: int, exact: bool
) -> bool:
    """Time one layer's M_qk."""
    rng = np.random.default_rng(0)
    query_HN = make(rng, HEADS * HEAD_DIM, width)
    key_KN = make(rng, kv_heads * HEAD_DIM, width)

    def dense(dtype: type = np.float32) -> np.ndarray:
        product = query_HN.T.astype(dtype) @ expanded(key_KN.astype(dtype), HEADS // kv_heads)
        return np.linalg.svd(product, compute_uv=False)

    def ours() -> np.ndarray:
        if kv_heads == HEADS:
            return product_singular_values(query_HN, key_KN)
        summed = grouped_query_sum(query_HN, heads=HEADS, kv_heads=kv_heads, head_dim=HEAD_DIM)
        return product_singular_values(summed, key_KN)

    ours_seconds, values = timed(ours, repeat)
    dense_seconds, dense_values = timed(dense, 1)
    errors, right = "", True
    if exact:
        reference = dense(np.float64)
        error = largest_error(values, reference)
        right = error <= TOLERANCE
        errors = f"   error {error:.1e} (bar {TOLERANCE:g}), dense float32 {largest_error(dense_values, reference):.1e}"
    label = "MHA" if kv_heads == HEADS else f"GQA {HEADS}/{kv_heads}"
    reached = report(
        f"{label} {make.__name__}", (dense_seconds, ours_seconds), BARS[kv_heads], effective_rank(values), errors
    )
    return reached and right


def single(width: int, exact: bool) -> bool:
    """Time the spectrum of one up projection, 3.5 times as high as wide."""
    weight = learned(np.random.default_rng(1), 7 * width // 2, width)
    ours_seconds, values = timed(lambda: singular_values(weight), 1)
    dense_seconds, dense_values = timed(lambda: np.linalg.svd(weight, compute_uv=False), 1)
    errors, right = "", True
    if exact:
        reference = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
        error = largest_error(values, reference)
        right = error <= TOLERANCE
        errors = f"   error {error:.1e} (bar {TOLERANCE:g}), dense float32 {largest_error(dense_values, reference):.1e}"
    return report("MLP up learned", (dense_seconds, ours_seconds), 1.0, effective_rank(values), errors) and right


def machine() -> str:
    """Return what the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    # OPENBLAS_CORETYPE forces a kernel, often a slower one; it is reported, never changed.
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE")
    settings = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in names)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{cpu}, {os.cpu_count()} cores{load}; numpy {np.__version__}, {blas['name']} {blas['version']}; {settings}"


def main() -> int:
    """Run every case; 0 if all bars are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=2, help="runs of the fast way, of which the shortest counts")
    parser.add_argument("--errors", action="store_true", help="compute float64 references: about a minute a case")
    options = parser.parse_args()
    print(machine())
    print(f"d = {options.width}, {HEADS} heads of {HEAD_DIM}; one M_qk")
    reached = [
        attention(make, options.width, kv_heads, options.repeat, options.errors)
        for kv_heads in BARS
        for make in (gaussian, learned)
    ]
    reached.append(single(options.width, options.errors))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
