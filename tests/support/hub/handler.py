"""One request: what the Hub would answer, unless a fault comes between."""

from __future__ import annotations

import json
import re
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .faults import Fault
from .repos import Repo, Stored

if TYPE_CHECKING:
    from .server import HubServer, Listener

CHUNK = 1 << 16
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_WEB = re.compile(r"/web/([^/]+/[^/]+)/(.*)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _hub(self) -> HubServer:
        return cast("Listener", self.server).hub

    @property
    def _side(self) -> str:
        return cast("Listener", self.server).side

    def setup(self) -> None:
        """Take as long as a connection takes."""
        super().setup()
        time.sleep(self._hub.latency)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer."""
        from .server import Request

        asked, authorization = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        # Noted before it is answered, so that whoever has the answer finds it.
        self.asked = Request(self._side, self.command, self.path, asked, authorization)
        self._hub.requests.append(self.asked)
        time.sleep(self._hub.latency)
        self._route(urlsplit(self.path).path)

    def _route(self, path: str) -> None:
        if self._side == "cdn":
            stored = self._hub.repos.blob(path.rpartition("/")[2])
            return self._file(stored) if stored else self._error(404, "EntryNotFound")
        web = _WEB.fullmatch(path)
        if web:
            repo = self._hub.repos.all.get(web[1])
            stored = repo.commits[repo.refs["main"]].get(unquote(web[2])) if repo else None
            return self._file(stored) if stored else self._error(404, "")
        found = _API.fullmatch(path) or _RESOLVE.fullmatch(path)
        fault = self._hub.faults.meet(f"{self._side} {self.command} {path}", None)
        if fault and not self._apply(fault):
            return None
        if found is None:
            return self._error(404, "")
        repo = self._hub.repos.all.get(unquote(found[1]))
        if repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
            return self._error(401, "RepoNotFound")
        if repo.gated:
            return self._error(403, "GatedRepo")
        if found.re is _API:
            return self._api(repo, found[1], found[2], unquote(found[3] or "main"), unquote(found[4] or ""))
        return self._resolve(repo, unquote(found[2]), unquote(found[3]))

    def _apply(self, fault: Fault) -> bool:
        """Do what goes wrong before an answer; tell whether there still is one."""
        if fault.kind == "slow":
            time.sleep(fault.value)
            return True
        if fault.kind == "disconnect":
            self.close_connection = True
        elif fault.kind == "redirect":
            self._head(302, {"Location": fault.text, "Content-Length": "0"})
        else:
            self._error(int(fault.value), "", dict(fault.headers))
        return False

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.refs.get(revision, revision)
        return commit if commit in repo.commits else None

    def _api(self, repo: Repo, name: str, what: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return self._error(404, "RevisionNotFound")
        query = {key: values[0].lower() for key, values in parse_qs(urlsplit(self.path).query).items()}
        files = repo.commits[commit]
        if what != "tree":
            full = query.get("blobs") == "true" and self._hub.blobs
            siblings = [_sibling(file, stored, full) for file, stored in files.items()]
            return self._json({"id": name, "sha": commit, "private": False, "siblings": siblings, "tags": []})
        prefix = path + "/" if path else ""
        entries = [_entry(file, stored) for file, stored in files.items() if file.startswith(prefix)]
        if query.get("recursive") != "true":
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        first = int(query.get("cursor", "0"))
        link: dict[str, str] = {}
        if first + self._hub.page < len(entries):
            where = f"{self._hub.endpoint}{urlsplit(self.path).path}?recursive={query.get('recursive', 'false')}"
            link["Link"] = f'<{where}&cursor={first + self._hub.page}>; rel="next"'
        return self._json(entries[first : first + self._hub.page], link)

    def _resolve(self, repo: Repo, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        stored = repo.commits[commit].get(path) if commit else None
        if commit is None or stored is None:
            return self._error(404, "EntryNotFound" if commit else "RevisionNotFound")
        if not stored.large:
            return self._file(stored, {"X-Repo-Commit": commit}, met=True)
        return self._head(
            302,
            {
                "Location": f"{self._hub.cdn}/{quote(path)}/{stored.digest}",
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(stored.size),
                "X-Linked-ETag": stored.etag,
                "Content-Length": "0",
            },
        )

    def _file(self, stored: Stored, more: dict[str, str] | None = None, *, met: bool = False) -> None:
        """Answer with a file or a range of it."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1 if asked[2] else stored.size) if asked else (0, stored.size)
        end = min(end, stored.size)
        path = urlsplit(self.path).path
        fault = self._hub.faults.meet(f"{self._side} {self.command} {path}", (start, end))
        if fault and fault.kind in {"status", "disconnect", "redirect", "slow"}:
            if met or self._apply(fault):
                fault = None
            else:
                return
        if asked and start >= stored.size:
            return self._head(416, {"Content-Range": f"bytes */{stored.size}", "Content-Length": "0"})
        kind, value = (fault.kind, int(fault.value)) if fault else ("", 0)
        if kind == "whole":
            asked, start, end = None, 0, stored.size
        headers = {"ETag": '"other"' if kind == "etag" else stored.etag, "Accept-Ranges": "bytes", **(more or {})}
        extra = value if kind in {"long", "length"} else 0
        if kind == "long":
            headers["Connection"] = "close"
            self.close_connection = True
        else:
            headers["Content-Length"] = str(end - start + extra)
        if asked:
            first = start + (value if kind == "offset" else 0)
            total = stored.size + (value if kind == "total" else 0)
            headers["Content-Range"] = f"bytes {first}-{first + end - start - 1}/{total}"
        self._head(206 if asked else 200, headers)
        if self.command == "GET":
            last = value if kind == "cut" else end - value if kind == "short" else end
            self._body(stored, start, max(start, last), fault)
            self.wfile.write(b"x" * extra)
            self.close_connection |= last < end

    def _body(self, stored: Stored, start: int, end: int, fault: Fault | None) -> None:
        """Send a range of a file, as fast as the line is."""
        chunk = 1024 if fault and fault.kind == "trickle" else CHUNK
        with stored.path.open("rb") as file:
            file.seek(start)
            while start < end:
                content = file.read(min(chunk, end - start))
                if fault and fault.kind == "trickle":
                    time.sleep(fault.value)
                if fault and fault.kind == "garbage":
                    content = bytes(byte ^ 0xFF for byte in content)
                self._hub.meter.pass_through(len(content))
                self.wfile.write(content)
                start += len(content)
                self.asked.sent += len(content)

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(text)), **(headers or {})})
        self._hub.meter.pass_through(len(text))
        self.wfile.write(text)
        self.asked.sent += len(text)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        known = {"X-Error-Code": code, "X-Error-Message": f"the server says {status}"} if code else {}
        self._head(status, {"Content-Length": "0", **known, **(headers or {})})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(file: str, stored: Stored, full: bool) -> dict[str, Any]:
    """Return a file as the model's info lists it."""
    if not full:
        return {"rfilename": file}
    lfs = {"lfs": {"sha256": stored.digest, "size": stored.size, "pointerSize": 134}} if stored.large else {}
    return {"rfilename": file, "size": stored.size, "blobId": stored.blob, **lfs}


def _entry(file: str, stored: Stored) -> dict[str, Any]:
    """Return a file as the tree lists it."""
    lfs = {"lfs": {"oid": stored.digest, "size": stored.size, "pointerSize": 134}} if stored.large else {}
    return {"type": "file", "path": file, "size": stored.size, "oid": stored.blob, **lfs}
