"""What a model behind an API was asked and what it answered: one line of JSON for each answer, in a file that grows.

A line is there as a whole before the next request of its thread is sent, so that a run which ends half-way goes on from
it, and a finished one is repeated without a network. No key is in it. The file is somebody's data once it was passed
on: lines are bounded, held against a closed schema and against their own digests, and text stays text. Its answers are
worth as much as whoever wrote it: a digest says which question a line belongs to, not who answered.

All characters beyond ASCII are escaped, so that a terminal that shows the file obeys nothing in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import threading
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, JsonValue, ValidationError

from kinprint.behaviour.openai_api import MOST_CHARACTERS, MOST_NAMED, MOST_TOKENS, Answer, Question
from kinprint.canonical import digest
from kinprint.checkpoint.faults import fault
from kinprint.errors import UsageError
from kinprint.types import Record

HEADER = b'{"kinprint_transcript": 1}\n'
"""First line: what the file is, so that no other is ever appended to, and the version of its layout."""

LINE_BYTES = 1 << 21
"""Longest line that is read or written."""

MOST_LINES = 1_000_000
"""Lines that are read: each is held in memory."""

_OTHER = "name a new file, or one that an earlier run wrote"
_EDITED = "it was damaged or edited: remove that line, or name another file"
_Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
_LogProbability = Annotated[float, Field(le=0)]


class Line(Record):
    """One answer as it is kept.

    Attributes:
        key: Digest of all that was asked; see :func:`key_of`.
        endpoint: The server's address, without credentials.
        route: Which of the API's routes.
        request: The body that was sent.
        sample: Number of a drawn answer, from 1; 0 for the likeliest.
        text: What the model said.
        top: Likely first tokens and their natural log-probabilities.
        prompt_tokens: The server's count.
        answer_tokens: The server's count.
        time: When the answer came, in UTC.
    """

    key: str
    endpoint: str
    route: Literal["completions", "chat/completions"]
    request: dict[str, JsonValue]
    sample: Annotated[int, Field(ge=0)]
    text: Annotated[str, Field(max_length=MOST_CHARACTERS)]
    top: Annotated[tuple[tuple[str, _LogProbability], ...], Field(max_length=MOST_NAMED + 1)] | None
    prompt_tokens: _Tokens | None
    answer_tokens: _Tokens | None
    time: Annotated[str, Field(max_length=40)]


def key_of(endpoint: str, question: Question) -> str:
    """Return the digest of all that was asked: the address without credentials, the route, the body and the sample."""
    return digest([endpoint, question.route, dict(question.body), question.sample])


class Transcript:
    """Answers by what was asked; use it in a ``with`` statement.

    Attributes:
        path: The file; None where answers are held in memory alone.
    """

    def __init__(self, path: Path | None = None, *, replay: bool = False) -> None:
        """Open a file and read what is in it; one that is not there is made.

        Args:
            path: The file; None to hold answers in memory alone.
            replay: Read only: nothing is written, and the file must be there.

        Raises:
            CheckpointError: It is no transcript, holds what is none, or cannot be opened.
            UsageError: Another run writes to it.
        """
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        if path is None:
            return
        flags = os.O_RDONLY if replay else os.O_RDWR | os.O_CREAT | os.O_APPEND
        # Without O_NONBLOCK a named pipe would make open() wait for ever.
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags, 0o600)
        except (OSError, ValueError) as error:
            raise fault(str(path), f"cannot be opened ({_reason(error)})", _OTHER) from error
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            self._open(descriptor, path, replay=replay)
        except BaseException:
            self.close()
            raise

    def get(self, key: str) -> Answer | None:
        """Return the answer to a question, if it is there."""
        with self._lock:
            return self._answers.get(key)

    def add(self, endpoint: str, question: Question, answer: Answer) -> None:
        """Keep an answer, in the file before anything else.

        Raises:
            CheckpointError: The disk is full or broken, or the line would be too long.
        """
        key = key_of(endpoint, question)
        with self._lock:
            if self._descriptor is not None:
                self._write(self._descriptor, _line(key, endpoint, question, answer))
            self._answers[key] = answer

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._descriptor = None
        if self.path is not None:
            self._close()

    def __len__(self) -> int:
        return len(self._answers)

    def __enter__(self) -> Transcript:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, descriptor: int, path: Path, *, replay: bool) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise fault(str(path), "is no file", _OTHER)
        if not replay and not _locked(descriptor):
            raise UsageError(f"{path}: another run is writing to it; wait for that run, or name another file")
        try:
            with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123 - a descriptor has no path
                whole = self._read(file, path)
            if not replay:
                # What a crash cut off goes, so that the next line starts a line.
                os.ftruncate(descriptor, whole)
                self._descriptor = descriptor
                if whole == 0:
                    self._write(descriptor, HEADER)
        except OSError as error:
            raise fault(str(path), f"cannot be read ({_reason(error)})", _OTHER) from error

    def _read(self, file: BinaryIO, path: Path) -> int:
        """Take all whole lines, and return where they end."""
        first = file.readline(len(HEADER))
        if first != HEADER:
            if HEADER.startswith(first):
                return 0  # empty, or cut in its first line
            raise fault(str(path), "is no transcript", _OTHER)
        whole, number = len(HEADER), 1
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > LINE_BYTES:
                raise fault(where, f"is longer than {LINE_BYTES:,} bytes", _EDITED)
            if number > MOST_LINES:
                raise fault(where, f"is one more than the {MOST_LINES:,} that are read", "name a new file")
            if not line.endswith(b"\n"):
                break  # a crash cut it
            key, answer = _parsed(line, where)
            self._answers[key] = answer
            whole += len(line)
        return whole

    def _write(self, descriptor: int, line: bytes) -> None:
        """Append a line as a whole, or not at all."""
        size = os.fstat(descriptor).st_size
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise fault(str(self.path), f"cannot be written ({_reason(error)})", "free some space") from error


def _line(key: str, endpoint: str, question: Question, answer: Answer) -> bytes:
    record = Line(
        key=key,
        endpoint=endpoint,
        route=question.route,  # pyright: ignore[reportArgumentType]
        request=dict(question.body),
        sample=question.sample,
        text=answer.text,
        top=answer.top,
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    line = json.dumps(record.model_dump(mode="json"), ensure_ascii=True, allow_nan=False).encode() + b"\n"
    if len(line) > LINE_BYTES:
        raise fault("a transcript", f"holds no line of {len(line):,} bytes", "use shorter prompts")
    return line


def _parsed(line: bytes, where: str) -> tuple[str, Answer]:
    """Read one line.

    Raises:
        CheckpointError: It is none, or not the answer to the question that its digest names.
    """
    try:
        found = Line.model_validate_json(line, strict=True)
        question = Question(found.route, found.request, "", 0, found.sample)
        right = key_of(found.endpoint, question) == found.key
    except (ValidationError, ValueError, RecursionError) as error:
        raise fault(where, "is no answer that kinprint wrote", _EDITED) from error
    if not right:
        raise fault(where, "holds the answer to another question than its digest says", _EDITED)
    return found.key, Answer(found.text, found.top, found.prompt_tokens, found.answer_tokens)


def _locked(descriptor: int) -> bool:
    """Lock an open file against a second writer, if the system can; tell whether there is none."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
