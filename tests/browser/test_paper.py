"""On paper figures are whole, everything is unfolded, and nothing is cut off at the edge."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from pypdf import PdfReader

from support.pages import PAGES

Opener = Callable[..., Page]

WIDTH, HEIGHT = round((210 - 2 * 15) / 25.4 * 96), round((297 - 16 - 18) / 25.4 * 96)
"""What the margins leave of an A4 page, in CSS pixels."""


def test_no_figure_is_taller_than_a_page_or_may_be_cut(opened: Opener) -> None:
    for name in ("laundered", "large"):
        page = opened(name, width=WIDTH)
        page.emulate_media(media="print")
        figures = page.locator("figure").evaluate_all(
            "all => all.map(one => [one.getBoundingClientRect().height, getComputedStyle(one).breakInside])"
        )
        assert len(figures) > 5
        assert all(0 < height < HEIGHT and inside == "avoid" for height, inside in figures)


@pytest.mark.parametrize("name", ["laundered", "independent", "large"])
def test_nothing_is_cut_off_at_the_edge_of_the_paper(opened: Opener, name: str) -> None:
    page = opened(name, width=WIDTH)
    page.emulate_media(media="print")
    out = page.evaluate(
        """() => [...document.querySelectorAll('main *')]
          .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .map(one => `${one.tagName} ${one.textContent.slice(0, 60)}`)"""
    )
    assert out == []


def printed(page: Page) -> list[str]:
    """The text of each page of the PDF, squeezed: a PDF has spaces where it likes."""
    reader = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    width, height = reader.pages[0].mediabox[2:]
    assert (round(float(width)), round(float(height))) == (595, 842)
    return [squeezed(one.extract_text()) for one in reader.pages]


def squeezed(text: str) -> str:
    """Text without spaces and ligatures."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def figures(page: Page) -> Iterator[tuple[str, list[str]]]:
    """The title of each figure, and every text in its picture."""
    for figure in page.locator("figure").all():
        title = squeezed(figure.locator("figcaption strong").text_content() or "")
        yield title, [squeezed(text) for text in figure.locator("svg text").all_text_contents()]


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_every_figure_is_whole_on_one_page_of_the_pdf(opened: Opener, script: bool) -> None:
    page = opened("laundered", java_script_enabled=script)
    sheets = printed(page)
    found = list(figures(page))
    assert len(found) > 5
    for title, texts in found:
        held = [sheet for sheet in sheets if title in sheet]
        assert len(held) == 1, title
        assert [text for text in texts if text not in held[0]] == []


def test_what_folds_is_printed_and_what_is_pressed_is_not(opened: Opener) -> None:
    page = opened("laundered")
    text = "".join(printed(page))
    verdict: Any = PAGES["laundered"]().verdict
    for one in verdict.evidence:
        for said in (one.name, one.null, one.defeats, *one.notes):
            assert squeezed(said) in text
    for pressed in ("Foldeverything", "Unfoldeverything", "arrowkeys", "Show:"):
        assert pressed not in text
    assert page.locator("main details[open]").count() == 1
