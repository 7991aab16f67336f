"""Everything is on the page and visible, at every width, with and without script, and nothing leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from support.pages import HOSTILE, LONG, PAGES

Opener = Callable[..., Page]

SECTIONS = {
    "laundered": "verdict models place layers parts evidence controls methods limits reproduce",
    "independent": "verdict models place layers parts evidence controls power methods limits reproduce",
    "quick": "verdict models parts evidence controls limits reproduce",
    "identical": "verdict models layers parts evidence controls methods limits reproduce",
    "not-comparable": "verdict models layers evidence power methods limits reproduce",
    "large": "verdict models place layers parts evidence controls methods limits reproduce",
    "hostile": "verdict models place layers parts evidence controls methods limits reproduce",
}
WIDTHS = (360, 768, 1440)

UNFOLD = "() => document.querySelectorAll('details').forEach(fold => fold.open = true)"
# What sticks out of the window, or of a box that hides it. Boxes that scroll are allowed to, and are reached by keys.
STICKS_OUT = """() => {
  const out = [];
  for (const one of document.querySelectorAll('body *')) {
    const box = one.closest('.wide');
    if (box && box !== one) continue;
    const place = one.getBoundingClientRect();
    const skip = one.matches('.skip, title, script, style, svg *');
    if (!skip && place.width && (place.right > document.documentElement.clientWidth + 1 || place.left < -1))
      out.push(`${one.tagName} ${one.className} ${place.left} ${place.right}: ${one.textContent.slice(0, 60)}`);
  }
  return out;
}"""
# Leaves of text that no reader sees: of no size, or clipped by a box that cannot be scrolled.
UNSEEN = """() => {
  const out = [];
  const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (!node.textContent.trim() || node.parentElement.closest('title')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const place = range.getBoundingClientRect();
    const seen = node.parentElement.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!seen && node.parentElement.closest('.key')) continue;  // a switch says the same
    if (!place.width || !place.height || !seen) out.push(node.textContent.slice(0, 80));
  }
  return out;
}"""
TEXT = """() => {
  const copy = document.querySelector('main').cloneNode(true);
  copy.querySelectorAll('.readout, .switches').forEach(one => one.remove());
  return copy.textContent;
}"""


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
@pytest.mark.parametrize("name", list(PAGES))
def test_every_section_is_there_and_all_its_text_is_seen(opened: Opener, name: str, script: bool) -> None:
    page = opened(name, java_script_enabled=script)
    found = page.locator("main > section")
    assert found.evaluate_all("all => all.map(one => one.id)") == SECTIONS[name].split()
    for at in range(found.count()):
        assert found.nth(at).locator("h2").is_visible()
        place = found.nth(at).bounding_box()
        assert place is not None
        assert place["height"] > 40
    page.evaluate(UNFOLD)
    assert page.evaluate(UNSEEN) == []


def test_without_script_nothing_is_missing_and_no_button_is_dead(opened: Opener) -> None:
    plain, scripted = opened("laundered", java_script_enabled=False), opened("laundered")
    assert plain.evaluate(TEXT) == scripted.evaluate(TEXT)
    assert plain.locator("button, .readout, [aria-sort], [aria-pressed]").count() == 0
    assert scripted.locator("button").count() > 20


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(PAGES))
def test_nothing_sticks_out_of_the_page(opened: Opener, name: str, width: int) -> None:
    page = opened(name, width=width)
    page.evaluate(UNFOLD)
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    assert page.evaluate(STICKS_OUT) == []


def test_hostile_text_is_text(opened: Opener) -> None:
    page = opened("hostile")
    assert page.locator("img, iframe, object, svg[onload]").count() == 0
    assert page.locator("script, style").count() == 2
    assert page.locator("h1").inner_text() == f"Was {HOSTILE[0]} derived from {HOSTILE[1]}?"
    assert page.locator("a:not([href^='#'])").count() == 0
    page.evaluate(UNFOLD)
    assert LONG in page.locator("#models").inner_text()
    assert not set("\x1b\x00\x08\u202e\u2066") & set(page.locator("main").inner_text())
    for at in range(page.locator("svg title").count())[:50]:
        page.locator("svg title").nth(at).evaluate("one => one.parentNode.dispatchEvent(new Event('pointerover'))")
    for button in page.locator("button").all()[:60]:
        button.evaluate("one => one.click()")
    assert page.locator("img, iframe, object, svg[onload]").count() == 0


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.innerHTML += '<img src=x onerror=\"window.ran = 1\">'",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'window.ran = 1' }))",
        "document.body.setAttribute('onclick', 'window.ran = 1')",
    ],
)
def test_the_policy_stops_what_the_page_does_not_do(opened: Opener, seen: Any, attempt: str) -> None:
    page = opened("identical")
    page.evaluate(f"() => {{ try {{ {attempt} }} catch (refused) {{ window.refused = refused.name }} }}")
    page.evaluate("document.body.click()")
    assert page.evaluate("window.refused") == "TypeError"
    assert page.evaluate("window.ran") is None
    assert "has been blocked" in seen.faults.pop()


def test_a_picture_asked_for_from_within_is_not_loaded(opened: Opener, seen: Any) -> None:
    page = opened("identical")
    blocked = page.evaluate(
        """() => new Promise(done => {
          document.addEventListener('securitypolicyviolation', one => done(one.effectiveDirective));
          document.body.append(Object.assign(new Image(), { src: 'https://example.invalid/x.png' }));
        })"""
    )
    assert blocked == "img-src"
    assert "Content Security Policy" in seen.faults.pop()
    assert seen.requests.pop() == "https://example.invalid/x.png"  # made by the test, and blocked
