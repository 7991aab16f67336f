"""What a server or a network does wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = frozenset(
    {
        "status",  # answers with the status `value`
        "disconnect",  # closes the connection without an answer
        "cut",  # closes it before byte `value` of the file
        "short",  # states the right length and sends `value` bytes less
        "long",  # states no length and sends `value` bytes more
        "length",  # states and sends `value` bytes more than the range has
        "total",  # states a file that is `value` bytes longer
        "offset",  # states a range that starts `value` bytes later
        "whole",  # ignores the range
        "garbage",  # sends other bytes
        "slow",  # waits `value` seconds before the answer
        "trickle",  # waits `value` seconds before each kilobyte
        "redirect",  # sends to the address `text`
        "etag",  # states another version
    }
)


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: One of ``KINDS``.
        where: Regular expression on ``"hub GET /path"`` or ``"cdn GET /path"``.
        value: See ``KINDS``.
        times: How often; endlessly if negative.
        text: See ``KINDS``.
        headers: Sent besides.
    """

    kind: str
    where: str = ""
    value: float = 0
    times: int = 1
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(self.kind)


class Faults:
    """The faults that are still to come, in order; each request meets the first that fits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._list: list[Fault] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """Add faults."""
        with self._lock:
            self._list.extend(faults)

    def clear(self) -> None:
        """Let everything go right again."""
        with self._lock:
            self._list.clear()

    def meet(self, what: str, span: tuple[int, int] | None) -> Fault | None:
        """Return what goes wrong with a request, and count it.

        Args:
            what: Side, method and path.
            span: First byte and byte after the last that it asks for; None where it asks for no file.
        """
        with self._lock:
            for fault in self._list:
                of_bytes = fault.kind not in {"status", "disconnect", "slow", "redirect"}
                if fault.times == 0 or not re.search(fault.where, what) or (of_bytes and span is None):
                    continue
                if fault.kind == "cut" and span is not None and not span[0] <= fault.value < span[1]:
                    continue
                fault.times -= 1
                return fault
        return None
