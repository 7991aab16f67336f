"""Texts that models are asked about or continue: two sets that come with kinprint, and files that a user gives.

Nobody vouches for such a file: its size, its number of probes and the length of each are bounded, and no text reaches a
tokenizer that cannot be encoded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal, cast

from kinprint.behaviour.probe_files import TEXT, content_of, rows, without_text
from kinprint.canonical import digest
from kinprint.checkpoint.faults import fault, shown
from kinprint.errors import UsageError

Kind = Literal["statement", "question"]

MAX_PROBES = 200_000
"""Most probes of one file; all of SQuAD is fewer."""

PROBE_CHARS = 20_000
"""Longest probe: longer than prompts with a few examples are, and short enough for the context of common models."""

SHIPPED: Mapping[Kind, tuple[str, str]] = {
    "statement": ("facts", "91376a6230d225a44914d331ff9dad00b693c63baefeee12fdb656d3e8ffc979"),
    "question": ("questions", "8b336d2310a87379c353f8266c7179f41198f32f95bf6fb439456f9d68f9f87a"),
}
"""Name and SHA-256 of the sets that come with kinprint."""

_ANSWER = ("answer", "best answer", "best_answer")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_QUESTION_ENDS = ("?", "？", "؟")
_LANGUAGE = re.compile(r"[A-Za-z0-9-]{2,35}")

_UNUSABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters, which no text needs and a terminal would obey, and halves of characters, which UTF-8 lacks."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One text.

    Attributes:
        text: What a model is given, as it stands in the file.
        kind: A question asks for an answer; a statement is continued, or is true or false.
        language: BCP 47 tag; ``und`` where the file does not say.
        answer: A right answer, where the file has one.
        truth: Whether a statement is true, where the file says so.
    """

    text: str
    kind: Kind
    language: str = "und"
    answer: str | None = None
    truth: bool | None = None


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Probes in order.

    Attributes:
        name: For people; never evidence.
        licence: SPDX identifier, or ``unknown``: files of datasets do not say.
        digest: ``sha256:`` and the SHA-256 of the file's bytes, or of a subset's origin and size. The same digest
            means the same probes in the same order.
        probes: At least one; no text occurs twice.
        dropped: How many the file held besides: without text, or with a text that came before.
    """

    name: str
    licence: str
    digest: str
    probes: tuple[Probe, ...]
    dropped: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what models are given."""
        return tuple(probe.text for probe in self.probes)

    def spread(self, count: int) -> ProbeSet:
        """Return ``count`` probes, evenly spaced and in order; the set itself if it has no more.

        Raises:
            UsageError: ``count`` is less than 1.
        """
        if count < 1:
            raise UsageError(f"cannot take {count} probes of {self.name}: take at least 1")
        held = len(self.probes)
        if count >= held:
            return self
        chosen = tuple(self.probes[place * held // count] for place in range(count))
        return replace(self, digest=digest({"probes": self.digest, "count": count}), probes=chosen)


def shipped(kind: Kind = "statement") -> ProbeSet:
    """Return a set that comes with kinprint: facts in six languages, or questions.

    The first probes, as many as one takes, and any number of them spread over the set, are of all languages mixed.

    Raises:
        CheckpointError: The installed file is not the one that was released.

    Example:
        >>> shipped("question").probes[0]
        Probe(text='How many months are in a year?', kind='question', language='en', answer='twelve', truth=None)
    """
    name, sha256 = SHIPPED[kind]
    file = resources.files("kinprint.behaviour") / "data" / f"{name}.jsonl"
    content = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise fault(str(file), "is missing, or is not what was released", "install kinprint again")
    return parse(content, str(file), name=f"kinprint-{name}", licence="CC0-1.0")


def read(path: str | Path) -> ProbeSet:
    """Read probes from a file of UTF-8 text.

    Told apart by content: CSV whose header names one of the columns ``text``, ``statement``, ``question``,
    ``generation`` and ``prompt`` (TruthfulQA, ToxiGen); JSON of SQuAD; a JSON array, or one JSON value a line, of
    objects with such fields or of strings; or else plain text, a probe a line.

    Args:
        path: The file.

    Raises:
        CheckpointError: It cannot be read, is too long, is not UTF-8, is malformed, has none of these fields, or holds
            no probe, too many, or one that is too long or cannot be encoded.
    """
    path = Path(path)
    return parse(content_of(path), str(path), name=path.name)


def parse(content: bytes, where: str, *, name: str, licence: str = "unknown") -> ProbeSet:
    """Return the probes of a file's content, each text once; see :func:`read`.

    Args:
        content: The bytes.
        where: File, for messages.
        name: Of the set.
        licence: Of the set.
    """
    found: dict[str, Probe] = {}
    count = 0
    for place, fields in rows(content, where):
        count += 1
        probe = _probe(place, fields)
        if probe is not None:
            found.setdefault(probe.text, probe)
        if len(found) > MAX_PROBES:
            raise fault(where, f"holds more than {MAX_PROBES} probes", "cut it down to the probes that are wanted")
    if not found:
        raise fault(where, "holds no probe", "give a file with some text")
    sha256 = "sha256:" + hashlib.sha256(content).hexdigest()
    return ProbeSet(name, licence, sha256, tuple(found.values()), count - len(found))


def _probe(place: str, fields: Mapping[str, object]) -> Probe | None:
    """Return the probe of one row; None where its text is empty."""
    key = next((name for name in TEXT if name in fields), None)
    if key is None:
        raise without_text(place, list(fields))
    text = "" if fields[key] is None else _checked(fields[key], place, key)
    if not text.strip():
        return None
    kind = fields.get("kind")
    if kind not in ("statement", "question"):
        kind = "question" if key == "question" or text.rstrip().endswith(_QUESTION_ENDS) else "statement"
    language = fields.get("language")
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        language = "und"
    # A label says whether a statement is true in The Geometry of Truth; other datasets label other things.
    truth = fields.get("truth", fields.get("label") if key == "statement" else None)
    return Probe(
        text=text,
        kind=kind,
        language=language,
        answer=_answer(place, fields),
        truth=_TRUTH.get(str(truth).lower()) if isinstance(truth, str | int) else None,
    )


def _answer(place: str, fields: Mapping[str, object]) -> str | None:
    """Return an answer: a field of that name, or the first of SQuAD's ``answers``, as records or as lists."""
    answers = fields.get("answers")
    if isinstance(answers, list) and answers and isinstance(answers[0], dict):
        fields = {"answer": cast("dict[str, object]", answers[0]).get("text")}
    elif isinstance(answers, dict):
        texts = cast("dict[str, object]", answers).get("text")
        fields = {"answer": cast("list[object]", texts)[0]} if isinstance(texts, list) and texts else {}
    given = next((fields[name] for name in _ANSWER if isinstance(fields.get(name), str) and fields[name]), None)
    return None if given is None else _checked(given, place, "answer")


def _checked(text: object, place: str, key: str) -> str:
    """Return a text that every tokenizer can be given.

    Raises:
        CheckpointError: It is no text, is too long, or holds a character that no text has.
    """
    if not isinstance(text, str):
        raise fault(place, f"the field {key} holds {shown(text)}", "give text in quotes")
    if len(text) > PROBE_CHARS:
        raise fault(place, f"is longer than {PROBE_CHARS} characters", "cut it, or leave it out")
    bad = _UNUSABLE.search(text)
    if bad is not None:
        raise fault(place, f"holds the character U+{ord(bad[0]):04X}, which is no text", "take it out")
    return text
