"""The task beside other tools: SmolLM2-135M and what was made of it, each tool by its own command, cold."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cost_parts.comparing import Compared, compare, row
from cost_parts.context import Context
from cost_parts.process import Run, cold
from cost_parts.rows import Check, Row, at_least

FOLDER = Path(__file__).parents[1] / "peers"
BASE = "smollm2"
SUSPECTS: Mapping[str, bool] = {
    "smollm2.fine-tuned": True,
    "smollm2.pruned-50": True,
    "smollm2.laundered": True,
    "smollm2.untrained": False,
}
"""What each suspect is: derived from the base, or not."""

FASTER = 5.0

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No hub and no GPU, for any tool."""


def _modeldna(said: Mapping[str, Any]) -> tuple[str, bool]:
    word = said["verdict"]["verdict"]
    return word, word in ("EXACT_COPY", "QUANTIZED_COPY", "FINE_TUNE", "SAME_LINEAGE", "LIKELY_MERGE")


def _provenancekit(said: Mapping[str, Any]) -> tuple[str, bool]:
    word = said["scores"]["provenance_decision"]
    return word, word == "Confirmed Match"


PEERS: Mapping[str, tuple[str, list[str], Callable[[Mapping[str, Any]], tuple[str, bool]]]] = {
    "modeldna": ("modeldna", ["compare", "--full", "--json"], _modeldna),
    "cisco-ai-provenance-kit": ("provenancekit", ["compare", "--no-cache", "--json"], _provenancekit),
}
"""By name on PyPI: the command, how it is called, and how its answer is read: its word, and whether it says derived."""


def smollm2(context: Context) -> Iterator[Row]:
    """Every pair through kinprint and each peer that can be installed."""
    folder = context.fixtures.smollm2((BASE, *SUSPECTS))
    base = folder / BASE
    ours = {name: compare(folder / name, base, runs=context.runs) for name in SUSPECTS}
    right = {name: (ours[name].says in ("derived", "identical")) == kin for name, kin in SUSPECTS.items()}
    peers: dict[str, dict[str, tuple[Run, str, bool]]] = {}
    for peer in PEERS:
        command = _command(peer, context)
        if isinstance(command, str):
            peers[peer] = {}
            yield Row(what=f"SmolLM2-135M: {peer}", note=f"not measured: {command}")
            continue
        peers[peer] = {name: _asked(peer, command, folder / name, base, context.runs) for name in SUSPECTS}
    for name in SUSPECTS:
        yield _ours(name, ours[name], (folder / name, base), right[name], peers)
    yield _verdicts(right, peers)
    for peer, answers in peers.items():
        command = " ".join((PEERS[peer][0], *PEERS[peer][1]))
        for name, (run, word, _) in answers.items():
            yield Row(
                what=f"SmolLM2-135M, {name.removeprefix('smollm2.')}: {command}",
                seconds=run.seconds,
                cpu_seconds=run.cpu_seconds,
                peak_mb=run.peak_mb,
                says=word,
            )


def _ours(
    name: str,
    compared: Compared,
    folders: tuple[Path, Path],
    right: bool,
    peers: Mapping[str, Mapping[str, tuple[Run, str, bool]]],
) -> Row:
    """Return kinprint's row of one pair. It has to be faster than the peers where there is a derivation to find."""
    found = row(f"SmolLM2-135M, {name.removeprefix('smollm2.')}: kinprint", compared, folders)
    checks = [Check("derived" if SUSPECTS[name] else "not derived", right)]
    notes: list[str] = [found.note] if found.note else []
    for peer, answers in peers.items():
        if not answers:
            continue
        times = answers[name][0].seconds / compared.run.seconds
        notes.append(f"{times:.1f} times {peer}")
        if SUSPECTS[name]:
            checks.append(at_least(f"times faster than {peer}", times, FASTER))
    return replace(found, checks=tuple(checks), note="; ".join(notes))


def _verdicts(right: Mapping[str, bool], peers: Mapping[str, Mapping[str, tuple[Run, str, bool]]]) -> Row:
    """Return the row that counts right verdicts: kinprint has to be right more often than each peer."""
    ours = sum(right.values())
    theirs = {peer: sum(answer[2] for answer in answers.values()) for peer, answers in peers.items() if answers}
    return Row(
        what="SmolLM2-135M: right verdicts",
        says=", ".join(f"{name} {count} of {len(right)}" for name, count in {"kinprint": ours, **theirs}.items()),
        checks=tuple(Check(f"more than {peer}", ours > count) for peer, count in theirs.items()),
    )


def _asked(peer: str, command: Path, suspect: Path, base: Path, runs: int) -> tuple[Run, str, bool]:
    """Return the median run, the peer's word, and whether it is right. No readable answer is wrong on any pair."""
    _, arguments, read = PEERS[peer]
    done = [cold([str(command), *arguments, str(suspect), str(base)], env=OFFLINE) for _ in range(runs + 1)][1:]
    middle = sorted(done, key=lambda run: run.seconds)[(len(done) - 1) // 2]
    try:
        word, derived = read(json.loads(middle.out[middle.out.index("{") :]))
    except (ValueError, KeyError, TypeError):
        return middle, f"no answer (exit {middle.code})", False
    return middle, word, derived == SUSPECTS[suspect.name]


def _command(peer: str, context: Context) -> Path | str:
    """Return the peer's command, installed where it is missing; a text says why it cannot be had."""
    sys.path.insert(0, str(FOLDER))
    from known import PEERS as KNOWN
    from venvs import UnavailableError, ensure

    known = next(one for one in KNOWN if one.name == peer)
    try:
        venv = ensure(known, context.peers, torch=context.torch if known.torch else None)
    except UnavailableError as error:
        return str(error)
    return Path(venv.python).parent / PEERS[peer][0]
