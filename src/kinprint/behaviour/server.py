"""One question to a server that speaks OpenAI's API, whatever goes wrong on the way.

What may be otherwise a moment later is tried again, after waits that double: rate limits, failures of the server, cut
connections. What the server refuses is not. No request is sent that could exceed the budget.

The server is a stranger's. It sees the prompts and the key, and the key goes to no other: redirects are not followed.
What it sends is bounded in size and time, and the key is taken out of whatever it repeats.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import random
import re
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kinprint.behaviour.budget import Budget, Meter, Spent
from kinprint.behaviour.openai_api import CHAT, COMPLETIONS, Answer, NotAnAnswerError, Question, complaint, read_answer
from kinprint.checkpoint.faults import fault, network_fault
from kinprint.checkpoint.remote.address import WEB, without_secrets
from kinprint.checkpoint.remote.limits import TIMEOUT_VARIABLE, Limits
from kinprint.checkpoint.remote.transfer import Interrupted
from kinprint.errors import KinprintError, UsageError

if TYPE_CHECKING:
    from httpx2 import Client, Response

KEY_VARIABLE = "KINPRINT_API_KEY"

OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
"""Used where the first is not set, and only for OpenAI's host and for this machine: no suspect's server gets it."""

PATIENCE = Limits(attempts=8, timeout=60.0)
"""Rate limits count by the minute, so that the waits add up to one; a model may think long before its first byte."""

BODY_BYTES = 1 << 23
LONGEST_SECONDS = 300.0
"""Longest answer that is read, and for how long."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_OWN_HOSTS = frozenset({"api.openai.com", "localhost", "127.0.0.1", "::1"})
_SECRET_CHARACTERS = 8  # shorter ones are placeholders for servers that want some key, and may occur in any text
_RETRY_AFTER = re.compile(r"\d{1,6}(\.\d{1,6})?")
_NONE_SUCH = "this is no server of OpenAI's API: check the address"


class RefusedError(Exception):
    """The server understood, and will not do it.

    Attributes:
        status: What it answers.
        message: What it says, one short line without the key.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _BusyError(Interrupted):
    """The server turned a request away for now."""

    def __init__(self, status: int, wait: float | None) -> None:
        super().__init__(f"the server answers {status}", wait)
        self.status = status


class Server:
    """A server; threads may share it.

    Attributes:
        where: Its address without credentials.
        host: Whose connections are counted.
    """

    def __init__(self, url: str, key: str | None, budget: Budget) -> None:
        """Describe the server; nothing is sent yet.

        Args:
            url: Its address, credentials and all.
            key: Sent as a bearer token; None for that of the environment.
            budget: What may be spent.

        Raises:
            UsageError: The address is none, or the key cannot be one.
        """
        self.where, self._login = read_address(url)
        self.host = urlsplit(self.where).hostname or ""
        self._key = _checked_key(_key_for(self.host) if key is None else key)
        self._meter = Meter(budget)
        self._reached = False
        self._made: Client | None = None
        self._making = threading.Lock()
        patience = Limits.of_environment()
        timeout = patience.timeout if TIMEOUT_VARIABLE in os.environ else PATIENCE.timeout
        self._limits = replace(PATIENCE, wait=patience.wait, timeout=timeout)

    @property
    def spent(self) -> Spent:
        """What was sent, and what it cost."""
        return self._meter.spent

    def ask(self, question: Question, stop: threading.Event, *, probing: bool = False) -> Answer:
        """Send a question until it is answered.

        Args:
            question: What to ask.
            stop: Set when nobody wants the answer any more.
            probing: Take a server that fails inside for one that refuses: some do whenever they are asked for
                log-probabilities.

        Raises:
            RefusedError: The server will not answer.
            CheckpointError: The key is refused.
            NetworkError: No answer came after all tries, what came is none, or the quota is used up.
            UsageError: The budget is spent.
        """
        failures = 0
        while True:
            if stop.is_set():
                raise network_fault(self.where, "is not asked any more", "run again")
            most = self._meter.start(question)
            try:
                answer = self._post(question)
            except Interrupted as interrupted:
                busy = interrupted.status if isinstance(interrupted, _BusyError) else None
                (self._meter.lost if busy is None else self._meter.refused)(most)
                failures += 1
                # A server that never answered is more likely not there than busy.
                attempts = self._limits.attempts if self._reached else self._limits.shorter().attempts
                if probing and busy == 500 and failures >= attempts // 2:
                    raise RefusedError(500, "") from None
                if failures >= attempts:
                    raise network_fault(self.where, interrupted.what, "run again later") from None
                stop.wait(self._pause(question, failures, interrupted.wait))
            except BaseException:
                self._meter.refused(most)
                raise
            else:
                self._meter.answered(question, answer, most)
                return answer

    def refusal(self, refused: RefusedError, model: str) -> KinprintError:
        """Return the error for what the server will not do."""
        said = f"{refused.status}{': ' if refused.message else ''}{refused.message}"
        if refused.status >= 500:
            return network_fault(self.where, f"the server answers {said}", "run again later")
        if refused.status == 404:
            return fault(self.where, f"knows no model {model!r} ({said})", f"{self.where}/models lists what it has")
        return fault(self.where, f"does not answer ({said})", "check the model's name and the address")

    def close(self) -> None:
        """Close the connections."""
        with self._making:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _pause(self, question: Question, failures: int, asked: float | None) -> float:
        """Return how long to wait, up to half as long again, so that many clients do not come back together."""
        seed = f"{os.getpid()} {failures} {question.prompt} {question.sample}"
        spread = 1 + random.Random(seed).random() / 2  # noqa: S311 - no secret
        return spread * self._limits.pause(failures, asked)

    def _post(self, question: Question) -> Answer:
        """Make one try."""
        import httpx2

        headers = {"Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._client().stream(
                "POST",
                f"{self.where}/{question.route}",
                json=dict(question.body),
                headers=headers,
                auth=self._login if self._key is None else None,
                timeout=httpx2.Timeout(self._limits.timeout, pool=None),
                follow_redirects=False,
            ) as response:
                self._reached = True
                return self._read(response)
        except httpx2.TimeoutException:
            raise Interrupted(f"nothing came for {self._limits.timeout:g} seconds") from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise fault(self.where, f"is no address ({error})", "check it") from None
        except (httpx2.HTTPError, RuntimeError) as error:
            what = self._without_key(str(error) or type(error).__name__)
            raise Interrupted(f"the connection failed ({what})") from None

    def _read(self, response: Response) -> Answer:
        """Read an answer, or say why there is none."""
        content, status = self._body(response), response.status_code
        if status == 200:
            try:
                return self._hidden(read_answer(content, response.headers.get("Content-Type", "")))
            except NotAnAnswerError as error:
                raise network_fault(self.where, self._without_key(str(error)), _NONE_SUCH) from None
        said = complaint(content)
        if said.exhausted or status == 402:
            raise network_fault(self.where, f"the account's quota is used up ({status})", "top it up and run again")
        if status in _PASSING:
            raise _BusyError(status, _seconds(response.headers.get("Retry-After", "")))
        if status in {401, 403}:
            what = "wants a key" if self._key is None and self._login is None else "refuses the key"
            raise fault(self.where, f"{what} (the server answers {status})", f"set {KEY_VARIABLE}")
        if response.has_redirect_location:
            target = without_secrets(response.headers["Location"])[:80]
            raise network_fault(self.where, f"redirects to {target!r}, which is not followed", "check the address")
        raise RefusedError(status, self._without_key(said.message))

    def _body(self, response: Response) -> bytes:
        """Read a body of bounded length in bounded time."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise network_fault(self.where, "answers compressed, which was not asked for", "check the address")
        body, due = bytearray(), time.monotonic() + LONGEST_SECONDS
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > BODY_BYTES:
                raise network_fault(self.where, f"answers with more than {BODY_BYTES:,} bytes", _NONE_SUCH)
            if time.monotonic() > due:
                raise Interrupted(f"the answer took longer than {LONGEST_SECONDS:g} seconds")
        return bytes(body)

    def _hidden(self, answer: Answer) -> Answer:
        """Return an answer without the key, which a server may repeat."""
        top = answer.top and tuple((self._without_key(token), value) for token, value in answer.top)
        return replace(answer, text=self._without_key(answer.text), top=top)

    def _without_key(self, text: str) -> str:
        for secret in (self._key or "", *(self._login or ())):
            if len(secret) >= _SECRET_CHARACTERS:
                text = text.replace(secret, "[key]")
        return text

    def _client(self) -> Client:
        from httpx2 import Client

        with self._making:
            if self._made is None:
                self._made = Client()
                weakref.finalize(self, self._made.close)
            return self._made


def read_address(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an address without credentials and without a route at its end, and its user and password.

    Example:
        >>> read_address("http://me:pw@host:8000"), read_address("https://host/v1/chat/completions/")
        (('http://host:8000/v1', ('me', 'pw')), ('https://host/v1', None))

    Raises:
        UsageError: It is no address of a web server.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in WEB or not host:
        raise UsageError("the endpoint is no address of a server: write https://HOST/v1")
    if parts.query or parts.fragment:
        raise UsageError(f"{without_secrets(url)}: leave out what follows the path; a key goes into {KEY_VARIABLE}")
    path = parts.path.rstrip("/")
    for route in (CHAT, COMPLETIONS):
        path = path.removesuffix(f"/{route}")
    login = (parts.username or "", parts.password or "") if parts.username or parts.password else None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path or '/v1'}", login


def _key_for(host: str) -> str | None:
    """Return the key that the environment holds for a host."""
    return os.environ.get(KEY_VARIABLE) or (os.environ.get(OPENAI_KEY_VARIABLE) if host in _OWN_HOSTS else None)


def _checked_key(key: str | None) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"the key holds characters that no key has: check {KEY_VARIABLE}")
    return key or None


def _seconds(text: str) -> float | None:
    """Return the seconds that a Retry-After asks for, as a number or as a date; None where it says nothing."""
    if _RETRY_AFTER.fullmatch(text):
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None
