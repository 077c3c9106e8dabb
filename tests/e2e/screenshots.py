"""The README's pictures of the page, light and dark: `make screenshots`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.browser import browsing, visiting
from tests.e2e.servers import SHIPPED, serving

FOLDER = Path(__file__).parents[2] / "docs" / "page"
_COLOURS = 128
_SIZE = {"width": 1200, "height": 900}


def try_a_scribble(page: Page, url: str) -> None:
    page.goto(f"{url}/#try/digits")
    page.get_by_role("button", name="A scribble").click()
    expect(page.locator(".answer")).to_contain_text("Flagged: unlike what it knows")


def try_a_curve(page: Page, url: str) -> None:
    page.goto(f"{url}/#try/co2")
    page.get_by_label("The input", exact=True).fill("2030.5")
    expect(page.get_by_label("Mean and standard deviation")).to_contain_text("416")


VIEWS: dict[str, Callable[[Page, str], None]] = {
    "try-scribble": try_a_scribble,
    "try-curve": try_a_curve,
}
"""By the name of the picture, how to get there from the server's address."""


def main() -> None:
    """Take all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with serving(SHIPPED) as server, browsing() as browser:
        for scheme in ("light", "dark"):
            for name, view in VIEWS.items():
                options = {"color_scheme": scheme, "viewport": _SIZE, "reduced_motion": "reduce"}
                with visiting(browser, **options) as page:
                    view(page, server.url)
                    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    # A few colours are all that it has, and a quarter of the bytes.
                    few = taken.quantize(_COLOURS)
                    few.save(FOLDER / f"{name}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    main()
