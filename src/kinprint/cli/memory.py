"""How memory is handed out and given back, as far as a command may choose it for its process."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
"""glibc's number of the option, from ``malloc.h``."""

LARGE_BYTES = 4 << 20
"""Blocks from which on memory goes back to the system as soon as they are freed."""


def return_large_blocks() -> None:
    """Have large blocks returned when they are freed; without effect where the C library is not glibc.

    By default glibc raises that bound to 32 MiB by itself once such blocks are freed. What a layer of a wide model
    consists of is a little smaller, and pieces of freed layers would keep gigabytes that no array uses any more.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    except (AttributeError, OSError, TypeError):
        return


def keep_garbage() -> None:
    """Look for no garbage from here on: what imports make is none, and to search it takes a twentieth of a command."""
    gc.disable()


def collect_garbage() -> None:
    """Look for garbage as always, in what is made from here on."""
    gc.freeze()
    gc.enable()
