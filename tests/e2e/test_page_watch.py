"""The page's tab Watch, in a real browser against a real server."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect
from prometheus_client.parser import text_string_to_metric_families

from service.tokens import hash_of
from tests.e2e.browser import assert_accessible, visiting
from tests.e2e.servers import Server, serving
from tests.repositories import FRAGILE, build_network, write_model

COLUMNS = ["Requests", "4xx", "5xx", "Median", "99th", "Rows a batch", "Flagged", "Drift"]
MARKUP = '<img src=x onerror="window.struck=1"><script>window.struck=1</script>'
TOKENS = {"label": "l" * 40, "metrics": "m" * 40}
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
PARSE = """async text => {
  const { parse } = await import("/page/watch/exposition.js");
  return [...parse(text).values()].flat().map(
    ({ name, labels, value }) => [name, Object.fromEntries(labels), String(value)]);
}"""
REFUSED = """async text => {
  const { parse, NotMetrics } = await import("/page/watch/exposition.js");
  try {
    parse(text);
    return null;
  } catch (error) {
    return error instanceof NotMetrics ? error.message : "another error";
  }
}"""
QUANTILES = """async ([counts, shares]) => {
  const { quantile } = await import("/page/watch/distribution.js");
  const found = shares.map(share => quantile({bounds: [1, 2, 4, Infinity], counts, sum: 0}, share));
  return found.map(each => each && [each.value, each.beyond]);
}"""
HISTORY = """async looks => {
  const { History, course } = await import("/page/watch/history.js");
  const { readingOf } = await import("/page/watch/reading.js");
  const history = new History(60_000);
  const steps = looks.map(([time, text]) => history.add(readingOf(text, {model_stats: []}, time)));
  const kept = history.within(60_000);
  return {
    came: steps.map(step => step && Object.fromEntries([...step.versions].map(
      ([key, { codes, seconds }]) => [key, [codes.get("200") ?? 0, seconds ? seconds.counts : null]]
    ))),
    restarted: steps.map(step => step && step.restarted),
    rates: course(kept, (recent, seconds) => recent.reduce(
      (sum, step) => sum + (step.versions.get("1/m")?.codes.get("200") ?? 0), 0) / seconds
    ).map(({ value }) => value),
    lately: history.within(5_000).length,
  };
}"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model in two versions, the second its canary; what is above one hundred fails."""
    root = tmp_path_factory.mktemp("pair")
    folder = write_model(root, "pair", FRAGILE, shape="[1]")
    (folder / "2").mkdir()
    network = build_network(folder, seed=1)
    safetensors.torch.save_model(network, str(folder / "2" / "weights.safetensors"))
    manifest = folder / "model.toml"
    table = "[serving]\nlabels = { stable = 1, canary = 2 }\ncanary_share = 0.1\n"
    manifest.write_text(manifest.read_text() + table)
    return root


@pytest.fixture(scope="module")
def modules(browser: Browser, tiny: Server) -> Iterator[Page]:
    """A page for what its modules do by themselves."""
    with visiting(browser) as opened:
        opened.goto(tiny.url)
        yield opened


def watch(page: Page, url: str, model: str = "") -> None:
    """Open the tab; what is sent once this returns is what it counts."""
    page.goto(f"{url}/#watch/{model}" if model else f"{url}/#watch")
    expect(page.locator(".watch")).to_contain_text("Looked at")


def look(page: Page) -> None:
    """Have it look at once, and not after its two seconds."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def row(page: Page, model: str, version: int) -> Locator:
    of_model = page.locator(".versions tbody tr").filter(
        has=page.get_by_role("button", name=model, exact=True)
    )
    return of_model.filter(has=page.locator(".version", has_text=re.compile(rf"^{version}\b")))


def cell(page: Page, model: str, version: int, column: str) -> Locator:
    return row(page, model, version).locator("td.number").nth(COLUMNS.index(column))


def graph(place: Page | Locator, title: str) -> Locator:
    return place.locator("figure.graph").filter(has_text=title)


def predict(server: Server, model: str, version: int, inputs: list[Any]) -> int:
    body = {"model": model, "version": version, "inputs": inputs}
    return server.post("/predict", body).status_code


def test_what_was_sent_is_what_there_is_to_see_also_after_the_server_was_lost(
    page: Page, pair: Path
) -> None:
    with serving(pair, "--workers", "2") as server:
        watch(page, server.url, "pair")
        for version, inputs, times, code in [
            (1, [[1.0], [2.0]], 7, 200),
            (2, [[1.0], [2.0], [3.0]], 5, 200),
            (2, [[1.0, 2.0]], 2, 422),
            (2, [[101.0]], 3, 500),
        ]:
            for _ in range(times):
                assert predict(server, "pair", version, inputs) == code
        expect(cell(page, "pair", 1, "Requests")).to_have_text("7")
        expect(cell(page, "pair", 2, "Requests")).to_have_text("10")
        expect(cell(page, "pair", 1, "4xx")).to_have_text("0")
        expect(cell(page, "pair", 2, "4xx")).to_have_text("2")
        expect(cell(page, "pair", 1, "5xx")).to_have_text("0")
        expect(cell(page, "pair", 2, "5xx")).to_have_text("3 (30 %)")
        expect(cell(page, "pair", 1, "Rows a batch")).to_have_text("2.0")
        expect(cell(page, "pair", 2, "Rows a batch")).to_have_text(re.compile(r"2\.[23]"))
        expect(cell(page, "pair", 1, "Median")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
        expect(row(page, "pair", 1)).to_contain_text("stable")
        expect(row(page, "pair", 2)).to_contain_text("canary")
        expect(page.get_by_label("All models")).to_contain_text("3 failed (18 %)")
        expect(page.get_by_label("All models")).to_contain_text("2 invalid")
        failures = graph(page, "Share of requests that fail")
        expect(failures).to_contain_text("version 1 (stable, default)")
        described = failures.locator("svg.lines")
        expect(described).to_have_attribute(
            "aria-label", re.compile(r"version 2 \(canary\): .*most")
        )
        described.hover()
        # The middle of the picture is 122 of the 294 units that the five minutes take.
        expect(failures).to_contain_text(re.compile(r"\b17[4-7] s ago"))
        card = page.locator(".version-card").filter(has_text="version 1")
        expect(card).to_contain_text("This version is not calibrated")
        expect(graph(card, "Of the last minutes")).to_contain_text("predictive entropy of 14 rows")
        expect(graph(card, "Rows that ran together")).to_contain_text("7 batches")
        port = server.url.rpartition(":")[2]
    expect(page.locator("#connection")).to_contain_text("cannot be reached")
    expect(cell(page, "pair", 2, "Requests")).to_have_text("10")
    with serving(pair, "--workers", "2", "--port", port) as server:
        expect(page.locator("#connection")).to_be_empty()
        for _ in range(4):
            assert predict(server, "pair", 1, [[1.0]]) == 200
        expect(cell(page, "pair", 1, "Requests")).to_have_text("11")
        expect(cell(page, "pair", 2, "Requests")).to_have_text("10")
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(graph(page, "Requests a second")).to_contain_text("the server was started again")


def test_uncertainty_stands_against_the_calibration(page: Page, shipped: Server) -> None:
    watch(page, shipped.url, "digits")
    rows = shipped.get("/models/digits/example").json()["inputs"]
    for _ in range(3):
        assert predict(shipped, "digits", 1, rows) == 200
    card = page.locator(".version-card").filter(has_text="version 1")
    page.get_by_label("Measure of the uncertainty").select_option("mutual_information")
    compared = graph(card, "Against the calibration")
    compared.get_by_text("As numbers").click()
    text = shipped.get("/metrics").text
    wanted = (
        r'candor_drift_bin_rows{bin="(\d+)",measure="mutual_information",model="digits".* (\S+)'
    )
    counts = {int(place): int(float(count)) for place, count in re.findall(wanted, text)}
    assert len(counts) == 10
    assert sum(counts.values()) >= 3 * len(rows)
    shown = compared.locator("tbody td:nth-child(2)")
    expect(shown).to_have_text([f"{counts[place]:,}" for place in sorted(counts)])
    expect(compared.locator("tbody td:nth-child(4)")).to_have_text(["10 %"] * 10)
    expect(compared).to_contain_text(f"the last {sum(counts.values()):,} rows; drift")
    expect(compared).to_contain_text("5.0 % at the calibration")
    lately = graph(card, "Of the last minutes")
    expect(lately).to_contain_text(f"mutual information of {3 * len(rows)} rows")
    expect(cell(page, "digits", 1, "Flagged")).to_have_text(re.compile(r"%$"))
    expect(graph(page, "Share that is flagged")).to_contain_text("at the calibration: 5.0 %")
    page.get_by_label("Measure of the uncertainty").select_option("variance")
    expect(lately).to_contain_text(f"variance of {3 * len(rows)} rows")


def test_of_a_model_that_nobody_asked_stands_what_to_send(page: Page, tiny: Server) -> None:
    watch(page, tiny.url, "second")
    view = page.locator(".model-view")
    expect(view).to_contain_text("Nobody asked second for anything")
    expect(graph(page, "Requests a second")).to_be_hidden()
    curl = page.get_by_role("region", name="curl lines")
    expect(curl).to_contain_text("curl")
    subprocess.run(curl.inner_text(), shell=True, capture_output=True, check=True)
    expect(cell(page, "second", 1, "Requests")).to_have_text("1")
    expect(view).not_to_contain_text("Nobody asked")
    expect(graph(page, "Requests a second")).to_be_visible()
    page.get_by_role("button", name="first", exact=True).press("Enter")
    expect(view).to_contain_text("Nobody asked first for anything")
    assert page.url.endswith("#watch/first")
    page.get_by_role("link", name="Try it by hand").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("first")


def test_it_does_not_look_while_nobody_sees_it(page: Page, tiny: Server) -> None:
    looks: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/metrics"):
            looks.append(request.url)

    page.on("request", note)
    page.clock.install()
    watch(page, tiny.url)

    def none_come() -> None:
        before = len(looks)
        for _ in range(10):
            page.clock.run_for(3000)
            page.evaluate("fetch('/livez')")
        assert len(looks) == before

    page.evaluate(HIDE, True)
    none_come()
    with page.expect_request("**/metrics"):
        page.evaluate(HIDE, False)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".watch")).to_contain_text("Paused.")
    none_come()
    with page.expect_request("**/metrics"):
        page.get_by_role("button", name="Pause").click()
    page.get_by_role("link", name="Try", exact=True).click()
    expect(page.get_by_label("Model", exact=True)).to_be_visible()
    none_come()


@dataclass
class Pretended:
    """What a server would say that has these requests by model and version; it says no more."""

    requests: dict[tuple[str, int], int] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)

    def metrics(self) -> str:
        lines = ["process_start_time_seconds 1", "# a comment"]
        for (model, version), count in self.requests.items():
            name = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            labels = f'model="{name}",version="{version}"'
            of_requests = f'endpoint="/predict",{labels}'
            lines += [
                f"candor_model_ready{{{labels}}} 1.0",
                f'candor_version_requests_total{{code="200",{of_requests}}} {count}',
                *(
                    f'candor_version_request_seconds_bucket{{le="{le}",{of_requests}}} {count}'
                    for le in ("0.1", "+Inf")
                ),
                f"candor_version_request_seconds_sum{{{of_requests}}} {count / 20}",
            ]
        return "\n".join(lines) + "\n"

    def route(self, page: Page) -> None:
        def metrics(route: Route) -> None:
            route.fulfill(body=self.metrics(), content_type="text/plain; charset=utf-8")

        def models(route: Route) -> None:
            route.fulfill(json={"models": self.models})

        page.route("**/metrics", metrics)
        page.route("**/v2/models/stats", lambda route: route.fulfill(json={"model_stats": []}))
        page.route("**/models", models)


def test_dozens_of_models_come_and_go_and_are_found_by_their_name(
    browser: Browser, tiny: Server
) -> None:
    server = Pretended({(f"model-{number:02}", 1): 5 for number in range(40)})
    with visiting(browser, viewport={"width": 375, "height": 740}) as page:
        server.route(page)
        watch(page, tiny.url, "model-07")
        rows = page.locator(".versions tbody tr")
        expect(rows).to_have_count(40)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        server.requests["model-31", 1] = 12
        look(page)
        expect(cell(page, "model-31", 1, "Requests")).to_have_text("7")
        page.get_by_label("Models whose name holds").fill("-3")
        expect(rows).to_have_count(10)
        page.get_by_label("only those that were asked").check()
        expect(rows).to_have_count(1)
        button = page.get_by_role("button", name="model-31", exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("heading", name="model-31", exact=True)).to_be_visible()
        # Rows change in place: who is at a button stays there.
        server.requests["model-31", 1] = 20
        server.requests["model-30", 1] = 6
        look(page)
        expect(rows).to_have_count(2)
        expect(cell(page, "model-31", 1, "Requests")).to_have_text("15")
        expect(button).to_be_focused()
        page.get_by_label("only those that were asked").uncheck()
        page.get_by_label("Models whose name holds").fill("")
        for version in (2, 3, 4, 5, 6):
            server.requests["model-31", version] = version
        del server.requests["model-07", 1]
        look(page)
        expect(rows).to_have_count(44)
        expect(cell(page, "model-31", 6, "Requests")).to_have_text("6")
        expect(page.locator(".model-view")).to_contain_text("Drawn are the 5 of 6 versions")
        del server.requests["model-31", 1]
        look(page)
        expect(page.locator("#announcements")).to_have_text("model-31 version 1 left.")
        for key in [key for key in server.requests if key[0] == "model-31"]:
            del server.requests[key]
        look(page)
        expect(page.locator(".model-view")).to_contain_text("There is no model model-31 now")
        assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_markup_in_names_labels_and_reasons_stays_text(page: Page, tiny: Server) -> None:
    version = {"version": 1, "state": "failed", "reason": MARKUP, "calibration": None}
    hostile = {
        "name": MARKUP,
        "description": MARKUP,
        "version_labels": {MARKUP: 1},
        "default_version": 1,
        "versions": [version],
    }
    server = Pretended({(MARKUP, 1): 3}, [hostile])
    server.route(page)
    watch(page, tiny.url)
    server.requests[MARKUP, 1] = 4
    expect(page.locator(".versions tbody th")).to_have_text(MARKUP)
    expect(page.locator(".versions td.version")).to_contain_text(MARKUP)
    expect(page.locator(".versions td.number").first).to_have_text("1")
    expect(page.get_by_role("heading", name=MARKUP, exact=True)).to_be_visible()
    expect(page.locator(".version-card h3")).to_contain_text(MARKUP)
    expect(page.locator(".version-card > p")).to_have_text(f"failed. {MARKUP}")
    assert page.evaluate("window.struck") is None
    assert page.locator("img, main script").count() == 0


def test_what_is_no_metrics_is_said(page: Page, tiny: Server) -> None:
    page.route("**/metrics", lambda route: route.fulfill(body="<!doctype html>\n<p>Welcome"))
    page.goto(f"{tiny.url}/#watch")
    expect(page.get_by_role("alert")).to_contain_text("Line 1 of what the server says")
    page.route("**/v2/models/stats", lambda route: route.fulfill(body="<p>Welcome"))
    page.unroute("**/metrics")
    expect(page.get_by_role("alert")).to_contain_text("batches cannot be read")
    page.unroute("**/v2/models/stats")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(row(page, "first", 1)).to_be_visible()


def test_a_refusal_below_v2_is_said_in_the_servers_words(page: Page, tiny: Server) -> None:
    refusal = {"error": "this is refused for now"}
    page.route("**/v2/models/stats", lambda route: route.fulfill(status=503, json=refusal))
    page.goto(f"{tiny.url}/#watch")
    expect(page.get_by_role("alert")).to_have_text("this is refused for now")


def test_a_token_with_too_little_scope_is_told_so_and_another_may_be_given(
    page: Page, tmp_path: Path
) -> None:
    write_model(tmp_path, "good")
    tokens = ",".join(f"{scope}:{scope}:{hash_of(token)}" for scope, token in TOKENS.items())
    with serving(tmp_path, environment={"CANDOR_TOKENS": tokens}) as server:
        page.goto(f"{server.url}/#watch")
        page.get_by_label("Token", exact=True).fill(TOKENS["label"])
        page.get_by_label("Token", exact=True).press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("this needs metrics or predict")
        page.get_by_role("button", name="Use another token").click()
        page.get_by_label("Token", exact=True).fill(TOKENS["metrics"])
        page.get_by_label("Token", exact=True).press("Enter")
        expect(row(page, "good", 1)).to_be_visible()
        expect(page.locator(".watch")).to_contain_text("calibrations are not shown: the token has")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_axe_finds_nothing_and_it_fits_a_telephone(browser: Browser, shipped: Server) -> None:
    rows = shipped.get("/models/digits/example").json()["inputs"]
    with visiting(browser, bypass_csp=True) as page:
        watch(page, shipped.url, "co2")
        expect(page.locator(".model-view")).to_contain_text("Nobody asked co2")
        expect(page.get_by_role("region", name="curl lines")).to_contain_text("curl")
        assert_accessible(page)
        page.get_by_role("button", name="digits", exact=True).click()
        assert predict(shipped, "digits", 1, rows) == 200
        expect(graph(page, "Requests a second")).to_be_visible()
        page.get_by_text("As numbers").first.click()
        assert_accessible(page)
        page.set_viewport_size({"width": 375, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        assert_accessible(page)


def test_it_reads_what_prometheus_reads(modules: Page, shipped: Server) -> None:
    predict(shipped, "digits", 1, shipped.get("/models/digits/example").json()["inputs"])
    text = shipped.get("/metrics").text
    expected = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    parsed = modules.evaluate(PARSE, text)
    found = [(name, labels, float(value)) for name, labels, value in parsed]

    def key(sample: tuple[str, dict[str, str], float]) -> str:
        return json.dumps(sample, sort_keys=True)

    assert len(found) > 300
    assert sorted(found, key=key) == sorted(expected, key=key)


def test_the_text_format_is_read_to_the_letter(modules: Page) -> None:
    lines = [
        "# HELP a of what",
        "",
        "plain 1",
        r'escaped{a="\\ \" \n {,}=",b=""} -2.5e-3 1700000000000',
        'ends_so{ a = "1" , } +Inf\r',
        "least -Inf",
        "unknown NaN",
        '__proto__{__proto__="x"} 3',
    ]
    found = modules.evaluate(PARSE, "\n".join(lines))
    assert found[:4] == [
        ["plain", {}, "1"],
        ["escaped", {"a": '\\ " \n {,}=', "b": ""}, "-0.0025"],
        ["ends_so", {"a": "1"}, "Infinity"],
        ["least", {}, "-Infinity"],
    ]
    assert found[4] == ["unknown", {}, "NaN"]
    assert (found[5][0], found[5][2]) == ("__proto__", "3")
    for wrong in ("name", "1 2", "a b", "a 1 2 3", 'a{b="c} 1', "a{b=c} 1", 'a{b="c"', "<p>"):
        said = modules.evaluate(REFUSED, f"fine 1\n{wrong}")
        assert said.startswith("Line 2 of what the server says"), wrong


def test_quantiles_are_interpolated_within_their_bucket(modules: Page) -> None:
    def quantiles(counts: list[int], *shares: float) -> Any:
        return modules.evaluate(QUANTILES, [counts, shares])

    assert quantiles([0, 10, 0, 0], 0.0, 0.5, 1.0) == [[1, False], [1.5, False], [2, False]]
    assert quantiles([10, 0, 10, 0], 0.25, 0.5, 0.75) == [[0.5, False], [1, False], [3, False]]
    assert quantiles([9, 0, 0, 1], 0.5, 0.99)[1] == [4, True]
    assert quantiles([0, 0, 0, 0], 0.5) == [None]
    [[value, beyond]] = quantiles([3, 4, 3, 0], 0.5)
    assert math.isclose(value, 1.5)
    assert not beyond


def test_counters_that_fall_begin_anew_and_a_restart_is_seen(modules: Page) -> None:
    def look(seconds: float, started: int, **counts: int) -> list[Any]:
        lines = [f"process_start_time_seconds {started}"]
        for name, count in counts.items():
            labels = f'endpoint="/predict",model="m",version="{name.removeprefix("v")}"'
            lines += [
                f'candor_version_requests_total{{code="200",{labels}}} {count}',
                f'candor_version_request_seconds_bucket{{le="1.0",{labels}}} {count - 1}',
                f'candor_version_request_seconds_bucket{{le="+Inf",{labels}}} {count}',
            ]
        return [1000 * seconds, "\n".join(lines)]

    found = modules.evaluate(
        HISTORY,
        [
            look(0, 1, v1=5),
            look(2, 1, v1=8),
            look(4, 1, v2=4),
            look(6, 1, v1=2, v2=4),
            # More than before, and yet all of it is new.
            look(8, 9, v2=6),
            look(40, 9, v2=7, v1=1),
            look(42, 9, v2=7, v1=3),
        ],
    )
    assert found["came"] == [
        None,
        {"1/m": [3, [3, 0]]},
        {"2/m": [4, [3, 1]]},
        {"1/m": [2, [1, 1]], "2/m": [0, None]},
        {"2/m": [6, [5, 1]]},
        {"2/m": [1, [1, 0]], "1/m": [1, [0, 1]]},
        {"2/m": [0, None], "1/m": [2, [2, 0]]},
    ]
    assert found["restarted"] == [None, False, False, False, True, False, False]
    # Over 2, 4 and 6 seconds; nothing is told of a restart, nor of half a minute without a look.
    assert found["rates"] == [1.5, 0.75, pytest.approx(5 / 6), None, None, 1]
    assert found["lately"] == 1
