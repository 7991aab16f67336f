"""Put the pairs of a benchmark to two other tools, each in an environment of its own.

Writes peers.json (one record per peer and pair), peers.md (the tables) and pairs.jsonl (what a later run reuses), and
prints the rates.

Usage: python benchmarks/peers/run.py RESULT.json ZOO -o OUT [--only GLOB] [--peer NAME]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from asking import Answer, Store, ask, digest, key
from known import PEERS, Peer
from rates import cost_table, pair_table, rates, rates_table, verdict_table
from venvs import UnavailableError, Venv, ensure

VENVS = Path.home() / ".cache" / "kinprint" / "peers"

Case = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run reads models and leaves what it learnt.

    Attributes:
        zoo: Folder whose sub-folders are the models.
        out: Folder for results.
        seconds_per_pair: A pair that takes longer is given up.
    """

    zoo: Path
    out: Path
    seconds_per_pair: float


def main() -> None:
    """Run every peer that can be run; say of each other one why not."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    suite, cases = read_cases(options.result, options.only)
    place = Place(options.zoo.resolve(), options.out, options.timeout)
    records: list[dict[str, Any]] = []
    setups: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        if options.peer and peer.name not in options.peer:
            continue
        try:
            venv = ensure(peer, options.venvs, torch=options.torch)
            records += measure(peer, venv, cases, place)
        except UnavailableError as reason:
            print(f"{peer.name} {peer.version} skipped: {reason}\n")
            setups[peer.name] = {"version": peer.version, "skipped": str(reason)}
        else:
            setups[peer.name] = {**asdict(venv), "python": venv.version, "version": peer.version}
    write(suite, records, setups, options.out)


def read_cases(file: Path, only: str | None) -> tuple[str, list[Case]]:
    """Return the suite's name and its cases from what ``kinprint bench`` wrote.

    Args:
        file: A BenchResult as JSON.
        only: Glob over ``suspect / base``; None takes all.
    """
    try:
        result = json.loads(file.read_text("utf-8"))
        cases = [row["case"] for row in result["rows"]]
        kept = [case for case in cases if fnmatchcase(f"{case['suspect']} / {case['base']}", only or "*")]
        return result["suite"], kept
    except (OSError, ValueError, KeyError, TypeError) as fault:
        sys.exit(f"{file} is no result of kinprint bench ({type(fault).__name__}: {fault}): name its JSON file")


def measure(peer: Peer, venv: Venv, cases: Sequence[Case], place: Place) -> list[dict[str, Any]]:
    """Return one record per case, asking the peer only what it was not asked before.

    Raises:
        UnavailableError: The peer does not start.
    """
    store = Store(place.out / "pairs.jsonl")
    answers: dict[int, Answer] = {}
    keys: dict[int, str] = {}
    content = cache(digest)
    for index, case in enumerate(cases):
        folders = _folders(case, place.zoo)
        missing = [folder.name for folder in folders if not folder.is_dir()]
        if missing:
            answers[index] = Answer(reason=f"no folder {missing[0]} in {place.zoo}")
            continue
        keys[index] = key(peer, venv, *map(content, folders))
        kept = store.get(keys[index])
        if kept is not None:
            answers[index] = kept
    todo = [index for index in range(len(cases)) if index not in answers]
    print(f"{peer.name} {peer.version}: {len(todo)} pairs to ask, {len(answers)} known", file=sys.stderr)
    pairs = [_folders(cases[index], place.zoo) for index in todo]
    log = place.out / f"{peer.name}.log"
    said = ask(venv.python, peer.adapter, pairs, log=log, seconds_per_pair=place.seconds_per_pair)
    for index, answer in zip(todo, said, strict=True):
        answers[index] = answer
        if not answer.died:
            about = {"peer": peer.name, "suspect": cases[index]["suspect"], "base": cases[index]["base"]}
            store.put(keys[index], answer, about)
    return [_record(peer, case, answers[index]) for index, case in enumerate(cases)]


def write(suite: str, records: list[dict[str, Any]], setups: Mapping[str, Any], out: Path) -> None:
    """Write the JSON and the tables, and print the rates."""
    rows = rates(records)
    whole = {"suite": suite, "peers": setups, "rates": rows, "records": records}
    (out / "peers.json").write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", "utf-8")
    if not records:
        return
    summary = "\n\n".join((rates_table(rows), verdict_table(records), cost_table(records, setups)))
    (out / "peers.md").write_text(f"# Peers on the suite `{suite}`\n\n{summary}\n\n{pair_table(records)}\n", "utf-8")
    print(summary)


def _folders(case: Case, zoo: Path) -> tuple[Path, Path]:
    """Return the two models' folders, suspect first."""
    return zoo / case["suspect"], zoo / case["base"]


def _record(peer: Peer, case: Case, answer: Answer) -> dict[str, Any]:
    """Return one row of ``peers.json``."""
    return {
        "peer": peer.name,
        "version": peer.version,
        "suspect": case["suspect"],
        "base": case["base"],
        "category": case["category"],
        "label": case["label"],
        "number": peer.number,
        "value": answer.value,
        "verdict": answer.verdict,
        "seconds": answer.seconds,
        "reason": answer.reason,
        "parts": dict(answer.parts),
    }


def _options() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="what kinprint bench wrote: the cases come from it")
    parser.add_argument("zoo", type=Path, help="folder whose sub-folders are the models")
    parser.add_argument("-o", "--output", dest="out", type=Path, required=True, help="folder for results")
    parser.add_argument("--only", help="glob over 'suspect / base'")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="only this one")
    parser.add_argument("--venvs", type=Path, default=VENVS, help=f"where the environments live (default {VENVS})")
    parser.add_argument("--torch", help="PyTorch as pip should get it, instead of the pinned CPU build")
    parser.add_argument("--timeout", type=float, default=600, help="seconds until a pair is given up")
    return parser.parse_args()


if __name__ == "__main__":
    main()
