"""Tasks on models of published shapes, locally and over the network."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from cost_parts.comparing import Compared, compare, judged, row
from cost_parts.context import Context, UnavailableError
from cost_parts.rows import Check, Row, at_most, equals
from cost_parts.streaming import limit_seconds

ROOT = Path(__file__).parents[2]

LLAMA = "Llama-3-8B, 8 layers"

READ_SHARE = 0.15
"""Of both 8-layer checkpoints, what the default may read of a plain child."""


def start(context: Context) -> Iterator[Row]:
    """Two tiny models: what a command costs before it looks at anything."""
    folders = ROOT / "examples" / "child", ROOT / "examples" / "base"

    def bars(found: Row) -> tuple[Check, ...]:
        return equals("derived", found.says), at_most("seconds", found.seconds, 1.5)

    found = judged("two tiny models, cold start", folders, bars, runs=2 * context.runs + 1)
    # Against so few bytes the limit is no yardstick.
    yield replace(found, limit_seconds=None)


def llama(context: Context) -> Iterator[Row]:
    """Eight layers of Llama-3-8B in bf16: a fine-tuned child, and an innocent twin."""
    base = context.fixtures.get("llama8b-8L-base")
    child, twin = context.fixtures.get("llama8b-8L-child"), context.fixtures.get("llama8b-8L-twin")

    def plain(found: Row) -> tuple[Check, ...]:
        return (
            equals("derived", found.says),
            at_most("ratio", found.ratio, 2.0),
            at_most("share", found.share and 100 * found.share, 100 * READ_SHARE, " %"),
            at_most("peak MB", found.peak_mb, 1500),
        )

    def innocent(found: Row) -> tuple[Check, ...]:
        return equals("independent", found.says), at_most("seconds", found.seconds, 60)

    found = judged(f"{LLAMA}: child", (child, base), plain, runs=context.runs)
    yield replace(found, note="; ".join(filter(None, (found.note, _against_allowance(found, child, base)))))
    yield judged(f"{LLAMA}: twin", (twin, base), innocent, runs=1)


def thorough(context: Context) -> Iterator[Row]:
    """The same child with every test and every method: once, which takes more than a quarter of an hour."""
    child, base = (context.fixtures.get(f"llama8b-8L-{name}") for name in ("child", "base"))

    def bars(found: Row) -> tuple[Check, ...]:
        return equals("derived", found.says), at_most("ratio", found.ratio, 4.0)

    yield judged(f"{LLAMA}: child, thorough", (child, base), bars, "--thorough", runs=1, warm=False)


def _against_allowance(found: Row, *folders: Path) -> str:
    """Say how the time stands to streaming all the bytes that might have been read.

    Where little is read, starting Python outweighs it, and the ratio to the limit of those bytes says nothing about
    reading weights.
    """
    lengths = [(folder, int(READ_SHARE * sum(path.stat().st_size for path in folder.iterdir()))) for folder in folders]
    if found.seconds is None:
        return ""
    return f"{found.seconds / limit_seconds(lengths):.2f} times the limit of {READ_SHARE:.0%} of the files"


def large(context: Context) -> Iterator[Row]:
    """Mixtures of 106B parameters, most of them holes: upcycled from a dense model, innocent, fine-tuned."""
    get = context.fixtures.get

    def bars(conclusion: str, found: Row) -> tuple[Check, ...]:
        return (
            equals(conclusion, found.says),
            at_most("share", found.share and 100 * found.share, 2, " %"),
            at_most("peak MB", found.peak_mb, 2000),
            at_most("seconds", found.seconds, 180),
        )

    def plain(found: Row) -> tuple[Check, ...]:
        return equals("derived", found.says), *_bytes(found), at_most("seconds", found.seconds, 3)

    what = "106B mixture"
    pair = get("glm-upcycled"), get("dense-base")
    yield judged(f"{what}: upcycled child of a dense model", pair, partial(bars, "derived"), runs=1)
    pair = get("glm-twin"), get("glm-base")
    yield judged(f"{what}: innocent twin", pair, partial(bars, "independent"), runs=1)
    pair = get("glm-finetuned"), get("glm-base")
    yield judged(f"{what}: fine-tuned child", pair, plain, runs=context.runs)


def _bytes(found: Row) -> tuple[Check, ...]:
    counts = found.suspect_bytes, found.base_bytes
    most = None if None in counts else max(count for count in counts if count is not None) / 1e6
    return (at_most("MB of each", most, 20),)


def attention(context: Context) -> Iterator[Row]:
    """Innocent twins with the widest attention: heads with keys and values of their own, and latent attention."""

    def bars(found: Row) -> tuple[Check, ...]:
        return equals("independent", found.says), at_most("peak MB", found.peak_mb, 2000)

    for what, name in (("LLaMA-65B", "llama65b"), ("DeepSeek-V3", "deepseek")):
        pair = context.fixtures.get(f"{name}-twin"), context.fixtures.get(f"{name}-base")
        yield judged(f"{what}: innocent twin", pair, bars, runs=1)


def hub(context: Context) -> Iterator[Row]:
    """The fine-tuned mixture by name, from a server on this machine with latency and bandwidth of a network."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from support.hub import HubServer
    except ImportError as error:
        raise UnavailableError(f"the server of the tests does not load ({error})") from error
    names = "glm-finetuned", "glm-base"
    folders = context.fixtures.get(names[0]), context.fixtures.get(names[1])
    with tempfile.TemporaryDirectory() as scratch, HubServer(latency=0.03, bandwidth=12.5e6) as server:
        for name, folder in zip(names, folders, strict=True):
            server.repos.add(f"bench/{name}", folder)
        measured: list[Compared] = []
        for run in range(context.runs):
            # Caches of its own, so that nothing is there from an earlier run.
            cache = Path(scratch) / str(run)
            env = {**server.environment(cache), "HF_HOME": str(cache / "home"), "HF_HUB_OFFLINE": "0"}
            measured.append(compare(*(f"bench/{name}" for name in names), runs=1, warm=False, env=env))
        requests, sent = len(server.requests) / context.runs, sum(one.sent for one in server.requests) / context.runs
    middle = sorted(measured, key=lambda one: one.run.seconds)[(len(measured) - 1) // 2]
    found = row("106B mixture: fine-tuned child over a hub, 30 ms, 100 Mbit/s", middle, folders)
    checks = equals("derived", found.says), *_bytes(found), at_most("seconds", found.seconds, 10)
    note = f"{sent / 1e6:.1f} MB sent in {requests:.0f} requests"
    yield replace(found, limit_seconds=None, checks=checks, note="; ".join(filter(None, (found.note, note))))
