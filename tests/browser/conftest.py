"""A real Chromium for the tests of the report, found where it is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOW_TO = "install one with tools/ensure_chromium.sh or name one in CLIPDRIFT_CHROMIUM"


def find_chromium(bundled: str | None = None) -> str | None:
    """CLIPDRIFT_CHROMIUM, else one on PATH, else the one playwright installed."""
    named = os.environ.get("CLIPDRIFT_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    return bundled if bundled and Path(bundled).exists() else None


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running browser. Without one the test is skipped, and fails where CI=true."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        if path is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"no Chromium found, and CI=true: {HOW_TO}")
            pytest.skip(f"no Chromium found: {HOW_TO}")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
