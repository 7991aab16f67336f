"""Everything that kinprint raises on purpose.

The tree, with the exit code that the command line gives each::

    KinprintError                 1
    +-- UsageError                2   the call is wrong: an unknown method, an option out of range
    |   +-- MissingExtraError     2   an optional dependency is not installed
    +-- CheckpointError           5   the input cannot be read, or must not be believed
    |   +-- NonFiniteError        -   one tensor holds NaN or Inf; methods catch it and say not_applicable
    +-- NetworkError              6   a server cannot be reached, or does not send what it promised; try again
    +-- IncomparableError         2   two fingerprints were made with different settings

A message says what is wrong, where, and what to do, in one line. Findings ("these two models have no
role in common") are values, never exceptions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class KinprintError(Exception):
    """Base of every error that kinprint raises on purpose."""

    exit_code = 1


class UsageError(KinprintError):
    """The call itself is wrong."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the [{extra}] extra: pip install 'kinprint[{extra}]'")
        self._arguments = (extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        # Raised in a worker process too, and an exception is rebuilt from what its constructor takes.
        return type(self), self._arguments


def optional(module: str, extra: str, purpose: str) -> Any:  # noqa: ANN401 - packages without types here
    """Import a package of an extra.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(extra, f"{purpose} ({module})") from error


class CheckpointError(KinprintError):
    """A checkpoint cannot be read, or its contents contradict each other."""

    exit_code = 5


class NonFiniteError(CheckpointError):
    """A tensor holds NaN or Inf, so no statistic on it means anything."""

    def __init__(self, tensor: str) -> None:
        super().__init__(f"tensor {tensor!r} holds NaN or Inf")
        self.tensor = tensor

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str]]:
        return type(self), (self.tensor,)


class NetworkError(KinprintError):
    """A server cannot be reached, or does not send what it promised. What was fetched before is kept."""

    exit_code = 6


class IncomparableError(UsageError):
    """Two fingerprints were made with different methods or settings."""
