"""What a server that speaks OpenAI's API does wrong."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = frozenset(
    {
        "status",  # answers with the status `value`
        "error",  # answers 200 with an error in the body
        "disconnect",  # closes the connection without an answer
        "cut",  # states the right length and sends half of the body
        "cut stream",  # ends a stream half-way
        "html",  # answers 200 with a page
        "body",  # answers 200 with `text`
        "huge",  # answers 200 with `value` bytes
        "gzip",  # claims to answer compressed
        "slow",  # waits `value` seconds before the answer
        "redirect",  # sends to the address `text`
        "echo",  # answers with the key that it was sent
    }
)


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: One of ``KINDS``.
        value: See ``KINDS``.
        times: How often; endlessly if negative.
        text: See ``KINDS``.
        where: Regular expression on the path.
        headers: Sent besides.
    """

    kind: str
    value: float = 0
    times: int = 1
    text: str = ""
    where: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(self.kind)
