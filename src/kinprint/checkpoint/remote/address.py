"""References to what lies elsewhere: ``org/name@revision/file``, ``hf://``, ``s3://``, ``gs://``, ``https://``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.folder import plain_name

STORES = ("s3", "gs")
"""Schemes that are read through fsspec."""

WEB = ("https", "http")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB = re.compile(
    r"(?:hf://)?(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?P<path>/.*)?",
    re.ASCII,
)
_OTHER_KINDS = ("datasets/", "spaces/", "buckets/", "kernels/")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A model repository of the Hub, or a folder or file in it.

    Attributes:
        repo: ``org/name``.
        revision: Branch, tag or commit; None for the default branch.
        path: Folder or file in it, without slashes at its ends; empty for the top.
    """

    repo: str
    revision: str | None
    path: str


def scheme_of(text: str) -> str | None:
    """Return what stands before ``://``, lower case."""
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def is_remote(text: str) -> bool:
    """Tell whether a reference that is no path on disk names something elsewhere.

    Example:
        >>> [is_remote(text) for text in ("org/name", "s3://bucket/x", "./org/name", "name", "a/b/c", "/a/b")]
        [True, True, False, False, True, False]
    """
    scheme = scheme_of(text)
    if scheme is not None:
        return scheme == "hf" or scheme in STORES or scheme in WEB
    return _HUB.fullmatch(text) is not None and ".." not in text.split("/")


def hub_address(text: str) -> HubAddress:
    """Read a reference to the Hub.

    Raises:
        CheckpointError: It is malformed, or leads out of the repository.

    Example:
        >>> hub_address("hf://org/name@refs/pr/1/sub/model.gguf")
        HubAddress(repo='org/name', revision='refs/pr/1', path='sub/model.gguf')
    """
    match = _HUB.fullmatch(text)
    if match is None or text.removeprefix("hf://").startswith(_OTHER_KINDS):
        raise fault(text, "names no model of the Hub", "write org/name, org/name@revision or org/name@revision/file")
    path = unquote(match["path"] or "").strip("/")
    if path and not all(plain_name(part) for part in path.split("/")):
        raise fault(text, f"names {shown(path)}, which is no path inside a repository", "check the reference")
    revision = match["revision"]
    return HubAddress(match["repo"], unquote(revision) if revision else None, path)


def without_secrets(url: str) -> str:
    """Return an address as messages and records may show it: no password, no signature.

    Example:
        >>> without_secrets("https://me:pw@host:8443/a/model.gguf?X-Signature=1")
        'https://host:8443/a/model.gguf'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
