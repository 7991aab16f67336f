"""Comparisons whose pages are looked at in a browser: of the shipped models, a large one, and a hostile one."""

from __future__ import annotations

import functools
import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kinprint import api
from kinprint.report.html import page
from kinprint.types import Comparison

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LONG = "long-" * 2_000
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "</style><svg onload=alert(3)>",
    "\x1b[31m\x00\x08\u202egnp.exe\u2066",
    "javascript:alert(4)",
    LONG,
)


def compared(*words: str) -> Comparison:
    """What the command finds; in a process of its own, where no shape is checked, it takes a fifth of the time."""
    kinprint = Path(sys.executable).with_name("kinprint")
    command = [kinprint, "compare", *words, "--quiet", "--json", "-"]
    ran = subprocess.run(command, cwd=EXAMPLES, capture_output=True, check=True, timeout=300)
    return Comparison.model_validate_json(ran.stdout)


@functools.cache
def laundered() -> Comparison:
    """A copy in disguise, with a third model."""
    return compared("laundered", "base", "--control", "twin")


@functools.cache
def independent() -> Comparison:
    """Two models that were trained apart, without a third."""
    return compared("twin", "base")


@functools.cache
def quick() -> Comparison:
    """A fine-tuned copy, found by the first test that decides."""
    return compared("child", "base", "--quick")


@functools.cache
def identical() -> Comparison:
    """A model beside itself."""
    return compared("base", "base")


@functools.cache
def not_comparable() -> Comparison:
    """A stored fingerprint, which holds no tensors."""
    from kinprint.fingerprints import save

    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "base.safetensors"
        save(api.fingerprint(EXAMPLES / "base"), kept)
        return api.compare(kept, EXAMPLES / "twin")


@functools.cache
def large() -> Comparison:
    """A hundred layers with 128 experts in each."""
    stretched = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))["stretched"]
    return stretched(laundered())


@functools.cache
def hostile() -> Comparison:
    """What a checkpoint or a forged JSON may say: every text that no type restricts is hostile, in turn."""
    held: dict[str, Any] = json.loads(laundered().model_dump_json())
    turn = iter(range(10**9))
    for key in ("verdict", "suspect", "base", "controls", "methods", "control_pairs", "environment"):
        held[key] = _hostile(held[key], lambda: HOSTILE[next(turn) % len(HOSTILE)])
    held["request"] |= {"component": HOSTILE[0], "methods": list(HOSTILE), "device": HOSTILE[1]}
    held["kinprint_version"] = HOSTILE[0]
    held["suspect"]["name"], held["base"]["name"], held["controls"][0]["name"] = HOSTILE[0], HOSTILE[1], LONG
    held["verdict"]["decided_by"] = held["verdict"]["evidence"][0]["name"]
    return Comparison.model_validate(held)


KEPT = frozenset(("status", "conclusion", "relation", "kind", "side", "method"))
"""Fields that are words of ours, or (``method``) choose a picture."""


def _hostile(held: Any, text: Callable[[], str]) -> Any:
    """Return a record with every text replaced; ids keep their beginning, by which pictures find them."""
    if isinstance(held, list):
        return [_hostile(one, text) for one in held]
    if isinstance(held, dict):
        return {key: value if key in KEPT else _one(key, value, text) for key, value in held.items()}
    return text() if isinstance(held, str) else held


def _one(key: str, value: Any, text: Callable[[], str]) -> Any:
    if key == "id":
        return f"{value.split('/')[0]}/{text()}"
    if key in ("title", "columns"):
        return value
    return _hostile(value, text)


PAGES: Mapping[str, Callable[[], Comparison]] = {
    "laundered": laundered,
    "independent": independent,
    "quick": quick,
    "identical": identical,
    "not-comparable": not_comparable,
    "large": large,
    "hostile": hostile,
}


def write(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison."""
    path.write_text(page(comparison), encoding="utf-8")
