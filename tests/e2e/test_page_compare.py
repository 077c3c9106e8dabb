"""The page's tab that compares two versions, in a real browser against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page, expect
from scipy import stats

from service.calibration import reliability
from service.calibration.checks import BoolArray, FloatArray
from service.client import Client, KeptSample
from service.tokens import hash_of, make_token
from service.types import Task
from tests.e2e.browser import assert_accessible, visiting
from tests.e2e.servers import Server, serving
from tests.e2e.test_page import AGED, MARKUP
from tests.e2e.two_versions import keep, keep_digits, write_two_digits
from tests.repositories import MLP, write_model, write_version

DIGITS = 40
MOST_WORK = 1000
"""Rows × passes of a request: 20 rows at 50 passes."""
ROWS = np.random.default_rng(0).normal(0, 2, (12, 4)).astype(np.float32)
TRUTHS = np.random.default_rng(1).normal(0, 1, (12, 3))
NOISY = MLP.replace("nn.Linear(32, 3)", "nn.Linear(32, 4)")
"""Two means and the logarithms of their two noise variances."""
LINE = MLP.replace("nn.Linear(4, 32)", "nn.Linear(1, 32)").replace("32, 3", "32, 1")


class Answers(NamedTuple):
    """What both versions say of the labelled digits, asked by the client."""

    samples: list[KeptSample]
    mean: list[NDArray[np.float64]]
    label: list[list[str]]
    entropy: list[NDArray[np.float64]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models in two versions with samples of each; `unlike` takes what `marked` takes."""
    root = tmp_path_factory.mktemp("compared")
    write_two_digits(root)
    write_version(
        write_model(root, "marked", more=f"labels = {json.dumps([MARKUP, 'b', 'c'])}"), 2, seed=1
    )
    write_version(write_model(root, "numbers", task="regression"), 2, seed=1)
    write_version(write_model(root, "places", shape="[2, 2, 4]"), 2, seed=1)
    write_version(write_model(root, "line", LINE, task="regression", shape="[1]"), 2, seed=1)
    write_version(write_model(root, "several", task="multilabel"), 2, seed=1)
    write_version(write_model(root, "noisy", NOISY, task="heteroscedastic_regression"), 2, seed=1)
    write_model(root, "unlike")
    environment = {"CANDOR_KEEP_SAMPLES": "all", "CANDOR_MAX_WORK": str(MOST_WORK)}
    with serving(root, environment=environment) as running:
        keep_digits(running, DIGITS, DIGITS)
        keep(running, "marked", ROWS, lambda _: MARKUP)
        keep(running, "numbers", ROWS, lambda row: TRUTHS[row].tolist())
        keep(running, "line", ROWS[:, :1].copy(), lambda _: None)
        keep(running, "several", ROWS, lambda row: np.flatnonzero(TRUTHS[row] > 0).tolist())
        keep(running, "noisy", ROWS, lambda row: TRUTHS[row, :2].tolist())
        keep(running, "places", np.resize(ROWS, (3, 2, 2, 4)), lambda _: None)
        yield running


@pytest.fixture(scope="module")
def answers(server: Server) -> Answers:
    with Client(server.url) as client:
        kept = client.samples(model="digits", status="labelled", limit=DIGITS).samples
        parts = [
            [
                client.predict(
                    np.stack([sample.input for sample in kept[row : row + 10]]),
                    model="digits",
                    version=version,
                )
                for row in range(0, len(kept), 10)
            ]
            for version in (1, 2)
        ]
    return Answers(
        list(kept),
        [np.concatenate([known(part.mean) for part in of]).astype(np.float64) for of in parts],
        [[str(label) for part in of for label in known(part.label)] for of in parts],
        [np.concatenate([known(part.predictive_entropy) for part in of]) for of in parts],
    )


def compare(page: Page, server: Server, place: str = "digits@1,digits@2") -> None:
    page.goto(f"{server.url}/#compare/{place}")
    expect(page.get_by_role("button", name="One input")).to_have_attribute("aria-pressed", "true")


def compare_samples(
    page: Page, server: Server, place: str = "digits@1,digits@2", which: str = "labelled"
) -> None:
    compare(page, server, place)
    page.get_by_role("button", name="Stored samples").click()
    page.get_by_label("Which", exact=True).select_option(which)
    page.get_by_role("button", name="Compare", exact=True).click()


def said(page: Page) -> Locator:
    return page.locator(".said")


def answer(page: Page, letter: str) -> Locator:
    return page.get_by_label(f"Answer of {letter}", exact=True)


def cells(page: Page, region: str, title: str) -> list[str]:
    """The texts of a table's row."""
    head = page.get_by_role("rowheader", name=title, exact=True)
    row = page.get_by_label(region, exact=True).locator("tr").filter(has=head)
    return row.locator("td").all_inner_texts()


def numbers(page: Page, region: str, title: str) -> list[float]:
    """The first number of each of the first two cells of a row."""
    return [float(text.split()[0]) for text in cells(page, region, title)[:2]]


def test_both_versions_get_the_same_input_passes_and_seed(page: Page, server: Server) -> None:
    page.add_init_script(AGED)
    page.goto(server.url + "/#compare")
    expect(page.get_by_label("A", exact=True)).to_have_value("digits@1")
    expect(page.get_by_label("B", exact=True)).to_have_value("digits@2")
    expect(answer(page, "A").get_by_label("Label", exact=True)).to_have_text("3")
    expect(answer(page, "A")).to_contain_text("Not flagged")
    expect(answer(page, "B")).to_contain_text("version 2 is not calibrated")
    page.get_by_role("button", name="A scribble").click()
    expect(answer(page, "A")).to_contain_text("Flagged: unlike what it knows")
    page.get_by_label("Seed").press("ArrowRight")
    page.get_by_label("Passes (T)").press("ArrowRight")
    for letter in "AB":
        expect(answer(page, letter)).to_contain_text("each of 51 passes")
    expect(page.get_by_label("Difference", exact=True)).to_have_attribute("aria-busy", "false")
    asked = [(address, json.loads(body)) for address, body in page.evaluate("window.asked")]
    *_, first, first_off, second, second_off = asked
    assert [first[1].pop("version"), second[1].pop("version")] == [1, 2]
    assert first == second
    assert (first[1]["passes"], first[1]["seed"]) == (51, 1)
    assert first[1]["inputs"] == first_off[1]["inputs"] == second_off[1]["inputs"]
    assert page.evaluate("window.most") == 1


def test_without_an_input_nothing_is_asked_and_nothing_is_busy(page: Page, server: Server) -> None:
    compare(page, server)
    expect(answer(page, "B").locator(".headline")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    difference = page.get_by_label("Difference", exact=True)
    expect(difference).to_have_text("Nothing is drawn yet.")
    expect(difference).to_have_attribute("aria-busy", "false")
    expect(answer(page, "B")).to_be_hidden()


def test_the_table_says_what_the_answers_say(page: Page, server: Server) -> None:
    compare(page, server)
    page.get_by_role("button", name="Example 1").click()
    example = server.get("/models/digits/example").json()["inputs"][0]
    said = [
        server.post("/predict", {"model": "digits", "version": version, "inputs": [example]}).json()
        for version in (1, 2)
    ]
    expect(answer(page, "A").get_by_label("Label", exact=True)).to_have_text(said[0]["label"][0])
    expect(answer(page, "B").get_by_label("Label", exact=True)).to_have_text(said[1]["label"][0])
    region = "Both answers as a table"
    for title, name in (
        ("Predictive entropy", "predictive_entropy"),
        ("Epistemic part", "mutual_information"),
        ("Aleatoric part", "expected_entropy"),
    ):
        found = [each[name][0] for each in said]
        assert numbers(page, region, title) == pytest.approx(found, rel=6e-3, abs=1e-6)
    assert cells(page, region, "Label")[:2] == [each["label"][0] for each in said]
    assert cells(page, region, "Out of distribution") == ["not flagged", "no flag", "–"]


def test_versions_are_chosen_swapped_and_found_again(page: Page, server: Server) -> None:
    compare(page, server)
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_label("A", exact=True)).to_have_value("digits@2")
    expect(answer(page, "B")).to_contain_text("Not flagged")
    page.reload()
    expect(page.get_by_label("A", exact=True)).to_have_value("digits@2")
    page.get_by_label("A", exact=True).select_option("marked@1")
    # What takes four numbers and answers with a class; `numbers` answers with numbers.
    offered = page.get_by_label("B", exact=True).locator("option")
    expect(offered).to_have_count(2)
    expect(page.get_by_label("B", exact=True)).to_have_value("marked@2")
    page.get_by_label("B", exact=True).select_option("unlike@1")
    expect(answer(page, "B")).to_contain_text("unlike, version 1")
    expect(answer(page, "B").locator("tbody tr")).to_have_count(3)
    page.get_by_role("button", name="Stored samples").click()
    expect(page.get_by_label("Samples of").locator("option")).to_have_text(["marked", "unlike"])


def test_stored_samples_are_held_against_each_other(
    page: Page, server: Server, answers: Answers
) -> None:
    compare_samples(page, server)
    expect(said(page)).to_have_text(f"{DIGITS} samples compared.")
    first, second = answers.label
    same = sum(one == other for one, other in zip(first, second, strict=True))
    assert 0 < same < DIGITS
    expect(page.get_by_label("Agreement", exact=True)).to_contain_text(
        f"the same class: {same} of {DIGITS}"
    )
    points = page.locator("svg.scatter [data-place]")
    expect(points).to_have_count(DIGITS)
    expect(page.locator("svg.scatter path.differ[data-place]")).to_have_count(DIGITS - same)
    more = int((answers.entropy[1] > answers.entropy[0]).sum())
    expect(page.locator("svg.scatter[role=img]")).to_have_attribute(
        "aria-label",
        f"Predictive entropy: A is more in doubt about {DIGITS - more} samples, B about {more}, "
        f"of {DIGITS}",
    )
    assert numbers(page, "Doubt", "Predictive entropy") == pytest.approx(
        [of.mean() for of in answers.entropy], rel=6e-3
    )
    page.get_by_label("Kind of doubt").select_option("epistemic")
    expect(page.locator("svg.scatter[role=img]")).to_have_attribute(
        "aria-label", re.compile("^Epistemic part: ")
    )


def test_quality_on_labelled_samples_is_that_of_the_report(
    page: Page, server: Server, answers: Answers
) -> None:
    compare_samples(page, server)
    expect(page.get_by_label("Quality", exact=True)).to_contain_text(f"{DIGITS} labelled samples.")
    truth = np.array([int(sample.label) for sample in answers.samples])
    task = Task.CLASSIFICATION
    right = [reliability.top_label(mean, truth)[1] for mean in answers.mean]
    region = "Quality of both"
    assert numbers(page, region, "Accuracy") == pytest.approx(
        [100 * of.mean() for of in right], rel=6e-3
    )
    assert numbers(page, region, "Negative log likelihood, nats") == pytest.approx(
        [-reliability.log_likelihood(mean, truth, task) for mean in answers.mean], rel=6e-3
    )
    assert numbers(page, region, "Expected calibration error") == pytest.approx(
        [expected_calibration_error(*reliability.top_label(of, truth)) for of in answers.mean],
        rel=6e-3,
    )
    alone = [int((right[k] & ~right[1 - k]).sum()) for k in (0, 1)]
    assert numbers(page, region, "Right where the other is wrong") == alone


def test_the_samples_farthest_apart_open_side_by_side(
    page: Page, server: Server, answers: Answers
) -> None:
    compare_samples(page, server)
    apart = [divergence(p, q) for p, q in zip(*answers.mean, strict=True)]
    place = int(np.argmax(apart))
    rows = page.get_by_label("Farthest apart", exact=True).get_by_role("listitem")
    expect(rows).to_have_count(12)
    expect(rows.first).to_contain_text(f"A: {answers.label[0][place]} (")
    expect(rows.first).to_contain_text(f"B: {answers.label[1][place]} (")
    expect(rows.first).to_contain_text(f"labelled {answers.samples[place].label}")
    button = page.get_by_role("button", name="Sample 1 side by side")
    button.focus()
    button.press("Enter")
    origin = page.locator(".origin")
    expect(origin).to_be_focused()
    expect(origin).to_contain_text(answers.samples[place].id)
    for letter, label in zip("AB", answers.label, strict=True):
        expect(answer(page, letter).get_by_label("Label", exact=True)).to_have_text(label[place])
    expect(page.get_by_label("Difference", exact=True)).to_have_attribute("aria-busy", "false")
    # The same input, passes and seed: the same answers as in the list.
    assert numbers(page, "Both answers as a table", "Predictive entropy") == pytest.approx(
        [of[place] for of in answers.entropy], rel=6e-3
    )
    page.get_by_role("button", name="Back to the samples").click()
    expect(button).to_be_focused()
    expect(rows).to_have_count(12)


@pytest.mark.parametrize("model", ["digits", "numbers", "line"])
def test_a_sample_is_asked_about_as_it_was_kept(page: Page, server: Server, model: str) -> None:
    page.add_init_script(AGED)
    compare_samples(page, server, f"{model}@1,{model}@2", which="")
    page.get_by_role("button", name="Sample 2 side by side").click()
    found = re.search("[0-9a-f]{32}", page.locator(".origin").inner_text())
    assert found is not None
    sample = server.get(f"/samples/{found.group()}").json()
    expect(page.get_by_label("Difference", exact=True)).to_have_attribute("aria-busy", "false")
    expect(answer(page, "B").locator(".headline")).to_be_visible()
    address, body = page.evaluate("window.asked")[-1]
    assert (address, json.loads(body)["inputs"]) == (f"{server.url}/eval", [sample["input"]])


def test_batches_fit_the_server_and_go_one_at_a_time(page: Page, server: Server) -> None:
    page.add_init_script(AGED)
    statuses: list[tuple[int, int]] = []

    def note(response: Any) -> None:
        if response.url.endswith("/predict"):
            rows = len(json.loads(response.request.post_data)["inputs"])
            statuses.append((response.status, rows))

    compare(page, server)
    expect(answer(page, "B")).to_contain_text("each of 50 passes")
    page.on("response", note)
    page.get_by_role("button", name="Stored samples").click()
    page.get_by_label("Which", exact=True).select_option("labelled")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(said(page)).to_have_text(f"{DIGITS} samples compared.")
    # Twice what one request may hold: refused as a whole, then taken by halves, by both.
    assert statuses == [(413, DIGITS), *[(200, DIGITS // 2)] * 4]
    assert page.evaluate("window.most") == 1


def test_a_run_is_stopped_and_shows_what_it_has(page: Page, server: Server) -> None:
    page.add_init_script(AGED)
    compare(page, server)
    page.get_by_label("Passes (T)").press("End")
    page.get_by_role("button", name="Stored samples").click()
    page.get_by_label("Which", exact=True).select_option("labelled")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(said(page)).to_contain_text(f"of {DIGITS} samples compared…")
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(said(page)).to_contain_text(f"of {DIGITS} samples compared.")
    text = said(page).inner_text()
    assert text.startswith("Stopped: ")
    done = int(text.split()[1])
    assert 0 < done < DIGITS
    expect(page.locator("svg.scatter [data-place]")).to_have_count(done)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_focused()


def test_numbers_are_compared_as_numbers(page: Page, server: Server) -> None:
    compare(page, server, "numbers@1,numbers@2")
    expect(answer(page, "B")).to_contain_text("In the data (aleatoric): not known")
    assert len(cells(page, "Both answers as a table", "output 2, mean ± std")) == 3
    compare_samples(page, server, "numbers@1,numbers@2", which="labelled")
    expect(said(page)).to_have_text(f"{len(ROWS)} samples compared.")
    expect(page.get_by_label("Quality", exact=True)).to_contain_text("12 labelled samples.")
    with Client(server.url) as client:
        means = [known(client.predict(ROWS, model="numbers", version=each).mean) for each in (1, 2)]
    errors = [float(np.sqrt(((mean - TRUTHS) ** 2).mean())) for mean in means]
    assert numbers(page, "Quality of both", "Root mean squared error") == pytest.approx(
        errors, rel=6e-3
    )
    # Without the noise of the data there is no likelihood, and no interval that should hold.
    unknown = cells(page, "Quality of both", "Negative log likelihood, nats")
    assert unknown == ["not known", "not known"]
    expect(page.get_by_label("Agreement", exact=True)).to_contain_text("two standard deviations")


def test_noise_that_is_told_gives_numbers_a_likelihood(page: Page, server: Server) -> None:
    compare_samples(page, server, "noisy@1,noisy@2")
    expect(said(page)).to_have_text(f"{len(ROWS)} samples compared.")
    losses, held = [], []
    with Client(server.url) as client:
        for version in (1, 2):
            told = client.predict(ROWS, model="noisy", version=version)
            spread = np.hypot(known(told.aleatoric_std), known(told.epistemic_std))
            whole = stats.norm(known(told.mean), spread)
            losses.append(-whole.logpdf(TRUTHS[:, :2]).sum(axis=1).mean())
            low, high = whole.interval(0.9)
            held.append(100 * ((low <= TRUTHS[:, :2]) & (TRUTHS[:, :2] <= high)).mean())
    region = "Quality of both"
    assert numbers(page, region, "Negative log likelihood, nats") == pytest.approx(losses, rel=6e-3)
    assert numbers(page, region, "Truths within the 90 % interval") == pytest.approx(held, rel=6e-3)
    page.get_by_label("Kind of doubt").select_option("aleatoric")
    expect(page.locator("svg.scatter [data-place]")).to_have_count(len(ROWS))


def test_several_labels_are_judged_each(page: Page, server: Server) -> None:
    compare_samples(page, server, "several@1,several@2")
    expect(said(page)).to_have_text(f"{len(ROWS)} samples compared.")
    truth = (TRUTHS > 0).astype(np.int64)
    task = Task.MULTILABEL
    with Client(server.url) as client:
        means = [known(client.predict(ROWS, model="several", version=each).mean) for each in (1, 2)]
    region = "Quality of both"
    for title, expected in (
        ("Accuracy, of labels", [100 * reliability.accuracy(of, truth, task) for of in means]),
        (
            "Negative log likelihood, nats",
            [-reliability.log_likelihood(of, truth, task) for of in means],
        ),
        (
            "Expected calibration error, of labels",
            [expected_calibration_error(*reliability.every_label(of, truth)) for of in means],
        ),
    ):
        assert numbers(page, region, title) == pytest.approx(expected, rel=6e-3)


def test_answers_for_every_place_are_said_to_be_none_to_compare(page: Page, server: Server) -> None:
    compare(page, server, "places@1,places@2")
    expect(answer(page, "A")).to_contain_text("answers for every place of its input")
    compare_samples(page, server, "places@1,places@2", which="")
    expect(said(page)).to_contain_text("They answer for every place of their input")


def test_markup_in_labels_stays_text(page: Page, server: Server) -> None:
    compare(page, server, "marked@1,marked@2")
    expect(answer(page, "A").locator("tbody th").first).to_have_text(MARKUP)
    compare_samples(page, server, "marked@1,marked@2")
    expect(said(page)).to_have_text(f"{len(ROWS)} samples compared.")
    rows = page.get_by_label("Farthest apart", exact=True)
    expect(rows).to_contain_text(f"labelled {MARKUP}")
    page.get_by_role("button", name="Sample 1 side by side").click()
    expect(page.locator(".origin")).to_contain_text(MARKUP)
    assert page.evaluate("window.struck") is None
    assert page.locator("main img, main script").count() == 0


def test_one_version_is_said_in_words(page: Page, shipped: Server) -> None:
    page.goto(shipped.url + "/#compare")
    main = page.locator("main")
    expect(main).to_contain_text("There is nothing to compare yet: each model serves one version")
    expect(main.get_by_role("listitem").filter(has_text="digits, version 1")).to_be_visible()
    expect(page.get_by_role("button", name="Look again")).to_be_visible()


def test_no_samples_are_said_in_words(page: Page, server: Server) -> None:
    compare_samples(page, server, which="skipped")
    expect(said(page)).to_contain_text("There are no such samples.")


def test_axe_finds_nothing(browser: Browser, server: Server) -> None:
    with visiting(browser, bypass_csp=True) as page:
        compare(page, server)
        expect(answer(page, "B").locator(".headline")).to_be_visible()
        assert_accessible(page)
        compare_samples(page, server)
        expect(said(page)).to_have_text(f"{DIGITS} samples compared.")
        assert_accessible(page)


def test_it_fits_a_telephone(browser: Browser, server: Server) -> None:
    with visiting(browser, viewport={"width": 375, "height": 740}, has_touch=True) as page:
        for place in ("digits@1,digits@2", "numbers@1,numbers@2", "marked@1,marked@2"):
            compare(page, server, place)
            page.reload()
            expect(answer(page, "B").locator(".headline")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 375
            page.get_by_role("button", name="Stored samples").click()
            page.get_by_role("button", name="Compare", exact=True).click()
            expect(page.get_by_label("Farthest apart", exact=True)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_a_lost_server_is_waited_for_and_a_refusal_is_shown(page: Page, tmp_path: Path) -> None:
    write_version(write_model(tmp_path / "models", "good"), 2, seed=1)
    many = np.random.default_rng(2).normal(0, 1, (DIGITS, 4)).astype(np.float32)
    environment = {
        "CANDOR_KEEP_SAMPLES": "all",
        "CANDOR_MAX_WORK": str(MOST_WORK),
        "CANDOR_DATABASE_URL": f"sqlite:///{tmp_path}/samples.sqlite",
    }
    page.add_init_script(AGED)
    with serving(tmp_path / "models", environment=environment) as server:
        keep(server, "good", many, lambda _: 1)
        compare(page, server, "good@1,good@2")
        page.get_by_label("Passes (T)").press("End")
        page.get_by_role("button", name="Stored samples").click()
        page.get_by_label("Which", exact=True).select_option("labelled")
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(said(page)).to_contain_text(f"of {DIGITS} samples compared…")
    expect(said(page)).to_contain_text("This goes on when it is back.")
    expect(page.locator("#connection")).to_contain_text("cannot be reached")
    port = server.url.rpartition(":")[2]
    with serving(tmp_path / "models", "--port", port, environment=environment):
        expect(said(page)).to_have_text(f"{DIGITS} samples compared.")
    token = make_token()
    guarded = {**environment, "CANDOR_TOKENS": f"anna:predict:{hash_of(token)}"}
    with serving(tmp_path / "models", "--port", port, environment=guarded):
        page.reload()
        page.get_by_label("Token", exact=True).fill(token)
        page.get_by_label("Token", exact=True).press("Enter")
        expect(answer(page, "B").locator(".headline")).to_be_visible()
        page.get_by_role("button", name="Stored samples").click()
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("the token has the scopes predict")


def known(field: NDArray[Any] | None) -> NDArray[Any]:
    """A field that the answer has."""
    assert field is not None
    return field


def expected_calibration_error(confidence: FloatArray, correct: BoolArray) -> float:
    return reliability.calibration_error(reliability.reliability(confidence, correct)).expected


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Jensen–Shannon, nats."""
    middle = (p + q) / 2

    def term(of: NDArray[np.float64]) -> float:
        held = of > 0
        return float((of[held] * np.log(of[held] / middle[held])).sum())

    return (term(p) + term(q)) / 2
