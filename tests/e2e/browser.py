"""Debian's Chromium, driven by Playwright.

Playwright's loop runs in the thread of its tests as long as a browser is open, so a browser is
opened for a file's tests and closed after them: other files of the process use asyncio.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 60_000
_OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""axe's rules whose outcome may be another in the dark."""
expect.set_options(timeout=WAIT_MS)


def chromium() -> str | None:
    """Its path: CHROMIUM, or what is installed; None where there is none."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def browsing() -> Iterator[Browser]:
    """An open browser; the test is skipped where there is none."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: apt install chromium, or name one with CHROMIUM=path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, **options: object) -> Iterator[Page]:
    """A page of a visitor of its own; whatever it throws fails the test."""
    context: BrowserContext = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def assert_accessible(page: Page) -> None:
    """axe finds nothing in what is shown, light or dark; the page's context bypasses its CSP."""
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.emulate_media(color_scheme="dark")
    options = {"runOnly": {"type": "rule", "values": _OF_COLOURS}, "resultTypes": ["violations"]}
    found = AxeResults(page.evaluate("options => axe.run(options)", options))
    assert found.violations_count == 0, found.generate_report()
