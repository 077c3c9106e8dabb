"""Label, the page's tab, in real browsers against a real server and its store."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from service.tokens import hash_of, make_token
from tests.databases import sqlite_address
from tests.e2e.browser import assert_accessible, visiting
from tests.e2e.servers import Server, copied, serving
from tests.repositories import MLP, write_model
from tests.waiting import wait_for

MARKUP = '<img src=x onerror="window.struck=1"><script>window.struck=1</script>'
REQUEST_ID = "<script>window.struck=1</script><img/src=x/onerror=window.struck=1>"
READER = """
from torch import nn

def build():
    return nn.Sequential(nn.Embedding(8, 4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 3))
"""
"""Reads six tokens of eight."""

TEN = [[[[float(value)] * 8] * 8] for value in range(10)]
"""Images of digits in one grey each: 0 of the first, 9 of the last."""

SEEN = """() => {
  const canvas = document.querySelector(".look");
  if (canvas === null) return null;
  const [grey] = canvas.getContext("2d").getImageData(0, 0, 1, 1).data;
  return [document.querySelector(".stage").dataset.sample, Math.round(grey * 16 / 255)];
}"""
"""The id of the sample that is shown, and the value of its first pixel."""

WAIT_S = 60.0


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models of all kinds, of which every row is kept."""
    root = copied(tmp_path_factory.mktemp("kept"), "digits", "breast_cancer", "co2")
    write_model(root, "marked", more=f"labels = {json.dumps([MARKUP, 'b', 'c'])}")
    words = write_model(root, "words", READER, shape="[6]", dtype="int64")
    tokens = ["[PAD]", "what", "a", "fi", "##ne", MARKUP, "day", "night"]
    (words / "vocabulary.txt").write_text("\n".join(tokens))
    write_model(root, "dozen", MLP.replace("32, 3", "32, 12"))
    write_model(root, "crowd", MLP.replace("32, 3", "32, 40"))
    write_model(root, "tags", task="multilabel", more='labels = ["wet", "cold", "windy"]')
    write_model(root, "several", task="regression")
    write_model(root, "places", shape="[2, 2, 4]")
    with serving(root, "--keep-samples", "all") as server:
        yield server


@pytest.fixture(scope="module")
def modules(browser: Browser, keeping: Server) -> Iterator[Page]:
    """A page for what its modules do by themselves."""
    with visiting(browser) as opened:
        opened.goto(keeping.url)
        yield opened


def counted(server: Server, model: str) -> dict[str, int]:
    [counts] = server.get(f"/samples/counts?model={model}").json()["counts"]
    return {name: counts[name] for name in ("unlabelled", "leased", "labelled", "skipped")}


def keep(server: Server, model: str, rows: list[Any], request_id: str = "a-request") -> None:
    """Have these rows kept of a model, and nothing else."""
    server.request("DELETE", f"/samples?model={model}").raise_for_status()
    asked = {"model": model, "inputs": rows, "passes": 4, "return": ["mean"]}
    answer = server.post("/predict", asked, {"X-Request-ID": request_id})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: counted(server, model)["unlabelled"] == len(rows))


def labels(server: Server, model: str, status: str = "labelled") -> dict[str, Any]:
    """Of the samples of a status the labels, by id."""
    found = server.get(f"/samples?model={model}&status={status}").json()["samples"]
    return {sample["id"]: sample["label"] for sample in found}


def until_labelled(page: Page, server: Server, given: dict[str, str]) -> None:
    """Waits for these labels of digits where requests pass through the test.

    Playwright hands over a request, and lets go of it, only while it is called.
    """

    def pause(seconds: float) -> None:
        page.wait_for_timeout(1e3 * seconds)

    wait_for(lambda: labels(server, "digits") == given, pause=pause)


def shown(page: Page) -> tuple[str, int]:
    """The id of the image that is shown, and its grey."""
    expect(page.locator(".look")).to_be_visible()
    number, grey = page.evaluate(SEEN)
    return number, grey


def label_by_key(page: Page) -> tuple[str, str]:
    """Press the key of the grey that is shown; the sample and the label that it should get."""
    number, grey = shown(page)
    page.keyboard.press(str(grey))
    return number, str(grey)


def open_label(page: Page, server: Server, model: str) -> None:
    # From elsewhere, so that it is loaded anew, and gives back what it had.
    page.goto("about:blank")
    page.goto(f"{server.url}/#label/{model}")
    expect(page.locator(".labelling .export")).to_be_visible()


def text_of(page: Page) -> Any:
    return page.locator(".labelling")


def test_what_a_label_is_and_means_can_be_asked_for(keeping: Server) -> None:
    models = {model["name"]: model for model in keeping.get("/models").json()["models"]}
    shapes = {name: model["versions"][0]["output_shape"] for name, model in models.items()}
    assert shapes["digits"] == [10]
    assert shapes["breast_cancer"] == shapes["co2"] == [1]
    assert shapes["places"] == [2, 2, 3]
    assert models["digits"]["features"] is None
    assert models["breast_cancer"]["features"][23] == "worst area"
    assert keeping.get("/models/words/vocabulary").json()["tokens"][3:5] == ["fi", "##ne"]
    missing = keeping.get("/models/digits/vocabulary")
    assert (missing.status_code, missing.json()["field"]) == (404, "model")


def test_two_people_label_ten_samples_at_once(browser: Browser, keeping: Server) -> None:
    keep(keeping, "digits", TEN)
    with visiting(browser) as anna, visiting(browser) as bert:
        people: dict[Page, dict[str, str]] = {anna: {}, bert: {}}
        for page in people:
            open_label(page, keeping, "digits")
            expect(page.locator(".look")).to_be_visible()
        deadline = time.monotonic() + WAIT_S
        while sum(map(len, people.values())) < len(TEN):
            assert time.monotonic() < deadline
            for page, mine in people.items():
                # One may have nothing left while the other has.
                if page.evaluate(SEEN) is not None:
                    number, given = label_by_key(page)
                    mine[number] = given
        for page, mine in people.items():
            expect(text_of(page)).to_contain_text("Done: every kept sample has its label")
            expect(text_of(page)).to_contain_text(f"You: {len(mine)} labelled, 0 skipped.")
            expect(page.locator(".labelling .wrong")).to_have_count(0)
        first, second = people.values()
    assert first
    assert second
    assert not first.keys() & second.keys()
    assert labels(keeping, "digits") == first | second
    assert sorted((first | second).values()) == [str(value) for value in range(10)]


def test_skip_undo_and_export(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[1:5])
    open_label(page, keeping, "digits")
    skipped, _ = shown(page)
    page.keyboard.press("ArrowRight")
    wrong, grey = shown(page)
    assert wrong != skipped
    page.keyboard.press("9")
    expect(text_of(page)).to_contain_text("You: 1 labelled, 1 skipped.")
    wait_for(lambda: labels(keeping, "digits") == {wrong: "9"})
    page.keyboard.press("ArrowLeft")
    assert shown(page) == (wrong, grey)
    wait_for(lambda: counted(keeping, "digits")["labelled"] == 0)
    # Nobody else is given it meanwhile.
    others = keeping.post("/samples/lease", {"model": "digits"}).json()["samples"]
    assert others == []
    page.get_by_role("button", name=str(grey), exact=True).click()
    page.keyboard.press("Control+z")
    page.keyboard.press("ArrowLeft")
    assert shown(page)[0] == skipped
    wait_for(lambda: counted(keeping, "digits")["skipped"] == 0)
    given = dict(label_by_key(page) for _ in range(3))
    page.get_by_role("button", name="Skip").click()
    expect(text_of(page)).to_contain_text("Done: every kept sample")
    wait_for(lambda: counted(keeping, "digits")["labelled"] == 3)
    assert labels(keeping, "digits") == given
    # What is over for all is not over for who would take the last back.
    page.get_by_role("button", name="Undo").click()
    given |= dict([label_by_key(page)])
    wait_for(lambda: labels(keeping, "digits") == given)
    with page.expect_download() as taken:
        page.get_by_role("button", name="Export what is labelled").click()
    assert taken.value.suggested_filename == "samples-digits.npz"
    content = Path(taken.value.path()).read_bytes()
    arrays = np.load(io.BytesIO(content))
    assert sorted(arrays["y"].tolist()) == [1, 2, 3, 4]
    assert [int(row[0, 0, 0]) for row in arrays["x"]] == arrays["y"].tolist()


def test_a_lost_server_loses_nothing(page: Page, tmp_path: Path) -> None:
    models = copied(tmp_path / "models", "digits")
    environment = {
        "CANDOR_DATABASE_URL": sqlite_address(tmp_path),
        "CANDOR_KEEP_SAMPLES": "digits=all",
    }
    given: dict[str, str] = {}
    with serving(models, environment=environment) as server:
        keep(server, "digits", TEN[:6])
        open_label(page, server, "digits")
        with page.expect_response("**/samples/*/label"):
            given |= dict([label_by_key(page)])
        # What comes after it finds the page having read it.
        page.evaluate("fetch('/livez').then((answer) => answer.text())")
        assert labels(server, "digits") == given
    given |= dict(label_by_key(page) for _ in range(3))
    page.keyboard.press("ArrowLeft")
    given |= dict([label_by_key(page)])
    expect(page.locator("#connection")).to_contain_text("cannot be reached")
    expect(text_of(page)).to_contain_text("5 not saved yet: The server cannot be reached.")
    with serving(
        models, "--port", server.url.rpartition(":")[2], environment=environment
    ) as server:
        wait_for(lambda: labels(server, "digits") == given)
        expect(text_of(page)).not_to_contain_text("not saved yet")
        expect(page.locator("#connection")).to_be_empty()
        given |= dict(label_by_key(page) for _ in range(2))
        expect(text_of(page)).to_contain_text("You: 6 labelled, 0 skipped.")
        wait_for(lambda: labels(server, "digits") == given)
        assert page.locator(".labelling .wrong").count() == 0


def test_what_is_not_saved_yet_outlives_the_page(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:4])
    open_label(page, keeping, "digits")
    page.route("**/samples/*/label", lambda route: route.abort())
    given = dict(label_by_key(page) for _ in range(2))
    expect(text_of(page)).to_contain_text("2 not saved yet")
    # The browser asks whether to leave.
    asked: list[str] = []

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    page.reload()
    assert asked == ["beforeunload"]
    expect(text_of(page)).to_contain_text("2 not saved yet")
    page.unroute("**/samples/*/label")
    until_labelled(page, keeping, given)
    expect(text_of(page)).not_to_contain_text("not saved yet")
    # What the page before had in hand is given back, and not waited for.
    given |= dict(label_by_key(page) for _ in range(2))
    until_labelled(page, keeping, given)


def test_an_answer_that_was_lost_on_its_way_is_asked_for_again(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:2])
    open_label(page, keeping, "digits")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/samples/*/label", lose, times=1)
    given = dict([label_by_key(page)])
    until_labelled(page, keeping, given)
    given |= dict([label_by_key(page)])
    until_labelled(page, keeping, given)
    expect(text_of(page)).to_contain_text("You: 2 labelled, 0 skipped.")
    assert page.locator(".labelling .wrong").count() == 0


def test_what_became_somebody_elses_is_said_and_not_overwritten(
    page: Page, keeping: Server
) -> None:
    keep(keeping, "digits", TEN[:2])
    with page.expect_response("**/samples/lease") as leased:
        open_label(page, keeping, "digits")
    number, grey = shown(page)
    # As if the page had been asleep until its lease ended.
    assert keeping.post("/samples/lease/release", {"lease": leased.value.json()["lease"]}).json()
    other = keeping.post("/samples/lease", {"model": "digits"}).json()
    body = {"label": (grey + 1) % 10, "lease": other["lease"]}
    assert keeping.post(f"/samples/{number}/label", body).status_code == 200
    page.keyboard.press(str(grey))
    notice = page.get_by_role("alert").filter(has_text="was not taken")
    expect(notice).to_contain_text(f"sample {number} is not held by this lease any more")
    expect(text_of(page)).to_contain_text("You: 0 labelled, 0 skipped.")
    assert labels(keeping, "digits") == {number: str((grey + 1) % 10)}
    page.get_by_role("button", name="Dismiss").click()
    expect(notice).to_have_count(0)
    rest, _ = label_by_key(page)
    expect(notice).to_contain_text(f"sample {rest} is somebody else's to label for another")
    expect(text_of(page)).to_contain_text("Nothing is free: the 1 that wait are in others’ hands")
    # It comes back by itself once it is given back.
    keeping.post("/samples/lease/release", {"lease": other["lease"]})
    assert label_by_key(page)[0] == rest
    wait_for(lambda: counted(keeping, "digits")["labelled"] == 2)


def test_what_waited_longer_than_its_lease_is_saved_and_not_asked_for_again(
    page: Page, keeping: Server
) -> None:
    keep(keeping, "digits", TEN[:2])
    with page.expect_response("**/samples/lease") as leased:
        open_label(page, keeping, "digits")
    page.route("**/samples/*/label", lambda route: route.abort())
    given = dict(label_by_key(page) for _ in range(2))
    expect(text_of(page)).to_contain_text("There are more as soon as what you decided is saved")
    # As if the server had been away until the lease ended: both still wait for a label.
    ended = {"lease": leased.value.json()["lease"], "seconds": 0.001}
    assert {*keeping.post("/samples/lease/renew", ended).json()["held"]} == {*given}
    # The page looks for more by itself, and is not to be given these again.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.unroute("**/samples/*/label")
    until_labelled(page, keeping, given)
    expect(text_of(page)).to_contain_text("Done: every kept sample has its label")
    expect(text_of(page)).to_contain_text("You: 2 labelled, 0 skipped.")
    expect(page.locator(".labelling .wrong")).to_have_count(0)


def test_a_lease_that_ended_unnoticed_costs_no_label(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:3])
    with page.expect_response("**/samples/lease") as leased:
        open_label(page, keeping, "digits")
    shown(page)
    # As if the computer had slept. Nobody else was given them, and so the page is, once more.
    ended = {"lease": leased.value.json()["lease"], "seconds": 0.001}
    assert len(keeping.post("/samples/lease/renew", ended).json()["held"]) == 3
    with page.expect_response("**/samples/lease") as again:
        given = dict([label_by_key(page)])
    assert len(again.value.json()["samples"]) == 2
    # What comes after it finds the page having read it.
    page.evaluate("fetch('/livez').then((answer) => answer.text())")
    given |= dict(label_by_key(page) for _ in range(2))
    wait_for(lambda: labels(keeping, "digits") == given)
    expect(text_of(page)).to_contain_text("You: 3 labelled, 0 skipped.")
    expect(text_of(page)).to_contain_text("Done: every kept sample has its label")
    expect(page.locator(".labelling .wrong")).to_have_count(0)


def test_what_was_refused_while_another_tab_was_shown_is_said_afterwards(
    page: Page, keeping: Server
) -> None:
    keep(keeping, "digits", TEN[:1])
    with page.expect_response("**/samples/lease") as leased:
        open_label(page, keeping, "digits")
    page.route("**/samples/*/label", lambda route: route.abort())
    number, given = label_by_key(page)
    expect(text_of(page)).to_contain_text("1 not saved yet")
    page.get_by_role("link", name="Try", exact=True).click()
    expect(page.locator(".labelling")).to_have_count(0)
    assert keeping.post("/samples/lease/release", {"lease": leased.value.json()["lease"]}).json()
    assert keeping.post(f"/samples/{number}/label", {"label": "5"}).status_code == 200
    with page.expect_response("**/samples/*/label") as refused:
        page.unroute("**/samples/*/label")
    assert refused.value.status == 409
    page.evaluate("location.hash = 'label/digits'")
    notice = page.get_by_role("alert").filter(has_text="was not taken")
    expect(notice).to_contain_text(f"sample {number} is not held by this lease any more")
    page.get_by_role("button", name="Dismiss").click()
    page.get_by_label("Model", exact=True).select_option("co2")
    expect(page.get_by_label("Model", exact=True)).to_have_value("co2")
    expect(notice).to_have_count(0)
    assert (labels(keeping, "digits"), given) == ({number: "5"}, "0")


def test_a_model_that_is_chosen_again_and_again_has_one_desk(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN)
    open_label(page, keeping, "co2")
    page.evaluate(
        """names => {
          const select = document.querySelector("#model");
          for (const name of names) {
            select.value = name;
            select.dispatchEvent(new Event("change"));
          }
        }""",
        ["digits", "co2", "digits"],
    )
    number, given = label_by_key(page)
    wait_for(lambda: labels(keeping, "digits") == {number: given})
    # One person has one batch in hand.
    wait_for(lambda: counted(keeping, "digits")["leased"] == 4)
    expect(text_of(page)).to_contain_text("Of all 10: 1 labelled")


def test_who_labels_goes_on_though_the_list_of_models_does_not_come(
    page: Page, keeping: Server
) -> None:
    keep(keeping, "digits", TEN[:2])
    open_label(page, keeping, "digits")
    shown(page)
    page.route("**/models", lambda route: route.abort())
    page.route("**/livez", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#connection")).to_contain_text("cannot be reached")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/models")):
        page.unroute("**/livez")
    page.unroute("**/models")
    expect(page.locator("#connection")).to_be_empty()
    given = dict([label_by_key(page)])
    until_labelled(page, keeping, given)


def test_what_is_left_goes_back_with_the_tab(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:4])
    open_label(page, keeping, "digits")
    shown(page)
    assert counted(keeping, "digits")["leased"] == 4
    page.get_by_role("link", name="Try").click()
    wait_for(lambda: counted(keeping, "digits")["leased"] == 0)


def test_why_is_hidden_until_it_is_asked_for(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:3])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(keeping.url)))
    open_label(page, keeping, "digits")
    shown(page)
    why = page.get_by_label("Why this one", exact=True)
    expect(why).not_to_contain_text("nats")
    assert not {"/predict", "/eval"} & set(asked)
    page.keyboard.press("?")
    expect(why.get_by_role("row").first).to_contain_text("mutual information")
    expect(why.get_by_role("row").first).to_contain_text("the queue’s order")
    expect(why).to_contain_text("What version 1 says")
    expect(why.locator(".strips tbody tr")).to_have_count(10)
    page.keyboard.press("?")
    expect(why.locator("table")).to_have_count(0)
    page.keyboard.press("?")
    expect(why.locator(".strips")).to_have_count(1)
    label_by_key(page)
    # The next one is looked at without it.
    expect(why.locator("table")).to_have_count(0)


def test_rows_have_their_names_and_two_classes_two_keys(page: Page, keeping: Server) -> None:
    keep(keeping, "breast_cancer", [[float(number) + 0.25 for number in range(30)]])
    open_label(page, keeping, "breast_cancer")
    rows = page.get_by_role("region", name="Numbers of the sample").locator("tbody tr")
    expect(rows).to_have_count(30)
    expect(rows.nth(23)).to_have_text("worst area23.25")
    expect(page.get_by_role("button", name="benign", exact=True)).to_be_visible()
    page.keyboard.press("2")
    wait_for(lambda: list(labels(keeping, "breast_cancer").values()) == ["benign"])


def test_numbers_are_typed(page: Page, keeping: Server) -> None:
    keep(keeping, "co2", [[1975.5], [1990.25]])
    open_label(page, keeping, "co2")
    expect(page.get_by_role("region", name="Numbers of the sample")).to_be_visible()
    first = page.locator(".stage").get_attribute("data-sample")
    page.keyboard.type("331.25")
    expect(page.get_by_label("The true value")).to_have_value("331.25")
    page.keyboard.press("Enter")
    wait_for(lambda: labels(keeping, "co2") == {first: 331.25})
    expect(page.get_by_label("The true value")).to_have_value("")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    wait_for(lambda: labels(keeping, "co2") == {})
    for number in ("-2", "354"):
        page.keyboard.type(number)
        page.keyboard.press("Enter")
    wait_for(lambda: sorted(labels(keeping, "co2").values()) == [-2.0, 354.0])
    assert labels(keeping, "co2")[str(first)] == -2.0


def test_more_than_ten_classes_go_on_with_letters(page: Page, keeping: Server) -> None:
    keep(keeping, "dozen", [[0.0, 0.0, 0.0, float(number)] for number in range(3)])
    open_label(page, keeping, "dozen")
    expect(page.get_by_role("button", name="11", exact=True)).to_have_attribute(
        "aria-keyshortcuts", "b"
    )
    for key in ("b", "a", "0"):
        page.keyboard.press(key)
    wait_for(lambda: sorted(labels(keeping, "dozen").values()) == [0, 10, 11])


def test_more_classes_than_keys_are_searched(page: Page, keeping: Server) -> None:
    keep(keeping, "crowd", [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    open_label(page, keeping, "crowd")
    expect(page.locator(".stage table")).to_be_visible()
    page.keyboard.type("38")
    expect(page.locator(".choice")).to_have_text(["38"])
    page.keyboard.press("Enter")
    page.keyboard.type("3")
    expect(page.locator(".choice").first).to_have_text("3")
    page.keyboard.press("Enter")
    wait_for(lambda: sorted(labels(keeping, "crowd").values()) == [3, 38])


def test_several_labels_may_hold_and_none(page: Page, keeping: Server) -> None:
    keep(keeping, "tags", [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    open_label(page, keeping, "tags")
    expect(page.locator(".stage table")).to_be_visible()
    for key in ("1", "2", "3", "2"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="wet", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.get_by_role("button", name="cold", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="wet", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )
    page.keyboard.press("Enter")
    wait_for(lambda: sorted(labels(keeping, "tags").values()) == [[], ["wet", "windy"]])


def test_a_link_is_followed_and_saves_nothing(page: Page, keeping: Server) -> None:
    keep(keeping, "tags", [[1.0, 2.0, 3.0, 4.0]])
    open_label(page, keeping, "tags")
    expect(page.locator(".stage table")).to_be_visible()
    page.get_by_role("link", name="Try", exact=True).press("Enter")
    expect(page.locator(".labelling")).to_have_count(0)
    wait_for(lambda: counted(keeping, "tags")["leased"] == 0)
    assert labels(keeping, "tags") == {}


def test_what_it_cannot_label_rightly_is_labelled_elsewhere(page: Page, keeping: Server) -> None:
    for model, words in (("places", "for every place"), ("several", "3 numbers together")):
        keep(keeping, model, [[[[1.0] * 4] * 2] * 2 if model == "places" else [1.0] * 4])
        open_label(page, keeping, model)
        expect(text_of(page)).to_contain_text(words)
        expect(text_of(page)).to_contain_text("Label Studio")
        assert page.locator(".choice, #number").count() == 0
        assert counted(keeping, model)["leased"] == 0
        page.locator("#format").select_option("jsonl")
        with page.expect_download() as taken:
            page.get_by_role("button", name="Export what waits").click()
        [line] = Path(taken.value.path()).read_text().splitlines()
        assert json.loads(line)["model"] == model


@pytest.mark.parametrize(
    ("tokens", "numbers", "text"),
    [
        (["[PAD]", "un", "##sure", "he", "is"], [3, 4, 1, 2, 0, 0], "he is unsure"),
        (["<pad>", "▁he", "▁is", "▁un", "sure"], [1, 2, 3, 4, 0], "he is unsure"),
        (["<s>", "a", "b", " "], [1, 3, 2], "a b"),
        (["", "good", "bad"], [1, 2, 7], "good bad ⟨7⟩"),
        (["<pad>", "a"], [0, 0], "<pad>"),
    ],
)
def test_text_is_put_together_as_its_vocabulary_is_written(
    modules: Page, tokens: list[str], numbers: list[int], text: str
) -> None:
    load = "async (given) => (await import('/page/label/tokens.js')).textOf(...given)"
    assert modules.evaluate(load, [numbers, tokens]) == text


def test_a_choice_has_its_own_key_or_a_free_one(modules: Page) -> None:
    load = "async (names) => (await import('/page/label/keys.js')).keysFor(names)"
    assert modules.evaluate(load, ["a", "B", "malignant", "7", "b"]) == ["a", "b", "1", "7", "2"]
    assert modules.evaluate(load, [f"class {number}" for number in range(38)])[34:] == [
        *("y", "z", None, None)
    ]


@pytest.mark.parametrize("planes", ["first", "last"])
def test_colours_are_seen_as_they_are(modules: Page, planes: str) -> None:
    image = np.zeros((3, 4, 5))
    image[0, 1, 2], image[1, 1, 2], image[2, 3, 4] = 1.0, 0.2, 0.8
    drawn = modules.evaluate(
        """async (input) => {
          const { sampleView } = await import('/page/label/sample.js');
          const aids = { examples: [], tokens: null };
          const shown = sampleView({ input: { dtype: "float32" } }, aids, input);
          const canvas = shown.querySelector("canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, 5, 4);
          return [canvas.width, canvas.height, ...data];
        }""",
        (image if planes == "first" else np.moveaxis(image, 0, -1)).tolist(),
    )
    assert drawn[:2] == [5, 4]
    pixels = np.array(drawn[2:]).reshape(4, 5, 4)
    assert pixels[1, 2].tolist() == [255, 51, 0, 255]
    assert pixels[3, 4].tolist() == [0, 0, 204, 255]
    assert pixels[0, 0].tolist() == [0, 0, 0, 255]


def test_text_is_read_and_markup_in_it_stays_text(page: Page, keeping: Server) -> None:
    keep(keeping, "words", [[1, 2, 3, 4, 5, 0]], REQUEST_ID)
    open_label(page, keeping, "words")
    expect(page.get_by_role("region", name="Text of the sample")).to_have_text(
        f"what a fine {MARKUP}"
    )
    expect(page.locator(".labelling .origin")).to_contain_text(REQUEST_ID)
    keep(keeping, "marked", [[1.0, 2.0, 3.0, 4.0]], REQUEST_ID)
    page.get_by_label("Model", exact=True).select_option("marked")
    expect(page.get_by_role("button", name=MARKUP, exact=True)).to_be_visible()
    page.get_by_role("button", name=MARKUP, exact=True).click()
    expect(text_of(page)).to_contain_text("Done: every kept sample")
    wait_for(lambda: list(labels(keeping, "marked").values()) == [MARKUP])
    page.keyboard.press("Control+z")
    expect(page.locator(".stage table")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator(".why .strips tbody th").first).to_have_text(MARKUP)
    assert page.evaluate("window.struck") is None
    assert page.locator("img, main script").count() == 0


def test_without_a_mouse_all_is_reached(page: Page, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:3])
    open_label(page, keeping, "digits")
    first, _ = shown(page)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.textContent.trim()")
        reached.append(name)
        if name == "Export what waits":
            break
        if name == "7":
            page.keyboard.press("Space")
            # The focus stays where it is, for the next one.
            assert page.evaluate("document.activeElement.textContent.trim()") == "7"
    assert {*"0123456789"} < {*reached}
    assert {"Skip →", "Undo ←", "Why this one? ?", "Export what is labelled"} < {*reached}
    wait_for(lambda: labels(keeping, "digits") == {first: "7"})
    second, _ = shown(page)
    # Who speaks to a computer, or presses keys by mistake, switches single keys off.
    page.get_by_label("Label by single keys").press("Space")
    page.keyboard.press("3")
    assert shown(page)[0] == second
    page.get_by_label("Label by single keys").press("Space")
    page.keyboard.press("3")
    wait_for(lambda: labels(keeping, "digits") == {first: "7", second: "3"})


def test_the_focus_goes_on_where_nothing_is_left_and_comes_back(
    page: Page, keeping: Server
) -> None:
    keep(keeping, "digits", TEN[:1])
    open_label(page, keeping, "digits")
    shown(page)
    seven = page.get_by_role("button", name="7", exact=True)
    seven.press("Enter")
    nothing = page.get_by_role("region", name="Nothing to label")
    expect(nothing).to_contain_text("Done: every kept sample")
    expect(nothing).to_be_focused()
    nothing.get_by_role("button", name="Undo").press("Enter")
    expect(seven).to_be_focused()


def test_where_nothing_is_kept_that_is_said_until_something_is(page: Page, keeping: Server) -> None:
    keeping.request("DELETE", "/samples?model=marked").raise_for_status()
    open_label(page, keeping, "marked")
    expect(text_of(page)).to_contain_text("No request of marked is kept yet")
    expect(text_of(page)).to_contain_text("CANDOR_KEEP_SAMPLES=marked=uncertain")
    keep(keeping, "marked", [[1.0, 2.0, 3.0, 4.0]])
    expect(page.locator(".stage table")).to_be_visible()


def test_a_token_that_may_not_label_is_refused_with_words(page: Page, tmp_path: Path) -> None:
    write_model(tmp_path / "models", "good", more='labels = ["a", "b", "c"]')
    tokens = {scope: make_token() for scope in ("predict", "label")}
    named = ",".join(f"{scope}:{scope}:{hash_of(token)}" for scope, token in tokens.items())
    environment = {"CANDOR_TOKENS": named, "CANDOR_KEEP_SAMPLES": "all"}
    with serving(tmp_path / "models", environment=environment) as server:
        bearer = {scope: {"Authorization": f"Bearer {tokens[scope]}"} for scope in tokens}
        body = {"inputs": [[1.0, 2.0, 3.0, 4.0]], "passes": 4}
        assert server.post("/predict", body, bearer["predict"]).status_code == 200

        def labelled() -> int:
            counts = server.request("GET", "/samples/counts", headers=bearer["label"])
            return sum(each["labelled"] for each in counts.json()["counts"])

        page.goto(f"{server.url}/#label")
        token = page.get_by_label("Token", exact=True)
        token.fill(tokens["predict"])
        token.press("Enter")
        refused = page.get_by_role("alert").filter(has_text="this needs label")
        expect(refused).to_contain_text("the token has the scopes predict")
        expect(text_of(page)).to_contain_text("Labelling needs a token with the scope label")
        page.get_by_role("button", name="Use another token").click()
        token.fill(tokens["label"])
        token.press("Enter")
        # It labels; what the model says of a row is for who may ask it.
        expect(page.locator(".stage table")).to_be_visible()
        page.keyboard.press("?")
        expect(page.locator(".why .scores")).to_be_visible()
        expect(page.get_by_role("alert").filter(has_text="this needs predict")).to_be_visible()
        page.keyboard.press("b")
        wait_for(lambda: labelled() == 1)
        with page.expect_download() as taken:
            page.get_by_role("button", name="Export what is labelled").click()
        assert np.load(taken.value.path())["y"].tolist() == [1]


def test_axe_finds_nothing(browser: Browser, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:3])
    keep(keeping, "breast_cancer", [[float(number) for number in range(30)]])
    keep(keeping, "co2", [[1975.5]])
    keep(keeping, "tags", [[1.0, 2.0, 3.0, 4.0]])
    keep(keeping, "words", [[1, 2, 3, 4, 6, 0]])
    keep(keeping, "crowd", [[1.0, 2.0, 3.0, 4.0]])
    keeping.request("DELETE", "/samples?model=marked").raise_for_status()
    with visiting(browser, bypass_csp=True) as page:
        for model in (
            "digits",
            "breast_cancer",
            "co2",
            "tags",
            "words",
            "crowd",
            "marked",
            "places",
        ):
            open_label(page, keeping, model)
            if model == "marked":
                expect(text_of(page)).to_contain_text("is kept yet")
            elif model == "places":
                expect(text_of(page)).to_contain_text("This page does not do that")
            else:
                expect(page.locator(".stage > *")).to_be_visible()
            if model in ("digits", "co2"):
                page.get_by_role("button", name="Why this one?").click()
                expect(page.locator(".says .headline")).to_be_visible()
            assert_accessible(page)


def test_it_fits_a_telephone(browser: Browser, keeping: Server) -> None:
    keep(keeping, "digits", TEN[:3])
    keep(keeping, "breast_cancer", [[float(number) for number in range(30)]])
    keep(keeping, "co2", [[1975.5]])
    keep(keeping, "words", [[1, 2, 3, 4, 5, 0]])
    with visiting(browser, viewport={"width": 375, "height": 740}, has_touch=True) as page:
        for model in ("digits", "breast_cancer", "co2", "words"):
            open_label(page, keeping, model)
            expect(page.locator(".stage > *")).to_be_visible()
            page.get_by_role("button", name="Why this one?").tap()
            expect(page.locator(".says .headline")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 375
        open_label(page, keeping, "digits")
        first, _ = shown(page)
        page.get_by_role("button", name="4", exact=True).tap()
        wait_for(lambda: labels(keeping, "digits") == {first: "4"})
