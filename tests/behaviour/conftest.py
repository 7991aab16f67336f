"""The shipped models as runners, loaded once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kinprint.behaviour.runner import Runner

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def runners() -> Mapping[str, Runner]:
    """base, child (trained on), laundered (child with its function kept) and twin (innocent)."""
    pytest.importorskip("torch", reason="the [torch] extra is not installed")
    return {name: Runner.open(EXAMPLES / name) for name in ("base", "child", "laundered", "twin")}


@pytest.fixture(scope="session")
def probes() -> list[str]:
    """Short texts, which even a context of 128 bytes has room for."""
    return [f"The number {i} is {'larger' if i % 2 else 'smaller'} than {7 * i % 11}." for i in range(40)]
