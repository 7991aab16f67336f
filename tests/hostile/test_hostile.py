"""Whatever a file says, the answer is one line that names the file: no traceback, no code run, no memory spent."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gguf.quants  # noqa: F401 - so that its own memory is not counted as a file's
import pytest

from hostile import build
from hostile.case import MARKER, Case
from hostile.cases import all_cases
from hostile.pickle_cases import COMMAND
from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.errors import CheckpointError

CASES = all_cases()
PEAK_BYTES = 5_000_000
"""The worst case, JSON nested 100,000 deep, takes 1 MB to refuse. The config of 17 MB is refused unread."""


def read_everything(checkpoint: Checkpoint) -> None:
    for name in checkpoint.tensors:
        checkpoint.read(name)
        checkpoint.raw(name)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_model_gives_one_line_and_no_side_effect(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = case.make(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_everything(open_checkpoint(target))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable()
    assert case.says in message
    assert message.count("; ") >= 1, "a message says what to do"
    assert len(message) < 6000 if "does not end" in case.name else len(message) < 600
    assert caught.value.exit_code == 5
    assert peak < PEAK_BYTES
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "body", [b"}" + b")" + b"\x85" * 300_000 + b"Ns", b"]" * 300_000 + b"a" * 299_999], ids=["key", "list"]
)
def test_a_pickle_nested_deeper_than_the_c_stack_gives_one_line(body: bytes, tmp_path: Path) -> None:
    # In its own process: hashing such a key would end the process, and the shape checks would take a minute.
    (tmp_path / "model.bin").write_bytes(build.torch_zip(body, {}))
    script = "import sys, kinprint.checkpoint as c, kinprint.errors as e\ntry: c.open_checkpoint(sys.argv[1])\n"
    script += "except e.CheckpointError as error: sys.exit(str(error))"
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.bin")], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"{tmp_path}/model.bin: holds no dict of named tensors")
    assert run.stderr.count("\n") == 1


def test_the_payloads_would_run_if_they_were_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(build.pickled(build.call(build.named("os", "system"), COMMAND)))
    assert (tmp_path / MARKER).exists()


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
