"""Sets of probes: what comes with kinprint, and subsets."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from importlib import resources
from typing import Any

import pytest

from kinprint.behaviour import probes
from kinprint.behaviour.probes import SHIPPED, Probe, ProbeSet, shipped
from kinprint.canonical import digest
from kinprint.errors import CheckpointError, UsageError

LANGUAGES = {"en", "de", "fr", "es", "ko", "zh"}
DATA = resources.files("kinprint.behaviour") / "data"


def numbered(count: int) -> ProbeSet:
    found = tuple(Probe(str(number), "statement") for number in range(count))
    return ProbeSet("numbers", "CC0-1.0", "sha256:of-the-file", found)


# -- what comes with kinprint ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["statement", "question"])
def test_the_shipped_file_is_the_one_that_the_code_and_the_readme_record(kind: Any) -> None:
    name, recorded = SHIPPED[kind]
    content = (DATA / f"{name}.jsonl").read_bytes()
    assert hashlib.sha256(content).hexdigest() == recorded
    table = re.findall(r"\| `(\w+)\.jsonl` \|.*\| (\d+) \| `(\w+)` \|", (DATA / "README.md").read_text())
    assert (name, str(content.count(b"\n")), recorded) in table
    assert shipped(kind).digest == f"sha256:{recorded}"
    assert shipped(kind).licence == "CC0-1.0"
    assert "CC0-1.0" in (DATA / "LICENSE.txt").read_text()


@pytest.mark.parametrize(("kind", "field", "each"), [("statement", "truth", 60), ("question", "answer", 40)])
def test_every_shipped_line_has_its_fields_and_each_language_as_many(kind: Any, field: str, each: int) -> None:
    content = (DATA / f"{SHIPPED[kind][0]}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in content.splitlines()]
    assert all(list(row) == ["text", "language", "kind", field] for row in rows)
    found = shipped(kind)
    assert found.texts == tuple(row["text"] for row in rows)
    assert found.dropped == 0
    assert Counter(probe.language for probe in found.probes) == dict.fromkeys(LANGUAGES, each)
    assert {probe.kind for probe in found.probes} == {kind}
    assert all(probe.text == probe.text.strip() and 4 < len(probe.text) < 120 for probe in found.probes)


def test_a_quarter_of_the_shipped_facts_is_false_in_every_language() -> None:
    found = shipped()
    assert all(probe.answer is None for probe in found.probes)
    assert Counter((probe.language, probe.truth) for probe in found.probes) == {
        (language, truth): count for language in LANGUAGES for truth, count in ((True, 45), (False, 15))
    }


def test_every_shipped_question_asks_and_has_an_answer_that_it_does_not_give_away() -> None:
    for probe in shipped("question").probes:
        assert probe.truth is None
        assert probe.text.endswith(("?", "？"))
        assert probe.answer is not None
        assert 0 < len(probe.answer) < 25
        assert probe.answer.casefold() not in re.findall(r"\w+", probe.text.casefold())


def test_texts_are_written_in_the_script_of_their_language() -> None:
    scripts = {"ko": r"[가-힣]", "zh": r"[\u4e00-\u9fff]"}
    for probe in (*shipped().probes, *shipped("question").probes):
        found = {language for language, script in scripts.items() if re.search(script, probe.text)}
        assert found == {probe.language} & set(scripts)


@pytest.mark.parametrize("kind", ["statement", "question"])
def test_the_first_probes_and_any_number_spread_over_the_set_are_of_every_language(kind: Any) -> None:
    whole = shipped(kind)
    for start in range(0, len(whole.probes), 6):
        assert {probe.language for probe in whole.probes[start : start + 6]} == LANGUAGES
    # A regular order of languages would fail here: every sixth line would be of one language.
    for count in range(24, len(whole.probes)):
        share = Counter(probe.language for probe in whole.spread(count).probes)
        assert set(share) == LANGUAGES, count
        assert max(share.values()) <= 2.2 * count / 6, count


def test_the_first_sixty_facts_are_as_mixed_as_all() -> None:
    first = shipped().probes[:60]
    assert Counter(probe.language for probe in first) == dict.fromkeys(LANGUAGES, 10)
    assert sum(probe.truth is False for probe in first) == 15


def test_a_shipped_file_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SHIPPED", {"statement": ("facts", "0" * 64), "question": ("lost", "0" * 64)})
    for kind in ("statement", "question"):
        with pytest.raises(CheckpointError, match="is not what was released; install kinprint again"):
            shipped(kind)


# -- subsets -----------------------------------------------------------------------------------------------------------


def test_a_spread_is_evenly_spaced_and_in_order() -> None:
    assert numbered(10).spread(4).texts == ("0", "2", "5", "7")
    assert numbered(10).spread(1).texts == ("0",)
    assert numbered(9).spread(3).texts == ("0", "3", "6")


def test_the_digest_of_a_spread_is_that_of_its_set_and_count() -> None:
    whole = numbered(10)
    assert whole.spread(4).digest == digest({"probes": "sha256:of-the-file", "count": 4})
    assert len({whole.digest, *(whole.spread(count).digest for count in range(1, 10))}) == 10
    assert whole.spread(4) == whole.spread(4)


def test_a_spread_over_more_than_all_is_the_set_itself() -> None:
    whole = numbered(3)
    assert whole.spread(3) is whole
    assert whole.spread(50) is whole


@pytest.mark.parametrize("count", [0, -1])
def test_a_spread_of_nothing_is_a_wrong_call(count: int) -> None:
    with pytest.raises(UsageError, match=f"cannot take {count} probes of numbers"):
        numbered(3).spread(count)
