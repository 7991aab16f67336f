"""How long, how often and how many at a time: one record, which the environment may change."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from kinprint.errors import UsageError

CONNECTIONS = 8
"""Transfers that are under way at one host at a time."""

WAIT_VARIABLE = "KINPRINT_RETRY_WAIT"
TIMEOUT_VARIABLE = "KINPRINT_TIMEOUT"


@dataclass(frozen=True, slots=True)
class Limits:
    """Patience with a server.

    Attributes:
        attempts: Tries of one range without progress before it is given up.
        wait: Seconds before the second try; each further wait is twice as long.
        longest_wait: Seconds that no wait exceeds, also where the server asks for more.
        timeout: Seconds without a byte after which a try is broken off.
        progress_bytes: What a try must have brought to count as progress.
        progress_seconds: Within how long it must have brought it.
    """

    attempts: int = 6
    wait: float = 0.5
    longest_wait: float = 30.0
    timeout: float = 10.0
    progress_bytes: int = 1 << 14
    progress_seconds: float = 30.0

    @classmethod
    def of_environment(cls) -> Limits:
        """Return the defaults with what the environment changes.

        Raises:
            UsageError: A variable holds no number of seconds.
        """
        return cls(wait=_seconds(WAIT_VARIABLE, cls().wait), timeout=_seconds(TIMEOUT_VARIABLE, cls().timeout))

    def shorter(self) -> Limits:
        """Return what is enough where there is something else to fall back on."""
        return replace(self, attempts=min(self.attempts, 2))

    def pause(self, failures: int, asked: float | None) -> float:
        """Return how long to wait after so many failures; ``asked`` is what the server wants.

        Example:
            >>> Limits().pause(3, None), Limits().pause(1, 4.0), Limits().pause(1, 4000.0)
            (2.0, 4.0, 30.0)
        """
        return min(self.wait * 2.0 ** (failures - 1) if asked is None else asked, self.longest_wait)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise UsageError(f"{variable} is {text!r}: give a number of seconds up to 3600")
    return seconds
