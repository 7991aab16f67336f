"""Make the pictures of docs/report.md: the page of a real result, as a browser shows it.

The result is the laundered example against its base, with the twin as a control. Needs a Chromium that is installed
(``KINPRINT_BROWSER`` may name its path) and the development tools.

Usage: python docs/reference/make_screenshots.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import FloatRect, Page, sync_playwright

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH = 920
MOST_BYTES = 250_000


def browser() -> str:
    """Return the path of an installed browser."""
    asked = os.environ.get("KINPRINT_BROWSER", "")
    path = asked if "/" in asked else next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit("no Chromium is installed: apt-get install chromium, or name one in KINPRINT_BROWSER")
    return path


def report(folder: Path) -> Path:
    """Write the page of the example, from inside its folder, so that no place of this machine is on it."""
    made = folder / "report.html"
    kinprint = Path(sys.executable).with_name("kinprint")
    pair = ["examples/laundered", "examples/base", "--control", "examples/twin"]
    subprocess.run([kinprint, "compare", *pair, "--html", made, "--quiet"], cwd=ROOT, check=True)  # noqa: S603
    return made


def sections(page: Page, first: str, last: str, name: str) -> None:
    """Keep a picture of the page from the top of one element to the bottom of another, in few colours."""
    top, bottom = (
        page.locator(one).first.evaluate(
            "one => { const box = one.getBoundingClientRect(); return [box.top + scrollY, box.bottom + scrollY]; }"
        )
        for one in (first, last)
    )
    clip = FloatRect(x=0, y=max(0, top[0] - 16), width=WIDTH, height=bottom[1] - top[0] + 32)
    path = IMAGES / name
    page.screenshot(path=path, clip=clip, full_page=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"{name} is larger than {MOST_BYTES:,} bytes")


def main() -> None:
    """Make the three pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        made = report(Path(folder))
        running = driver.chromium.launch(executable_path=browser(), chromium_sandbox=False)
        page = running.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(made.as_uri())
        sections(page, "header", ".verdict", "report-verdict.png")
        page.locator("#layers .wide").first.focus()
        page.keyboard.press("End")
        sections(page, "#place", "#layers figure >> nth=1", "report-layers.png")
        page.locator("table.overview thead button").nth(3).click()
        page.locator("table.overview thead button").nth(3).click()
        sections(page, "#evidence", "#evidence details[open] dd >> nth=4", "report-evidence.png")
        running.close()


if __name__ == "__main__":
    main()
