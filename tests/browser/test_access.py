"""axe-core finds nothing to complain of, contrast included, in light and dark, with everything unfolded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Page

Opener = Callable[..., Page]

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
CASES = [
    ("laundered", "light", 1440),
    ("laundered", "dark", 360),
    ("independent", "dark", 768),
    ("identical", "light", 360),
    ("not-comparable", "light", 768),
    ("hostile", "dark", 1440),
]
# Everything unfolded; of a table's rows, which look alike, the first few, since axe takes its time with each cell.
PREPARE = """() => {
  document.querySelectorAll('details').forEach(fold => fold.open = true);
  document.querySelectorAll('tbody tr:nth-child(n + 3):not(.decides)').forEach(row => row.remove());
}"""


def violations(page: Page, contrast: str = "body") -> list[str]:
    """What axe-core complains of, best practices included, each with the first element.

    Contrast, which takes it nine tenths of its time, is looked at below one element and in the first few tables.
    """
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(
        """async (contrast) => {
          const all = await axe.run(document, { rules: { 'color-contrast': { enabled: false } } });
          [...document.querySelectorAll('.wide:has(table)')].slice(6).forEach(one => one.remove());
          const colours = await axe.run(contrast, { runOnly: ['color-contrast'] });
          return [...all.violations, ...colours.violations];
        }""",
        contrast,
    )
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]} ({len(one['nodes'])})" for one in found]


@pytest.mark.parametrize(("name", "scheme", "width"), CASES)
def test_axe_finds_no_violation(opened: Opener, name: str, scheme: str, width: int) -> None:
    # axe-core makes elements of text to try things, which the page's own policy would stop.
    page = opened(name, width=width, color_scheme=scheme, bypass_csp=True)
    page.evaluate(PREPARE)
    # Pages differ in their colours by the verdict alone.
    assert violations(page, "body" if name == "laundered" else "#verdict") == []


def test_axe_would_have_seen_a_fault(opened: Opener) -> None:
    page = opened("identical", bypass_csp=True)
    page.evaluate(
        """() => {
          document.querySelector('h1').style.color = '#ddd';
          document.body.append(document.createElement('button'));
        }"""
    )
    assert {one.split(":")[0] for one in violations(page)} >= {"color-contrast", "button-name"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_pictures_stands_out_from_the_page(opened: Opener, scheme: str) -> None:
    """Axe passes over text in SVG: its contrast by hand, by the formula of WCAG 2."""
    page = opened("laundered", color_scheme=scheme)
    colours = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  ...[...document.querySelectorAll('svg text')].map(one => getComputedStyle(one).fill)]"""
    )
    paper, *inks = [luminance(one) for one in dict.fromkeys(colours)]
    assert inks
    assert min(ratio(ink, paper) for ink in inks) >= 4.5


def luminance(colour: str) -> float:
    parts = [int(one) / 255 for one in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_contrast_by_hand() -> None:
    assert ratio(luminance("rgb(255, 255, 255)"), luminance("rgb(0, 0, 0)")) == pytest.approx(21)
    assert ratio(luminance("rgb(118, 118, 118)"), luminance("rgb(255, 255, 255)")) == pytest.approx(4.54, abs=0.01)
