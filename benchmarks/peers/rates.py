"""What the answers are worth, and the tables that say it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
"""One peer and one pair, as ``peers.json`` holds it."""

HARD = "hard negatives"


def auc(derived: Sequence[float | None], unrelated: Sequence[float | None]) -> float | None:
    """Return the chance that a derived pair looks more similar than an unrelated one; a tie counts half.

    Abstaining earns nothing, as in kinprint's own benchmark: a derived pair without a value is the least similar of
    all, and an unrelated one does not count.

    Returns:
        The area under the ROC curve; None without a derived pair or without an unrelated one that has a value.

    Example:
        >>> auc([0.9, None], [0.1, None])
        0.5
    """
    low = float("-inf")
    left = [low if value is None else value for value in derived]
    right = [value for value in unrelated if value is not None]
    if not left or not right:
        return None
    won = sum((a > b) + (a == b) / 2 for a in left for b in right)
    return won / (len(left) * len(right))


def rates(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return, for each number that a peer gives, how well it separates derived from unrelated pairs.

    Returns:
        Per number: the peer, the name, whether it is the one that the peer reports, how many derived, unrelated and
        hard unrelated pairs there are, the share of them with a value, and the AUC against all unrelated pairs and
        against the hard negatives alone.
    """
    rows: list[dict[str, Any]] = []
    for peer, answers in _by_peer(records).items():
        counted = [answer for answer in answers if answer["label"] != "shown"]
        for name in _numbers(counted):
            value = {id(answer): _number(answer, name) for answer in counted}
            derived = [value[id(answer)] for answer in counted if answer["label"] == "derived"]
            unrelated = [value[id(answer)] for answer in counted if answer["label"] == "unrelated"]
            hard = [value[id(answer)] for answer in counted if _is_hard(answer)]
            rows.append(
                {
                    "peer": peer,
                    "number": name,
                    "reported": counted[0]["number"] == name,
                    "derived": len(derived),
                    "unrelated": len(unrelated),
                    "hard": len(hard),
                    "measured": sum(number is not None for number in value.values()) / len(value),
                    "auc": auc(derived, unrelated),
                    "auc_hard": auc(derived, hard),
                }
            )
    return rows


def rates_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rates as Markdown. The number that a peer reports is bold; the others are what it is made of."""
    lines = ["| peer | number | derived | unrelated | hard | measured | AUC | AUC, hard negatives |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        name = f"**{row['number']}**" if row["reported"] else row["number"]
        counts = f"{row['derived']} | {row['unrelated']} | {row['hard']} | {row['measured']:.0%}"
        lines.append(f"| {row['peer']} | {name} | {counts} | {_shown(row['auc'])} | {_shown(row['auc_hard'])} |")
    return "\n".join(lines)


def verdict_table(records: Iterable[Record]) -> str:
    """Return, per peer, how often it said what about which kind of pair, as Markdown."""
    lines = ["| peer | verdict | derived | unrelated | of which hard negatives | shown |", "|---|---|---|---|---|---|"]
    for peer, answers in _by_peer(records).items():
        said = {answer["verdict"] for answer in answers}
        for verdict in sorted(said, key=lambda word: (word is None, word)):
            these = [answer for answer in answers if answer["verdict"] == verdict]
            labels = Counter(answer["label"] for answer in these)
            hard = sum(_is_hard(answer) for answer in these)
            counts = f"{labels['derived']} | {labels['unrelated']} | {hard} | {labels['shown']}"
            lines.append(f"| {peer} | {verdict or '(none)'} | {counts} |")
    return "\n".join(lines)


def cost_table(records: Iterable[Record], setups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what each peer costs, as Markdown: seconds a pair, and its environment."""
    lines = ["| peer | version | median s a pair | longest | Python | environment, MB |", "|---|---|---|---|---|---|"]
    for peer, answers in _by_peer(records).items():
        seconds = [answer["seconds"] for answer in answers if answer["seconds"] is not None]
        median, longest = (f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}") if seconds else ("-", "-")
        setup = setups[peer]
        cells = (peer, answers[0]["version"], median, longest, setup["python"], setup["megabytes"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def pair_table(records: Iterable[Record]) -> str:
    """Return every pair with what each peer said, as Markdown; a blank carries its reason in brackets."""
    peers = _by_peer(records)
    lines = [f"| suspect | base | category | label | {' | '.join(peers)} |", "|---" * (4 + len(peers)) + "|"]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    kinds: dict[tuple[str, str], str] = {}
    for peer, answers in peers.items():
        for answer in answers:
            pair = (answer["suspect"], answer["base"])
            kinds[pair] = f"{answer['category']} | {answer['label']}"
            cells.setdefault(pair, {})[peer] = _cell(answer)
    for pair, said in cells.items():
        lines.append(f"| {' | '.join(pair)} | {kinds[pair]} | {' | '.join(said.get(peer, '') for peer in peers)} |")
    return "\n".join(lines)


def _cell(answer: Record) -> str:
    """Return value and verdict, or verdict and reason."""
    verdict = answer["verdict"] or ""
    if answer["value"] is not None:
        return f"{answer['value']:.4f} {verdict}".strip()
    reason = str(answer["reason"]).replace("|", "/")
    return f"{verdict} ({reason})".strip()


def _by_peer(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each peer, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["peer"], []).append(record)
    return found


def _numbers(answers: Sequence[Record]) -> list[str]:
    """Return the names of a peer's numbers: the one it reports, then its parts in the order in which they came."""
    names: dict[str, None] = {}
    for answer in answers:
        names[answer["number"]] = None
        names |= dict.fromkeys(answer["parts"])
    return list(names)


def _number(answer: Record, name: str) -> float | None:
    """Return one number of a pair."""
    return answer["value"] if name == answer["number"] else answer["parts"].get(name)


def _is_hard(answer: Record) -> bool:
    """Return whether a pair is an unrelated one that the papers leave out."""
    return answer["label"] == "unrelated" and answer["category"] == HARD


def _shown(value: float | None) -> str:
    """Return a rate for a table."""
    return "-" if value is None else f"{value:.3f}"
