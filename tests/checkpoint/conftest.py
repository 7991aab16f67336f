"""A Hub on this machine that serves one model as ``org/name``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint.served import model
from support.hub import HubServer
from support.hub.client import at_home


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is served."""
    return model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def server(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub, which this process uses with empty caches."""
    with HubServer() as started:
        started.repos.add("org/name", served)
        at_home(monkeypatch, started, tmp_path)
        yield started
