"""The README's pictures of the page, light and dark: `make screenshots`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect
from sklearn.datasets import load_digits

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


def label_digits(page: Page, url: str) -> None:
    httpx.delete(f"{url}/samples?model=digits").raise_for_status()
    pool = load_digits().images[:200, None].tolist()
    asked = {"model": "digits", "inputs": pool, "return": ["mean"]}
    httpx.post(f"{url}/predict", json=asked, timeout=60.0).raise_for_status()
    while httpx.get(f"{url}/samples/counts?model=digits").json()["counts"][0]["unlabelled"] < 200:
        page.wait_for_timeout(100)
    page.goto(f"{url}/#label/digits")
    for done in range(1, 4):
        expect(page.locator(".look")).to_be_visible()
        page.keyboard.press("ArrowRight" if done == 1 else "8")
    expect(page.locator(".tally")).to_contain_text("Of all 200: 2 labelled, 1 skipped")


def reports(page: Page, url: str) -> None:
    page.goto(f"{url}/#reports")
    expect(page.locator("details[open]")).to_contain_text("MC dropout")


VIEWS: dict[str, Callable[[Page, str], None]] = {
    "try-scribble": try_a_scribble,
    "try-curve": try_a_curve,
    "label-digits": label_digits,
    "reports": reports,
}
"""By the name of the picture, how to get there from the server's address."""


def main() -> None:
    """Take all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with serving(SHIPPED, "--keep-samples", "digits=all") as server, browsing() as browser:
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
