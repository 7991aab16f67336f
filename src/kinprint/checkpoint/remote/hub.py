"""The Hugging Face Hub: a revision is resolved to its commit at once, and all that is read is read of that commit.

Everything goes through the Hub's own client: its session, token, endpoint and cache. A file that its cache holds for
the commit is read in place. What was resolved and listed is kept, so that a model whose blocks are cached opens without
a network; a commit that is given in full is never asked for twice.

Source: huggingface_hub 2.4, ``hf_api.py`` (``model_info``, ``list_repo_tree``), ``file_download.py``,
``utils/_http.py``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kinprint.checkpoint.faults import fault, network_fault, shown
from kinprint.checkpoint.local import LocalFile
from kinprint.checkpoint.remote.address import HubAddress
from kinprint.checkpoint.remote.cache import BlockCache
from kinprint.checkpoint.remote.file import RemoteFile
from kinprint.checkpoint.remote.http import HttpBytes
from kinprint.checkpoint.remote.hub_listing import (
    LOG_IN,
    Listed,
    Snapshot,
    checked,
    commit_in_hf_cache,
    files_in_hf_cache,
    is_offline,
    translated,
    tree,
)
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.transfer import patiently
from kinprint.checkpoint.remote.workers import within
from kinprint.checkpoint.source import ByteSource, Files
from kinprint.errors import NetworkError

if TYPE_CHECKING:
    pass

PUBLIC = "https://huggingface.co"
"""The endpoint that needs no mention."""

OFFLINE = "unset HF_HUB_OFFLINE to fetch it"
CALL_TIMEOUTS = 6
"""A call of the Hub's API may take so many times the timeout of one read: a listing comes in pages."""

_COMMIT = re.compile(r"[0-9a-f]{40}")

Value = TypeVar("Value")


class Hub:
    """The Hub at the endpoint that the environment names."""

    def __init__(self, cache: BlockCache, limits: Limits) -> None:
        from huggingface_hub import constants

        from kinprint.version import __version__

        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.cache = cache
        self.limits = limits
        self._version = __version__

    def snapshot(self, address: HubAddress) -> Snapshot:
        """Resolve a revision to its commit and list what the commit holds.

        Raises:
            CheckpointError: There is no such repository or revision, or it may not be read.
            NetworkError: The Hub cannot be reached, and no cache knows the revision.
        """
        where = address.repo + (f"@{address.revision}" if address.revision else "")
        if address.revision is not None and _COMMIT.fullmatch(address.revision):
            files = self._kept(address.repo, address.revision)
            if files is not None:
                return Snapshot(address.repo, address.revision, files)
        kept = self._from_caches(address)
        if is_offline():
            reason = "HF_HUB_OFFLINE is set"
            if kept is None:
                raise network_fault(where, f"{reason}, and no cache holds it", OFFLINE)
            return replace(kept, notes=(f"{reason}: read from caches, at commit {kept.commit}",), offline=reason)
        try:
            commit, files = self._asked(address, where, self.limits if kept is None else self.limits.shorter())
        except NetworkError as error:
            if kept is None:
                raise
            note = f"the Hub could not be reached ({error}): read from caches, at commit {kept.commit}"
            return replace(kept, notes=(note,))
        self.cache.keep("revisions", self._key(address.repo, address.revision or ""), {"commit": commit})
        listing = {path: [entry.size, entry.sha256, entry.blob] for path, entry in files.items()}
        self.cache.keep("listings", self._key(address.repo, commit), {"files": listing})
        return Snapshot(address.repo, commit, files)

    def open(self, snapshot: Snapshot, path: str, where: str) -> ByteSource:
        """Open a file of a commit: in the Hub's own cache if it is there, else as blocks.

        Raises:
            CheckpointError: The cache cannot be written.
        """
        from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache

        listed = snapshot.files[path]
        cached = try_to_load_from_cache(snapshot.repo, path, revision=snapshot.commit)
        if isinstance(cached, str):
            source = LocalFile(Path(cached))
            if source.size == listed.size:
                return source
            source.close()  # cut short on the way, by an older client
        remote = _HubBytes(
            hf_hub_url(snapshot.repo, path, revision=snapshot.commit, endpoint=self.endpoint),
            name=path.rpartition("/")[2],
            where=where,
            size=listed.size,
            # By content rather than commit: what a later commit did not change is not fetched again.
            key=("hub", self.endpoint, snapshot.repo, path, listed.sha256 or listed.blob),
            client=get_session,
            headers=self._headers(),
            limits=self.limits,
            advice=LOG_IN,
        )
        remote.listed = listed
        return RemoteFile(remote, self.cache, self.limits, offline=snapshot.offline)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportUnknownVariableType]

        return build_hf_headers(library_name="kinprint", library_version=self._version)

    def _asked(self, address: HubAddress, where: str, limits: Limits) -> tuple[str, Mapping[str, Listed]]:
        """Ask the Hub for the commit of a revision and for its files."""
        from huggingface_hub import HfApi

        api = HfApi(self.endpoint, library_name="kinprint", library_version=self._version)

        def info() -> tuple[object, list[Any]]:
            found = api.model_info(address.repo, revision=address.revision, timeout=limits.timeout, files_metadata=True)
            return found.sha, list(found.siblings or ())

        commit, siblings = _call(where, info, limits)
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise network_fault(where, f"resolves to {shown(commit)}, which is no commit", "check HF_ENDPOINT")
        entries = [(entry.rfilename, entry.size, entry.blob_id, entry.lfs) for entry in siblings]
        if not entries or any(size is None for _, size, _, _ in entries):
            # Mirrors may leave sizes out of the model's info.
            entries = _call(where, lambda: tree(api, address.repo, commit), limits)
        return commit, checked(entries, where)

    def _from_caches(self, address: HubAddress) -> Snapshot | None:
        """Return what was resolved and listed earlier, by us or by the Hub's client; None if nothing was."""
        repo, revision = address.repo, address.revision
        record = self.cache.record("revisions", self._key(repo, revision or "")) or {}
        for commit in (revision, record.get("commit"), commit_in_hf_cache(repo, revision or "main")):
            if isinstance(commit, str) and _COMMIT.fullmatch(commit):
                files = self._kept(repo, commit) or files_in_hf_cache(repo, commit)
                if files:
                    return Snapshot(repo, commit, files)
        return None

    def _kept(self, repo: str, commit: str) -> Mapping[str, Listed] | None:
        record = self.cache.record("listings", self._key(repo, commit))
        files: object = record.get("files") if record else None
        if not isinstance(files, dict):
            return None
        try:
            return {path: Listed(*entry) for path, entry in cast("dict[str, Any]", files).items()}
        except TypeError:
            return None

    def _key(self, repo: str, revision: str) -> tuple[str, ...]:
        return (self.endpoint, repo, revision)


class HubFiles(Files):
    """A folder of a repository at one commit."""

    remote = True

    def __init__(self, hub: Hub, snapshot: Snapshot, folder: str) -> None:
        """Show a folder, which is empty for the top of the repository."""
        super().__init__()
        self._hub = hub
        self._snapshot = snapshot
        self._prefix = folder + "/" if folder else ""
        self.revision = snapshot.commit
        elsewhere = (f"read from the Hub at {hub.endpoint}",) if hub.endpoint != PUBLIC else ()
        self.notes = (*snapshot.notes, *elsewhere)
        self.location = f"{snapshot.repo}@{snapshot.commit}" + ("/" + folder if folder else "")
        self.name = folder.rpartition("/")[2] or snapshot.repo

    def names(self, *, folders: bool = False) -> list[str]:
        """List the folder as of the commit; see :meth:`Files.names`."""
        below = [path[len(self._prefix) :] for path in self._snapshot.files if path.startswith(self._prefix)]
        files = {path for path in below if "/" not in path}
        return sorted(files | {path.partition("/")[0] for path in below} if folders else files)

    def has(self, name: str) -> bool:
        """Tell whether the commit has a file here."""
        return self._prefix + name in self._snapshot.files

    def where(self, name: str) -> str:
        """Return ``org/name@commit/path``."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> ByteSource:
        """Open a file of the commit; see :meth:`Files.open`."""
        if not self.has(name):
            raise fault(self.where(name), "is not in the repository at that commit", "check the name")
        return self._hub.open(self._snapshot, self._prefix + name, self.where(name))

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 that the Hub lists; see :meth:`Files.digest`."""
        listed = self._snapshot.files.get(self._prefix + name)
        return None if listed is None else listed.sha256


class _HubBytes(HttpBytes):
    """A file of the Hub, whose whole content has a digest that the Hub lists."""

    listed: Listed

    def check(self, content: bytes) -> None:
        """Hold the content against SHA-256, or against git's SHA-1 where the file lies in git itself."""
        listed = self.listed
        if listed.sha256 is not None:
            same = hashlib.sha256(content).hexdigest() == listed.sha256
        else:
            git = b"blob %d\0" % len(content) + content
            same = len(listed.blob) != 40 or hashlib.sha1(git, usedforsecurity=False).hexdigest() == listed.blob
        if not same:
            raise network_fault(self.where, "is not the content that the Hub lists: its digest differs")


def _call(where: str, call: Callable[[], Value], limits: Limits) -> Value:
    """Call the Hub's API, again where that may help, and say what went wrong in one line."""
    once = partial(translated, where, lambda: within(CALL_TIMEOUTS * limits.timeout, call))
    return patiently(where, once, limits)


def open_hub(address: HubAddress, cache: BlockCache, limits: Limits) -> tuple[HubFiles, str | None]:
    """Return the folder that an address names, or that of the file that it names, and the file's name.

    Raises:
        CheckpointError: There is no such repository, revision, folder or file, or it may not be read.
        NetworkError: The Hub cannot be reached.
    """
    hub = Hub(cache, limits)
    snapshot = hub.snapshot(address)
    if address.path in snapshot.files:
        folder, _, file = address.path.rpartition("/")
        return HubFiles(hub, snapshot, folder), file
    files = HubFiles(hub, snapshot, address.path)
    if address.path and not files.names(folders=True):
        raise fault(files.location, "is no file or folder of the repository", "check the path")
    return files, None
