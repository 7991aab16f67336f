"""Without a browser its tests are skipped, but fail where one is required."""

from __future__ import annotations

import shutil

import pytest

from support.browser import chromium


def test_a_missing_browser_is_skipped_and_where_one_is_required_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("KINPRINT_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium is installed"):
        chromium()
    monkeypatch.setenv("KINPRINT_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium()
    monkeypatch.setenv("KINPRINT_BROWSER", "/opt/browser")
    assert chromium() == "/opt/browser"


def test_the_first_browser_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "google-chrome" else None)
    monkeypatch.delenv("KINPRINT_BROWSER", raising=False)
    assert chromium() == "/bin/google-chrome"
