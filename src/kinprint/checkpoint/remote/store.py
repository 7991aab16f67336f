"""Object storage through fsspec: ``s3://`` and ``gs://``, with the credentials that their clients find themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from kinprint.checkpoint.faults import fault, network_fault, shown
from kinprint.checkpoint.folder import plain_name
from kinprint.checkpoint.remote.address import scheme_of
from kinprint.checkpoint.remote.cache import BlockCache
from kinprint.checkpoint.remote.file import RemoteFile
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.transfer import Interrupted, RemoteBytes, patiently
from kinprint.checkpoint.source import ByteSource, Files
from kinprint.errors import MissingExtraError

EXTRAS = {"s3": "s3", "gs": "gcs"}
"""Extra that brings the client of each scheme."""

STEP_BYTES = 1 << 20
"""Bytes that one call of the client returns at most, so that a cut loses no more."""

ADVICE = "check the address, and the credentials of its client"


class StoreFiles(Files):
    """A folder of a bucket."""

    remote = True

    def __init__(self, system: Any, folder: str, url: str, cache: BlockCache, limits: Limits) -> None:  # noqa: ANN401 - fsspec has no types
        """Point at a folder.

        Args:
            system: fsspec's file system.
            folder: Path as the file system spells it.
            url: Address for messages.
            cache: Where blocks are kept.
            limits: Patience.
        """
        super().__init__()
        self._system = system
        self._folder = folder
        self._cache = cache
        self._limits = limits
        self._infos: Mapping[str, Mapping[str, Any]] | None = None
        self.location = url.rstrip("/")
        self.name = self.location.rpartition("/")[2]

    def names(self, *, folders: bool = False) -> list[str]:
        """List the folder; see :meth:`Files.names`."""
        infos = self._listed().items()
        return sorted(name for name, info in infos if plain_name(name) and (folders or info.get("type") == "file"))

    def has(self, name: str) -> bool:
        """Tell whether the folder lists a file."""
        return plain_name(name) and self._listed().get(name, {}).get("type") == "file"

    def where(self, name: str) -> str:
        """Return a file's address."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> ByteSource:
        """Open a file as blocks; see :meth:`Files.open`."""
        if not self.has(name):
            raise fault(self.where(name), "is not there", "check the address")
        return RemoteFile(
            _StoreBytes(self._system, self._listed()[name], name, self.where(name)), self._cache, self._limits
        )

    def _listed(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the folder holds by name, as it was at the first look."""
        if self._infos is None:
            ask = partial(self._system.ls, self._folder, detail=True)
            found: list[Mapping[str, Any]] = patiently(self.location, partial(_asked, self.location, ask), self._limits)
            infos = {str(info.get("name", "")).rstrip("/").rpartition("/")[2]: info for info in found}
            self._infos = infos
        return self._infos


class _StoreBytes(RemoteBytes):
    """An object."""

    def __init__(self, system: Any, info: Mapping[str, Any], name: str, where: str) -> None:  # noqa: ANN401
        size = info.get("size")
        if not isinstance(size, int) or size < 0:
            raise network_fault(where, f"is listed with the length {shown(size)}", ADVICE)
        self.name, self.where, self.size = name, where, size
        self.host = str(getattr(system, "protocol", "store"))
        self._system = system
        self._path = str(info["name"])
        version = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "generation") if info.get(key)), None)
        changed = next((str(info[key]) for key in ("LastModified", "mtime", "created") if info.get(key)), "")
        self.key = ("store", where, version or changed)

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Yield a range; see :meth:`RemoteBytes.stream`."""
        for place in range(start, end, STEP_BYTES):
            beyond = min(place + STEP_BYTES, end)
            chunk = _asked(self.where, partial(self._system.cat_file, self._path, start=place, end=beyond))
            yield chunk
            if len(chunk) < beyond - place:
                return


def open_store(url: str, cache: BlockCache, limits: Limits) -> tuple[StoreFiles, str | None]:
    """Return the folder that an address names, or that of the file that it names, and the file's name.

    Raises:
        CheckpointError: There is nothing of that name, or it may not be read.
        NetworkError: The storage cannot be reached.
        MissingExtraError: The client of the scheme is not installed.
    """
    scheme = scheme_of(url) or ""
    try:
        system, path = importlib.import_module("fsspec").core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(EXTRAS[scheme], f"reading {scheme}://") from error
    info = patiently(url, partial(_asked, url, partial(system.info, path)), limits)
    if info.get("type") == "file":
        folder, _, file = path.rstrip("/").rpartition("/")
        return StoreFiles(system, folder, url.rstrip("/").rpartition("/")[0], cache, limits), file
    return StoreFiles(system, path, url, cache, limits), None


def _asked(where: str, call: Any) -> Any:  # noqa: ANN401
    """Call the client; what its many libraries raise is told apart by what Python calls it."""
    try:
        return call()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise fault(where, "is not there", ADVICE) from error
    except PermissionError as error:
        raise fault(where, "may not be read", ADVICE) from error
    except Exception as error:
        raise Interrupted(f"{type(error).__name__}: {error}") from error
