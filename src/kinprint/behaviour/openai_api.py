"""What goes over the wire to a server that speaks OpenAI's API, and what comes back: bodies, answers, complaints.

Servers differ. Some have only one of the two routes, some tell five likely tokens and some twenty, some know no seed,
and newer models call the limit of tokens otherwise. Answers are read in every known form: log-probabilities of either
route in the form of the other's (llama.cpp and llama-cpp-python mixed them up), and event streams that nobody asked
for. An answer is data: what it holds is kept or compared, never run.

Source: OpenAI's API reference, completions and chat completions; the servers of vLLM and llama.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from kinprint.checkpoint.remote.transfer import Interrupted

COMPLETIONS, CHAT = "completions", "chat/completions"
"""The two routes."""

MOST_CHARACTERS = 1 << 16
"""Longest answer that is believed. Answers are asked for with a limit of tokens, and no token is that long."""

MOST_NAMED = 200
"""Likely tokens that are read of one position."""

MOST_TOKENS = 1 << 30
"""Counts above this are no counts."""

EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""Codes of a quota that no waiting brings back."""

_SURROGATES = re.compile("[\ud800-\udfff]")


class NotAnAnswerError(Exception):
    """What came is no answer of the API; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of an answer.

    Attributes:
        text: What the model said.
        top: The likeliest tokens in the first place and their natural log-probabilities, most likely first; None where
            the server tells none.
        prompt_tokens: Tokens of the prompt as the server counts them, with its template; None where it does not.
        answer_tokens: Tokens of the answer.
    """

    text: str
    top: tuple[tuple[str, float], ...] | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        route: ``COMPLETIONS`` or ``CHAT``.
        body: The JSON that is sent.
        prompt: What the model is given.
        tokens: Most tokens of the answer.
        sample: Number of the sampled answer, from 1; 0 where the likeliest is asked for.
    """

    route: str
    body: Mapping[str, Any]
    prompt: str
    tokens: int
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask.

    Attributes:
        route: ``COMPLETIONS`` or ``CHAT``.
        top: How many likely tokens are asked for; None where the server tells none.
        limit: What the server calls the limit of tokens.
        seeded: Whether it takes a seed.
    """

    route: str
    top: int | None
    limit: str = "max_tokens"
    seeded: bool = True

    def question(self, model: str, prompt: str, *, tokens: int = 1, likely: bool = False, sample: int = 0) -> Question:
        """Return the request for the likeliest continuation, or for one that is drawn at temperature 1.

        Args:
            model: The server's name of the model.
            prompt: What the model is given; as the user's message where the route is a conversation.
            tokens: Most tokens of the answer.
            likely: Ask for likely tokens too.
            sample: Number of the drawn answer, from 1; it is the seed.
        """
        body: dict[str, Any] = {"model": model, self.limit: tokens, "temperature": 1.0 if sample else 0.0}
        if self.route == CHAT:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.seeded:
            body["seed"] = sample
        if likely and self.top is not None:
            body |= {"logprobs": True, "top_logprobs": self.top} if self.route == CHAT else {"logprobs": self.top}
        return Question(self.route, body, prompt, tokens, sample)

    def adapted(self, complaint: str) -> Way:
        """Return the way that a server's complaint asks for, or this one.

        Example:
            >>> Way(CHAT, 20).adapted("Unsupported parameter: use 'max_completion_tokens' instead.").limit
            'max_completion_tokens'
        """
        if "max_completion_tokens" in complaint:
            return replace(self, limit="max_completion_tokens")
        return replace(self, seeded=False) if re.search(r"\bseed\b", complaint) else self


WAYS = (
    Way(COMPLETIONS, 20), Way(COMPLETIONS, 5), Way(CHAT, 20), Way(CHAT, 5), Way(CHAT, None), Way(COMPLETIONS, None),
)  # fmt: skip
"""What is tried, best first: text without a template before conversations, and likely tokens before samples."""


def variants() -> Iterator[Way]:
    """Yield every way that :meth:`Way.adapted` can lead to, in the order in which they are tried."""
    for way in WAYS:
        for seeded in (True, False):
            yield replace(way, seeded=seeded)
            yield replace(way, seeded=seeded, limit="max_completion_tokens")


# -- answers -------------------------------------------------------------------------------------------------------


def read_answer(content: bytes, kind: str) -> Answer:
    """Read the body of an answer.

    Args:
        content: The body, of bounded length.
        kind: The ``Content-Type`` that the server states.

    Raises:
        NotAnAnswerError: It is none.
        Interrupted: A stream ends before the answer does.
    """
    streamed = kind.lower().startswith("text/event-stream") or content.startswith(b"data:")
    pieces = _events(content) if streamed else [_object(content)]
    text: list[str] = []
    top: tuple[tuple[str, float], ...] | None = None
    usage: dict[str, Any] = {}
    for piece in pieces:
        usage = _dict(piece.get("usage")) or usage
        choices = piece.get("choices")
        if not isinstance(choices, list):
            what = complaint_of(piece).message
            raise NotAnAnswerError(f"answers with an error ({what})" if what else "answers without 'choices'")
        if not choices:
            continue  # the piece of a stream that holds the usage
        choice = _dict(cast("list[object]", choices)[0])
        text.append(_said(choice))
        top = top or likeliest(choice.get("logprobs"))
    if not text:
        raise NotAnAnswerError("answers without a choice")
    if sum(map(len, text)) > MOST_CHARACTERS:
        raise NotAnAnswerError(f"answers with more than {MOST_CHARACTERS:,} characters where few tokens were asked for")
    return Answer(
        _whole("".join(text)), top, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    )


def likeliest(logprobs: object) -> tuple[tuple[str, float], ...] | None:
    """Return the likeliest tokens of the first place, most likely first; None where none are told.

    Example:
        >>> likeliest({"top_logprobs": [{" a": -2.0, " b": -0.5}]})
        ((' b', -0.5), (' a', -2.0))
        >>> likeliest({"content": [{"token": "x", "logprob": -1, "top_logprobs": []}]})
        (('x', -1.0),)
    """
    record = _dict(logprobs)
    pairs: list[tuple[object, object]] = []
    first = _dict(_first(record.get("content")))
    if first:
        entries = [_dict(entry) for entry in _list(first.get("top_logprobs"))[:MOST_NAMED]]
        pairs = [(entry.get("token"), entry.get("logprob")) for entry in (*entries, first)]
    else:
        pairs += list(_dict(_first(record.get("top_logprobs"))).items())[:MOST_NAMED]
        pairs.append((_first(record.get("tokens")), _first(record.get("token_logprobs"))))
    best: dict[str, float] = {}
    for token, value in pairs:
        # Tokens that are no whole characters may look alike; the likeliest of them stands for all.
        number = isinstance(value, int | float) and not isinstance(value, bool) and -1e6 <= value <= 1
        if isinstance(token, str) and len(token) <= MOST_CHARACTERS // MOST_NAMED and number:
            shown = _whole(token)
            best[shown] = max(best.get(shown, -1e6), min(float(cast("float", value)), 0.0))
    return tuple(sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))) or None


def _said(choice: dict[str, Any]) -> str:
    """Return the text of a choice, whole or the piece of a stream; nothing said is an empty text."""
    holder: object = choice if "text" in choice else choice.get("message", choice.get("delta"))
    said: object = _dict(holder).get("text" if holder is choice else "content")
    if not isinstance(holder, dict) or not isinstance(said, str | None):
        raise NotAnAnswerError("answers with a choice that holds no text")
    return said or ""


def _events(content: bytes) -> list[dict[str, Any]]:
    """Return the objects of an event stream.

    Raises:
        Interrupted: It ends before the answer does.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    found: list[dict[str, Any]] = []
    for event in text.split("\n\n"):
        data = "\n".join(line[5:] for line in event.split("\n") if line.startswith("data:")).strip()
        if data == "[DONE]":
            return found
        if data:
            try:
                found.append(_object(data.encode()))
            except NotAnAnswerError:
                break  # a cut may fall inside an event
    else:
        if any(_dict(_first(piece.get("choices"))).get("finish_reason") for piece in found):
            return found
    raise Interrupted("the stream of the answer was cut")


# -- complaints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a server says about a request that it does not answer.

    Attributes:
        message: For people, cut to one short line; empty where it says nothing.
        exhausted: Whether the account's quota is used up, so that waiting does not help.
    """

    message: str
    exhausted: bool


def complaint(content: bytes) -> Complaint:
    """Read the body of an error."""
    try:
        return complaint_of(_object(content))
    except NotAnAnswerError:
        return Complaint("", exhausted=False)


def complaint_of(record: dict[str, Any]) -> Complaint:
    """Read an error in the forms of OpenAI (``error``), of older servers (the record itself) and of ``detail``."""
    error = record.get("error", record)
    inner = _dict(error)
    said = [error, inner.get("message"), inner.get("detail")]
    message = next((text for text in said if isinstance(text, str)), "")
    codes = {inner.get(name) for name in ("code", "type") if isinstance(inner.get(name), str)}
    return Complaint(" ".join(_whole(message[:1000]).split())[:200], bool(codes & EXHAUSTED))


# -- JSON of strangers ---------------------------------------------------------------------------------------------


def _object(content: bytes) -> dict[str, Any]:
    try:
        value: object = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise NotAnAnswerError("answers with something that is no JSON") from None
    if not isinstance(value, dict):
        raise NotAnAnswerError("answers with JSON that is no object")
    return cast("dict[str, Any]", value)


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _first(value: object) -> object:
    return next(iter(_list(value)), None)


def _count(value: object) -> int | None:
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return cast("int", value) if number else None


def _whole(text: str) -> str:
    """Return text that can be encoded: halves of characters, which JSON may hold, become replacement characters."""
    return _SURROGATES.sub("\ufffd", text)
