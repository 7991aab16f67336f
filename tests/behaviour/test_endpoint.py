"""A served model is asked in whatever way its server knows, once for each question, and within a budget."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.budget import Budget
from kinprint.behaviour.endpoint import PROBE, SAMPLES, Endpoint
from kinprint.behaviour.openai_api import CHAT, COMPLETIONS
from kinprint.behaviour.runner import Runner
from kinprint.behaviour.transcript import Transcript
from kinprint.errors import NetworkError, UsageError
from kinprint.types import Spent
from support.openai_faults import Fault
from support.openai_server import OpenAIServer, at_home
from support.toy_model import Toy

PROMPTS = [f"Prompt number {place} asks for" for place in range(12)]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(monkeypatch)


# -- ways ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("route", [COMPLETIONS, CHAT])
def test_what_a_server_tells_is_what_its_model_says(route: str, swapped: bool, streams: bool) -> None:
    toy = Toy(seed=3)
    with (
        OpenAIServer(toy, completions=route == COMPLETIONS, swapped=swapped, streams=streams) as served,
        Endpoint(served.url, "toy") as endpoint,
    ):
        told, said = endpoint.next_tokens(PROMPTS, most=5), endpoint.answers(PROMPTS, most=4)
        assert endpoint.prompt_tokens("one two") == toy.count_tokens("one two") + (7 if route == CHAT else 0)
    assert endpoint.way.route == route
    for one, other in zip(told, toy.next_tokens(PROMPTS, most=5), strict=True):
        assert not one.sampled
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-12)
    assert said == toy.answers(PROMPTS, most=4)


@dataclass
class Local:
    """A real model as something that can be served; it answers one request at a time."""

    runner: Runner

    def __post_init__(self) -> None:
        self.lock = threading.Lock()

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        with self.lock:
            return self.runner.next_tokens(prompts, most=most)

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        with self.lock:
            return self.runner.answers(prompts, most=most)

    def count_tokens(self, text: str) -> int:
        return len(self.runner.encode([text])[0])


def test_a_real_model_says_the_same_behind_the_api_as_here(runners: Mapping[str, Runner]) -> None:
    local, prompts = runners["base"], PROMPTS[:4]
    with OpenAIServer(Local(local)) as served, Endpoint(served.url, "toy") as endpoint:
        told, said = endpoint.next_tokens(prompts, most=5), endpoint.answers(prompts, most=4)
        assert endpoint.prompt_tokens(prompts[0]) == len(local.encode(prompts[:1])[0])
    assert said == local.answers(prompts, most=4)
    for one, other in zip(told, local.next_tokens(prompts, most=5), strict=True):
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        # Float32, one prompt at a time there and four together here.
        assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-4)


@pytest.mark.parametrize("refuses", [0, 400, 422, 500])
def test_where_no_log_probabilities_are_told_shares_of_drawn_answers_stand_for_them(refuses: int) -> None:
    toy = Toy(seed=3)
    with (
        OpenAIServer(toy, logprobs=(), refuses_logprobs=refuses) as served,
        Endpoint(served.url, "toy") as endpoint,
    ):
        (told,) = endpoint.next_tokens(PROMPTS[:1])
        drawn = [request.body for request in served.answered() if request.body["temperature"] == 1]
    assert told.sampled
    assert len({body["seed"] for body in drawn}) == len(drawn) == SAMPLES
    shares = [math.exp(value) for _, value in told.top]
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    assert all(share * SAMPLES == pytest.approx(round(share * SAMPLES), abs=1e-9) for share in shares)
    assert shares == sorted(shares, reverse=True)
    assert {token for token, _ in told.top} <= {token for token, _ in toy.next_tokens(PROMPTS[:1])[0].top}


def test_a_server_that_tells_five_tokens_is_asked_for_five() -> None:
    with OpenAIServer(Toy(), most=5) as served, Endpoint(served.url, "toy") as endpoint:
        assert len(endpoint.next_tokens(PROMPTS[:1])[0].top) == 5
        assert (endpoint.way.route, endpoint.way.top) == (COMPLETIONS, 5)


def test_parameters_that_a_server_does_not_know_are_left_out() -> None:
    unknown = ("max_tokens", "seed")
    with (
        OpenAIServer(Toy(), completions=False, unknown=unknown) as served,
        Endpoint(served.url, "toy") as endpoint,
    ):
        assert endpoint.answers(PROMPTS[:2]) == Toy().answers(PROMPTS[:2])
        assert all("max_completion_tokens" in request.body for request in served.answered())
        assert (endpoint.way.limit, endpoint.way.seeded) == ("max_completion_tokens", False)


def test_which_way_works_is_found_out_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with OpenAIServer(Toy(), completions=False) as served:
        with Transcript(path) as kept, Endpoint(served.url, "toy", transcript=kept) as endpoint:
            first = endpoint.next_tokens(PROMPTS[:3]), endpoint.answers(PROMPTS[:3])
        probes = [request.status for request in served.requests if PROBE in json.dumps(request.body)]
        assert probes == [404, 200]
        assert len(served.requests) == 2 + 6
        with Transcript(path) as kept, Endpoint(served.url, "toy", transcript=kept) as endpoint:
            assert (endpoint.next_tokens(PROMPTS[:3]), endpoint.answers(PROMPTS[:3])) == first
        assert len(served.requests) == 2 + 6


def test_a_temperature_of_0_a_limit_and_a_seed_are_asked_for() -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        endpoint.answers(PROMPTS[:1], most=7)
        asked = served.requests[-1].body
    assert asked == {"model": "toy", "prompt": PROMPTS[0], "max_tokens": 7, "temperature": 0.0, "seed": 0}


# -- transcripts and budgets ---------------------------------------------------------------------------------------


def test_a_run_that_the_quota_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    toy, path = Toy(seed=5), tmp_path / "t.jsonl"
    with OpenAIServer(toy, quota=6) as served:
        what = r"quota is used up .* \(5 of 12 prompts answered, kept in .*t.jsonl\)"
        with (
            Transcript(path) as kept,
            Endpoint(served.url, "toy", transcript=kept) as endpoint,
            pytest.raises(NetworkError, match=what),
        ):
            endpoint.next_tokens(PROMPTS)
        assert len(path.read_text().splitlines()) == 7, "the header, the probe and 5 answers"
        served.quota = None
        before = len(served.answered())
        with Transcript(path) as kept, Endpoint(served.url, "toy", transcript=kept) as endpoint:
            told = endpoint.next_tokens(PROMPTS)
        assert len(served.answered()) - before == 7
    assert [token.top[0][0] for token in told] == [token.top[0][0] for token in toy.next_tokens(PROMPTS)]


def test_a_transcript_is_replayed_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with OpenAIServer(Toy(), logprobs=()) as served:
        with Transcript(path) as kept, Endpoint(served.url, "toy", transcript=kept) as endpoint:
            online = endpoint.next_tokens(PROMPTS[:2]), endpoint.answers(PROMPTS)
        url = served.url
    with Transcript(path, replay=True) as kept, Endpoint(url, "toy", transcript=kept, offline=True) as endpoint:
        assert (endpoint.next_tokens(PROMPTS[:2]), endpoint.answers(PROMPTS)) == online
        with pytest.raises(UsageError, match=r"lacks answers of .* toy: run once online \(12 of 13 prompts answered"):
            endpoint.answers([*PROMPTS, "another"])
    with (
        Transcript(path, replay=True) as kept,
        Endpoint(url, "other", transcript=kept, offline=True) as endpoint,
        pytest.raises(UsageError, match=r"holds no answer of .* other: run once online"),
    ):
        endpoint.answers(PROMPTS)


def test_equal_prompts_are_asked_once() -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy") as endpoint:
        told = endpoint.answers(["one", "two", "one"])
        assert told[0] == told[2] != told[1]
        assert len(served.requests) == 3


def test_no_request_is_sent_beyond_the_budget(tmp_path: Path) -> None:
    with OpenAIServer(Toy()) as served, Transcript(tmp_path / "t.jsonl") as kept:
        with Endpoint(served.url, "toy", limits=Budget(max_requests=5), transcript=kept) as endpoint:
            with pytest.raises(UsageError, match=r"budget of 5 requests is spent: .* \(4 of 12 prompts answered"):
                endpoint.answers(PROMPTS)
            assert endpoint.spent.requests == 5
        assert len(served.requests) == 5
        with Endpoint(served.url, "toy", limits=Budget(max_requests=8), transcript=kept) as endpoint:
            assert endpoint.answers(PROMPTS) == Toy().answers(PROMPTS)


def test_requests_that_are_repeated_count() -> None:
    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy", limits=Budget(max_requests=3)) as endpoint:
        served.fail(Fault("status", 503, times=-1))
        with pytest.raises(UsageError, match="budget of 3 requests"):
            endpoint.answers(PROMPTS)
        assert len(served.requests) == 3


def test_what_was_spent_is_what_the_server_counted() -> None:
    toy = Toy()
    with OpenAIServer(toy) as served:
        with Endpoint(served.url, "toy", limits=Budget(prices=(2.0, 10.0))) as endpoint:
            endpoint.answers(PROMPTS, most=4)
            spent = endpoint.spent
        asked = sum(map(toy.count_tokens, [PROBE, *PROMPTS]))
        without = spent.model_copy(update={"cost": None})
        assert without == Spent(requests=13, prompt_tokens=asked, answer_tokens=1 + 12 * 4)
        assert spent.cost == pytest.approx((2 * asked + 10 * 49) / 1e6, rel=1e-12)
        with Endpoint(served.url, "toy") as endpoint:
            assert endpoint.spent == Spent()


@pytest.mark.parametrize("usage", [True, False])
def test_no_cost_goes_beyond_the_budget(usage: bool) -> None:
    limits = Budget(max_cost=0.002, prices=(2.0, 10.0))
    with OpenAIServer(Toy(), usage=usage) as served, Endpoint(served.url, "toy", limits=limits) as endpoint:
        with pytest.raises(UsageError, match=r"budget of 0\.002 is spent: .* prompts answered") as error:
            endpoint.answers([f"Prompt {place}" for place in range(40)], most=8)
        assert "\n" not in str(error.value)
        assert 0 < (endpoint.spent.cost or 0) <= 0.002
        assert len(served.requests) == endpoint.spent.requests < 40


@pytest.mark.parametrize(
    "limits",
    [
        {"max_requests": -1},
        {"max_cost": 1.0},
        {"max_cost": -1.0, "prices": (1.0, 1.0)},
        {"max_cost": float("nan"), "prices": (1.0, 1.0)},
        {"prices": (-1.0, 1.0)},
        {"prices": (1.0, float("inf"))},
    ],
)
def test_budgets_that_are_none_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Budget(**limits)  # pyright: ignore[reportArgumentType]


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    with OpenAIServer(Toy()) as served, Endpoint(served.url, "toy", progress=tell) as endpoint:
        endpoint.answers(PROMPTS)
    assert told == [("asking toy", done, 12) for done in range(1, 13)]


def test_the_server_of_the_tests_streams_where_it_is_asked_to() -> None:
    import httpx2

    body = {"model": "toy", "prompt": "x", "max_tokens": 2, "temperature": 0, "stream": True}
    with OpenAIServer(Toy()) as served:
        lines = httpx2.post(f"{served.url}/completions", json=body).text.splitlines()
        models = httpx2.get(f"{served.url}/models").json()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events[:2]) == Toy().answers(["x"], most=2)[0]
    assert lines[-2] == "data: [DONE]"
    assert models["data"][0]["id"] == "toy"
