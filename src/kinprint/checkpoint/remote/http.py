"""Ranges over HTTP, every promise of the server checked: status, range, lengths, version, where a redirect leads.

The client is httpx2, which huggingface_hub brings and configures (proxies, certificates, hooks). Redirects are followed
here, so that what authenticates at one origin is never sent to another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from kinprint.checkpoint.faults import fault, network_fault
from kinprint.checkpoint.remote.address import WEB, without_secrets
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.transfer import Interrupted, RemoteBytes, status_fault

if TYPE_CHECKING:
    from httpx2 import Client, Response

REDIRECTS = 5
"""Most redirects that one request follows."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be others a moment later."""

ABSENT = frozenset({404, 410})
REFUSED = frozenset({401, 403})

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_PORTS = {"http": 80, "https": 443}


class HttpBytes(RemoteBytes):
    """A file at one address."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        where: str,
        size: int,
        key: tuple[str, ...],
        client: Callable[[], Client],
        headers: Mapping[str, str],
        limits: Limits,
        etag: str | None = None,
        advice: str = "check the address",
    ) -> None:
        """Describe the file.

        Args:
            url: Its address.
            name: File name.
            where: Address for messages.
            size: Length in bytes.
            key: See :class:`RemoteBytes`.
            client: Returns the client; asked each time, since huggingface_hub may make a new one.
            headers: Sent to the origin of the address and to no other.
            limits: Patience.
            etag: The version that was seen first, which every answer of the origin must have.
            advice: What to do where the server refuses.
        """
        self.name, self.where, self.size, self.key = name, where, size, key
        self.host = urlsplit(url).hostname or ""
        self._url = url
        self._client = client
        self._headers = headers
        self._limits = limits
        self._etag = etag
        self._advice = advice
        self._direct: str | None = None

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Yield a range; see :meth:`RemoteBytes.stream`."""
        import httpx2

        try:
            response = self._answer(start, end)
            try:
                yield from self._chunks(response, start, end)
            finally:
                response.close()
        except httpx2.UnsupportedProtocol as error:
            raise network_fault(self.where, f"cannot be fetched ({error})", "check the address") from error
        except httpx2.TimeoutException:
            raise Interrupted(f"nothing came for {self._limits.timeout:g} seconds") from None
        except httpx2.HTTPError as error:
            raise Interrupted(str(error) or type(error).__name__) from error
        except RuntimeError as error:
            # huggingface_hub closes its client when another thread could not connect.
            raise Interrupted(str(error)) from error

    def _answer(self, start: int, end: int) -> Response:
        """Return the answer at the end of the redirects, its body unread."""
        ranged = {"Accept-Encoding": "identity"}
        if (start, end) != (0, self.size):
            ranged["Range"] = f"bytes={start}-{end - 1}"
        url = self._direct or self._url
        for _ in range(REDIRECTS + 1):
            own = origin(url) == origin(self._url)
            response = send(self._client(), url, {**ranged, **(self._headers if own else {})}, self._limits)
            if not response.has_redirect_location:
                if response.status_code // 100 == 2:
                    self._direct = url
                elif url == self._direct and response.status_code not in PASSING:
                    # Addresses that redirects lead to are signed for a while only.
                    self._direct = None
                    response.close()
                    raise Interrupted(f"the server answers {response.status_code}", 0.0)
                return response
            response.close()
            url = redirected(url, response.headers["Location"], self.where)
        raise network_fault(self.where, f"leads through more than {REDIRECTS} redirects", "check the address")

    def _chunks(self, response: Response, start: int, end: int) -> Iterator[bytes]:
        """Check the answer's head, and yield its body."""
        status = response.status_code
        check_status(response, self.where, self._advice)
        if self._etag is not None and origin(str(response.url)) == origin(self._url):
            self._check_version(response)
        stated = response.headers.get("Content-Length", "")
        coded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
        if status == 206:
            check_range(response, start, end, self.size, self.where)
        elif status != 200:
            raise status_fault(self.where, status)
        elif (start, end) != (0, self.size):
            what = "does not answer ranges: it sends the whole file for every piece"
            raise network_fault(self.where, what, "fetch the file and give its path")
        if coded and status == 206:
            raise network_fault(self.where, "sends a range of something compressed", "try another mirror")
        if not coded and stated.isascii() and stated.isdigit() and int(stated) != end - start:
            raise network_fault(self.where, f"sends {int(stated)} bytes where {end - start} belong")
        yield from response.iter_bytes()

    def _check_version(self, response: Response) -> None:
        etag = response.headers.get("ETag")
        if etag is not None and etag != self._etag:
            raise network_fault(self.where, "changed on the server while it was read", "run it again")


def send(client: Client, url: str, headers: Mapping[str, str], limits: Limits) -> Response:
    """Ask for an address; redirects are not followed and the body is not read."""
    from httpx2 import Timeout

    request = client.build_request("GET", url, headers=dict(headers), timeout=Timeout(limits.timeout, pool=None))
    return client.send(request, stream=True, follow_redirects=False)


def check_status(response: Response, where: str, advice: str) -> None:
    """Pass what is there; raise for what is not, is refused, or may come later.

    Raises:
        Interrupted: It may come later.
        CheckpointError: It is not there or may not be read.
    """
    status = response.status_code
    if status in PASSING:
        raise Interrupted(f"the server answers {status}", _seconds(response.headers.get("Retry-After", "")))
    if status in ABSENT:
        raise fault(where, f"is not there (the server answers {status})", "check the address")
    if status in REFUSED:
        raise fault(where, f"may not be read (the server answers {status})", advice)


def check_range(response: Response, start: int, end: int, size: int, where: str) -> None:
    """Hold the stated range of a 206 against what was asked for and what the file has.

    Raises:
        NetworkError: It is another one.
    """
    stated = response.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(stated)
    wanted = (str(start), str(end - 1))
    if match is None or match.groups()[:2] != wanted or match[3] not in (str(size), "*"):
        asked = f"bytes {start}-{end - 1}/{size}"
        raise network_fault(where, f"answers the range {stated[:80]!r} where {asked!r} belongs")


def total_of(response: Response) -> int | None:
    """Return the length of the whole file that an answer to a range states."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code == 206:
        return int(match[3]) if match is not None and match[3] != "*" else None
    stated = response.headers.get("Content-Length", "")
    return int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 20 else None


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port.

    Example:
        >>> origin("https://Host/x") == origin("https://host:443/y"), origin("http://a") == origin("https://a")
        (True, False)
    """
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme.lower(), 0)


def redirected(url: str, location: str, where: str) -> str:
    """Return where a redirect leads.

    Raises:
        NetworkError: Somewhere that is not followed: no web address, or from https to http.
    """
    try:
        target = urljoin(url, location)
        scheme = origin(target)[0]
    except ValueError:
        target, scheme = location, ""
    if scheme not in WEB or (scheme == "http" and origin(url)[0] == "https"):
        what = f"redirects to {without_secrets(target)[:80]!r}, which is not followed"
        raise network_fault(where, what, "check the address")
    return target


def _seconds(text: str) -> float | None:
    """Return the seconds of a Retry-After; dates, which few servers send, count as nothing said."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None
