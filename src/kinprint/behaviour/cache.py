"""What a model gave on some probes, kept on disk: the same model, texts and settings are run once.

A file is written beside its place and renamed, so it is there as a whole or not at all; one that cannot be read is
made anew. The longest unused go first where the cache grows beyond its size.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from kinprint.canonical import digest
from kinprint.checkpoint.remote.cache import user_folder

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BYTES = 4_000_000_000


class Cache:
    """Arrays by the digest of what they were made of.

    Attributes:
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None, *, most_bytes: int = MOST_BYTES) -> None:
        """Touch nothing yet."""
        self.folder = folder
        self._most = most_bytes
        self._held: dict[str, Mapping[str, Array]] | None = None

    @classmethod
    def of_user(cls) -> Cache:
        """Return the user's cache, beside that of fetched files."""
        return cls(user_folder() / "behaviour")

    @classmethod
    def in_memory(cls) -> Cache:
        """Return a cache that keeps everything as long as it lives."""
        cache = cls(None)
        cache._held = {}
        return cache

    def get(self, made_of: object, make: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """Return arrays, made now if they are not kept.

        Args:
            made_of: Everything that the arrays depend on, as JSON could write it.
            make: Makes them.
        """
        if self.folder is None and self._held is None:
            return make()
        key = digest(made_of).removeprefix("sha256:")
        if self._held is not None:
            if key not in self._held:
                self._held[key] = make()
            return self._held[key]
        assert self.folder is not None
        path = self.folder / f"{key}.npz"
        kept = _read(path)
        if kept is not None:
            with suppress(OSError):
                os.utime(path)
            return kept
        made = make()
        # A cache that cannot be written keeps nothing.
        with suppress(OSError):
            self._write(path, made)
        return made

    def _write(self, path: Path, arrays: Mapping[str, Array]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            try:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        self._make_room(path)

    def _make_room(self, latest: Path) -> None:
        files = sorted(path.parent.glob("*.npz") if (path := latest) else (), key=lambda one: one.stat().st_mtime)
        total = sum(one.stat().st_size for one in files)
        for oldest in files:
            if total <= self._most or oldest == latest:
                break
            total -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, Array] | None:
    try:
        # Opened here: numpy leaves the file open where it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
