"""The installed command on models that lie on a Hub: the same verdict, what the exit code says, and what resumes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinprint.types import Comparison, Inspection
from support.hub import Fault, HubServer
from support.hub.client import leftovers
from support.hub.server import unreachable

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = Path(sys.executable).parent / "kinprint"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as started:
        for name in ("base", "child", "twin"):
            started.repos.add(f"org/{name}", EXAMPLES / name)
        yield started


def run(
    server: HubServer, folder: Path, *arguments: str | Path, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "HF_TOKEN": "", **server.environment(folder), **environment}
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False, env=known)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def test_the_verdict_on_models_of_the_hub_is_that_on_their_folders(server: HubServer, tmp_path: Path) -> None:
    arguments = ("--quick", "--json", "-")
    done = run(server, tmp_path, "compare", "org/child", "hf://org/base@main", *arguments)
    remote = Comparison.model_validate_json(done.stdout)
    local = Comparison.model_validate_json(
        run(server, tmp_path, "compare", EXAMPLES / "child", EXAMPLES / "base", *arguments).stdout
    )
    assert remote.verdict is not None
    assert local.verdict is not None
    assert (remote.verdict.conclusion, remote.verdict.log10_p) == (local.verdict.conclusion, local.verdict.log10_p)
    commits = {name: server.repos.all[f"org/{name}"].refs["main"] for name in ("child", "base")}
    assert remote.suspect.location == f"org/child@{commits['child']}"
    assert remote.base.location == f"org/base@{commits['base']}"
    assert leftovers(tmp_path) == []


def test_a_run_that_a_fault_broke_off_exits_with_6_and_the_next_one_goes_on(server: HubServer, tmp_path: Path) -> None:
    arguments = ("compare", "org/child", "org/base", "--quick")
    server.fail(
        Fault("cut", "cdn.*model.safetensors", 900_000, times=-1),
        Fault("status", "cdn.*bytes", 503, times=-1),
    )
    done = run(server, tmp_path, *arguments, code=6)
    assert "org/child@" in done.stderr + done.stdout or "org/base@" in done.stderr + done.stdout
    assert "did not come" in " ".join((done.stderr + done.stdout).split())
    assert leftovers(tmp_path) == []
    server.faults.clear()
    run(server, tmp_path, *arguments)
    again = len(server.requests)
    run(server, tmp_path, *arguments)
    assert all("/api/models/" in request.path for request in server.requests[again:])
    size = sum((EXAMPLES / name / "model.safetensors").stat().st_size for name in ("child", "base"))
    assert sum(request.sent for request in server.of("cdn")) <= size + 16384


def test_a_name_that_is_nowhere_exits_with_5_and_no_network_with_6(server: HubServer, tmp_path: Path) -> None:
    done = run(server, tmp_path, "inspect", "org/absent", code=5)
    assert "org/absent: is no file or folder here, and no model of the Hub" in " ".join(done.stderr.split())
    with unreachable() as endpoint:
        run(server, tmp_path, "inspect", "org/base", code=6, HF_ENDPOINT=endpoint)
    done = run(server, tmp_path, "inspect", "org/base", code=6, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, and no cache holds it" in " ".join(done.stderr.split())


def test_inspecting_asks_for_headers_and_works_offline_after(server: HubServer, tmp_path: Path) -> None:
    found = Inspection.model_validate_json(run(server, tmp_path, "inspect", "org/base", "--json", "-").stdout)
    assert sum(request.sent for request in server.of("cdn")) <= 65536
    asked = len(server.requests)
    done = run(server, tmp_path, "inspect", "org/base", "--json", "-", HF_HUB_OFFLINE="1")
    again = Inspection.model_validate_json(done.stdout)
    assert len(server.requests) == asked
    assert (again.roles, again.dtypes, again.bytes_total) == (found.roles, found.dtypes, found.bytes_total)


def test_a_token_is_sent_where_it_belongs(server: HubServer, tmp_path: Path) -> None:
    server.repos.all["org/base"].token = "hf_secret"
    run(server, tmp_path, "inspect", "org/base", code=5)
    run(server, tmp_path, "inspect", "org/base", HF_TOKEN="hf_secret")
    assert {request.authorization for request in server.of("cdn")} == {""}
