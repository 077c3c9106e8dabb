"""A real server's traces at a real collector: OTLP over HTTP, decoded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.collectors import Collector, attributes, collecting
from tests.e2e.servers import Server, serving
from tests.repositories import FRAGILE, SLOW, write_model

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = "00-11111111111111111111111111111111-2222222222222222-00"
BODY = {"model": "slow", "inputs": [[0.0]]}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "slow", SLOW, shape="[1]", more="passes = 2")
    write_model(root, "shared", SLOW, shape="[1]", more="passes = 2")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    return root


def traced(collector: Collector) -> dict[str, str]:
    return {
        "CANDOR_TRACING": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def server(collector: Collector, models: Path) -> Iterator[Server]:
    with serving(models, environment=traced(collector)) as started:
        yield started


def ask(server: Server, number: str, inputs: list[list[float]], model: str = "slow") -> int:
    return send(server, number, {"model": model, "inputs": inputs})


def send(server: Server, number: str, body: object, path: str = "/predict", **more: str) -> int:
    return server.post(path, body, {"X-Request-ID": number, **more}).status_code


def tree(collector: Collector, number: str, parts: int = 0) -> tuple[Span, dict[str, Span]]:
    """The span of a request, and those below it by their names, so many of them at least."""
    [root] = collector.wait_for(lambda s: attributes(s).get("candor.request_id") == number)
    below = collector.wait_for(lambda span: span.parent_span_id == root.span_id, parts)
    assert len({span.name for span in below}) == len(below)
    return root, {span.name: span for span in below}


def test_a_priority_among_the_parameters_of_infer_is_that_of_its_span(
    server: Server, collector: Collector
) -> None:
    tensor = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [0.0]}
    body = {"inputs": [tensor], "parameters": {"priority": "high"}}
    assert send(server, "urgent", body, "/v2/models/slow/infer") == 200
    root, _ = tree(collector, "urgent")
    assert attributes(root)["candor.priority"] == "high"


def test_the_spans_of_a_request_follow_its_way(server: Server, collector: Collector) -> None:
    assert ask(server, "way", [[0.0]] * 3) == 200
    root, parts = tree(collector, "way")
    assert root.name == "POST /predict"
    assert root.kind == Span.SPAN_KIND_SERVER
    assert not root.parent_span_id
    assert attributes(root) == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "candor.request_id": "way",
        "candor.model": "slow",
        "candor.version": 1,
        "candor.rows": 3,
        "candor.passes": 2,
        "candor.priority": "normal",
        "candor.degraded": False,
    }
    assert parts.keys() == {"parse", "queue", "sample", "write"}
    order = [parts[name] for name in ("parse", "queue", "sample", "write")]
    assert all(span.trace_id == root.trace_id for span in order)
    times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in order]
    assert all(begun <= ended for begun, ended in times)
    # What the parts hand over is read from two clocks, a few microseconds apart.
    slack_ns = 1_000_000
    for (_, ended), (begun, _) in itertools.pairwise(times):
        assert ended <= begun + slack_ns
    assert root.start_time_unix_nano <= times[0][0]
    assert times[-1][1] <= root.end_time_unix_nano
    assert collector.services == {"candor"}


def test_requests_that_are_computed_together_link_to_one_step(
    server: Server, collector: Collector
) -> None:
    with ThreadPoolExecutor(4) as pool:
        # Others wait while it runs, and its size is what steps of this model are known to have.
        first = pool.submit(ask, server, "first", [[200.0]] * 8, "shared")
        while "candor_requests_in_flight 1.0" not in server.get("/metrics").text:
            time.sleep(0.01)
        together = [
            pool.submit(ask, server, f"together-{n}", [[0.0]] * 2, "shared") for n in range(3)
        ]
        assert [future.result() for future in (first, *together)] == [200] * 4
    trees = [tree(collector, f"together-{n}") for n in range(3)]
    samples = [parts["sample"] for _, parts in trees]
    [step] = {link.span_id for span in samples for link in span.links}
    [shared] = collector.wait_for(lambda span: span.span_id == step)
    assert shared.name == "step"
    assert not shared.parent_span_id
    assert {link.span_id for link in shared.links} == {root.span_id for root, _ in trees}
    assert {link.trace_id for link in shared.links} == {root.trace_id for root, _ in trees}
    found = attributes(shared)
    assert (found["candor.model"], found["candor.version"]) == ("shared", 1)
    assert (found["candor.batch.requests"], found["candor.batch.rows"]) == (3, 6)
    assert found["candor.device"] == "cpu"
    assert found["candor.strategy"]
    assert float(found["candor.engine.seconds"]) > 0
    for span in samples:
        assert attributes(span) == {**found, "candor.rows": 2, "candor.passes": 2}
    for _, parts in trees:
        waited_ns = parts["queue"].end_time_unix_nano - parts["queue"].start_time_unix_nano
        assert waited_ns > 0


def test_a_caller_s_trace_goes_on(server: Server, collector: Collector) -> None:
    assert send(server, "called", BODY, traceparent=CALLER) == 200
    root, parts = tree(collector, "called")
    assert root.trace_id.hex() == CALLER[3:35]
    assert root.parent_span_id.hex() == CALLER[36:52]
    assert {span.trace_id.hex() for span in parts.values()} == {CALLER[3:35]}


def test_what_the_caller_does_not_sample_is_not_sampled(
    server: Server, collector: Collector
) -> None:
    assert send(server, "quiet", BODY, traceparent=NOT_SAMPLED) == 200
    assert send(server, "after", BODY) == 200
    tree(collector, "after")
    assert not any(span.trace_id.hex() == NOT_SAMPLED[3:35] for span in collector.spans)
    linked = {link.trace_id.hex() for span in collector.spans for link in span.links}
    assert NOT_SAMPLED[3:35] not in linked


def test_dropout_off_is_another_name(server: Server, collector: Collector) -> None:
    assert send(server, "eval", BODY, "/eval") == 200
    root, parts = tree(collector, "eval")
    assert root.name == "POST /eval"
    assert parts.keys() == {"parse", "queue", "evaluate", "write"}


def test_a_request_that_fails_is_marked_and_one_that_is_refused_is_not(
    server: Server, collector: Collector
) -> None:
    assert send(server, "fails", {"model": "fragile", "inputs": [[101.0]]}) == 500
    assert send(server, "refused", {"model": "fragile", "inputs": [["x"]]}) == 422
    root, parts = tree(collector, "fails")
    assert root.status.code == root.status.STATUS_CODE_ERROR
    assert parts.keys() == {"parse", "queue", "sample"}
    root, parts = tree(collector, "refused")
    assert root.status.code == root.status.STATUS_CODE_UNSET
    assert attributes(root)["http.response.status_code"] == 422
    assert not parts


def test_a_span_holds_nothing_of_the_query(server: Server, collector: Collector) -> None:
    path = "/models/slow?secret=1"
    httpx.request("PROPFIND", server.url + path, headers={"X-Request-ID": "other"})
    root, _ = tree(collector, "other")
    assert root.name.startswith("_OTHER ")
    assert attributes(root)["url.path"] == "/models/slow"
    assert "secret" not in str(root)


def test_a_trace_goes_through_the_processes_that_a_request_goes_through(
    collector: Collector, models: Path
) -> None:
    with serving(models, "--workers", "2", environment=traced(collector)) as server:
        assert send(server, "across", BODY, traceparent=CALLER) == 200
        headers = {"X-Request-ID": "passed-on", "traceparent": CALLER}
        httpx.get(server.url + "/models/slow", headers=headers)
        root, parts = tree(collector, "across", parts=4)
        passed_on, _ = tree(collector, "passed-on")
    assert root.parent_span_id.hex() == passed_on.parent_span_id.hex() == CALLER[36:52]
    assert passed_on.name == "GET /models/{name}"
    assert parts.keys() == {"parse", "queue", "sample", "write"}
    assert {span.trace_id.hex() for span in parts.values()} == {CALLER[3:35]}
    [link] = parts["sample"].links
    [step] = collector.wait_for(lambda span: span.span_id == link.span_id)
    assert [linked.span_id for linked in step.links] == [root.span_id]
