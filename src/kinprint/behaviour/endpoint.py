"""A model behind a server that speaks OpenAI's API, as something that can be asked.

Each answer is kept in the transcript as soon as it comes and never asked for twice, so that a run which was broken off
goes on where it was. Which way of asking works is found out once, with one small request for each way that is tried:
text completions with log-probabilities, else conversations with them, else answers drawn at temperature 1 whose shares
stand for probabilities. Everything else is asked at temperature 0.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed, wait
from functools import partial

from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.budget import Budget, Spent
from kinprint.behaviour.openai_api import WAYS, Answer, Question, Way, variants
from kinprint.behaviour.server import RefusedError, Server
from kinprint.behaviour.transcript import Transcript, key_of
from kinprint.checkpoint.remote.workers import workers_of
from kinprint.errors import KinprintError, UsageError

PROBE = "The capital of France is"
"""What every way is tried with."""

SAMPLES = 20
"""Answers that are drawn for each prompt where the server tells no log-probabilities."""


class Endpoint:
    """A served model; a :class:`~kinprint.behaviour.black_box.BlackBox`. Use it in a ``with`` statement."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        limits: Budget | None = None,
        transcript: Transcript | None = None,
        offline: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Describe the model; nothing is sent yet.

        Args:
            url: The server's address up to its version, such as ``https://api.openai.com/v1``.
            model: Its name of the model.
            key: Sent as a bearer token; None for that of the environment.
            limits: What may be spent; None for no limit.
            transcript: Where answers are kept and looked up; None to keep them in memory alone.
            offline: Send nothing: every answer must be in the transcript.
            progress: Told what goes on, how many requests are answered and how many there are.

        Raises:
            UsageError: The address is none, or the key cannot be one.
        """
        self._model = model
        self._server = Server(url, key, limits or Budget())
        self._transcript = Transcript() if transcript is None else transcript
        self._offline = offline
        self._progress = progress
        self._way: Way | None = None

    @property
    def name(self) -> str:
        """The server's name of the model."""
        return self._model

    @property
    def identity(self) -> str:
        """The address and the name: what stands behind them may change any day."""
        return f"{self._server.where} {self._model}"

    @property
    def spent(self) -> Spent:
        """What this run has sent and what it cost; answers from the transcript cost nothing."""
        return self._server.spent

    @property
    def way(self) -> Way:
        """How the server is asked, found out when it is first needed.

        Raises:
            CheckpointError: The key is refused, or there is no such model.
            NetworkError: The server cannot be reached, or is none that speaks this API.
            UsageError: The budget is spent, or nothing may be sent and the transcript does not tell.
        """
        if self._way is None:
            self._way = self._recorded_way() or self._probed_way()
        return self._way

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        """Return for each prompt the likeliest next tokens that the server tells, or shares of drawn ones.

        Raises:
            KinprintError: As :attr:`way`; the message says how many prompts were answered.
        """
        way = self.way
        if way.top is None:
            drawn = range(1, SAMPLES + 1)
            asked = [[way.question(self._model, prompt, sample=sample) for sample in drawn] for prompt in prompts]
            return [_shares([answer.text for answer in answers], most) for answers in self._ask(asked)]
        asked = [[way.question(self._model, prompt, likely=True)] for prompt in prompts]
        return [NextToken((answers[0].top or ())[:most]) for answers in self._ask(asked)]

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        """Return for each prompt the likeliest continuation of at most ``most`` tokens.

        Raises:
            KinprintError: As :attr:`way`; the message says how many prompts were answered.
        """
        way = self.way
        return [found[0].text for found in self._ask([[way.question(self._model, p, tokens=most)] for p in prompts])]

    def prompt_tokens(self, text: str) -> int | None:
        """Return how many tokens the server counts in a text, its template included; None where it does not say.

        Raises:
            KinprintError: As :attr:`way`.
        """
        return self._ask([[self.way.question(self._model, text)]])[0][0].prompt_tokens

    def close(self) -> None:
        """Close the connections; the transcript is its owner's."""
        self._server.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _recorded_way(self) -> Way | None:
        """Return the first way whose probe an earlier run kept."""
        for way in variants():
            answer = self._transcript.get(self._key_of(self._probe(way)))
            if answer is not None and _suits(way, answer):
                return way
        if self._offline:
            raise UsageError(f"{self._kept} holds no answer of {self.identity}: run once online")
        return None

    def _probed_way(self) -> Way:
        """Try the ways in order."""
        pending, last = list(WAYS), RefusedError(404, "")
        while pending:
            way = pending.pop(0)
            try:
                answer = self._answered(self._probe(way), threading.Event(), probing=way.top is not None)
            except RefusedError as refused:
                last = refused
                other = way.adapted(refused.message)
                if other != way:
                    pending.insert(0, other)
                elif refused.status == 404:
                    pending = [each for each in pending if each.route != way.route]
                continue
            if _suits(way, answer):
                return way
        raise self._server.refusal(last, self._model)

    def _probe(self, way: Way) -> Question:
        return way.question(self._model, PROBE, likely=True)

    def _ask(self, prompts: Sequence[Sequence[Question]]) -> list[list[Answer]]:
        """Return the answers to each prompt's questions; those that are not kept are asked for side by side."""
        keys = [[self._key_of(question) for question in questions] for questions in prompts]
        pairs = zip(keys, prompts, strict=True)
        questions = {key: each for own, asked in pairs for key, each in zip(own, asked, strict=True)}
        missing = [question for key, question in questions.items() if self._transcript.get(key) is None]
        try:
            if missing and self._offline:
                raise UsageError(f"{self._kept} lacks answers of {self.identity}: run once online")
            self._fetch(missing)
        except KinprintError as error:
            done = sum(all(self._transcript.get(key) is not None for key in asked) for asked in keys)
            kept = f", kept in {self._kept}" if self._transcript.path else ""
            raise type(error)(f"{error} ({done} of {len(prompts)} prompts answered{kept})") from error
        # The transcript has them all now, and never loses one.
        return [[answer for key in asked if (answer := self._transcript.get(key)) is not None] for asked in keys]

    def _fetch(self, questions: Sequence[Question]) -> None:
        """Ask and keep. After a fault nothing new is sent, and what is under way is waited for and kept."""
        stop = threading.Event()
        workers = workers_of(self._server.host)
        futures = [workers.submit(partial(self._answered_or_fault, question, stop)) for question in questions]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if self._progress is not None:
                    self._progress(f"asking {self._model}", done, len(futures))
        except BaseException as error:
            stop.set()
            running = [future for future in futures if not future.cancel()]
            if isinstance(error, KinprintError):
                wait(running)
            raise

    def _answered_or_fault(self, question: Question, stop: threading.Event) -> None:
        try:
            self._answered(question, stop)
        except RefusedError as refused:
            raise self._server.refusal(refused, self._model) from None

    def _answered(self, question: Question, stop: threading.Event, *, probing: bool = False) -> Answer:
        answer = self._server.ask(question, stop, probing=probing)
        self._transcript.add(self._server.where, question, answer)
        return answer

    def _key_of(self, question: Question) -> str:
        try:
            return key_of(self._server.where, question)
        except UnicodeEncodeError as error:
            raise UsageError(f"a prompt holds half a character ({error.reason}): write it as UTF-8") from error

    @property
    def _kept(self) -> str:
        return str(self._transcript.path) if self._transcript.path else "the transcript in memory"


def _suits(way: Way, answer: Answer) -> bool:
    return way.top is None or answer.top is not None


def _shares(texts: Iterable[str], most: int) -> NextToken:
    """Return the shares of drawn first tokens as log-probabilities, the most frequent first.

    Example:
        >>> [(token, round(value, 3)) for token, value in _shares(["b", "a", "b"], 20).top]
        [('b', -0.405), ('a', -1.099)]
    """
    counts = Counter(texts)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    total = counts.total()
    return NextToken(tuple((text, math.log(count / total)) for text, count in ordered), sampled=True)
