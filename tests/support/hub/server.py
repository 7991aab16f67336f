"""The server: two origins, as the Hub has, one for the API and small files, one for the bytes of large ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .faults import Fault, Faults
from .handler import Handler
from .repos import Repos


@dataclass
class Request:
    """A request that came in.

    Attributes:
        side: ``hub`` or ``cdn``.
        method: ``GET`` or ``HEAD``.
        path: With its query.
        range: As it was asked for; empty for the whole.
        authorization: As it was sent; empty if it was not.
        status: Of the answer; 0 where there is none.
        sent: Bytes of the answer's body so far.
    """

    side: str
    method: str
    path: str
    range: str
    authorization: str
    status: int = 0
    sent: int = 0


class Meter:
    """A bandwidth that all connections share."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._free = 0.0
        self._lock = threading.Lock()

    def pass_through(self, count: int) -> None:
        """Wait until so many bytes have gone over the line."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._rate
            wait = self._free - now
        time.sleep(wait)


class Listener(ThreadingHTTPServer):
    """One origin."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: HubServer, side: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.side = side
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it can be closed."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that close early are part of the tests."""

    def stop(self) -> None:
        """Close the origin and every connection to it."""
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class HubServer:
    """A Hub on this machine; use it in a ``with`` statement.

    Attributes:
        repos: What it serves; ``add`` commits a folder.
        requests: What was asked so far.
        faults: What is to go wrong.
        latency: Seconds before each answer, and for each new connection.
        page: Entries of one page of a tree.
        blobs: Whether the model's info states sizes, which mirrors may leave out.
    """

    def __init__(
        self, root: Path | None = None, *, latency: float = 0.0, bandwidth: float | None = None, page: int = 1000
    ) -> None:
        """Serve ``root/org/name``.

        Args:
            root: Folder of folders of repositories.
            latency: Seconds before each answer.
            bandwidth: Bytes a second, of all connections together; as many as there are if None.
            page: Entries of one page of a tree.
        """
        self.repos = Repos(root)
        self.requests: list[Request] = []
        self.faults = Faults()
        self.latency = latency
        self.meter = Meter(bandwidth)
        self.page = page
        self.blobs = True
        self._sides = [Listener(self, "hub"), Listener(self, "cdn")]

    @property
    def endpoint(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self._sides[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        """The other origin."""
        return f"http://localhost:{self._sides[1].server_address[1]}"

    def web(self, repo: str, file: str = "") -> str:
        """Return the address of a file, or of the folder, on a plain web server without a listing."""
        return f"{self.endpoint}/web/{repo}/{file}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return what a process needs to use this Hub, with all caches in a folder and short waits."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_CACHE": str(folder / "hf" / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "KINPRINT_CACHE": str(folder / "kinprint"),
            "KINPRINT_RETRY_WAIT": "0.01",
        }

    def fail(self, *faults: Fault) -> None:
        """Have things go wrong."""
        self.faults.add(faults)

    def of(self, side: str = "", part: str = "") -> list[Request]:
        """Return the requests to one side whose path holds something."""
        return [request for request in self.requests if side in request.side and part in request.path]

    def __enter__(self) -> HubServer:
        for side in self._sides:
            threading.Thread(target=side.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for side in self._sides:
            side.stop()


@contextlib.contextmanager
def unreachable() -> Generator[str]:
    """Yield an endpoint where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
