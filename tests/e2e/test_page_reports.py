"""The page's tab Reports, in a real browser against a real server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from playwright.sync_api import Browser, Page, expect

from service.tokens import hash_of
from service.types import ModelRef
from tests.e2e.browser import assert_accessible, visiting
from tests.e2e.servers import Server, serving
from tests.e2e.test_page import MARKUP
from tests.reports import detection, write_report
from tests.repositories import build_network, write_model

PAGE = """<!doctype html><title>Untouched</title><p>A report</p>
<script>document.title = "struck"; localStorage.setItem("struck", "1")</script>
<img src="x" onerror="document.title = 'struck'"><img src="/models">
<link rel="stylesheet" href="/page/page.css"><iframe src="/models"></iframe>
<meta http-equiv="refresh" content="0; url=/models">
<form action="/models" id="form"><button>Send</button></form>
<a href="javascript:document.title = 'struck'">Run</a>
"""
FIRST, SECOND, LINE = ModelRef("digits", 1), ModelRef("digits", 2), ModelRef("line", 1)


def methods(accuracy: float) -> list[dict[str, Any]]:
    """The deterministic pass is a tenth worse."""
    return [
        {
            "name": name,
            "title": title,
            "accuracy": right,
            "log_likelihood": -(1 - right),
            "calibration": {"equal_mass": {"expected": (1 - right) / 2}},
        }
        for name, title, right in (
            ("deterministic", "Deterministic softmax", accuracy - 0.1),
            ("mc_dropout", "MC dropout", accuracy),
        )
    ]


def write_reports(root: Path) -> None:
    """Two versions of a classifier with three reports, a broken one, and one of a regression."""
    folder = write_model(root, "digits")
    (folder / "2").mkdir()
    weights = folder / "2" / "weights.safetensors"
    safetensors.torch.save_model(build_network(folder, seed=1), str(weights))
    write_model(root, "line", task="regression")
    for ref, name, accuracy, day, aurocs in (
        (FIRST, "first", 0.8, 1, {"variance": 0.71, "predictive_entropy": 0.81}),
        (FIRST, "later", 0.85, 2, {"variance": 0.72, "predictive_entropy": 0.82}),
        (SECOND, "new-weights", 0.9, 3, {"variance": 0.73, "predictive_entropy": 0.79}),
    ):
        write_report(
            root,
            ref,
            name,
            page=PAGE,
            class_methods=methods(accuracy),
            detection=detection(**aurocs),
            created=f"2026-11-0{day}T12:00:00Z",
            weights="a" * 64,
            verdict=[f"Found with {name}.", MARKUP],
            data={"path": MARKUP, "sha256": str(day % 2) * 64, "rows": 450},
        )
    broken = write_report(root, FIRST, "broken")
    broken.write_text("{")
    os.utime(broken, (1_600_000_000, 1_600_000_000))
    method = {
        "name": "mc_dropout",
        "title": MARKUP,
        "root_mean_squared_error": [0.5],
        "log_likelihood": -1.5,
        "coverage": [{"level": 0.9, "observed": 0.875}],
    }
    write_report(
        root, LINE, "line", class_methods=[], regression_methods=[method], task="regression"
    )


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("reported")
    write_reports(root)
    with serving(root) as server:
        yield server


@pytest.fixture
def page(browser: Browser, reported: Server) -> Iterator[Page]:
    with visiting(browser) as opened:
        opened.goto(f"{reported.url}/#reports")
        expect(rows(opened).first).to_be_visible()
        yield opened


def rows(page: Page, model: str = "digits") -> Any:
    """The line of each report."""
    here = page.locator("section", has=page.get_by_role("heading", name=model, exact=True))
    return here.locator("tbody tr:not(.found)")


def order(page: Page) -> list[str]:
    return [text.strip() for text in rows(page).locator(".name").all_inner_texts()]


def test_versions_stand_side_by_side_the_newest_first(page: Page) -> None:
    assert order(page) == ["new-weights", "later", "first", "broken"]
    newest = rows(page).first
    for text in ("Version 2", "450 of", "90 %", "0.100", "0.790 (0.770–0.810)", "50 %"):
        expect(newest).to_contain_text(text)
    expect(newest).to_contain_text("of other weights")
    expect(page.locator(".reports")).to_contain_text("Not all were made with the same rows")
    broken = rows(page).filter(has_text="broken").first
    expect(broken).to_contain_text("Broken: digits/1/reports/broken.json is not JSON")
    line = rows(page, "line").first
    for text in ("0.5000", "1.50", "87.5 %"):
        expect(line).to_contain_text(text)
    expect(line).to_contain_text("of weights not known")


def test_another_method_and_another_score_have_other_numbers(page: Page) -> None:
    newest = rows(page).first
    page.get_by_label("Predicting by").select_option(label="Deterministic softmax")
    expect(newest).to_contain_text("80 %")
    expect(newest).to_contain_text("0.200")
    page.get_by_label("Telling strange rows by").select_option(label="variance")
    expect(newest).to_contain_text("0.730 (0.710–0.750)")


def test_it_is_sorted_by_any_column_with_the_keyboard(page: Page) -> None:
    table = page.locator("section", has=page.get_by_role("heading", name="digits", exact=True))
    accuracy = table.get_by_role("button", name="Accuracy")
    accuracy.focus()
    page.keyboard.press("Enter")
    assert order(page) == ["new-weights", "later", "first", "broken"]
    page.keyboard.press("Enter")
    # What has no number stands last, whichever way.
    assert order(page) == ["first", "later", "new-weights", "broken"]
    expect(table.get_by_role("columnheader", name="Accuracy")).to_have_attribute(
        "aria-sort", "ascending"
    )
    expect(accuracy).to_be_focused()
    expect(page.locator("#announcements")).to_have_text("Reports of digits, by Accuracy, rising.")
    table.get_by_role("button", name="AUROC").click()
    assert order(page)[:3] == ["later", "first", "new-weights"]


def test_one_model_alone_and_what_serves_alone(page: Page, reported: Server) -> None:
    page.get_by_label("Model", exact=True).select_option("line")
    expect(page.get_by_role("heading", name="digits", exact=True)).to_have_count(0)
    assert page.url.endswith("#reports/line")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("line")
    page.get_by_label("only of the weights that serve now").check()
    expect(page.locator(".reports")).to_contain_text("No report is of the weights that serve now")


def test_what_it_found_unfolds_and_markup_stays_text(page: Page) -> None:
    page.get_by_text("What it found").first.click()
    details = page.locator("details[open]")
    expect(details).to_contain_text("Found with new-weights.")
    expect(details.locator("li").last).to_have_text(MARKUP)
    expect(details).to_contain_text("The weights or the network of this version changed since")
    # A name from a path is what stands behind its last slash.
    expect(rows(page).first).to_contain_text("450 of script>")
    assert page.evaluate("window.struck") is None
    assert page.locator("main img, main script").count() == 0


def test_a_report_opens_and_runs_nothing(page: Page, reported: Server) -> None:
    answered: list[str] = []
    page.context.on("response", lambda response: answered.append(response.url))
    with page.expect_popup() as opening:
        page.get_by_role("link", name="Open the report new-weights of digits, version 2").click()
    popup = opening.value
    popup.wait_for_load_state()
    address = f"{reported.url}/models/digits/versions/2/reports/new-weights/page"
    assert popup.url == address
    expect(popup.get_by_text("A report", exact=True)).to_be_visible()
    popup.get_by_role("button", name="Send").click()
    popup.get_by_role("link", name="Run").click()
    expect(popup).to_have_title("Untouched")
    assert popup.url == address
    loaded = [url for url in answered if "/reports?" not in url and not url.endswith("/livez")]
    assert loaded == [address]
    assert page.evaluate("localStorage.getItem('struck')") is None


def test_its_numbers_are_saved_as_a_file(page: Page) -> None:
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save the numbers of later of digits, version 1").click()
    assert saving.value.suggested_filename == "digits-1-later.json"
    assert json.loads(Path(saving.value.path()).read_bytes())["verdict"][0] == "Found with later."


def test_axe_finds_nothing(browser: Browser, reported: Server) -> None:
    with visiting(browser, bypass_csp=True) as page:
        page.goto(f"{reported.url}/#reports")
        expect(rows(page).first).to_be_visible()
        page.get_by_text("What it found").first.click()
        assert_accessible(page)


def test_it_fits_a_telephone(browser: Browser, reported: Server) -> None:
    with visiting(browser, viewport={"width": 375, "height": 740}, has_touch=True) as page:
        page.goto(f"{reported.url}/#reports")
        expect(rows(page).first).to_be_visible()
        page.get_by_text("What it found").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        sentences = page.locator("details[open]").bounding_box()
        assert sentences is not None
        assert sentences["x"] + sentences["width"] <= 375


def test_the_first_is_told_how_and_stands_there_at_once(browser: Browser, tmp_path: Path) -> None:
    """Then the server goes, what it said stays, and what is new comes with it when it is back."""
    write_model(tmp_path, "good")
    ref = ModelRef("good", 1)
    with visiting(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        with serving(tmp_path) as server:
            page.goto(f"{server.url}/#reports")
            expect(page.locator(".making")).to_contain_text("There is no report yet")
            page.get_by_role("button", name="Copy the terminal lines").click()
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == "candor report good --data test.npz"
            write_report(tmp_path, ref, "one")
            expect(rows(page, "good")).to_have_count(1)
            expect(page.locator(".making")).to_contain_text("A further report")
            page.get_by_label("Predicting by").focus()
        expect(page.locator("#connection")).to_contain_text("cannot be reached")
        expect(rows(page, "good")).to_have_count(1)
        write_report(tmp_path, ref, "two")
        with serving(tmp_path, "--port", server.url.rpartition(":")[2]):
            expect(rows(page, "good")).to_have_count(2)
            expect(page.locator("#connection")).to_be_empty()
            expect(page.get_by_label("Predicting by")).to_be_focused()


def test_what_went_wrong_is_said_and_looked_at_again(browser: Browser, reported: Server) -> None:
    with visiting(browser) as page:
        page.clock.install()
        odd = {"title": "Odd", "detail": "Something odd happened."}
        listed = re.compile(r"/reports\?")
        page.route(listed, lambda route: route.fulfill(status=500, json=odd))
        page.goto(f"{reported.url}/#reports")
        expect(page.get_by_role("alert")).to_have_text("Something odd happened.")
        page.unroute(listed)
        page.clock.run_for(11_000)
        expect(rows(page).first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_a_token_needs_the_scope_and_opens_pages_as_a_password(
    browser: Browser, tmp_path: Path
) -> None:
    write_model(tmp_path, "good")
    write_report(tmp_path, ModelRef("good", 1), "one", page=PAGE)
    tokens = {"narrow": "label", "wide": "predict"}
    given = ",".join(f"{name}:{scope}:{hash_of(name)}" for name, scope in tokens.items())
    with serving(tmp_path, environment={"CANDOR_TOKENS": given}) as server:
        for name in tokens:
            password = {"username": "anybody", "password": name}
            with visiting(browser, http_credentials=password) as page:
                page.add_init_script(f"sessionStorage.setItem('candor.token', '{name}')")
                page.goto(f"{server.url}/#reports")
                if name == "narrow":
                    expect(page.get_by_role("alert")).to_contain_text("this needs predict")
                    page.get_by_role("button", name="Use another token").click()
                    page.get_by_label("Token", exact=True).fill("wide")
                    page.get_by_label("Token", exact=True).press("Enter")
                    expect(rows(page, "good")).to_have_count(1)
                    expect(page.get_by_role("alert")).to_have_count(0)
                    continue
                expect(rows(page, "good")).to_have_count(1)
                expect(page.locator(".reports")).to_contain_text("it is the password")
                with page.expect_popup() as opening:
                    page.get_by_role("link", name="Open the report one").click()
                expect(opening.value.get_by_text("A report", exact=True)).to_be_visible()
