"""A server's faults are ridden out or told in one line, and its client gives no key away."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from kinprint.behaviour import server as server_module
from kinprint.behaviour.budget import Budget
from kinprint.behaviour.endpoint import Endpoint
from kinprint.behaviour.openai_api import COMPLETIONS
from kinprint.behaviour.transcript import Transcript
from kinprint.errors import CheckpointError, KinprintError, NetworkError, UsageError
from support.hub.server import unreachable
from support.openai_faults import Fault
from support.openai_server import OpenAIServer, at_home
from support.toy_model import Toy

KEY = "sk-0123456789abcdef"
PROMPTS = [f"Prompt number {place} asks for" for place in range(12)]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(monkeypatch)


def message(error: pytest.ExceptionInfo[KinprintError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert KEY not in text
    return text


# -- keys ----------------------------------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINPRINT_API_KEY", KEY + "\n")
    path = tmp_path / "t.jsonl"
    with OpenAIServer(Toy(), key=KEY) as served, Transcript(path) as kept:
        served.fail(Fault("echo", times=-1))
        with Endpoint(served.url, "toy", transcript=kept) as endpoint:
            assert endpoint.answers(PROMPTS[:1]) == ["Bearer [key]"]
            assert KEY not in endpoint.identity
    assert served.requests[0].authorization == f"Bearer {KEY}"
    assert served.requests[0].accepts == "identity"
    assert KEY not in path.read_text()


def test_a_wrong_key_is_refused_at_once_and_not_shown() -> None:
    with OpenAIServer(Toy(), key="sk-another-key") as served, Endpoint(served.url, "toy", key=KEY) as endpoint:
        with pytest.raises(
            CheckpointError, match=r"refuses the key \(the server answers 401\); set KINPRINT_API_KEY"
        ) as e:
            endpoint.next_tokens(PROMPTS)
        message(e)
        assert len(served.requests) == 1
    with (
        OpenAIServer(Toy(), key=KEY) as served,
        Endpoint(served.url, "toy") as endpoint,
        pytest.raises(CheckpointError, match="wants a key"),
    ):
        endpoint.answers(PROMPTS)


def test_the_key_of_openai_is_not_sent_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found = {
        url: server_module.Server(url, None, Budget())._key  # pyright: ignore[reportPrivateUsage]
        for url in ("https://api.openai.com/v1", "http://localhost:8000", "https://suspect.example/v1")
    }
    assert list(found.values()) == [KEY, KEY, None]
    monkeypatch.setenv("KINPRINT_API_KEY", "mine-mine-mine")
    assert server_module.Server("https://suspect.example", None, Budget())._key == "mine-mine-mine"  # pyright: ignore[reportPrivateUsage]


def test_credentials_in_the_address_are_used_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with OpenAIServer(Toy()) as served, Transcript(path) as kept:
        url = served.url.replace("http://", "http://me:a-long-password@")
        with Endpoint(url, "toy", transcript=kept) as endpoint:
            endpoint.answers(PROMPTS[:1])
            assert served.requests[0].authorization.startswith("Basic ")
            assert "password" not in endpoint.identity + path.read_text()


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host/v1", "http://", "http://host:x/v1", "http://[::1", "https://h/v1?key=1"]
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError):
        Endpoint(url, "toy")


@pytest.mark.parametrize("key", ["two words", "with\nbreak", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(UsageError) as error:
        Endpoint("http://localhost/v1", "toy", key=key)
    assert key not in str(error.value)


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 500, times=3),
        Fault("status", 502, times=6),
        Fault("status", 429, times=4),
        Fault("disconnect", times=3),
        Fault("cut", times=3),
        Fault("cut stream", times=3),
    ],
    ids=lambda fault: f"{fault.kind} {fault.value:g}",
)
def test_a_server_that_fails_for_a_while_is_asked_again(fault: Fault) -> None:
    toy = Toy(seed=4)
    with OpenAIServer(toy) as served, Endpoint(served.url, "toy") as endpoint:
        assert endpoint.way.route == COMPLETIONS
        served.fail(fault)
        assert endpoint.answers(PROMPTS[:3]) == toy.answers(PROMPTS[:3])
        assert fault.times == 0


def test_a_cut_connection_may_be_on_the_bill_and_a_busy_server_is_not() -> None:
    for fault, billed in ((Fault("status", 503), 2), (Fault("disconnect"), 3)):
        limits = Budget(prices=(0.0, 1e6))
        with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy", limits=limits) as endpoint:
            assert endpoint.way
            served.fail(fault)
            endpoint.answers(PROMPTS[:1], most=1)
            assert (endpoint.spent.requests, endpoint.spent.cost) == (3, billed)


def test_a_burst_of_failures_does_not_change_the_way() -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        served.fail(Fault("status", 500, times=3))
        assert (endpoint.way.route, endpoint.way.top) == (COMPLETIONS, 20)


@pytest.mark.parametrize("asked", ["0.3", "1", "Wed, 21 Oct 2015 07:28:00 GMT", "never", "99999999"])
def test_what_retry_after_says_is_waited_and_no_longer_than_the_bound(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PATIENCE", server_module.Limits(attempts=8, longest_wait=0.4))
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        assert endpoint.way
        served.fail(Fault("status", 429, headers=(("Retry-After", asked),)))
        endpoint.answers(PROMPTS[:1])
        waited = served.requests[-1].at - served.requests[-2].at
    least, most = {"0.3": (0.3, 0.45), "1": (0.4, 0.6)}.get(asked, (0.0, 0.01))
    assert least <= waited < most + 0.25, "a quarter of a second for the machine"


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_what_is_refused_is_not_asked_again(status: int) -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        assert endpoint.way
        served.fail(Fault("status", status, times=-1, text="because\x1b[2J\nof this"))
        with pytest.raises(CheckpointError, match=str(status)) as error:
            endpoint.answers(PROMPTS[:1])
        assert "\x1b" not in message(error)
        assert len(served.requests) == 2


def test_an_unknown_model_is_named() -> None:
    with (
        OpenAIServer(Toy()) as served,
        Endpoint(served.url, "toi") as endpoint,
        pytest.raises(CheckpointError, match=r"knows no model 'toi' \(404: .*; http.*/v1/models lists what it has"),
    ):
        endpoint.answers(PROMPTS)
    assert len(served.requests) == 2, "one for each route"


def test_a_server_that_is_down_is_told_from_one_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINPRINT_RETRY_WAIT", "0.1")
    began = time.monotonic()
    with (
        unreachable() as where,
        Endpoint(where, "toy") as endpoint,
        pytest.raises(NetworkError, match=r"127\.0\.0\.1:\d+/v1: the connection failed .*; run again later"),
    ):
        endpoint.answers(PROMPTS)
    assert time.monotonic() - began < 2


def test_a_server_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINPRINT_TIMEOUT", "0.05")
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        served.fail(Fault("slow", 0.3, times=-1))
        with pytest.raises(NetworkError, match=r"nothing came for 0\.05 seconds"):
            endpoint.answers(PROMPTS)


def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LONGEST_SECONDS", -1.0)
    with (
        OpenAIServer(Toy()) as served,
        Endpoint(served.url, "toy") as endpoint,
        pytest.raises(NetworkError, match="took longer than"),
    ):
        endpoint.answers(PROMPTS)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault("html"), "something that is no JSON"),
        (Fault("error", text="out of memory"), r"with an error \(out of memory\)"),
        (Fault("huge", server_module.BODY_BYTES + 1), "answers with more than 8,388,608 bytes"),
        (Fault("gzip"), "answers compressed"),
        (Fault("redirect", text="http://elsewhere/v1"), "redirects to 'http://elsewhere/v1', which is not followed"),
        (Fault("body", text="[]"), "JSON that is no object"),
        (Fault("body", text="[" * 100_000), "something that is no JSON"),
        (Fault("body", text="{}"), "without 'choices'"),
        (Fault("body", text='{"choices": 5}'), "without 'choices'"),
        (Fault("body", text='{"choices": []}'), "without a choice"),
        (Fault("body", text='{"choices": [5]}'), "a choice that holds no text"),
        (Fault("body", text='{"choices": [{"text": 5}]}'), "a choice that holds no text"),
        (Fault("body", text='{"choices": [{"message": {"content": [1]}}]}'), "a choice that holds no text"),
        (Fault("body", text=json.dumps({"choices": [{"text": "x" * 70_000}]})), "more than 65,536 characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind} {value.text[:20]}",
)
def test_what_is_no_answer_is_refused_in_one_line(fault: Fault, what: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with OpenAIServer(Toy()) as served, Transcript(path) as kept:
        with Endpoint(served.url, "toy", key=KEY, transcript=kept) as endpoint:
            assert endpoint.way
            served.fail(fault)
            with pytest.raises(NetworkError, match=what) as error:
                endpoint.answers(PROMPTS[:1])
            message(error)
        assert len(served.requests) == 2
    assert len(path.read_text().splitlines()) == 2, "the header and the probe"


@pytest.mark.parametrize(
    "logprobs",
    [
        5,
        {"content": [5]},
        {"content": [{"token": 5, "logprob": -1}]},
        {"content": [{"token": "a", "logprob": None, "top_logprobs": 3}]},
        {"top_logprobs": [{"a": "b"}]},
        {"top_logprobs": [{"a": 10**400}]},
        {"top_logprobs": [{"a": float("nan"), "b": float("-inf"), "c": True}]},
        {"tokens": ["a"], "token_logprobs": []},
    ],
)
def test_log_probabilities_that_are_none_count_as_not_told(logprobs: object) -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        assert endpoint.way
        served.fail(Fault("body", text=json.dumps({"choices": [{"text": "x", "logprobs": logprobs}]})))
        assert endpoint.next_tokens(PROMPTS[:1])[0].top == ()


def test_half_characters_and_tokens_that_look_alike_become_one_readable_token() -> None:
    told = {"content": [{"token": "\ud83d", "logprob": -1, "top_logprobs": [{"token": "\ud83e", "logprob": 1e-9}]}]}
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        assert endpoint.way
        served.fail(Fault("body", text=json.dumps({"choices": [{"text": "\ud83d", "logprobs": told}]})))
        assert endpoint.next_tokens(PROMPTS[:1])[0].top == (("\ufffd", 0.0),)


def test_half_a_character_in_a_prompt_is_refused() -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        with pytest.raises(UsageError, match="half a character"):
            endpoint.answers(["\ud83d"])
        assert len(served.requests) == 1, "the probe"
