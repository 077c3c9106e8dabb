"""The README's pictures of the page, light and dark: `make screenshots`."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from sklearn.datasets import load_digits

from tests.e2e.browser import browsing, visiting
from tests.e2e.servers import SHIPPED, serving
from tests.e2e.two_versions import two_digits

FOLDER = Path(__file__).parents[2] / "docs" / "page"
_COLOURS = 128
_SIZE = {"width": 1200, "height": 900}
_WATCHED_S = 30.0


def try_a_scribble(page: Page, url: str) -> None:
    page.goto(f"{url}/#try/digits")
    page.get_by_role("button", name="A scribble").click()
    expect(page.locator(".answer")).to_contain_text("Flagged: unlike what it knows")


def try_a_curve(page: Page, url: str) -> None:
    page.goto(f"{url}/#try/co2")
    page.get_by_label("The input", exact=True).fill("2030.5")
    expect(page.get_by_label("Mean and standard deviation")).to_contain_text("416")


def watch_what_is_flagged(page: Page, url: str) -> None:
    page.set_viewport_size({"width": _SIZE["width"], "height": 2 * _SIZE["height"]})
    page.goto(f"{url}/#watch/digits")
    expect(page.locator(".watch")).to_contain_text("Looked at")
    page.get_by_label("The last", exact=True).select_option("1")
    known = load_digits().images.astype(float)
    random = np.random.default_rng(0)
    others = {
        name: httpx.get(f"{url}/models/{name}/example").json()["inputs"]
        for name in ("co2", "breast_cancer")
    }
    shape = httpx.get(f"{url}/models/digits").json()["input"]["shape"]
    begun_s = time.monotonic()
    while (passed_s := time.monotonic() - begun_s) < _WATCHED_S:
        rows = known[random.integers(len(known), size=int(random.integers(1, 9)))]
        # Later on there is more and more that is no digit.
        strange = random.random(len(rows)) < passed_s / _WATCHED_S - 0.4
        rows[strange] = random.uniform(0, 16, (int(strange.sum()), *rows.shape[1:]))
        inputs = rows.reshape(len(rows), *shape).tolist()
        httpx.post(f"{url}/predict", json={"model": "digits", "inputs": inputs})
        for name, example in others.items():
            if random.random() < 0.4:
                httpx.post(f"{url}/predict", json={"model": name, "inputs": example})
        page.wait_for_timeout(50)


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


def compare_samples(page: Page, url: str) -> None:
    page.goto(f"{url}/#compare/digits@1,digits@2")
    page.get_by_role("button", name="Stored samples").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_label("Quality", exact=True)).to_contain_text("labelled samples")


def compare_one(page: Page, url: str) -> None:
    compare_samples(page, url)
    page.get_by_role("button", name="Sample 1 side by side").click()
    # Until the sample's answers are there, those of the input before it are.
    difference = page.get_by_label("Difference", exact=True)
    expect(difference).to_have_attribute("aria-busy", "false")
    expect(difference).to_contain_text("differs")
    page.evaluate("scrollTo(0, 0)")


VIEWS: dict[str, Callable[[Page, str], None]] = {
    "try-scribble": try_a_scribble,
    "try-curve": try_a_curve,
    "watch": watch_what_is_flagged,
    "label-digits": label_digits,
    "reports": reports,
}
"""Of the shipped models: by the name of the picture, how to get there from the server's address."""

VIEWS_OF_TWO: dict[str, Callable[[Page, str], None]] = {
    "compare-samples": compare_samples,
    "compare-one": compare_one,
}
"""Of digits in two versions, with kept samples."""

_SAMPLES, _LABELLED = 200, 120


def take(browser: Browser, url: str, views: dict[str, Callable[[Page, str], None]]) -> None:
    """Those views of a server, light and dark."""
    for scheme in ("light", "dark"):
        for name, view in views.items():
            options = {"color_scheme": scheme, "viewport": _SIZE, "reduced_motion": "reduce"}
            with visiting(browser, **options) as page:
                view(page, url)
                taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                # A few colours are all that it has, and a quarter of the bytes.
                few = taken.quantize(_COLOURS)
                few.save(FOLDER / f"{name}-{scheme}.png", optimize=True)


def main() -> None:
    """Take all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with browsing() as browser:
        with serving(SHIPPED, "--keep-samples", "digits=all") as server:
            take(browser, server.url, VIEWS)
        with (
            tempfile.TemporaryDirectory() as folder,
            two_digits(Path(folder), _SAMPLES, _LABELLED) as server,
        ):
            take(browser, server.url, VIEWS_OF_TWO)


if __name__ == "__main__":
    main()
