"""Blocks of remote files on disk: for each file one sparse file of its whole length and a journal of what is in it.

A block is written first and journalled with its SHA-256 after, so that a crash loses it and nothing else. Whoever opens
the entry later believes the journal only after it has read a block and found that digest. Several processes may use
one cache: each holds a shared lock on the entries that it uses, and only what nobody holds is removed, longest unused
first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinprint.checkpoint.faults import fault
from kinprint.errors import CheckpointError, UsageError

FOLDER_VARIABLE = "KINPRINT_CACHE"
SIZE_VARIABLE = "KINPRINT_CACHE_SIZE"
DEFAULT_BYTES = 20_000_000_000

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"(\d{1,15}) ?(|[kmgt]b)", re.IGNORECASE)
_LINE = re.compile(rb"(\d{1,19}) (\d{1,19}) ([0-9a-f]{64})")
_ADVICE = f"free some space, or name another folder by {FOLDER_VARIABLE}"


@dataclass(frozen=True, slots=True)
class Extent:
    """A block that the journal lists."""

    start: int
    end: int
    digest: str


class BlockCache:
    """The folder of all entries.

    Attributes:
        folder: Where they lie.
        limit: Bytes on disk above which unused entries go.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._written = limit  # so that the first use looks at what others left
        self._lock = threading.Lock()

    @classmethod
    def of_environment(cls) -> BlockCache:
        """Return the user's cache, which the environment may place and size.

        Raises:
            UsageError: The size is none.
        """
        named = os.environ.get(FOLDER_VARIABLE)
        text = os.environ.get(SIZE_VARIABLE, "")
        match = _SIZE.fullmatch(text)
        if text and match is None:
            raise UsageError(f"{SIZE_VARIABLE} is {text!r}: give a number of bytes, or one with kB, MB, GB or TB")
        limit = int(match[1]) * _UNITS[match[2].lower()] if match else DEFAULT_BYTES
        return cls(Path(named).expanduser() if named else user_folder(), limit)

    def entry(self, key: Sequence[str], size: int) -> Entry:
        """Open the entry of one version of one file; what fetched blocks of it before is found again.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self.wrote(0)
        name = hashlib.sha256("\n".join((*key, str(size))).encode()).hexdigest()
        try:
            return Entry(self, self._blocks / name, size)
        except OSError as error:
            raise fault(str(self.folder), f"cannot hold blocks ({error.strerror})", _ADVICE) from error

    def wrote(self, count: int) -> None:
        """Count bytes that were written, and make room after every twentieth of the limit."""
        with self._lock:
            self._written += count
            if self._written < self.limit / 20:
                return
            self._written = 0
        self.trim()

    def trim(self) -> None:
        """Remove entries that nobody uses, longest unused first, until the limit holds."""
        entries: list[tuple[float, int, Path]] = []
        for path in self._blocks.iterdir() if self._blocks.is_dir() else ():
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)  # a removal that was broken off
                continue
            with contextlib.suppress(OSError):
                entries.append((path.stat().st_mtime, _on_disk(path), path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            if _remove_unused(path):
                total -= size

    def record(self, kind: str, key: Sequence[str]) -> dict[str, Any] | None:
        """Return a small record that was kept, such as the listing of a commit; None if there is none."""
        try:
            found: object = json.loads(self._record_path(kind, key).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]

    def keep(self, kind: str, key: Sequence[str], record: dict[str, Any]) -> None:
        """Keep a small record; it is there as a whole or not at all. A cache that cannot be written keeps nothing."""
        path = self._record_path(kind, key)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                temporary.write_text(json.dumps(record), "utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    @property
    def _blocks(self) -> Path:
        return self.folder / "blocks"

    def _record_path(self, kind: str, key: Sequence[str]) -> Path:
        return self.folder / kind / (hashlib.sha256("\n".join(key).encode()).hexdigest() + ".json")


class Entry:
    """The blocks of one file, mapped read-only.

    The map holds the one open file, and with it the lock: a model may have hundreds of files, and a process can often
    open no more than a thousand.

    Attributes:
        bytes: The file; what the journal does not list reads as zeros.
    """

    def __init__(self, cache: BlockCache, path: Path, size: int) -> None:
        self._cache = cache
        self._path = path
        self._lock = threading.Lock()
        self._read = 0
        self.bytes = memoryview(b"")
        descriptor = _opened(path)
        try:
            if os.fstat(descriptor).st_size != size:
                # A new entry, or one that somebody cut: nothing that the journal lists is sure to be there.
                os.ftruncate(descriptor, size)
                (path / "journal").unlink(missing_ok=True)
            if size:
                self.bytes = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
        finally:
            os.close(descriptor)
        os.utime(path)

    def extents(self) -> Iterator[Extent]:
        """Yield what the journal lists since it was last asked, also what other processes added."""
        with self._lock:
            whole = self._unread()
            self._read += len(whole)
        for line in whole.splitlines():
            match = _LINE.fullmatch(line)
            if match is not None:
                start, end = int(match[1]), int(match[1]) + int(match[2])
                if start < end <= len(self.bytes):
                    yield Extent(start, end, match[3].decode())

    def _unread(self) -> bytes:
        """Return the lines that were added; the last one may still be being written."""
        with contextlib.suppress(FileNotFoundError), (self._path / "journal").open("rb") as journal:
            journal.seek(self._read)
            text = journal.read()
            return text[: text.rfind(b"\n") + 1]
        return b""

    def write(self, start: int, content: bytes | memoryview) -> None:
        """Put a block in: first its bytes, then its line in the journal.

        Raises:
            CheckpointError: The disk is full or broken.
        """
        line = f"{start} {len(content)} {hashlib.sha256(content).hexdigest()}\n".encode()
        try:
            with self._lock:
                with (self._path / "data").open("r+b", buffering=0) as data:
                    data.seek(start)
                    left = memoryview(content)
                    while left:
                        left = left[data.write(left) :]
                with (self._path / "journal").open("ab", buffering=0) as journal:
                    journal.write(line)
        except OSError as error:
            raise fault(str(self._cache.folder), f"cannot hold blocks ({error.strerror})", _ADVICE) from error
        self._cache.wrote(len(content))

    def intact(self, extent: Extent) -> bool:
        """Tell whether a block still has its digest."""
        return hashlib.sha256(self.bytes[extent.start : extent.end]).hexdigest() == extent.digest

    def close(self) -> None:
        """Drop the map. It lives, and keeps the entry, as long as arrays that were handed out."""
        self.bytes = memoryview(b"")


def user_folder() -> Path:
    """Return where the system keeps a user's caches."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "kinprint" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "kinprint"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "kinprint"


def _opened(path: Path) -> int:
    """Open the data of an entry, made if need be, under a shared lock."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    for _ in range(100):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path / "data", flags, 0o600)
        except FileNotFoundError:
            continue  # removed in between
        _lock(descriptor, exclusive=False)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), (path / "data").stat()):
                return descriptor
        os.close(descriptor)
    raise fault(str(path), "is removed as soon as it is made", "raise " + SIZE_VARIABLE)


def _remove_unused(path: Path) -> bool:
    """Remove an entry unless somebody uses it."""
    with contextlib.suppress(OSError, CheckpointError):
        descriptor = os.open(path / "data", os.O_RDWR)
        try:
            if not _lock(descriptor, exclusive=True):
                return False
            # The name goes first and at once, so that nobody opens half an entry.
            aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            path.rename(aside)
            shutil.rmtree(aside)
        finally:
            os.close(descriptor)
        return True
    return False


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock an open file; an exclusive lock is tried only. Windows refuses to remove what is open, without a lock."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX | fcntl.LOCK_NB) if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    return True


def _on_disk(path: Path) -> int:
    """Return the bytes that an entry takes on the disk; holes take none."""
    status = (path / "data").stat()
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
