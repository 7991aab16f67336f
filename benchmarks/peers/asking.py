"""Put pairs to a peer in a process of its own, and keep every answer.

A pair that kills the peer costs that pair, not the run: it becomes a blank with the reason, and the peer is started
again for the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from known import Peer
from venvs import UnavailableError, Venv

SECONDS_TO_START = 300
"""A cold import of PyTorch from a slow disk takes a minute."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said about one pair.

    Attributes:
        value: Its number, higher where it sees a derivation; None where it gave none.
        verdict: Its words.
        seconds: What the pair took, reading both models included.
        reason: Why there is no value.
        parts: The similarities that the value is made of, by the peer's names.
        died: Whether the pair killed the peer. Such a pair is tried again by the next run.
    """

    value: float | None = None
    verdict: str | None = None
    seconds: float | None = None
    reason: str | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    died: bool = False


class Store:
    """Answers of earlier runs, a JSON line each, by what decided them: peer, environment, and both models' bytes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, Answer] = {}
        lines = file.read_text("utf-8").splitlines(keepends=True) if file.exists() else []
        # A run that was killed leaves half a line at the end, at most.
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            file.write_text("".join(whole), "utf-8")
        for line in whole:
            entry = json.loads(line)
            self._kept[entry["key"]] = Answer(**entry["answer"])

    def get(self, key: str) -> Answer | None:
        """Return the answer kept under a key."""
        return self._kept.get(key)

    def put(self, key: str, answer: Answer, about: Mapping[str, str]) -> None:
        """Keep an answer; ``about`` tells a reader of the file what the key stands for."""
        fields = {name: getattr(answer, name) for name in ("value", "verdict", "seconds", "reason", "parts")}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **about, "answer": fields}, allow_nan=False) + "\n")
        self._kept[key] = answer


def key(peer: Peer, venv: Venv, suspect: str, base: str) -> str:
    """Return what decides an answer, as one digest: a change of any of it asks the peer again.

    Args:
        peer: The peer, whose adapter's text counts too.
        venv: What is installed.
        suspect: Digest of the suspect's files.
        base: Digest of the base's files.
    """
    scripts = [file.read_text("utf-8") for file in (peer.adapter, peer.adapter.parent / "answering.py")]
    decisive = [peer.name, peer.version, scripts, venv.version, sorted(venv.packages.items()), suspect, base]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def digest(folder: Path) -> str:
    """Return the SHA-256 of a model folder's file names and bytes, its cards (``*.md``) left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def ask(
    python: str, adapter: Path, pairs: Iterable[tuple[Path, Path]], *, log: Path, seconds_per_pair: float
) -> Iterator[Answer]:
    """Yield the peer's answer to each pair of folders, suspect first.

    Args:
        python: Interpreter of the peer's environment.
        adapter: Script that answers pairs.
        pairs: Folders.
        log: File that takes whatever the peer prints.
        seconds_per_pair: A pair that takes longer is given up.

    Raises:
        UnavailableError: The peer does not start.
    """
    waiting = list(pairs)
    with log.open("a", encoding="utf-8") as printed:
        while waiting:
            with _running(python, adapter, printed) as process:
                if _exchange(process, None, SECONDS_TO_START).died:
                    raise UnavailableError(f"its adapter does not start: see {log}")
                while waiting:
                    answer = _exchange(process, waiting.pop(0), seconds_per_pair)
                    yield answer
                    if answer.died:
                        break


@contextmanager
def _running(python: str, adapter: Path, printed: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Run an adapter, off the network and off any GPU, and end it whatever happens."""
    # -E and -s: nothing of the caller's Python may leak into the peer's. -u: what a killed peer printed is not lost.
    process = subprocess.Popen(
        [python, "-E", "-s", "-u", str(adapter)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=printed,
        text=True,
        env=_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _environment() -> dict[str, str]:
    """Return the caller's environment without settings of the peers, and with the hub and GPUs out of reach."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROVENANCEKIT_", "MODELDNA_"))}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return kept | offline | {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}


def _exchange(process: subprocess.Popen[str], pair: tuple[Path, Path] | None, seconds: float) -> Answer:
    """Send a pair (or nothing, to wait until the peer is ready) and read one line."""
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()
    alarm = threading.Timer(seconds, lambda: (late.set(), process.kill()))
    alarm.start()
    try:
        if pair is not None:
            process.stdin.write(json.dumps([str(folder) for folder in pair]) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    alarm.cancel()
    if line.endswith("\n"):
        return Answer(**json.loads(line)) if pair is not None else Answer()
    reason = f"no answer within {seconds:g} s" if late.is_set() else f"the peer died (exit {process.wait()})"
    return Answer(reason=reason, died=True)
