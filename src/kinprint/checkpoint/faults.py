"""How a reader says that it does not believe a file: what, where and what to do, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard, cast

from kinprint.errors import CheckpointError, NetworkError

FETCH_AGAIN = "fetch the file again"
"""What to do about a file that was cut off or changed on the way."""

TRY_AGAIN = "try again: what was fetched so far is kept"
"""What to do about a transfer that failed."""

SHOWN_CHARS = 80
"""Longest piece of a hostile name that a message repeats."""

NAME_CHARS = 1024
"""Longest tensor name that is believed; real ones stay under 200."""

MAX_AXES = 32
"""More axes than any weight has, and as many as every numpy can hold."""

MAX_ELEMENTS = 1 << 60
"""A tensor with more elements than this cannot be addressed; axes of length 0 do not count."""


def fault(where: str, what: str, advice: str) -> CheckpointError:
    """Return the error for one bad input, with line breaks and control characters escaped.

    Example:
        >>> str(fault("a.gguf", "is empty", "fetch the file again"))
        'a.gguf: is empty; fetch the file again'
    """
    return CheckpointError(_line(where, what, advice))


def network_fault(where: str, what: str, advice: str = TRY_AGAIN) -> NetworkError:
    """Return the error for bytes that did not come, in one line as :func:`fault` makes it."""
    return NetworkError(_line(where, what, advice))


def _line(where: str, what: str, advice: str) -> str:
    """Join what a message says, with line breaks and control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{where}: {what}; {advice}")


def shown(value: object) -> str:
    """Return a value as a message may repeat it: quoted, and cut if it is long.

    Example:
        >>> shown("x" * 200) == repr("x" * 80) + "..."
        True
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN_CHARS else repr(value[:SHOWN_CHARS]) + "..."
    if isinstance(value, int) and value.bit_length() > SHOWN_CHARS:
        # Python refuses to write out integers of thousands of digits, and nobody could read them.
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, bool | int | float) else f"a value of type {type(value).__name__}"
    return text[:SHOWN_CHARS]


def checked_name(name: object, where: str) -> str:
    """Return a tensor name that is safe to print and to digest.

    Raises:
        CheckpointError: The name is no text, is empty or too long, or holds characters that cannot be printed (a
            terminal would obey some of them) or encoded.
    """
    if not isinstance(name, str) or not name or len(name) > NAME_CHARS or not name.isprintable():
        raise fault(
            where,
            f"{shown(name)} is no usable tensor name",
            f"names must be 1 to {NAME_CHARS} printable characters",
        )
    return name


def natural(value: object) -> TypeGuard[int]:
    """Tell whether a value is an integer of at least 0. ``True`` is not: JSON and pickles keep booleans apart."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def checked_shape(values: object, where: str, name: str) -> tuple[int, ...]:
    """Return the shape that a header states for one tensor, once it is known to be one.

    Raises:
        CheckpointError: Not a list of integers of at least 0, or more than numpy could ever address.
    """
    listed = cast("list[object]", values) if isinstance(values, list) else []
    if 0 < len(listed) <= 4 and all(type(axis) is int and 0 <= axis < 1 << 15 for axis in listed):
        return cast("tuple[int, ...]", tuple(listed))  # nearly all that there are
    shape: list[int] = []
    elements = 1
    lengths = cast("Sequence[object]", values) if isinstance(values, list | tuple) else (None,)
    for length in lengths[: MAX_AXES + 1]:
        if not natural(length) or len(lengths) > MAX_AXES:
            raise fault(
                where,
                f"tensor {shown(name)} has no believable shape",
                f"a shape is a list of at most {MAX_AXES} integers of at least 0",
            )
        shape.append(length)
        elements *= max(length, 1)
    if elements > MAX_ELEMENTS:
        raise fault(where, f"tensor {shown(name)} claims more than 2^60 elements", "the header lies or is damaged")
    return tuple(shape)
