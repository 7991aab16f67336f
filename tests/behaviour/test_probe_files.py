"""Files of probes: every format that is read, and files that must not be believed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from kinprint.behaviour import probe_files, probes
from kinprint.behaviour.probes import SHIPPED, Probe, read, shipped
from kinprint.errors import CheckpointError

DATA = resources.files("kinprint.behaviour") / "data"


def write(folder: Path, content: str | bytes, name: str = "probes") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


# -- formats -----------------------------------------------------------------------------------------------------------


def test_truthfulqa_gives_questions_and_best_answers(tmp_path: Path) -> None:
    path = tmp_path / "TruthfulQA.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
        )
        table.writerow(["Adversarial", "Fiction", 'Is "A, B" a title?', "No, it is\nnot", "No; Not", "Yes", "made up"])
        table.writerow(["Adversarial", "Fiction", "Say it.", "It", "It", "", ""])
    found = read(path)
    assert found.probes == (
        Probe('Is "A, B" a title?', "question", answer="No, it is\nnot"),
        Probe("Say it.", "question", answer="It"),
    )
    assert (found.name, found.licence, found.dropped) == ("TruthfulQA.csv", "unknown", 0)
    assert found.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("impossible", [False, True])
def test_squad_gives_questions_and_first_answers(tmp_path: Path, impossible: bool) -> None:
    asked: list[dict[str, Any]] = [
        {"id": "1", "question": "Where?", "answers": [{"text": "here", "answer_start": 3}, {"text": "there"}]}
    ]
    if impossible:
        asked[0]["is_impossible"] = False
        asked.append({"id": "2", "question": "When", "answers": [], "is_impossible": True, "plausible_answers": []})
    content = {"version": "v", "data": [{"title": "T", "paragraphs": [{"context": "It is here.", "qas": asked}]}]}
    expected = [Probe("Where?", "question", answer="here"), Probe("When", "question")]
    for text in (json.dumps(content), json.dumps(content, indent=2)):
        assert list(read(write(tmp_path, text)).probes) == expected[: 1 + impossible]


def test_squad_as_lines_of_records_gives_the_same(tmp_path: Path) -> None:
    row = {
        "id": "1",
        "context": "It is here.",
        "question": "Where?",
        "answers": {"text": ["here"], "answer_start": [3]},
    }
    other = {"id": "2", "context": "It is here.", "question": "When?", "answers": {"text": [], "answer_start": []}}
    expected = (Probe("Where?", "question", answer="here"), Probe("When?", "question"))
    assert read(write(tmp_path, lines(row, other))).probes == expected


def test_toxigen_gives_what_was_generated_and_not_what_led_to_it(tmp_path: Path) -> None:
    full = "prompt,generation,generation_method,group,prompt_label\n- a\\n- b\\n-,one of them,top-k,none,1\n"
    assert read(write(tmp_path, full)).texts == ("one of them",)
    annotated = "text,target_group,toxicity_ai\nfirst,none,1.0\nsecond,none,2.0\n"
    assert read(write(tmp_path, annotated)).texts == ("first", "second")
    assert read(write(tmp_path, "prompt,group\nalone,none\n")).texts == ("alone",)


def test_statements_with_labels_have_a_truth(tmp_path: Path) -> None:
    found = read(write(tmp_path, "statement,label,city\nA is in B.,1,A\nB is in A.,0,B\n"))
    assert found.probes == (
        Probe("A is in B.", "statement", truth=True),
        Probe("B is in A.", "statement", truth=False),
    )
    # Labels of other texts are of other things.
    assert read(write(tmp_path, "text,label\nhello,1\n")).probes[0].truth is None


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_may_be_separated_otherwise(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = [["", "Text", "note"], ["0", "one", "x"], ["1", '"two"', "y"]]
    content = end.join(delimiter.join(row) for row in rows) + end
    assert read(write(tmp_path, content)).texts == ("one", "two")


def test_a_table_of_one_column_is_a_table_if_its_name_is_known(tmp_path: Path) -> None:
    assert read(write(tmp_path, 'text\none\n\n"two\nlines"\n')).texts == ("one", "two\nlines")
    assert read(write(tmp_path, '"question"\n"Is ""it""?"\n')).texts == ('Is "it"?',)
    assert read(write(tmp_path, "passage\none\n")).texts == ("passage", "one")


def test_json_lines_give_what_they_say(tmp_path: Path) -> None:
    content = lines(
        {"text": "Ja.", "language": "de", "kind": "statement", "truth": False},
        {"question": "Why", "answer": "so"},
        {"Prompt": "Once upon a time "},
        {"text": "Is it?"},
        {"text": "それは？", "kind": "?", "language": "not a tag!"},
        "plain",
    )
    assert read(write(tmp_path, content)).probes == (
        Probe("Ja.", "statement", "de", None, False),
        Probe("Why", "question", answer="so"),
        Probe("Once upon a time ", "statement"),
        Probe("Is it?", "question"),
        Probe("それは？", "question"),
        Probe("plain", "statement"),
    )


def test_strings_objects_and_arrays_are_json_too(tmp_path: Path) -> None:
    assert read(write(tmp_path, lines("one", "two\nlines"))).texts == ("one", "two\nlines")
    assert read(write(tmp_path, json.dumps(["one", {"text": "two"}], indent=1))).texts == ("one", "two")
    assert read(write(tmp_path, json.dumps({"text": "one"}, indent=1))).texts == ("one",)


def test_plain_text_is_a_probe_a_line(tmp_path: Path) -> None:
    content = '\ufeffWell, it is.\r\n\r\n  Is it?\nA, B, C\n"Yes," he said.\u2028Then more.\n'
    assert read(write(tmp_path, content)).probes == (
        Probe("Well, it is.", "statement"),
        Probe("  Is it?", "question"),
        Probe("A, B, C", "statement"),
        Probe('"Yes," he said.\u2028Then more.', "statement"),
    )
    quoted = '"Yes," he said.\n"No," she said.\n'
    assert read(write(tmp_path, quoted)).texts == tuple(quoted.splitlines())


def test_prose_that_begins_like_a_header_is_prose(tmp_path: Path) -> None:
    content = "Question, what is it?\nNo, text.\n"
    assert read(write(tmp_path, content)).texts == tuple(content.splitlines())


def test_the_name_of_a_file_decides_nothing(tmp_path: Path) -> None:
    contents = ("text,n\none,1\n", lines({"text": "one"}), json.dumps([{"text": "one"}]), "one\n")
    found = {read(write(tmp_path, content, f"x.{end}")).texts for content in contents for end in ("csv", "json", "txt")}
    assert found == {("one",)}


def test_texts_that_came_before_or_are_empty_are_dropped_and_counted(tmp_path: Path) -> None:
    content = lines(
        {"text": "a"}, {"text": "b", "truth": True}, {"text": "a", "truth": True}, {"text": " "}, {"text": None}
    )
    found = read(write(tmp_path, content))
    assert found.probes == (Probe("a", "statement"), Probe("b", "statement", truth=True))
    assert found.dropped == 3
    assert read(write(tmp_path, "a\n\nb\na\n")).dropped == 1


def test_the_shipped_files_can_be_read_as_a_users(tmp_path: Path) -> None:
    for kind in ("statement", "question"):
        own = read(write(tmp_path, (DATA / f"{SHIPPED[kind][0]}.jsonl").read_bytes()))
        assert (own.probes, own.digest) == (shipped(kind).probes, shipped(kind).digest)


# -- files that must not be believed -----------------------------------------------------------------------------------

DEEP = "[" * 200_000
HOSTILE = [
    ("", r"probes: is empty \(0 bytes\); fetch the file again"),
    ("\n \n\t\n", "probes: holds no probe; give a file with some text"),
    ("text,n\n", "probes: holds no probe"),
    ("[]", "probes: holds no probe"),
    ('{"data": []}', "probes: holds no probe"),
    (b"one\ntwo\nth\xffree\n", "probes, line 3: is not UTF-8; give a text file"),
    (b"\xef\xbb\xbf\n\xff", "probes, line 2: is not UTF-8"),
    ("one\n".encode("utf-16"), "probes, line 1: is not UTF-8"),
    ("one\nt\0wo\n", r"probes, line 2: holds the character U\+0000, which is no text; take it out"),
    ("text,n\none,1\nt\0wo,2\n", r"line 3: holds the character U\+0000"),
    (lines("one", "t\0wo"), r"line 2: holds the character U\+0000"),
    ("one\nt\x1b[2Jwo\n", r"line 2: holds the character U\+001B"),
    ('"one"\n"\\ud800"\n', r"line 2: holds the character U\+D800"),
    (lines({"question": "a?", "answer": "\x07"}), r"probes: holds the character U\+0007"),
    ("one\n" + "x" * 20_001, "line 2: is longer than 20000 characters; cut it"),
    (lines({"text": "x" * 20_001}), "probes: is longer than 20000 characters"),
    ("text,n\n\n" + "x" * 20_001 + ",1\n", "line 3: is longer than 20000 characters"),
    ("text,n\none,1\n" + "x" * 200_000 + ",2\n", r"line 3: is malformed CSV \(field larger than field limit"),
    ('text,n\none,1\n"two,2\n' + "three,3\n" * 20_000, r"line 3: is malformed CSV \(field larger"),
    ('text,n\none,1\n"two,2\nthree,3\n', r"line 3: is malformed CSV \(unexpected end of data\); close every quote"),
    ('text,n\n"one" two,1\n', r"line 2: is malformed CSV \("),
    ("text,n\none,1\ntwo, three,2\n", "line 3: has 3 fields, and the header has 2; quote every field"),
    ("text,n\none\n", "line 2: has 1 fields, and the header has 2"),
    ("text\n" + "," * 1_000_000, "line 2: has 1000001 fields"),
    ("passage,label\na b,1\nc d,2\n", "line 1: no field is known to hold a probe; found 'passage', 'label'; rename"),
    ("id\tpassage\n1\ta b\n", "found 'id', 'passage'"),
    (",".join(f"c{n}" for n in range(40)) + "\n" + "," * 39 + "\n", "found 'c0', .*'c11' and 28 more; rename"),
    (lines({"text": "a"}, {"passage": "b", "n": 1}), "line 2: no field is known to hold a probe; found 'passage', 'n'"),
    (lines({"text": "a"}, {}), "line 2: no field is known to hold a probe; found none"),
    (lines({"text": "a"}, {"text": 7}), "line 2: the field text holds 7; give text in quotes"),
    (lines({"text": ["a"]}), "the field text holds a value of type list"),
    (lines({"text": "a"}, 7), "line 2: 7 is no probe; give strings, or objects"),
    (json.dumps(["a", None]), r"probes, \[1\]: a value of type NoneType is no probe"),
    (DEEP, "probes: holds JSON nested too deeply"),
    ('"one"\n' + DEEP, "line 2: holds JSON nested too deeply"),
    (lines({"text": "a"}) + '{"text": ' + DEEP, "line 2: holds JSON nested too deeply"),
    ("[" + "9" * 5000 + "]", r"probes: holds malformed JSON \(a number of too many digits\)"),
    ('{"text": "a"}\n{"text": "b"\n', r"line 2: holds malformed JSON \("),
    ('{"text": "a",\n "n": }\n', r"line 2: holds malformed JSON \(Expecting value\); correct it"),
    ("{not json}\n", "line 1: holds malformed JSON"),
    (json.dumps({"data": [{"title": "T"}]}), r"probes, data\[0\].paragraphs: is no list; SQuAD has data"),
    (json.dumps({"data": [{"paragraphs": [{"qas": 3}]}]}), r"data\[0\].paragraphs\[0\].qas: is no list"),
    (json.dumps({"data": [7]}), r"data\[0\].paragraphs: is no list"),
    (json.dumps({"data": [{"paragraphs": [{"qas": [7]}]}]}), r"data\[0\].paragraphs\[0\].qas\[0\]: 7 is no probe"),
    ("<!DOCTYPE html>\n<p>Sorry</p>\n", "probes: is a web page, not a file of probes"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_that_cannot_be_believed_is_refused_in_one_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read(write(tmp_path, content))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "probes"))
    assert message.isprintable()
    assert len(message) < len(str(tmp_path)) + 400


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "kind": ["question"], "language": {"x": 1}, "truth": [True], "answer": 5},
        {"text": "a", "answers": [[]], "truth": "maybe", "language": "x" * 400},
        {"text": "a", "answers": {"text": "b"}, "label": 1},
        {"text": "a", "answers": {"text": [7]}, "kind": None},
    ],
)
def test_other_fields_of_the_wrong_type_say_nothing(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(write(tmp_path, lines(row))).probes == (Probe("a", "statement"),)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent: does not exist; give a file of probes"):
        read(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is no file"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is no file"):
        read(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is no file"):
        read("/dev/zero")
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*\); check the path"):
        read(tmp_path / ("x" * 5000))


def test_a_file_that_is_too_long_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_files, "FILE_BYTES", 8)
    assert read(write(tmp_path, "1234567\n")).texts == ("1234567",)
    with pytest.raises(CheckpointError, match="is longer than 8 bytes; cut it down"):
        read(write(tmp_path, b"\xff" * 9))


def test_a_file_of_too_many_probes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MAX_PROBES", 3)
    assert len(read(write(tmp_path, "a\nb\nc\na\n")).probes) == 3
    with pytest.raises(CheckpointError, match="holds more than 3 probes; cut it down"):
        read(write(tmp_path, "a\nb\nc\nd\n"))


def test_reading_leaves_the_csv_modules_own_limit_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read(write(tmp_path, "text,n\none,1\n"))
    assert csv.field_size_limit() == before
