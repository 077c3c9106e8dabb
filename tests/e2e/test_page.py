"""The page at `/`, in a real browser against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.browser import assert_accessible, visiting
from tests.e2e.servers import Server, serving
from tests.repositories import write_model

THREE = [
    (0.30, 0.20), (0.42, 0.12), (0.58, 0.12), (0.68, 0.22), (0.66, 0.36), (0.46, 0.48),
    (0.62, 0.53), (0.70, 0.65), (0.66, 0.80), (0.52, 0.88), (0.36, 0.87), (0.28, 0.80),
]  # fmt: skip
SCRIBBLE = [
    (0.15, 0.54), (0.61, 0.90), (0.12, 0.46), (0.66, 0.57), (0.24, 0.20), (0.77, 0.84),
    (0.18, 0.46), (0.66, 0.63), (0.20, 0.74), (0.64, 0.11), (0.17, 0.22), (0.74, 0.26),
]  # fmt: skip
MARKUP = '<img src=x onerror="window.struck=1"><script>window.struck=1</script>'
AGED = """
window.open_ = 0; window.most = 0; window.asked = [];
const plain = window.fetch;
window.fetch = async (address, options = {}) => {
  if (options.method !== "POST") return plain(address, options);
  window.most = Math.max(window.most, ++window.open_);
  window.asked.push([String(address), options.body]);
  try {
    await new Promise((done) => setTimeout(done, 100));
    return await plain(address, options);
  } finally {
    window.open_ -= 1;
  }
};
"""
"""Notes every POST and how many are open at a time, and has each take a tenth of a second."""


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models with markup in their labels, with several numbers, and with inputs of no easy kind."""
    root = tmp_path_factory.mktemp("strange")
    marked = f"labels = {json.dumps([MARKUP, 'b', 'c'])}\ndescription = {json.dumps(MARKUP)}"
    write_model(root, "marked", more=marked)
    write_model(root, "numbers", task="regression")
    write_model(root, "places", shape="[2, 2, 4]")
    with serving(root) as server:
        yield server


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw by mouse; points are shares of the drawing area."""
    surface = page.get_by_label("Drawing area")
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def answer(page: Page) -> Any:
    return page.get_by_label("Answer", exact=True)


def lines(page: Page, language: str) -> Any:
    return page.get_by_role("region", name=f"{language} lines")


def test_a_drawn_three_is_a_three_without_doubt(page: Page, shipped: Server) -> None:
    page.goto(shipped.url)
    page.get_by_role("button", name="Clear").click()
    expect(answer(page)).to_contain_text("Nothing is drawn yet")
    draw(page, THREE)
    expect(page.get_by_label("Label", exact=True)).to_have_text("3")
    expect(answer(page)).to_contain_text("Sure: little doubt")
    expect(answer(page)).to_contain_text("Not flagged")
    expect(answer(page)).to_contain_text("With dropout off: 3")
    expect(answer(page).locator("tbody tr")).to_have_count(10)


def test_a_scribble_is_doubted_and_flagged(page: Page, shipped: Server) -> None:
    page.goto(shipped.url)
    expect(answer(page)).to_contain_text("Not flagged")
    # The first stroke takes the place of the three that is shown.
    draw(page, SCRIBBLE)
    expect(answer(page)).to_contain_text("Flagged: unlike what it knows")
    expect(answer(page)).to_contain_text("Unsure: much doubt")
    page.get_by_role("button", name="A three").click()
    expect(answer(page)).to_contain_text("Not flagged")
    page.get_by_role("button", name="A scribble").click()
    expect(answer(page)).to_contain_text("Flagged: unlike what it knows")
    page.get_by_role("button", name="Example 2").click()
    expect(page.get_by_label("Label", exact=True)).to_have_text("0")
    page.get_by_label("Passes (T)").press("ArrowRight")
    expect(answer(page)).to_contain_text("All 51 passes agree")
    expect(answer(page)).to_contain_text("it was made for 50 passes, not 51")


def test_the_curve_is_walked_along_by_keyboard(page: Page, shipped: Server) -> None:
    page.goto(shipped.url + "/#try/co2")
    headline = page.get_by_label("Mean and standard deviation")
    expect(headline).to_contain_text("±")
    expect(page.locator("svg.curve .band")).to_have_count(1)
    page.get_by_label("The input", exact=True).fill("1975.5")
    expect(headline).to_have_text("332.8 ± 1.00")
    slider = page.get_by_label("The input, along the range")
    slider.press("End")
    expect(page.get_by_label("The input", exact=True)).to_have_value("2053.00")
    expect(headline).not_to_contain_text("332.8")
    later = headline.inner_text().split(" ± ")
    assert float(later[1]) > 5
    box = page.locator("svg.curve").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_label("The input", exact=True)).not_to_have_value("2053.00")


def test_a_row_is_edited_and_the_lines_to_copy_say_the_same(page: Page, shipped: Server) -> None:
    page.goto(shipped.url + "/#try/breast_cancer")
    label = page.get_by_label("Label", exact=True)
    expect(label).to_have_text("malignant")
    fields = page.get_by_role("spinbutton")
    expect(fields).to_have_count(30)
    fields.nth(3).fill("")
    expect(answer(page)).to_contain_text("Every field needs a number")
    fields.nth(3).fill("100.5")
    expect(label).to_be_visible()
    expect(lines(page, "curl")).to_contain_text("100.5")
    curl = lines(page, "curl").inner_text()
    asked = json.loads(subprocess.run(curl, shell=True, capture_output=True, check=True).stdout)
    assert asked["label"] == [label.inner_text()]
    names: dict[str, Any] = {}
    exec(lines(page, "Python").inner_text(), names)
    assert names["answer"].mean.tolist() == pytest.approx(asked["mean"][0]) or (
        names["answer"].mean.tolist() == [pytest.approx(asked["mean"][0])]
    )


def test_sixty_updates_a_second_do_not_queue_up(page: Page, shipped: Server) -> None:
    page.add_init_script(AGED)
    page.goto(shipped.url)
    expect(page.get_by_label("Label", exact=True)).to_have_text("3")
    page.evaluate(
        """async () => {
          window.asked.length = 0;
          const surface = document.querySelector(".surface");
          surface.setPointerCapture = () => {};
          const box = surface.getBoundingClientRect();
          const at = (kind, t) => surface.dispatchEvent(new PointerEvent(kind, {
            bubbles: true, button: 0, pointerId: 1,
            clientX: box.left + box.width * (0.5 + 0.4 * Math.cos(t / 9)),
            clientY: box.top + box.height * (0.5 + 0.4 * Math.sin(t / 7)),
          }));
          at("pointerdown", 0);
          for (let t = 1; t <= 120; t += 1) {
            at("pointermove", t);
            await new Promise((done) => setTimeout(done, 1000 / 60));
          }
          at("pointerup", 120);
        }"""
    )
    expect(answer(page)).to_have_attribute("aria-busy", "false")
    asked = page.evaluate("window.asked")
    assert page.evaluate("window.most") == 1
    assert len(asked) < 60
    # The newest drawing has won: what was asked last is what there is to see.
    [row] = json.loads(asked[-1][1])["inputs"]
    assert json.dumps(row, separators=(",", ":")) in lines(page, "curl").inner_text()
    assert row == page.evaluate(
        """() => {
          const seen = document.querySelector(".seen");
          const { data } = seen.getContext("2d").getImageData(0, 0, 8, 8);
          const value = (y, x) => Math.round(data[4 * (8 * y + x)] * 16 / 255);
          const eight = (of) => Array.from({length: 8}, (_, k) => of(k));
          return [eight((y) => eight((x) => value(y, x)))];
        }"""
    )


def test_axe_finds_nothing(browser: Browser, shipped: Server) -> None:
    with visiting(browser, bypass_csp=True) as page:
        for model in ("digits", "co2", "breast_cancer"):
            page.goto(f"{shipped.url}/#try/{model}")
            page.reload()
            expect(page.locator(".answer .headline")).to_be_visible()
            assert_accessible(page)


def test_it_fits_a_telephone_and_goes_without_a_mouse(browser: Browser, shipped: Server) -> None:
    with visiting(browser, viewport={"width": 375, "height": 740}, has_touch=True) as page:
        for model in ("digits", "co2", "breast_cancer"):
            page.goto(f"{shipped.url}/#try/{model}")
            page.reload()
            expect(page.locator(".answer .headline")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 375
            if model == "digits":
                # The answer is further down: in short it stands beside the drawing.
                expect(page.locator(".now")).to_contain_text("3: Sure: little doubt")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_markup_in_names_and_labels_stays_text(page: Page, strange: Server) -> None:
    hostile = {"name": MARKUP, "task": "classification", "description": MARKUP, "labels": [MARKUP]}

    def more(route: Route) -> None:
        models = route.fetch().json()["models"]
        route.fulfill(json={"models": [*models, {**models[0], **hostile}]})

    page.route("**/models", more)
    page.goto(strange.url + "/#try/marked")
    expect(answer(page).locator("tbody th").first).to_have_text(MARKUP)
    expect(page.locator(".chooser")).to_contain_text(MARKUP)
    page.get_by_label("Model", exact=True).select_option(MARKUP)
    expect(page.get_by_role("alert")).to_contain_text("cannot be the name of a model")
    assert page.evaluate("window.struck") is None
    assert page.locator("img, main script").count() == 0


def test_several_numbers_and_inputs_of_any_shape(page: Page, strange: Server) -> None:
    page.goto(strange.url + "/#try/numbers")
    expect(answer(page).locator("tbody tr")).to_have_count(3)
    expect(answer(page)).to_contain_text("In the data (aleatoric): not known to this version")
    page.get_by_label("Model", exact=True).select_option("places")
    expect(answer(page)).to_contain_text("answers for every place of its input")
    page.get_by_label("One input, 2 × 2 × 4, as JSON").fill("[[1")
    expect(answer(page)).to_contain_text("This is not JSON")
    page.get_by_label("One input, 2 × 2 × 4, as JSON").fill("[[1, 2]]")
    expect(page.get_by_role("alert")).to_contain_text("inputs: ")


def test_a_token_is_asked_for_once(page: Page, tmp_path: Path) -> None:
    write_model(tmp_path, "good")
    with serving(tmp_path, environment={"CANDOR_TOKEN": "of-the-page"}) as server:
        page.goto(server.url)
        token = page.get_by_label("Token", exact=True)
        token.fill("wrong")
        token.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("does not take the one that was given")
        token.fill("of-the-page")
        token.press("Enter")
        expect(page.get_by_label("Label", exact=True)).to_be_visible()
        expect(lines(page, "curl")).to_contain_text("$CANDOR_TOKEN")
        assert "of-the-page" not in page.content()
        page.reload()
        expect(page.get_by_label("Label", exact=True)).to_be_visible()


def test_a_lost_server_is_said_and_found_again(page: Page, tmp_path: Path) -> None:
    write_model(tmp_path, "good")
    with serving(tmp_path) as server:
        page.goto(server.url)
        expect(page.get_by_label("Label", exact=True)).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("cannot be reached")
    page.get_by_label("Seed").press("ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    with serving(tmp_path, "--port", server.url.rpartition(":")[2]):
        expect(page.get_by_label("Label", exact=True)).to_be_visible()
        expect(page.locator("#connection")).to_be_empty()
