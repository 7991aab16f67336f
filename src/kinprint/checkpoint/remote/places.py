"""From a reference that is no path on disk to a place."""

from __future__ import annotations

from kinprint.checkpoint.remote.address import STORES, WEB, hub_address, scheme_of
from kinprint.checkpoint.remote.cache import BlockCache
from kinprint.checkpoint.remote.hub import open_hub
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.store import open_store
from kinprint.checkpoint.remote.web import open_web
from kinprint.checkpoint.source import Files


def remote_place(text: str) -> tuple[Files, str | None]:
    """Return the folder that a reference names, or that of the file that it names, and the file's name.

    Raises:
        CheckpointError: There is nothing of that name, or it may not be read.
        NetworkError: A server cannot be reached.
        UsageError: A variable of the environment makes no sense.
    """
    cache, limits = BlockCache.of_environment(), Limits.of_environment()
    scheme = scheme_of(text)
    if scheme in STORES:
        return open_store(text, cache, limits)
    if scheme in WEB:
        return open_web(text, cache, limits)
    return open_hub(hub_address(text), cache, limits)
