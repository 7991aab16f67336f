"""What every test runs under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Reference decompositions in tests are small: threads only make them wait for each other on a busy machine."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def runners() -> Mapping[str, Any]:
    """The shipped models: base, child (trained on), laundered (child with its function kept) and twin (innocent)."""
    pytest.importorskip("torch", reason="the [torch] extra is not installed")
    from kinprint.behaviour.runner import Runner

    examples = Path(__file__).parents[1] / "examples"
    return {name: Runner.open(examples / name) for name in ("base", "child", "laundered", "twin")}


@pytest.fixture(scope="session")
def probes() -> list[str]:
    """Short texts, which even a context of 128 bytes has room for."""
    return [f"The number {i} is {'larger' if i % 2 else 'smaller'} than {7 * i % 11}." for i in range(40)]
