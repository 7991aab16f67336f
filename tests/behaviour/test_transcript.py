"""A transcript keeps answers across crashes and believes nothing that it does not recognise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kinprint.behaviour.openai_api import COMPLETIONS, Answer, Question, Way
from kinprint.behaviour.transcript import HEADER, LINE_BYTES, Transcript, key_of
from kinprint.errors import CheckpointError, UsageError

WHERE = "http://host/v1"
ANSWER = Answer(" Paris", ((" Paris", -0.5), (" Lyon\u2028\x1b[31m", -2.0)), 6, 1)


def question(prompt: str = "The capital is", sample: int = 0) -> Question:
    return Way(COMPLETIONS, 20).question("toy", prompt, likely=True, sample=sample)


def filled(path: Path, count: int = 3) -> Path:
    with Transcript(path) as transcript:
        for place in range(count):
            transcript.add(WHERE, question(f"prompt {place}"), ANSWER)
    return path


def test_what_was_answered_is_found_again_to_the_letter(tmp_path: Path) -> None:
    filled(tmp_path / "t.jsonl")
    with Transcript(tmp_path / "t.jsonl", replay=True) as transcript:
        assert len(transcript) == 3
        assert transcript.get(key_of(WHERE, question("prompt 1"))) == ANSWER


def test_another_address_model_body_or_sample_is_another_question(tmp_path: Path) -> None:
    transcript = Transcript(None)
    transcript.add(WHERE, question(), ANSWER)
    assert transcript.get(key_of(WHERE, question())) == ANSWER
    for where, other in (
        ("http://other/v1", question()),
        (WHERE, question("The capital was")),
        (WHERE, question(sample=1)),
        (WHERE, Way(COMPLETIONS, 5).question("toy", "The capital is", likely=True)),
        (WHERE, Way(COMPLETIONS, 20).question("other", "The capital is", likely=True)),
    ):
        assert transcript.get(key_of(where, other)) is None


def test_a_line_holds_what_was_asked_and_answered_and_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    lines = filled(tmp_path / "t.jsonl", 1).read_bytes().splitlines()
    assert len(lines) == 2
    assert lines[0] + b"\n" == HEADER
    assert all(32 <= byte < 127 for byte in lines[1])
    line = json.loads(lines[1])
    assert line["request"]["prompt"] == "prompt 0"
    assert line["top"] == [list(pair) for pair in ANSWER.top or ()]
    assert (line["text"], line["prompt_tokens"], line["answer_tokens"]) == (" Paris", 6, 1)
    assert set(line) == {
        "key", "endpoint", "route", "request", "sample", "text", "top", "prompt_tokens", "answer_tokens", "time"
    }  # fmt: skip


@pytest.mark.parametrize("lost", [1, 40, 200])
def test_a_line_that_a_crash_cut_off_is_forgotten_and_written_anew(tmp_path: Path, lost: int) -> None:
    path = filled(tmp_path / "t.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with Transcript(path) as transcript:
        assert len(transcript) == 2
        transcript.add(WHERE, question("prompt 2"), ANSWER)
    strip = [line.split(b'"time"')[0] for line in path.read_bytes().splitlines()]
    assert strip == [line.split(b'"time"')[0] for line in whole.splitlines()]


def test_a_replay_reads_past_a_cut_line_and_changes_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "t.jsonl")
    cut = path.read_bytes()[:-9]
    path.write_bytes(cut)
    with Transcript(path, replay=True) as transcript:
        assert len(transcript) == 2
    assert path.read_bytes() == cut


@pytest.mark.parametrize("kept", range(len(HEADER)))
def test_a_file_that_was_cut_in_its_first_line_starts_again(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(HEADER[:kept])
    assert len(Transcript(path)) == 0
    assert path.read_bytes() == HEADER


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("three years of work, without a line break at the end")
    with pytest.raises(CheckpointError, match="is no transcript"):
        Transcript(path)
    assert path.read_text() == "three years of work, without a line break at the end"


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def apply(line: bytes) -> bytes:
        record = json.loads(line)
        change(record)
        return json.dumps(record).encode() + b"\n"

    return apply


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (b"x" * (LINE_BYTES + 1) + b"\n", "is longer than"),
        (b"not JSON\n", "is no answer that kinprint wrote"),
        (b"\xff\xfe\n", "is no answer that kinprint wrote"),
        (b"[" * 100_000 + b"\n", "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(text=5)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(text="x" * 100_000)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(top=[[" a", 0.5]])), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(top=[[" a", float("nan")]])), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(top=[[" a", -1.0]] * 1000)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(prompt_tokens=True)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(prompt_tokens=1 << 70)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(more=1)), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(request={"x": float("inf")})), "is no answer that kinprint wrote"),
        (edited(lambda line: line.pop("key")), "is no answer that kinprint wrote"),
        (edited(lambda line: line.update(endpoint="http://other/v1")), "another question than its digest says"),
        (edited(lambda line: line.update(request={"prompt": "other"})), "another question than its digest says"),
    ],
)
def test_a_line_of_somebody_else_is_refused_by_its_number(
    tmp_path: Path, change: bytes | Callable[[bytes], bytes], what: str
) -> None:
    path = filled(tmp_path / "t.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = change if isinstance(change, bytes) else change(lines[2])
    path.write_bytes(b"".join(lines))
    for replay in (False, True):
        with pytest.raises(CheckpointError, match=what) as caught:
            Transcript(path, replay=replay)
        assert "t.jsonl, line 3: " in str(caught.value)
        assert str(caught.value).isprintable()
    assert path.read_bytes() == b"".join(lines)


def test_two_writers_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Transcript(path) as first:
        first.add(WHERE, question(), ANSWER)
        with pytest.raises(UsageError, match="another run is writing"):
            Transcript(path)
        assert len(Transcript(path, replay=True)) == 1
    with Transcript(path) as second:
        assert len(second) == 1


def test_pipes_folders_and_missing_files_are_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, replay in (
        (tmp_path / "pipe", False),
        (tmp_path / "pipe", True),
        (tmp_path, False),
        (tmp_path / "none.jsonl", True),
        (tmp_path / "none" / "t.jsonl", False),
        (Path("a\0b"), False),
        (Path("/dev/null"), False),
    ):
        with pytest.raises(CheckpointError) as caught:
            Transcript(path, replay=replay)
        assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_only_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "t.jsonl")
    whole = path.read_bytes()
    write = os.write
    with Transcript(path) as transcript:

        def half(descriptor: int, content: bytes) -> int:
            if len(content) < 100:
                raise OSError(28, "No space left on device")
            return write(descriptor, bytes(content)[: len(content) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(CheckpointError, match="No space left on device"):
            transcript.add(WHERE, question("prompt 9"), ANSWER)
        assert transcript.get(key_of(WHERE, question("prompt 9"))) is None
    assert path.read_bytes() == whole


def test_the_key_of_a_question_is_worked_out_by_hand() -> None:
    import hashlib

    asked = Question(COMPLETIONS, {"prompt": "x", "model": "m"}, "x", 1)
    text = '["http://host/v1","completions",{"model":"m","prompt":"x"},0]'
    assert key_of(WHERE, asked) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
