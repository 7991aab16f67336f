"""Peers side by side: the bookkeeping around two tools that are not installed here, with a stand-in for them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from asking import Answer, Store, ask, digest
from known import ADAPTERS, CPU_TORCH, PEERS, Peer
from rates import auc, pair_table, rates
from run import Place, measure, read_cases, write
from venvs import UnavailableError, Venv, ensure, find_python

import kinprint
from kinprint.bench.records import BenchResult, Case, Row, Run

STAND_IN = """
import os, sys, time
from pathlib import Path
from answering import serve

def compare(suspect, base):
    print("peers print whatever they like")
    name = Path(suspect).name
    with open(Path(__file__).parent / "asked", "a") as file:
        file.write(name + "\\n")
    if name == "killer":
        os._exit(7)
    if name == "sleeper":
        time.sleep(60)
    if name == "unreadable":
        raise ValueError(f"cannot read {suspect}:\\n  no tensors")
    if name == "not-a-number":
        return {"value": float("nan"), "verdict": "Unclear", "parts": {}}
    return {"value": 0.75, "verdict": "Related", "parts": {"norms": 0.5, "spectra": float("inf")}}

serve(compare)
"""


@pytest.fixture
def peer(tmp_path: Path) -> Peer:
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(ADAPTERS / "answering.py", folder)
    adapter = folder / "stand_in.py"
    adapter.write_text(STAND_IN)
    return Peer("stand-in", "1.0", (3, 11), adapter, "probability", (), torch=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("child", "base"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        (tmp_path / "zoo" / name / "model.safetensors").write_bytes(name.encode())
    (tmp_path / "out").mkdir()
    return Place(tmp_path / "zoo", tmp_path / "out", seconds_per_pair=30)


def answers(peer: Peer, tmp_path: Path, *suspects: str, seconds: float = 30) -> list[Answer]:
    pairs = [(tmp_path / suspect, tmp_path / "base") for suspect in suspects]
    return list(ask(sys.executable, peer.adapter, pairs, log=tmp_path / "log", seconds_per_pair=seconds))


def case(suspect: str, base: str, category: str = "model fine-tuning", label: str = "derived") -> dict[str, str]:
    return {"suspect": suspect, "base": base, "category": category, "label": label}


def record(value: float | None, label: str, category: str = "unrelated", **parts: float) -> dict[str, Any]:
    said = {"number": "probability", "value": value, "parts": parts, "verdict": None, "reason": "too wide | too deep"}
    return {"peer": "stand-in", "version": "1.0", **case("child", "base", category, label), **said}


def venv(**changes: Any) -> Venv:
    return Venv(
        **{"python": sys.executable, "version": "3.11.7", "asked": (), "packages": {}, "megabytes": 1} | changes
    )


def asked(peer: Peer) -> list[str]:
    return (peer.adapter.parent / "asked").read_text().split()


# -- asking --------------------------------------------------------------------------------------------------------


def test_an_answer_holds_the_peers_number_and_words(peer: Peer, tmp_path: Path) -> None:
    (answer,) = answers(peer, tmp_path, "child")
    assert (answer.value, answer.verdict, answer.reason) == (0.75, "Related", None)
    assert answer.parts == {"norms": 0.5, "spectra": None}


def test_what_a_peer_prints_ends_in_its_log(peer: Peer, tmp_path: Path) -> None:
    answers(peer, tmp_path, "child")
    assert "peers print whatever they like" in (tmp_path / "log").read_text()


def test_an_exception_is_a_blank_with_a_line_that_names_no_folder_of_this_machine(peer: Peer, tmp_path: Path) -> None:
    (answer,) = answers(peer, tmp_path, "unreadable")
    assert answer.value is None
    assert answer.reason == "ValueError: cannot read the suspect: no tensors"
    assert not answer.died


def test_a_number_that_json_cannot_hold_is_a_blank(peer: Peer, tmp_path: Path) -> None:
    (answer,) = answers(peer, tmp_path, "not-a-number")
    assert (answer.value, answer.verdict, answer.reason) == (None, "Unclear", "the peer gave no number")


def test_a_pair_that_kills_the_peer_is_a_blank_and_the_next_is_answered(peer: Peer, tmp_path: Path) -> None:
    before, killed, after = answers(peer, tmp_path, "child", "killer", "child")
    assert (killed.value, killed.died, killed.reason) == (None, True, "the peer died (exit 7)")
    assert (before.value, after.value) == (0.75, 0.75)


def test_a_pair_that_takes_too_long_is_given_up(peer: Peer, tmp_path: Path) -> None:
    slow, after = answers(peer, tmp_path, "sleeper", "child", seconds=1)
    assert (slow.value, slow.reason) == (None, "no answer within 1 s")
    assert after.value == 0.75


def test_a_peer_that_does_not_start_is_skipped(peer: Peer, tmp_path: Path) -> None:
    peer.adapter.write_text("import a_module_that_nobody_has")
    with pytest.raises(UnavailableError, match="does not start"):
        answers(peer, tmp_path, "child")
    assert "a_module_that_nobody_has" in (tmp_path / "log").read_text()


# -- what is kept --------------------------------------------------------------------------------------------------


def test_a_second_run_asks_nothing(peer: Peer, place: Place) -> None:
    cases = [case("child", "base"), case("base", "child")]
    first = measure(peer, venv(), cases, place)
    assert measure(peer, venv(), cases, place) == first
    assert asked(peer) == ["child", "base"]


def test_a_changed_model_or_library_is_asked_again_and_a_changed_card_is_not(peer: Peer, place: Place) -> None:
    cases = [case("child", "base")]
    measure(peer, venv(), cases, place)
    (place.zoo / "child" / "README.md").write_text("a card")
    measure(peer, venv(), cases, place)
    assert len(asked(peer)) == 1
    (place.zoo / "child" / "model.safetensors").write_bytes(b"other")
    measure(peer, venv(), cases, place)
    assert len(asked(peer)) == 2
    measure(peer, venv(packages={"numpy": "2.4.6"}), cases, place)
    assert len(asked(peer)) == 3


def test_a_pair_that_killed_the_peer_is_asked_again(peer: Peer, place: Place) -> None:
    shutil.copytree(place.zoo / "child", place.zoo / "killer")
    for _ in range(2):
        (row,) = measure(peer, venv(), [case("killer", "base")], place)
        assert row["reason"] == "the peer died (exit 7)"
    assert asked(peer) == ["killer", "killer"]


def test_a_model_that_is_not_there_is_a_blank(peer: Peer, place: Place) -> None:
    (row,) = measure(peer, venv(), [case("child", "gone")], place)
    assert row["value"] is None
    assert row["reason"] == f"no folder gone in {place.zoo}"


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    Store(file).put("first", Answer(value=0.5), {})
    with file.open("a") as stream:
        stream.write('{"key": "seco')
    Store(file).put("third", Answer(value=0.25), {})
    store = Store(file)
    assert (store.get("first"), store.get("second")) == (Answer(value=0.5), None)
    assert store.get("third") == Answer(value=0.25)


def test_a_digest_sees_names_and_bytes(place: Place, tmp_path: Path) -> None:
    one = digest(place.zoo / "child")
    assert one != digest(place.zoo / "base")
    (place.zoo / "child" / "model.safetensors").rename(place.zoo / "child" / "other.safetensors")
    assert digest(place.zoo / "child") != one


# -- rates ---------------------------------------------------------------------------------------------------------


def test_auc_by_hand_with_ties_and_blanks() -> None:
    # (0.9 > 0.1) + (blank < 0.1), over two pairs of pairs: the unrelated blank does not count
    assert auc([0.9, None], [0.1, None]) == 1 / 2
    assert auc([0.9, 0.8], [0.1]) == 1.0
    assert auc([0.1], [0.9, 0.8]) == 0.0


def test_auc_needs_both_kinds_of_pairs_and_a_value() -> None:
    assert auc([], [0.1]) is None
    assert auc([0.9], []) is None
    assert auc([None], [None]) is None


def test_rates_count_hard_negatives_apart_and_leave_out_shown_pairs() -> None:
    derived = [record(0.8, "derived", "model fine-tuning", norms=0.2)]
    unrelated = [record(0.1, "unrelated", norms=0.1), record(0.9, "unrelated", "hard negatives", norms=0.1)]
    shown = [record(None, "shown", "shared initialisation", other=1.0)]
    reported, norms = rates([*derived, *unrelated, *shown])
    assert (reported["auc"], reported["auc_hard"]) == (0.5, 0.0)
    assert (reported["derived"], reported["unrelated"], reported["hard"]) == (1, 2, 1)
    assert reported["measured"] == 1.0
    assert (norms["number"], norms["reported"], norms["auc"]) == ("norms", False, 1.0)


def test_a_table_shows_a_blank_with_its_reason_and_keeps_its_columns() -> None:
    table = pair_table([record(None, "derived")])
    assert table.splitlines()[-1] == "| child | base | unrelated | derived | (too wide / too deep) |"


# -- the whole -----------------------------------------------------------------------------------------------------


def test_cases_come_from_what_the_benchmark_writes(tmp_path: Path) -> None:
    pairs = [("child", "base"), ("twin", "base")]
    cases = [
        Case(suspect=a, base=b, category="model fine-tuning", label="derived", roots=("base",), base_roots=("base",))
        for a, b in pairs
    ]
    run = Run(
        kinprint="0",
        commit=None,
        dirty=None,
        versions={},
        cpu="",
        blas="",
        seeds={},
        methods=(),
        zoo="",
        jobs=1,
        seconds=0,
    )
    rows = tuple(Row(case=one, cells={}, costs={}) for one in cases)
    result = BenchResult(suite="smoke", cases_version=1, columns=(), rows=rows, rates=(), rates_hard=(), run=run)
    (tmp_path / "result.json").write_text(result.model_dump_json())
    suite, found = read_cases(tmp_path / "result.json", "twin / *")
    assert (suite, [(one["suspect"], one["base"], one["label"]) for one in found]) == (
        "smoke",
        [("twin", "base", "derived")],
    )


def test_a_file_that_is_no_benchmark_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"result\.json is no result of kinprint bench"):
        read_cases(tmp_path / "result.json", None)


def test_a_run_writes_one_record_per_peer_and_pair(peer: Peer, place: Place) -> None:
    records = measure(peer, venv(), [case("child", "base"), case("gone", "base")], place)
    write("smoke", records, {peer.name: {"python": "3.11.7", "megabytes": 1}}, place.out)
    whole = json.loads((place.out / "peers.json").read_text())
    assert [(row["peer"], row["suspect"], row["value"]) for row in whole["records"]] == [
        ("stand-in", "child", 0.75),
        ("stand-in", "gone", None),
    ]
    assert "| child | base | model fine-tuning | derived | 0.7500 Related |" in (place.out / "peers.md").read_text()


# -- environments --------------------------------------------------------------------------------------------------


def test_without_a_python_that_is_new_enough_the_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"needs Python 3\.99 or newer"):
        find_python((3, 99))
    assert find_python((3, 11)) == sys.executable


def test_an_environment_without_a_stamp_is_not_trusted(tmp_path: Path, peer: Peer) -> None:
    (tmp_path / peer.name).mkdir()
    (tmp_path / peer.name / "somebody's file").touch()
    with pytest.raises(UnavailableError, match="is no virtual environment"):
        ensure(peer, tmp_path, torch=None)


def test_a_finished_environment_is_reused_whichever_torch_it_holds(tmp_path: Path) -> None:
    peer = next(peer for peer in PEERS if peer.torch)
    home = tmp_path / peer.name
    home.mkdir()
    stamp = {"python": sys.executable, "version": "3.12.1", "packages": {}, "megabytes": 1}
    stamp["asked"] = [*peer.requirements, "torch==2.13.0"]
    (home / "kinprint-peer.json").write_text(json.dumps(stamp))
    assert ensure(peer, tmp_path, torch=None).version == "3.12.1"
    with pytest.raises(UnavailableError, match="is no virtual environment"):
        ensure(peer, tmp_path, torch=CPU_TORCH)


def test_kinprint_never_imports_a_peer() -> None:
    sources = "\n".join(file.read_text("utf-8") for file in Path(kinprint.__file__).parent.rglob("*.py"))
    assert "import kinprint" in sources or "from kinprint" in sources
    for module in ("modeldna", "provenancekit"):
        assert f"import {module}" not in sources
        assert f"from {module}" not in sources
