"""The array functions on a device, at the shapes of a 70B model (Llama 3): times by stage, and errors against numpy.

Weights are random, made when they are needed, and nothing is stored. First every function is held against numpy in
float64 at a small size; then each stage is timed on the device, after one run that is not timed, and multiplied by how
often a pair of such models needs it. With ``--reference`` the same functions are timed in numpy too.

Needs numpy, scipy, ml_dtypes, jaxtyping, threadpoolctl, array-api-compat and torch, and this checkout on PYTHONPATH.

Usage: python benchmarks/device.py [--device cuda] [--reference] [--full-svd] [--divide 1]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np

from kinprint.linalg import products, spectrum
from kinprint.linalg.assignment import assignment
from kinprint.linalg.device import Device
from kinprint.linalg.heads import grouped_query_sum
from kinprint.linalg.stacked import product_singular_values_of

LAYERS, STACKED, SAMPLED, TOKENS = 80, 4, 2048, 8192
"""Layers of the model; layers worked through together; sampled units of a layer; shared tokens of a fit."""

FITS, PRODUCTS = 1, 2
"""Bases fitted for a pair; products of a layer's attention, qk and vo."""


@dataclass(frozen=True)
class Shape:
    """Llama 3 70B, or a divisor of it."""

    width: int = 8192
    heads: int = 64
    kv_heads: int = 8
    head_dim: int = 128
    units: int = 28672
    directions: int = 1024

    def divided(self, by: int) -> Shape:
        """Return a model whose sizes are smaller, head counts apart."""
        return Shape(
            self.width // by, self.heads, self.kv_heads, self.head_dim // by, self.units // by, self.directions // by
        )

    @property
    def layer_bytes(self) -> int:
        """Bytes of a layer's matrices in bfloat16."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 2 * self.width * (2 * queries + 2 * keys + 3 * self.units)


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Weights as a checkpoint holds them, bfloat16."""
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    values *= 0.02
    return values.astype(ml_dtypes.bfloat16)


def seconds(device: Device, work: Callable[[], Any], repeats: int) -> float:
    """Return the shortest time of a few runs, after one that is not timed where there is more than one."""
    times: list[float] = []
    for _ in range(repeats + (repeats > 1)):
        device.synchronise()
        started = time.perf_counter()
        work()
        device.synchronise()
        times.append(time.perf_counter() - started)
    return min(times[1:] or times)


# -- stages --------------------------------------------------------------------------------------------------------

Stage = tuple[str, float, float, float]
"""What, how often a pair of models needs it, seconds on the device, seconds in numpy (NaN where not measured)."""


Making = Callable[[Device], Callable[[], Any]]
"""Puts on a device what a stage needs, and returns its work."""


@dataclass(frozen=True)
class Clock:
    """Times stages on the device, and in numpy where that is wanted."""

    places: list[Device]

    def stage(self, what: str, count: float, make: Making, repeats: int = 3) -> Stage:
        """Return a stage with its times."""
        found = [seconds(device, make(device), repeats if at == 0 else 1) for at, device in enumerate(self.places)]
        return what, count, found[0], found[1] if len(found) > 1 else float("nan")


def unit_stages(shape: Shape, clock: Clock) -> Iterator[Stage]:
    """Time the transfer of weights, and the matching of units of two layers."""
    base, sampled = drawn(0, shape.units, shape.width), drawn(1, min(SAMPLED, shape.units), shape.width)
    share = shape.layer_bytes / base.nbytes
    what = f"transfer of {base.nbytes / 1e9:.2f} GB of bfloat16"
    yield clock.stage(what, 2 * LAYERS * share, lambda device: lambda: device.put(base))
    mirrors = np.linalg.qr(drawn(2, shape.width, shape.width // 16).astype(np.float32))[0]
    turn = np.eye(shape.width, dtype=np.float32) - 2 * (mirrors @ mirrors.T)  # the base's side of a fit is the identity

    def matching(precision: products.Precision) -> Making:
        def made(device: Device) -> Callable[[], Any]:
            own, other, side = (device.put(array) for array in (sampled, base, turn))
            return lambda: products.row_cosines(products.turned(own, side), other, precision=precision)

        return made

    size = f"{len(sampled)} x {shape.units} units"
    yield clock.stage(f"cosines of {size}, single", LAYERS, matching("single"))
    yield clock.stage(f"cosines of {size}, mixed", 0, matching("mixed"))
    cosines = clock.places[0].get(matching("single")(clock.places[0])())
    solved = seconds(clock.places[0], lambda: assignment(cosines), 1)
    yield f"assignment of {size}, on the processor", LAYERS, solved, solved


def attention_stages(shape: Shape, clock: Clock) -> Iterator[Stage]:
    """Time the cosines of groups of facing layers, and the spectra of layers."""
    blocks = (STACKED, shape.kv_heads, shape.head_dim, shape.width)
    forms = [drawn(3 + side, *blocks) for side in range(4)]

    def grouped(device: Device) -> Callable[[], Any]:
        sides = [device.put(side) for side in forms]
        return lambda: products.group_cosines(*sides)

    yield clock.stage(f"group cosines of {STACKED} layers, single", PRODUCTS * LAYERS / STACKED, grouped)
    heads = {"heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    queries = grouped_query_sum(drawn(10, shape.heads * shape.head_dim, shape.width).astype(np.float32), **heads)
    pairs = [(queries, side.reshape(-1, shape.width)) for side in forms[0]]
    what = f"spectra of {STACKED} products, exact, transfer included"
    yield clock.stage(
        what, 2 * PRODUCTS * LAYERS / STACKED, lambda device: lambda: product_singular_values_of(pairs, device)
    )


def basis_stages(shape: Shape, clock: Clock, *, full_svd: bool) -> Iterator[Stage]:
    """Time the fit of a basis on matched rows."""
    rows = [drawn(8, TOKENS, shape.width), drawn(9, TOKENS, shape.width)]

    def crossing(device: Device) -> Callable[[], Any]:
        sides = [device.put(side) for side in rows]
        return lambda: products.cross_product(*sides)

    def fitting(work: Callable[[Any], Any]) -> Making:
        def made(device: Device) -> Callable[[], Any]:
            cross = crossing(device)()
            return lambda: work(cross)

        return made

    yield clock.stage(f"cross product of {TOKENS} tokens, exact", FITS, crossing)
    truncated = fitting(lambda cross: products.truncated_procrustes(cross, shape.directions, 0))
    yield clock.stage(f"basis of {shape.directions} of {shape.width} directions, single", FITS, truncated)
    if full_svd:
        yield clock.stage(f"basis of all {shape.width} directions, exact", 0, fitting(products.procrustes), 1)


# -- errors --------------------------------------------------------------------------------------------------------

Error = tuple[str, float, float]
"""What, the largest error against numpy in float64, and the most that is allowed."""


def errors(device: Device) -> Iterator[Error]:
    """Hold every function on the device against float64 in numpy, at a small size."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((count, 1024)).astype(np.float32) for count in (300, 400))
    left[:50] = right[:50] + 0.1 * left[:50]
    exact = products.row_cosines(left, right, precision="exact")
    for precision in ("exact", "single", "mixed"):
        found = device.get(products.row_cosines(device.put(left), device.put(right), precision=precision))
        yield f"row cosines, {precision}", float(np.abs(found - exact).max()), products.cosine_bound(precision, 1024)
    sides = [rng.standard_normal((4, 6, 32, 256)) for _ in range(4)]
    found = device.get(products.group_cosines(*(device.put(side.astype(np.float32)) for side in sides)))
    yield "group cosines, single", float(np.abs(found - products.group_cosines(*sides)).max()), 1e-5
    rows = rng.standard_normal((800, 512)) * np.arange(1, 513) ** -0.5
    other = rows @ np.linalg.qr(rng.standard_normal((512, 512)))[0]
    cross = products.cross_product(rows, other)
    found = device.get(products.cross_product(device.put(rows), device.put(other)))
    yield "cross product, of its norm", float(np.abs(found - cross).max() / np.linalg.norm(cross)), 1e-12
    mine, theirs = (device.get(side) for side in products.procrustes(device.put(cross)))
    yield "basis, matched rows apart", float(np.abs(rows @ mine - other @ theirs).max()), 1e-8
    mine, theirs = (device.get(side) for side in products.truncated_procrustes(device.put(cross), 128, 0))
    yield "truncated basis, from orthonormal", float(np.abs(mine.T @ mine - np.eye(128)).max()), 1e-5
    values = np.linalg.svd(cross, compute_uv=False)
    kept = (mine.T @ cross @ theirs).diagonal()[:32]
    yield "truncated basis, 32 values", float(np.abs(kept / values[:32] - 1).max()), 1e-3
    pairs = [(rng.standard_normal((64, 512)), rng.standard_normal((64, 512))) for _ in range(4)]
    worst = [
        np.abs(ours / spectrum.product_singular_values(*pair) - 1).max()
        for ours, pair in zip(product_singular_values_of(pairs, device), pairs, strict=True)
    ]
    yield "spectra, exact", float(max(worst)), spectrum.TOLERANCE


# -- the tables ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Print the errors and the times; exit 1 where an error is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, torch or cpu")
    parser.add_argument("--reference", action="store_true", help="time numpy beside it: minutes at full size")
    parser.add_argument("--full-svd", action="store_true", help="time the basis of all directions too")
    parser.add_argument("--divide", type=int, default=1, help="divide the model's sizes, for a trial")
    options = parser.parse_args()
    device, shape = Device.of(options.device), Shape().divided(options.divide)
    print(f"# {device.description}; {platform.processor() or platform.machine()}; {shape}", flush=True)
    print("\n| function | largest error | bound |\n|---|---|---|")
    missed = False
    for what, error, bound in errors(device):
        missed |= not error <= bound
        print(f"| {what} | {error:.1e} | {bound:.1e} |", flush=True)
    clock = Clock([device, Device.of("cpu")] if options.reference else [device])
    print("\n| stage | s | times a pair | s a pair | numpy s | numpy s a pair |\n|---|---|---|---|---|---|")
    totals = [0.0, 0.0]
    stages = (
        unit_stages(shape, clock),
        attention_stages(shape, clock),
        basis_stages(shape, clock, full_svd=options.full_svd),
    )
    for what, count, here, numpy in chain(*stages):
        totals = [total + count * each for total, each in zip(totals, (here, numpy), strict=True)]
        shown = f"{numpy:.3f} | {count * numpy:.1f}" if options.reference else "- | -"
        print(f"| {what} | {here:.4f} | {count:.0f} | {count * here:.1f} | {shown} |", flush=True)
    print(f"| in all | | | {totals[0]:.1f} | | {f'{totals[1]:.1f}' if options.reference else '-'} |")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
