"""Answers of OpenAI's API are read in every form that servers send, worked out by hand."""

from __future__ import annotations

import json

import pytest

from kinprint.behaviour.openai_api import CHAT, COMPLETIONS, Answer, NotAnAnswerError, Way, complaint, read_answer
from kinprint.checkpoint.remote.transfer import Interrupted

JSON, EVENTS = "application/json", "text/event-stream"
FIRST = {"token": "Par", "logprob": -0.25, "top_logprobs": [{"token": "Lyon", "logprob": -2}]}


def test_an_answer_of_each_route_by_hand() -> None:
    text = {"choices": [{"text": " Paris", "logprobs": {"tokens": [" Paris"], "token_logprobs": [-0.5]}}]}
    assert read_answer(json.dumps(text).encode(), JSON) == Answer(" Paris", ((" Paris", -0.5),))
    chat = {
        "choices": [{"message": {"content": "Paris"}, "logprobs": {"content": [FIRST, {"token": "is", "logprob": 0}]}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
    assert read_answer(json.dumps(chat).encode(), JSON) == Answer("Paris", (("Par", -0.25), ("Lyon", -2.0)), 9, 2)
    silent = {"choices": [{"message": {"content": None}, "logprobs": None}], "usage": {"prompt_tokens": -1}}
    assert read_answer(json.dumps(silent).encode(), JSON) == Answer("")


@pytest.mark.parametrize("kind", [EVENTS, JSON], ids=["stated", "not stated"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_by_hand(end: str, kind: str) -> None:
    first = {"choices": [{"delta": {"role": "assistant", "content": "Par"}, "logprobs": {"content": [FIRST]}}]}
    second = {"choices": [{"delta": {"content": "is\u2028"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}
    lines = [
        f"data: {json.dumps(first)}", "", ": wait", "", "event: piece",
        f"data:{json.dumps(second, ensure_ascii=False)}", "",
        'data: {"choices":', 'data: [{"delta": {}}], "usage": null}', "", "data: [DONE]", "", "",
    ]  # fmt: skip
    found = read_answer(end.join(lines).encode(), kind)
    assert found == Answer("Paris\u2028", (("Par", -0.25), ("Lyon", -2.0)), 9, None)


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.5, 0.3])
def test_a_stream_that_is_cut_before_its_end_is_no_answer(kept: float) -> None:
    piece = json.dumps({"choices": [{"text": "Paris and then some more"}]})
    stream = f"data: {piece}\n\ndata: {piece}\n\n".encode()
    with pytest.raises(Interrupted, match="cut"):
        read_answer(stream[: int(len(stream) * kept)], EVENTS)


def test_an_error_inside_a_stream_is_told() -> None:
    with pytest.raises(NotAnAnswerError, match=r"an error \(out of memory\)"):
        read_answer(b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', EVENTS)


@pytest.mark.parametrize(
    ("body", "message", "exhausted"),
    [
        ('{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', "slow down", False),
        ('{"error": {"message": "pay", "type": "insufficient_quota", "code": null}}', "pay", True),
        ('{"object": "error", "message": "old\\n style", "code": 400}', "old style", False),
        ('{"detail": "Not Found"}', "Not Found", False),
        ('{"error": "plain"}', "plain", False),
        ('{"error": {"message": [], "code": []}}', "", False),
        ("<html>", "", False),
        ("[]", "", False),
    ],
)
def test_complaints_of_every_form_are_read(body: str, message: str, exhausted: bool) -> None:
    found = complaint(body.encode())
    assert (found.message, found.exhausted) == (message, exhausted)


def test_what_is_sent_by_hand() -> None:
    drawn = Way(CHAT, None, "max_completion_tokens").question("m", "hello", sample=3)
    assert drawn.body == {
        "model": "m", "max_completion_tokens": 1, "temperature": 1.0, "seed": 3,
        "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    likely = Way(COMPLETIONS, 5, seeded=False).question("m", "hello", tokens=2, likely=True)
    assert likely.body == {"model": "m", "prompt": "hello", "max_tokens": 2, "temperature": 0.0, "logprobs": 5}
    both = Way(CHAT, 20).question("m", "hello", likely=True).body
    assert (both["logprobs"], both["top_logprobs"]) == (True, 20)
