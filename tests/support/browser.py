"""Finding a browser: none is ever downloaded.

``KINPRINT_BROWSER`` is the path of a Chromium, or ``required``: then a missing one is a failure, as it is in CI.
"""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The path of a browser; without one the test is skipped or fails."""
    asked = os.environ.get("KINPRINT_BROWSER", "")
    path = asked if "/" in asked else next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        told = "no Chromium is installed: apt-get install chromium, or name one in KINPRINT_BROWSER"
        (pytest.fail if asked == "required" else pytest.skip)(told)
    return path
