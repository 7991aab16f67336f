"""``kinprint behave --endpoint``: a shipped model behind a real HTTP server, asked, cut off, resumed and replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.runner import Runner
from support.openai_server import OpenAIServer

EXAMPLES = Path(__file__).parents[2] / "examples"
KINPRINT = Path(sys.executable).with_name("kinprint")
COUNT = "16"

pytest.importorskip("torch", reason="the [torch] extra is not installed")


@dataclass
class Served:
    """A local model in the form that the server asks for; it answers one request at a time."""

    runner: Runner
    lock: Any = field(default_factory=Lock)

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        with self.lock:
            return self.runner.next_tokens(prompts, most=most)

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        with self.lock:
            return self.runner.answers(prompts, most=most)

    def count_tokens(self, text: str) -> int:
        return len(self.runner.encode([text])[0])


def behave(*arguments: str | Path, cache: Path, key: str = "secret") -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "HOME": str(cache), "OMP_NUM_THREADS": "1",
        "KINPRINT_API_KEY": key, "KINPRINT_RETRY_WAIT": "0.01",
    }  # fmt: skip
    command = [KINPRINT, "behave", *map(str, arguments), "--count", COUNT]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def named(found: Any, method: str) -> dict[str, float]:
    result = next(one for one in found["methods"] if one["method"] == method)
    assert result["status"] == "measured", result["reason"]
    return {value["name"]: value["value"] for value in result["values"]}


def test_a_served_child_is_found_cut_off_resumed_and_replayed(tmp_path: Path) -> None:
    kept, out = tmp_path / "asked.jsonl", tmp_path / "found.json"
    rest = [EXAMPLES / "base", "--control", EXAMPLES / "twin", "--transcript", kept, "--json", out]
    with OpenAIServer(Served(Runner.open(EXAMPLES / "child")), name="theirs", key="secret") as server:
        asked = ["--endpoint", server.url, "--model", "theirs"]
        stopped = behave(*asked, *rest, "--max-requests", "30", cache=tmp_path)
        assert stopped.returncode == 2
        assert "30" in stopped.stderr
        assert stopped.stderr.count("\n") == 1
        assert len(server.requests) == 30
        whole = behave(*asked, *rest, cache=tmp_path)
        assert whole.returncode == 0, whole.stderr
        first = json.loads(out.read_text("utf-8"))
        assert first["spent"]["requests"] == len(server.requests) - 30
        assert f"sent {first['spent']['requests']:,} requests: " in whole.stdout
        refused = behave(*asked, EXAMPLES / "base", cache=tmp_path, key="wrong")
        assert refused.returncode == 5
        assert "KINPRINT_API_KEY" in refused.stderr
        sent = len(server.requests)
        replayed = behave(*asked, *rest, "--offline", cache=tmp_path)
        assert replayed.returncode == 0, replayed.stderr
        assert len(server.requests) == sent
        assert "sent 0 requests: 0 tokens of prompts and 0 of answers" in replayed.stdout
    assert json.loads(out.read_text("utf-8"))["methods"] == first["methods"]
    assert "secret" not in kept.read_text("utf-8") + out.read_text("utf-8")
    agreed = named(first, "model-provenance-test")
    assert agreed["agreement with the base"] > agreed["agreement with the nearest control"]
    assert named(first, "tokenizer-probes")
    assert "quere" in {result["method"] for result in first["methods"]}
    assert "does not tell copying from distillation" in whole.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--endpoint", "http://127.0.0.1:9/v1", "base"], "--model"),
        (["--model", "x", "base", "base"], "--endpoint"),
        (["base"], "name a suspect and a base"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "x", "base", "base"], "name the base alone"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "x", "base", "--max-cost", "3"], "prices"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "x", "base", "--prices", "3"], "two numbers"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = behave(*(str(EXAMPLES / one) if one == "base" else one for one in arguments), cache=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = behave("--endpoint", "http://127.0.0.1:9/v1", "--model", "x", EXAMPLES / "base", cache=tmp_path)
    assert ran.returncode == 6
    assert ran.stderr.count("\n") == 1
