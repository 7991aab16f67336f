"""A server that speaks OpenAI's API, on this machine, for any object that can be asked; with all that goes wrong.

``OpenAIServer(model)`` serves ``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``. The model is anything
with ``next_tokens``, ``answers`` and ``count_tokens``, such as ``support.toy_model.Toy``.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

import pytest

from kinprint.behaviour.black_box import NextToken

from .openai_faults import Fault


class Served(Protocol):
    """What can be served."""

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]: ...

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]: ...

    def count_tokens(self, text: str) -> int: ...


@dataclass
class Asked:
    """A request that came.

    Attributes:
        path: Of the request.
        body: Its JSON.
        authorization: As it was sent; empty if it was not.
        accepts: The encodings that were asked for.
        status: Of the answer; 0 where there was none.
        at: When it came, in seconds.
    """

    path: str
    body: dict[str, Any]
    authorization: str
    accepts: str
    status: int
    at: float


@dataclass
class OpenAIServer:
    """The server; use it in a ``with`` statement.

    Attributes:
        model: Who answers.
        name: What the model is called.
        key: What it wants as a bearer token; None for nothing.
        completions: Whether it has the route of text.
        chat: Whether it has the route of conversations.
        logprobs: Whether it tells log-probabilities, by route.
        refuses_logprobs: What it answers where it tells none and is asked for them; 0 where it ignores that.
        most: Most likely tokens that it tells.
        swapped: Tells log-probabilities of each route in the form of the other.
        streams: Streams also what nobody asked to be streamed.
        usage: Whether it counts tokens.
        template: Tokens that its template adds to a conversation.
        unknown: Parameters that it refuses.
        quota: Answers after which the quota is used up; None for never.
    """

    model: Served
    name: str = "toy"
    key: str | None = None
    completions: bool = True
    chat: bool = True
    logprobs: tuple[str, ...] = ("completions", "chat/completions")
    refuses_logprobs: int = 0
    most: int = 20
    swapped: bool = False
    streams: bool = False
    usage: bool = True
    template: int = 7
    unknown: tuple[str, ...] = ()
    quota: int | None = None
    requests: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._faults: list[Fault] = []
        self._listener = _Listener(self)

    @property
    def url(self) -> str:
        """What the client is given."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}/v1"

    def fail(self, *faults: Fault) -> None:
        """Have things go wrong, each request meeting the first that fits."""
        with self.lock:
            self._faults.extend(faults)

    def meet(self, path: str) -> Fault | None:
        """Return what goes wrong with a request, and count it."""
        with self.lock:
            for fault in self._faults:
                if fault.times != 0 and re.search(fault.where, path):
                    fault.times -= 1
                    return fault
        return None

    def answered(self) -> list[Asked]:
        """Return the requests that were answered."""
        return [request for request in self.requests if request.status == 200]

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()


def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients wait hardly at all, know no key, and load no certificates, of which these servers have none."""
    import httpx2

    monkeypatch.setenv("KINPRINT_RETRY_WAIT", "0.001")
    monkeypatch.delenv("KINPRINT_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=False))


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, api: OpenAIServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that close early are part of the tests."""


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": code or "invalid_request_error", "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _api(self) -> OpenAIServer:
        return cast("_Listener", self.server).api

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Print nothing."""

    def do_GET(self) -> None:
        self.asked = self._asked({})
        if self.path == "/v1/models":
            return self._json(200, {"object": "list", "data": [{"id": self._api.name, "object": "model"}]})
        return self._json(404, {"error": {"message": "no such route"}})

    def _asked(self, body: dict[str, Any]) -> Asked:
        named = self.headers.get("Authorization", ""), self.headers.get("Accept-Encoding", "")
        return Asked(self.path, body, *named, 0, time.monotonic())

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # Noted before it is answered, so that whoever has the answer finds it.
        self.asked = self._asked(body)
        with self._api.lock:
            self._api.requests.append(self.asked)
        try:
            self._serve(body)
        except _Refused as refused:
            self._json(refused.status, refused.body)

    def _serve(self, body: dict[str, Any]) -> None:
        fault = self._api.meet(self.path)
        if fault is not None and self._failed(fault):
            return
        route = self._checked(body)
        says = self.headers.get("Authorization", "") if fault is not None and fault.kind == "echo" else None
        choice, counts = self._choice(route, body, says)
        cut = fault.kind if fault is not None else ""
        if body.get("stream") or self._api.streams or cut == "cut stream":
            return self._stream(route, choice, counts, cut=cut == "cut stream")
        answer: dict[str, Any] = {"id": "1", "model": self._api.name, "choices": [choice]}
        if self._api.usage:
            answer["usage"] = counts
        self._json(200, answer, cut=cut == "cut")

    def _failed(self, fault: Fault) -> bool:
        """Do what goes wrong; tell whether there is no other answer."""
        if fault.kind == "slow":
            time.sleep(fault.value)
        elif fault.kind == "disconnect":
            self.close_connection = True
        elif fault.kind == "status":
            self._json(int(fault.value), {"error": {"message": fault.text}}, dict(fault.headers))
        elif fault.kind == "redirect":
            self._send(302, b"", {"Location": fault.text})
        elif fault.kind == "html":
            self._send(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})
        elif fault.kind == "huge":
            self._send(200, b" " * int(fault.value), {})
        elif fault.kind == "gzip":
            self._send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
        elif fault.kind == "body":
            self._send(200, fault.text.encode(), dict(fault.headers))
        elif fault.kind == "error":
            self._json(200, {"error": {"message": fault.text}})
        return fault.kind not in {"slow", "cut", "cut stream", "echo"}

    def _checked(self, body: dict[str, Any]) -> str:
        """Return the route of a request that may be answered."""
        api, route = self._api, self.path.removeprefix("/v1/")
        if api.key is not None and self.headers.get("Authorization") != f"Bearer {api.key}":
            raise _Refused(401, f"Incorrect API key provided: {self.headers.get('Authorization')}", "invalid_api_key")
        if route not in {"completions", "chat/completions"} or not (
            api.completions if route == "completions" else api.chat
        ):
            raise _Refused(404, "Not Found")
        if body["model"] != api.name:
            raise _Refused(404, f"The model `{body['model']}` does not exist", "model_not_found")
        for name in api.unknown:
            if name in body:
                more = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                raise _Refused(400, f"Unsupported parameter: '{name}' is not supported with this model.{more}")
        asked = body.get("top_logprobs") if route == "chat/completions" else body.get("logprobs")
        if asked is not None and route not in api.logprobs and api.refuses_logprobs:
            raise _Refused(api.refuses_logprobs, "logprobs are not supported")
        if asked is not None and asked > api.most:
            raise _Refused(400, f"Cannot request more than {api.most} logprobs.")
        with api.lock:
            if api.quota is not None:
                if api.quota <= 0:
                    raise _Refused(429, "You exceeded your current quota.", "insufficient_quota")
                api.quota -= 1
        return route

    def _choice(self, route: str, body: dict[str, Any], says: str | None) -> tuple[dict[str, Any], dict[str, int]]:
        api, chat = self._api, route == "chat/completions"
        prompt = "".join(message["content"] for message in body["messages"]) if chat else body["prompt"]
        most = body.get("max_tokens", body.get("max_completion_tokens", 16))
        top = api.model.next_tokens([prompt], most=20)[0].top
        if says is not None:
            text = says
        elif body.get("temperature", 1.0) > 0:
            drawn = random.Random(f"{prompt} {body.get('seed', random.random())}")
            text = drawn.choices([token for token, _ in top], [math.exp(value) for _, value in top])[0]
        else:
            text = api.model.answers([prompt], most=most)[0] if most > 1 else top[0][0]
        asked = (body.get("top_logprobs") if chat else body.get("logprobs")) if route in api.logprobs else None
        told = None if asked is None else _logprobs(top[:asked], chat=chat != api.swapped)
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        prompt_tokens = api.model.count_tokens(prompt) + (api.template if chat else 0)
        counts = {"prompt_tokens": prompt_tokens, "completion_tokens": most, "total_tokens": prompt_tokens + most}
        return {"index": 0, **said, "logprobs": told, "finish_reason": "length"}, counts

    def _stream(self, route: str, choice: dict[str, Any], counts: dict[str, int], *, cut: bool) -> None:
        """Send an answer in two pieces, the first of which holds the log-probabilities."""
        chat = route == "chat/completions"
        text = choice["message"]["content"] if chat else choice["text"]
        pieces = [text[: len(text) // 2], text[len(text) // 2 :]]
        events: list[dict[str, Any]] = []
        for place, piece in enumerate(pieces):
            said = {"delta": {"content": piece}} if chat else {"text": piece}
            ended = "length" if place else None
            told = None if place else choice["logprobs"]
            events.append({"choices": [{"index": 0, **said, "logprobs": told, "finish_reason": ended}]})
        if self._api.usage:
            events.append({"choices": [], "usage": counts})
        whole = "".join(f"data: {json.dumps(event)}\n\n" for event in events[: 1 if cut else None])
        body = (": keep alive\n\n" + whole + ("" if cut else "data: [DONE]\n\n")).encode()
        self._send(200, body, {"Content-Type": "text/event-stream; charset=utf-8"})

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        text = json.dumps(value).encode()
        self._send(status, text, {"Content-Type": "application/json", **(headers or {})}, cut=cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection |= cut


def _logprobs(top: Iterable[tuple[str, float]], *, chat: bool) -> dict[str, Any]:
    pairs = list(top)
    if not chat:
        tokens, values = [token for token, _ in pairs[:1]], [value for _, value in pairs[:1]]
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": [dict(pairs)], "text_offset": [0]}
    entries = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in pairs]
    return {"content": [{**entries[0], "top_logprobs": entries}]}
