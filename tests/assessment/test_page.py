"""The page: names stay text, nothing is fetched, and the same numbers are the same file."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import orjson
import pytest

from service.assessment.measured import Contender
from service.assessment.page import render
from service.assessment.report import FEWEST_ROWS, Report
from service.errors import CalibrationFailed, TooFewRows
from service.types import ModelRef, Task
from tests.assessment.synthetic import classifier, from_passes, regressor, report_of

HOSTILE = '<script>alert("1")</script>'


class Tags(HTMLParser):
    """Every tag with its attributes, and the ids that there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def classification(**more: Any) -> Report:
    measured, labels_B = classifier(rows=120)
    strangers, _ = classifier(rows=120, seed=1, sharpness=0.3)
    images = np.random.default_rng(0).random((120, 1, 8, 8)).astype(np.float32)
    return report_of(measured, labels_B, inputs=images, strangers=strangers, **more)


def multilabel() -> Report:
    generator = np.random.default_rng(0)
    probs_TBC = generator.uniform(0.1, 0.9, (10, 60, 3))
    truth_BC = (generator.random((60, 3)) < 0.5).astype(np.float64)
    return report_of(from_passes(Task.MULTILABEL, probs_TBC, probs_TBC[0]), truth_BC)


def regression() -> Report:
    measured, targets_BC = regressor(rows=60)
    x = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    return report_of(measured, targets_BC, inputs=x)


REPORTS: dict[str, Callable[[], Report]] = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
    "outputs": lambda: report_of(*regressor(rows=60, outputs=3)),
}


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    return REPORTS[request.param]()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report)


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    # Base64 may hold two slashes.
    without_pictures = re.sub(r"base64,[\w+/=]*", "", page)
    assert not re.search(r"https?:|//\w|@import", without_pictures)
    tags = Tags(page)
    assert not tags.named("script")
    assert not tags.named("link")
    for _, attributes in tags.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    for where in re.findall(r"url\(([^)]*)\)", page):
        assert where.startswith("#")


def test_every_figure_says_what_it_shows(page: str) -> None:
    drawings = Tags(page).named("svg")
    assert len(drawings) >= 4
    assert all(len(each["aria-label"] or "") > 40 for each in drawings)
    assert all(each["alt"] for each in Tags(page).named("img"))


def test_what_is_referred_to_is_there_once(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {first or second for first, second in referred} <= set(ids)


def test_the_same_numbers_are_the_same_file(report: Report, page: str) -> None:
    assert render(report) == page


def test_colours_are_the_pages_own(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert all("var(--ink)" in drawing for drawing in drawings)
    assert not any(re.search(r"#[0-9a-f]{6}\b", drawing) for drawing in drawings)


def test_what_users_name_stays_text() -> None:
    hostile = Contender("version_2", f"{HOSTILE}$", classifier(rows=120, seed=3)[0], None)
    page = render(
        classification(
            ref=ModelRef(HOSTILE, 1),
            description=HOSTILE,
            labels=(HOSTILE, "$x^2$", "'\"&", "d"),
            path=HOSTILE,
            contenders=[hostile],
        )
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not Tags(page).named("script")


def test_the_numbers_can_be_written(report: Report) -> None:
    read = orjson.loads(orjson.dumps(report))
    assert read["model"] == "synthetic"
    assert read["format"] == 1
    assert read["data"]["sha256"] == "d" * 64
    assert read["settling"]["passes"][-1] == report.passes
    assert (read["weights"], read["created"]) == (None, None)


def test_it_says_what_it_was_made_of_and_when() -> None:
    made = datetime(2026, 11, 27, 10, 30, tzinfo=UTC)
    report = report_of(*regressor(rows=60), weights="a" * 64, created=made)
    assert f"SHA-256 {'a' * 64}" in render(report)
    assert "2026-11-27T10:30:00+00:00" in render(report)


def test_too_few_rows_and_truths_of_another_model() -> None:
    measured, labels_B = classifier(rows=FEWEST_ROWS - 1)
    with pytest.raises(TooFewRows, match=f"at least {FEWEST_ROWS} rows; `x` has 19"):
        report_of(measured, labels_B)
    measured, labels_B = classifier(rows=50)
    labels_B[3] = 4
    with pytest.raises(CalibrationFailed, match="the class 4; the model knows 4, 0 to 3"):
        report_of(measured, labels_B)
    measured, targets_BC = regressor(rows=50)
    with pytest.raises(CalibrationFailed, match="2 values a row; the model has 1 outputs"):
        report_of(measured, np.repeat(targets_BC, 2, axis=1))
