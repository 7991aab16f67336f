"""Folders as repositories with commits."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

LARGE = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".msgpack", ".onnx", ".npz", ".h5", ".data")
"""Ends of names of files that lie outside of git."""

LARGE_BYTES = 10_000_000
HASHED_BYTES = 1 << 28
"""Files above this, and files with holes, get a digest that is made up: serving them must not read them."""


@dataclass(frozen=True)
class Stored:
    """A file of a commit.

    Attributes:
        path: Where it lies on the disk.
        size: Bytes.
        large: Whether it lies outside of git.
        digest: SHA-256 of its content, or made up where it is huge.
        blob: Git's id.
    """

    path: Path
    size: int
    large: bool
    digest: str
    blob: str

    @property
    def etag(self) -> str:
        """What the server calls this version."""
        return f'"{self.digest if self.large else self.blob}"'


@dataclass
class Repo:
    """One repository: its commits, and which of them each name means.

    Attributes:
        commits: Files by path, by commit.
        refs: Commits by branch or tag.
        token: What a request must carry; None for anybody.
        gated: Whether the right token is refused too, until terms are accepted.
    """

    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


class Repos:
    """All repositories, by ``org/name``."""

    def __init__(self, root: Path | None = None) -> None:
        """Take every ``root/org/name`` as a repository with one commit."""
        self.all: dict[str, Repo] = {}
        self._count = itertools.count(1)
        self._known: dict[tuple[Path, int, int], Stored] = {}
        for folder in sorted(root.glob("*/*")) if root is not None else ():
            if folder.is_dir():
                self.add(f"{folder.parent.name}/{folder.name}", folder)

    def add(self, name: str, folder: Path, *, ref: str = "main") -> str:
        """Commit what a folder holds now, and move a branch to it."""
        repo = self.all.setdefault(name, Repo())
        commit = f"{next(self._count):040x}"
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        repo.commits[commit] = {path.relative_to(folder).as_posix(): self._stored(path) for path in files}
        repo.refs[ref] = commit
        return commit

    def blob(self, digest: str) -> Stored | None:
        """Return a file by its digest."""
        return next((stored for stored in self._known.values() if stored.digest == digest), None)

    def _stored(self, path: Path) -> Stored:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._known:
            size = status.st_size
            if size > HASHED_BYTES or status.st_blocks * 512 < size // 2:
                digest = blob = hashlib.sha256(f"{path} {size}".encode()).hexdigest()
            else:
                content = path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                blob = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest()
            large = path.suffix in LARGE or size > LARGE_BYTES
            self._known[key] = Stored(path.resolve(), size, large, digest, blob[:40])
        return self._known[key]
