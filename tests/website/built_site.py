"""The built site as tests see it: pages with their links, anchors and what a browser would load for them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
LOADING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
LOADING_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest", "modulepreload"}


@dataclass
class Page(HTMLParser):
    """One page: where its links lead, which places it has, and what it loads."""

    file: Path
    links: list[str] = field(default_factory=list[str])
    navigation: list[str] = field(default_factory=list[str])
    loaded: list[str] = field(default_factory=list[str])
    anchors: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
            if "md-nav__link" in known.get("class", ""):
                self.navigation.append(known["href"])
        if tag in LOADING and LOADING[tag] in known:
            self.loaded.append(known[LOADING[tag]])
        if tag == "link" and set(known.get("rel", "").split()) & LOADING_LINKS:
            self.loaded.append(known["href"])

    def place(self, link: str) -> tuple[Path, str]:
        """Return the file and the anchor that a link of this page leads to."""
        parts = urlsplit(link)
        path = self.file if not parts.path else (self.file.parent / unquote(parts.path))
        return Path(os.path.normpath(path)), unquote(parts.fragment)


def outside(address: str) -> bool:
    """Return whether an address leads to another machine."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ws", "wss", "ftp")


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a site strictly."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def pages(site: Path) -> dict[Path, Page]:
    """Return every page of a site by its file."""
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def outside_addresses(text: str) -> Iterator[str]:
    """Yield what a style sheet would load from other machines."""
    for address in re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")\s]+)", text):
        if outside(address):
            yield address
