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
