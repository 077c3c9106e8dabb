"""The page in Chromium: how soon it is there, and what drawing asks of the server.

*Loads*: each by a visitor with an empty cache, from the address to the first paint and to the first
answer with its doubt; the server is up and has answered before. *Drawing*: so many movements of the
pointer a second over Try's drawing area; each changes the input, and one request is to be on its
way at a time, however fast they come.

python -m benchmarks.page --output result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect
from rich.console import Console

from benchmarks.machine import machine, versions
from tests.e2e.browser import browsing, chromium, visiting
from tests.e2e.servers import SHIPPED, serving

LOADS = 9
UPDATES_PER_S = 60
DRAWN_S = 5

_NOTE_THE_ANSWER = """
new MutationObserver((_, observer) => {
  if (!document.querySelector(".answer .headline")) return;
  window.answered = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""
"""Milliseconds since the navigation began."""

_LOAD = """() => {
  const kinds = ["navigation", "resource"];
  const loaded = kinds.flatMap((kind) => performance.getEntriesByType(kind));
  return {
    first_paint_s: performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000,
    answered_s: window.answered / 1000,
    bytes: loaded.reduce((sum, each) => sum + each.transferSize, 0),
  };
}"""

_COUNT = """
window.sent = {}; window.open_ = 0; window.most = 0;
const plain = window.fetch;
window.fetch = async (address, options = {}) => {
  if (options.method !== "POST") return plain(address, options);
  const path = new URL(address).pathname;
  window.sent[path] = (window.sent[path] ?? 0) + 1;
  window.most = Math.max(window.most, ++window.open_);
  try {
    return await plain(address, options);
  } finally {
    window.open_ -= 1;
  }
};
"""
"""Notes every POST and how many are open at a time."""

_DRAW = """async ([updates, period_ms]) => {
  window.sent = {}; window.most = 0;
  const surface = document.querySelector(".surface");
  surface.setPointerCapture = () => {};
  const box = surface.getBoundingClientRect();
  const at = (kind, t) => surface.dispatchEvent(new PointerEvent(kind, {
    bubbles: true, button: 0, pointerId: 1,
    clientX: box.left + box.width * (0.5 + 0.4 * Math.cos(t / 9)),
    clientY: box.top + box.height * (0.5 + 0.4 * Math.sin(t / 7)),
  }));
  const began = performance.now();
  at("pointerdown", 0);
  for (let t = 1; t <= updates; t += 1) {
    const wait_ms = began + t * period_ms - performance.now();
    await new Promise((done) => setTimeout(done, Math.max(0, wait_ms)));
    at("pointermove", t);
  }
  at("pointerup", updates);
  const drawn = performance.now();
  const answer = document.querySelector(".answer");
  while (answer.getAttribute("aria-busy") !== "false") {
    await new Promise((done) => setTimeout(done, 1));
  }
  return {
    updates, seconds: (drawn - began) / 1000, settled_s: (performance.now() - drawn) / 1000,
    sent: window.sent, most_at_a_time: window.most,
  };
}"""


def main() -> None:
    """Print both parts and write them where `--output` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if chromium() is None:
        parser.error("there is no Chromium: apt install chromium, or name one with CHROMIUM=path")
    with serving(SHIPPED, fresh=True) as server, browsing() as browser:
        # The first one is the server's first, too, and not counted.
        loads = [load(browser, server.url) for _ in range(1 + LOADS)][1:]
        found = {
            "machine": machine(),
            "versions": {**versions(), "chromium": browser.version},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "loads": loads,
            "first_paint_s": statistics.median(each["first_paint_s"] for each in loads),
            "answered_s": statistics.median(each["answered_s"] for each in loads),
            "drawing": draw(browser, server.url),
        }
    Console().print_json(json.dumps(found))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


def load(browser: Browser, url: str) -> dict[str, Any]:
    """Seconds of one visitor's first view, and the bytes that came for it."""
    with visiting(browser) as page:
        page.add_init_script(_NOTE_THE_ANSWER)
        page.goto(url)
        expect(page.locator(".answer .headline")).to_be_visible()
        found: dict[str, Any] = page.evaluate(_LOAD)
        return found


def draw(browser: Browser, url: str) -> dict[str, Any]:
    """What a drawing of `DRAWN_S` seconds sends."""
    with visiting(browser) as page:
        page.add_init_script(_COUNT)
        page.goto(url)
        expect(page.locator(".answer .headline")).to_be_visible()
        expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
        found: dict[str, Any] = page.evaluate(
            _DRAW, [UPDATES_PER_S * DRAWN_S, 1000 / UPDATES_PER_S]
        )
        return found


if __name__ == "__main__":
    main()
