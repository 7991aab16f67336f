"""Training text that every Python ships with, as bytes.

The text is part of CPython and under the PSF licence. It is only trained on, never copied into a model's folder. It
changes between Python releases, so what was trained on is recorded by its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kinprint.errors import UsageError

_MODULES = (
    "_pydecimal", "_pyio", "argparse", "ast", "base64", "bdb", "calendar", "configparser", "contextlib", "copy", "csv",
    "dataclasses", "difflib", "dis", "doctest", "enum", "fractions", "functools", "gettext", "heapq", "imaplib",
    "inspect", "ipaddress", "locale", "mailbox", "mimetypes", "optparse", "pdb", "pickle", "pickletools", "platform",
    "plistlib", "pprint", "pydoc", "random", "selectors", "shutil", "smtplib", "socket", "ssl", "statistics", "string",
    "subprocess", "tarfile", "tempfile", "textwrap", "threading", "tokenize", "traceback", "turtle", "typing", "uuid",
    "warnings", "weakref", "webbrowser", "zipfile",
)  # fmt: skip


_PACKAGES = (
    "asyncio", "collections", "concurrent", "ctypes", "curses", "dbm", "email", "html", "http", "importlib", "json",
    "logging", "multiprocessing", "sqlite3", "tomllib", "unittest", "urllib", "wsgiref", "xml", "xmlrpc",
    "zoneinfo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Corpus:
    """One training text.

    Attributes:
        name: Short name, as recipes and manifests have it.
        summary: What the text is.
        reference_sha256: SHA-256 of its bytes in CPython ``reference_python``, from which the shipped examples came.
        reference_python: That release.
        read: Returns the bytes.
    """

    name: str
    summary: str
    reference_sha256: str
    reference_python: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Text:
    """A corpus as this Python has it.

    Attributes:
        name: Name of the corpus.
        content: Its bytes.
        sha256: Hex digest of ``content``.
        note: How it differs from the reference, or None where it does not.
    """

    name: str
    content: bytes
    sha256: str
    note: str | None


def load(name: str) -> Text:
    """Read one corpus from the running Python.

    Raises:
        UsageError: This Python lacks the text.
    """
    corpus = CORPORA[name]
    content = corpus.read()
    sha256 = hashlib.sha256(content).hexdigest()
    note = None
    if sha256 != corpus.reference_sha256:
        note = (
            f"the text {name!r} differs from that of CPython {corpus.reference_python}, from which the shipped "
            f"examples were trained (sha256 {sha256[:12]} here, {corpus.reference_sha256[:12]} there): "
            "numbers will differ too"
        )
    return Text(name, content, sha256, note)


def _module_sources() -> bytes:
    return b"".join(_source(module) for module in _MODULES)


def _source(module: str) -> bytes:
    spec = find_spec(module)
    origin = spec.origin if spec is not None else None
    if origin is None or not origin.endswith(".py") or not Path(origin).is_file():
        raise UsageError(
            f"this Python has no source of its module {module!r} to train on: use a Python that comes with its "
            "standard library as .py files"
        )
    return Path(origin).read_bytes()


def _package_sources() -> bytes:
    return b"".join(
        file.read_bytes()
        for package in _PACKAGES
        for file in sorted(_folder(package).rglob("*.py"))
        if "test" not in file.parts and "tests" not in file.parts
    )


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UsageError(
            f"this Python has no source of its package {package!r} to train on: use a Python that comes with its "
            "standard library as .py files"
        )
    return Path(spec.origin).parent


def _help_topics() -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UsageError(
            "this Python has no pydoc_data.topics to train on: install its standard library completely"
        ) from error
    return "\n\n".join(topics[topic] for topic in sorted(topics)).encode()


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="stdlib-code",
            summary=f"source of {len(_MODULES)} modules of Python's standard library",
            reference_sha256="72a6c4623de1e5aece49205baf05c0d4ad66c1be70b72967c2f01b344d8c6b8b",
            reference_python="3.11.7",
            read=_module_sources,
        ),
        Corpus(
            name="stdlib-packages",
            summary=f"source of {len(_PACKAGES)} packages of Python's standard library",
            reference_sha256="61c0fc538b06a86759ff3d14a02c16af1d376a8554e943960ebd7bcda7e182e8",
            reference_python="3.11.7",
            read=_package_sources,
        ),
        Corpus(
            name="help-topics",
            summary="the language reference in English that Python's help() prints",
            reference_sha256="71f2ff5d99bdc1f9c48c5c2353ad138201c5ca1c377e0226857ef8fa89b8bcee",
            reference_python="3.11.7",
            read=_help_topics,
        ),
    )
}
"""Every training text, by name. No byte of one is in another."""
