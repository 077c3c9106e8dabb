"""`/reports`: the list, its pages, what is broken, and how a report's page is given away."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch

from service.api import report_pages
from service.api.app import build_app, build_service
from service.api.front import Front
from service.api.scope import Service
from service.settings import load_settings
from service.types import ModelRef
from tests.api.test_security import TOKENS, ask
from tests.reports import detection, write_report
from tests.repositories import build_network, write_model

HOSTILE = "<script>document.title = 'struck'</script>"
LABELS = "[serving]\nlabels = { stable = 1, canary = 7 }\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one with two versions and four reports, one with none."""
    root = tmp_path_factory.mktemp("reports") / "models"
    write_model(root, "bare")
    folder = write_model(root, "good")
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text() + LABELS)
    (folder / "2").mkdir()
    safetensors.torch.save_model(
        build_network(folder, seed=1), str(folder / "2" / "weights.safetensors")
    )
    first, second = ModelRef("good", 1), ModelRef("good", 2)
    write_report(root, first, "old", created="2026-11-01T00:00:00Z", weights="a" * 64)
    write_report(root, first, "new", created="2026-11-02T00:00:00Z", page=HOSTILE)
    write_report(root, second, "only", detection=detection(variance=0.9, predictive_entropy=0.8))
    bad = write_report(root, first, "bad")
    bad.write_text("{")
    os.utime(bad, (1_600_000_000, 1_600_000_000))
    return root


def _service(root: Path, folder: Path, **settings: str) -> Service:
    given = {"models": root, "database_url": f"sqlite:///{folder}/samples.sqlite", **settings}
    return build_service(load_settings(given, environment={}))


@pytest.fixture(scope="module")
def service(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """With both models loaded."""
    service = _service(root, tmp_path_factory.mktemp("open"))
    service.registry.load_all()
    return service


@pytest.fixture(scope="module")
def app(service: Service) -> Front:
    """Serves them to everybody."""
    return build_app(service)


def listed(app: Front, query: str = "") -> Any:
    answer = ask(app, "GET", f"/reports{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(content: Any) -> list[str]:
    return [f"{each['version']}/{each['name']}" for each in content["reports"]]


def test_the_highest_version_and_the_newest_come_first(app: Front) -> None:
    content = listed(app)
    assert names(content) == ["2/only", "1/new", "1/old", "1/bad"]
    assert (content["next"], content["warnings"]) == (None, [])


def test_one_stands_there_with_its_main_numbers(app: Front) -> None:
    [report] = listed(app, "?model=good&version=2")["reports"]
    assert report["state"] == "readable"
    assert report["reason"] is None
    method = report["methods"][1]
    assert method["name"] == "mc_dropout"
    assert (method["accuracy"], method["negative_log_likelihood"]) == (0.95, 0.25)
    assert method["calibration_error"] == 0.03
    assert report["data"] == {"name": "test.npz", "sha256": "d" * 64, "rows": 450}
    assert [(each["name"], each["auroc"]) for each in report["detection"]] == [
        ("variance", 0.9),
        ("predictive_entropy", 0.8),
    ]
    assert report["deferral"] == {
        "score": "predictive_entropy",
        "title": "MC dropout: predictive entropy",
        "share": 0.1,
        "avoided": 0.5,
    }
    assert report["verdict"] == ["It earns its price."]


def test_a_regression_has_other_numbers(app: Front, root: Path) -> None:
    method = {
        "name": "mc_dropout",
        "title": "MC dropout",
        "root_mean_squared_error": [0.5, 2.0],
        "log_likelihood": None,
        "coverage": [{"level": 0.9, "observed": 0.88}],
    }
    path = write_report(
        root, ModelRef("bare", 1), "some", class_methods=[], regression_methods=[method]
    )
    [report] = listed(app, "?model=bare")["reports"]
    path.unlink()
    [found] = report["methods"]
    assert found["root_mean_squared_error"] == [0.5, 2.0]
    assert found["accuracy"] is found["negative_log_likelihood"] is None
    assert found["coverage"] == [{"level": 0.9, "observed": 0.88}]
    assert report["detection"] == []


def test_a_broken_one_is_listed_with_the_reason(app: Front) -> None:
    bad = listed(app, "?model=good&version=1")["reports"][-1]
    assert (bad["name"], bad["state"], bad["methods"]) == ("bad", "broken", [])
    assert "good/1/reports/bad.json is not JSON" in bad["reason"]
    answer = ask(app, "GET", "/models/good/versions/1/reports/bad")
    assert (answer.status_code, answer.json()["title"]) == (404, "Report broken")
    assert answer.json()["detail"] == bad["reason"]


def test_whether_the_weights_are_those_that_serve_is_said(
    root: Path, service: Service, app: Front
) -> None:
    by_name = {each["name"]: each["weights"] for each in listed(app, "?model=good")["reports"]}
    assert by_name == {"only": "unknown", "new": "unknown", "old": "other", "bad": "unknown"}
    digest = service.registry.resolve("good", 1).conditions.weights
    path = write_report(root, ModelRef("good", 1), "fresh", weights=digest)
    found = listed(app, "?model=good&version=1")["reports"]
    path.unlink()
    assert {each["name"]: each["weights"] for each in found}["fresh"] == "same"


def test_a_long_list_comes_in_pages(app: Front) -> None:
    first = listed(app, "?limit=3")
    assert names(first) == ["2/only", "1/new", "1/old"]
    assert first["next"] == "good/1/old"
    second = listed(app, f"?limit=3&after={first['next']}")
    assert (names(second), second["next"]) == (["1/bad"], None)
    gone = ask(app, "GET", "/reports?after=good/1/gone")
    assert (gone.status_code, gone.json()["field"]) == (422, "after")


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("?model=nobody", 404, "model"),
        ("?model=good&version=9", 404, "version"),
        ("?model=good&version=canary", 503, None),
        ("?version=1", 422, "model"),
        ("?limit=0", 422, "limit"),
        ("?limit=1&limit=2", 422, "limit"),
        ("?colour=red", 422, "colour"),
    ],
)
def test_what_cannot_be_listed_is_a_problem(
    app: Front, query: str, status: int, field: str | None
) -> None:
    answer = ask(app, "GET", f"/reports{query}")
    assert (answer.status_code, answer.json().get("field")) == (status, field)


def test_a_label_is_a_version(app: Front) -> None:
    assert names(listed(app, "?model=good&version=stable")) == ["1/new", "1/old", "1/bad"]
    answer = ask(app, "GET", "/models/good/versions/stable/reports/old")
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


def test_one_is_given_as_it_lies_there(app: Front, root: Path) -> None:
    answer = ask(app, "GET", "/models/good/versions/1/reports/old")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.content == (root / "good" / "1" / "reports" / "old.json").read_bytes()


def test_a_page_has_no_rights(app: Front) -> None:
    answer = ask(app, "GET", "/models/good/versions/1/reports/new/page")
    assert answer.text == HOSTILE
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert not any(part.startswith(("script-src", "connect-src", "frame-src")) for part in policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/reports", "/models/good/versions/1/reports/new"):
        other = ask(app, "GET", path).headers["Content-Security-Policy"]
        assert "unsafe-inline" not in other


@pytest.mark.parametrize(
    "path",
    [
        "/models/good/versions/1/reports/gone",
        "/models/good/versions/1/reports/gone/page",
        "/models/good/versions/1/reports/old/page",
        "/models/good/versions/3/reports/old",
        "/models/nobody/versions/1/reports/old",
        "/models/good/versions/1/reports/..%2f..%2f..%2fgood%2f1%2freports%2fold",
        "/models/good/versions/1/reports/%2e%2e",
        "/models/good/versions/1/reports/old%00",
        "/models/good/versions/1/reports/old.json",
        "/models/good/versions/1%2freports%2f..%2f..%2f1/reports/old",
        "/models/..%2fmodels%2fgood/versions/1/reports/old/page",
    ],
)
def test_other_paths_name_nothing(app: Front, path: str) -> None:
    answer = ask(app, "GET", path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_browser_may_give_the_token_as_a_password(root: Path, tmp_path: Path) -> None:
    guarded = build_app(_service(root, tmp_path, token=TOKENS["token"]))
    page = "/models/good/versions/1/reports/new/page"

    def challenges(path: str) -> list[str]:
        answer = ask(guarded, "GET", path)
        assert answer.status_code == 401
        return [each.split()[0] for each in answer.headers.get_list("WWW-Authenticate")]

    assert challenges(page) == ["Bearer", "Basic"]
    assert challenges("/reports") == challenges(page.removesuffix("/page")) == ["Bearer"]
    basic = base64.b64encode(f"me:{TOKENS['token']}".encode()).decode()
    answer: httpx.Response = ask(guarded, "GET", page, headers={"Authorization": f"Basic {basic}"})
    assert (answer.status_code, answer.text) == (200, HOSTILE)


def test_only_the_pages_of_reports_are_covered() -> None:
    assert report_pages.covers("/models/digits/versions/1/reports/x/page")
    for path in ("/page", "/models/digits/page", "/models/a/versions/1/reports/x", "/x/page"):
        assert not report_pages.covers(path)
