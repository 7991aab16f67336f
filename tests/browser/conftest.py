"""A browser that is installed here, and pages of real results in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from support.browser import chromium
from support.pages import PAGES, write


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of a module and not of the session: while it lives, its event loop is the thread's.
    path = chromium()
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield running
        running.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the page of a comparison lies, by its name; each is made once."""
    folder = tmp_path_factory.mktemp("pages")

    def of(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            write(PAGES[name](), path)
        return path

    return of


@dataclass
class Seen:
    """What pages did beside showing themselves."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


Opener: TypeAlias = Callable[..., Page]


@pytest.fixture
def seen() -> Seen:
    """What the pages of one test did; one that provokes faults takes them out."""
    return Seen()


@pytest.fixture
def opened(browser: Browser, pages: Callable[[str], Path], seen: Seen) -> Iterator[Opener]:
    """Open a page by name; afterwards nothing may have been asked of any other place, and nothing have gone wrong."""
    wanted, contexts = list[str](), list[Any]()

    def open_page(name: str, *, width: int = 1440, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.faults.append(str(error)))
        page.on("dialog", lambda dialog: (seen.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda popup: seen.faults.append(f"popup: {popup.url}"))
        wanted.append(pages(name).as_uri())
        page.goto(wanted[-1])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen.faults == []
    assert seen.requests == wanted
