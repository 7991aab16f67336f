"""Files on any web server. It cannot list a folder, so that the names that models have there are tried."""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from kinprint.checkpoint.faults import fault, network_fault
from kinprint.checkpoint.folder import ADAPTER_CONFIG, ADAPTER_FILES, numbered, plain_name
from kinprint.checkpoint.remote.address import without_secrets
from kinprint.checkpoint.remote.cache import BlockCache
from kinprint.checkpoint.remote.file import RemoteFile
from kinprint.checkpoint.remote.http import (
    ABSENT,
    REDIRECTS,
    REFUSED,
    HttpBytes,
    check_status,
    origin,
    redirected,
    send,
    total_of,
)
from kinprint.checkpoint.remote.limits import CONNECTIONS, Limits
from kinprint.checkpoint.remote.transfer import Interrupted, patiently, status_fault
from kinprint.checkpoint.source import ByteSource, Files

if TYPE_CHECKING:
    from httpx2 import Client

TRIED = (
    "config.json", "model.safetensors.index.json", "model.safetensors", "consolidated.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model.bin", "model.bin", "flax_model.msgpack", "model.onnx", "model.npz",
    ADAPTER_CONFIG, *ADAPTER_FILES,
)  # fmt: skip
"""Names that are looked for in a folder that cannot be listed."""

FILES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".onnx", ".npz", ".json", ".ckpt")
"""Ends of addresses of files; all others are folders."""

ADVICE = "check the address; credentials go into it, as https://USER:PASSWORD@HOST/"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a first look at a file told: its length, its version, and whether that is sure to change with it."""

    size: int
    etag: str | None
    modified: str | None


class WebFiles(Files):
    """A folder of a web server, or one file of it with what belongs to it."""

    remote = True

    def __init__(self, url: str, file: str | None, cache: BlockCache, limits: Limits) -> None:
        """Point at a folder.

        Args:
            url: Its address, with a slash at the end.
            file: The one file that was named; None for the folder.
            cache: Where blocks are kept.
            limits: Patience.
        """
        super().__init__()
        self._url = urlsplit(url)
        self._file = file
        self._cache = cache
        self._limits = limits
        self._seen: dict[str, _Seen | None] = {}
        self._made: Client | None = None
        self._making = threading.Lock()
        self.location = without_secrets(url).rstrip("/")
        self.name = self.location.rpartition("/")[2]

    def names(self, *, folders: bool = False) -> list[str]:
        """Return which of the usual names are there; see :meth:`Files.names`."""
        del folders
        return sorted(name for name in self._looked_for() if name not in set(self.missing(self._looked_for())))

    def has(self, name: str) -> bool:
        """Tell whether the server has a file."""
        return self._look(name) is not None

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which files are not there, asked for side by side."""
        asked = list(dict.fromkeys(names))
        with ThreadPoolExecutor(CONNECTIONS, "kinprint-look") as pool:
            return [name for name, there in zip(asked, pool.map(self.has, asked), strict=True) if not there]

    def where(self, name: str) -> str:
        """Return a file's address."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> ByteSource:
        """Open a file as blocks; see :meth:`Files.open`."""
        seen = self._look(name)
        if seen is None:
            raise fault(self.where(name), "is not there", "check the address")
        version = seen.etag or seen.modified
        remote = HttpBytes(
            self._address(name),
            name=name,
            where=self.where(name),
            size=seen.size,
            # Without a version nobody can tell whether a later look is at the same content.
            key=("web", self._address(name), version or secrets.token_hex(16)),
            client=self._client,
            headers={},
            limits=self._limits,
            etag=seen.etag,
            advice=ADVICE,
        )
        return RemoteFile(remote, self._cache, self._limits)

    def close(self) -> None:
        """Close every file and the connections."""
        super().close()
        if self._made is not None:
            self._made.close()
            self._made = None

    def _looked_for(self) -> list[str]:
        if self._file is None:
            return list(TRIED)
        return list(dict.fromkeys([self._file, *numbered(self._file), "config.json"]))

    def _address(self, name: str) -> str:
        path = self._url.path.rstrip("/") + "/" + quote(name)
        query = self._url.query if name == self._file else ""  # a signature is for one file
        return urlunsplit((self._url.scheme, self._url.netloc, path, query, ""))

    def _client(self) -> Client:
        from httpx2 import Client

        with self._making:
            if self._made is None:
                self._made = Client()
                weakref.finalize(self, self._made.close)
            return self._made

    def _look(self, name: str) -> _Seen | None:
        """Ask for the first byte of a file, once; None where it is not there."""
        if not plain_name(name):
            return None
        if name not in self._seen:
            self._seen[name] = patiently(self.where(name), partial(self._first_look, name), self._limits)
        return self._seen[name]

    def _first_look(self, name: str) -> _Seen | None:
        import httpx2

        try:
            return self._ask(name)
        except httpx2.TimeoutException:
            raise Interrupted(f"nothing came for {self._limits.timeout:g} seconds") from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise fault(self.where(name), f"is no address ({error})", "check it") from error
        except (httpx2.HTTPError, RuntimeError) as error:
            raise Interrupted(str(error) or type(error).__name__) from error

    def _ask(self, name: str) -> _Seen | None:
        """Follow redirects to the file. A range of one byte, not HEAD: signed addresses are for GET alone."""
        url, etag = self._address(name), None
        for _ in range(REDIRECTS + 1):
            response = send(self._client(), url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}, self._limits)
            response.close()
            if origin(url) == origin(self._address(name)):
                etag = response.headers.get("ETag", etag)
            if response.has_redirect_location:
                url = redirected(url, response.headers["Location"], self.where(name))
                continue
            # A server that lists nothing may say "forbidden" for what is not there.
            if response.status_code in ABSENT or (response.status_code in REFUSED and name != self._file):
                return None
            check_status(response, self.where(name), ADVICE)
            size = 0 if response.status_code == 416 else total_of(response)
            if size is None:
                what = f"is of unknown length (the server answers {response.status_code})"
                raise network_fault(self.where(name), what, "fetch the file and give its path")
            if response.status_code not in {200, 206, 416}:
                raise status_fault(self.where(name), response.status_code)
            return _Seen(size, etag, response.headers.get("Last-Modified"))
        raise network_fault(self.where(name), f"leads through more than {REDIRECTS} redirects", "check the address")


def open_web(url: str, cache: BlockCache, limits: Limits) -> tuple[WebFiles, str | None]:
    """Return the folder that an address names, or that of the file that it names, and the file's name.

    Raises:
        CheckpointError: It is no address, or there is no such file.
        NetworkError: The server cannot be reached.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        raise fault(url, "is no address", "write https://HOST/PATH")
    folder, _, last = parts.path.rpartition("/")
    file = unquote(last)
    if file.endswith(FILES) and plain_name(file):
        top = urlunsplit((parts.scheme, parts.netloc, folder + "/", parts.query, ""))
        files = WebFiles(top, file, cache, limits)
        if not files.has(file):
            raise fault(files.where(file), "is not there", "check the address")
        return files, file
    top = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))
    return WebFiles(top, None, cache, limits), None
