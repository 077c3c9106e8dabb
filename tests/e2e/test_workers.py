"""Several processes that speak HTTP answer as one, count as one, and end as one."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.raw import connect, request
from tests.e2e.servers import Server, serving
from tests.repositories import FRAGILE, SLOW, write_model
from tests.waiting import wait_for

WORKERS = 3
ROW = [0.5, -1.0, 2.0, 0.0]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workers")
    write_model(root, "good", more='labels = ["a", "b", "c"]')
    write_model(root, "slow", SLOW, shape="[1]", more="passes = 2")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    return root


@pytest.fixture(scope="module")
def one(models: Path) -> Iterator[Server]:
    with serving(models) as server:
        yield server


@pytest.fixture(scope="module")
def several(models: Path) -> Iterator[Server]:
    with serving(
        models, "--workers", str(WORKERS), environment={"CANDOR_KEEP_SAMPLES": "good=all"}
    ) as server:
        yield server


def workers_of(server: Server) -> list[int]:
    """Process ids of a server's children."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def answer_of(response: httpx.Response) -> tuple[int, object, set[str]]:
    """All of an answer but what each request has of its own."""
    own = {"request_id"}
    content = response.json()
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in own}
    return response.status_code, content, {*response.headers} - {"date"}


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum over all that have these labels."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", server.get("/metrics").text, re.M)
    return sum(float(value) for given, value in found if wanted <= {*given.split(",")})


def counted(server: Server) -> Counter[tuple[str, str]]:
    """Requests of the model good by endpoint and code."""
    pattern = r'candor_requests_total{code="(\d+)",endpoint="(.*)",model="good"} (\S+)'
    found = re.findall(pattern, server.get("/metrics").text)
    return Counter({(endpoint, code): int(float(count)) for code, endpoint, count in found})


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "predict": ("/predict", {"model": "good", "inputs": [ROW, ROW], "passes": 20, "seed": 7}),
    "tolerance": ("/predict", {"model": "good", "inputs": [ROW], "tolerance": 0.02}),
    "samples": ("/predict", {"model": "good", "inputs": [ROW], "return": ["samples"]}),
    "eval": ("/eval", {"model": "good", "inputs": [ROW]}),
    "query": ("/query", {"model": "good", "inputs": [ROW, [0] * 4, [1] * 4], "k": 2}),
    "no model": ("/predict", {"model": "none", "inputs": [ROW]}),
    "wrong shape": ("/predict", {"model": "good", "inputs": [[1.0]]}),
    "not finite": ("/predict", {"model": "good", "inputs": [[float("nan"), 0, 0, 0]]}),
    "unknown field": ("/predict", {"model": "good", "inputs": [ROW], "colour": 1}),
    "too much": ("/predict", {"model": "good", "inputs": [ROW], "passes": 2_000_000}),
    "fails": ("/predict", {"model": "fragile", "inputs": [[101.0]]}),
    "no path": ("/nothing", {}),
    "infer": (
        "/v2/models/good/infer",
        {
            "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}],
            "parameters": {"passes": 20, "seed": 7, "binary_data_output": False},
        },
    ),
    "infer by version": (
        "/v2/models/good/versions/1/infer",
        {
            "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}],
            "outputs": [{"name": "samples"}, {"name": "label"}],
        },
    ),
    "infer of nothing": ("/v2/models/good/infer", {"inputs": []}),
    "metadata": ("/v2/repository/index", {}),
}


@pytest.mark.parametrize("case", BODIES)
def test_answers_are_those_of_one_process(one: Server, several: Server, case: str) -> None:
    path, body = BODIES[case]
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    answers = [
        answer_of(server.request("POST", path, content=content, headers=headers))
        for server in (one, several, several)
    ]
    assert answers[0] == answers[1] == answers[2]


def test_arrays_cross_processes_bit_for_bit(one: Server, several: Server) -> None:
    rows = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, rows)
    answers = []
    for server in (one, several):
        response = httpx.post(
            server.url + "/predict",
            params={"model": "good", "return": "mean,std,label,quantiles,samples"},
            content=stream.getvalue(),
            headers={"Content-Type": "application/x-npy", "Accept": "application/x-npz"},
            timeout=60,
        )
        assert response.status_code == 200, response.text
        answers.append(np.load(io.BytesIO(response.content)))
    for name in answers[0].files:
        np.testing.assert_array_equal(answers[0][name], answers[1][name], err_msg=name)


def test_other_routes_are_passed_on_whole(one: Server, several: Server) -> None:
    assert several.get("/models").json() == one.get("/models").json()
    assert several.get("/openapi.json").json() == one.get("/openapi.json").json()
    assert several.get("/readyz").json()["ready"] is True
    assert httpx.put(several.url + "/predict").status_code == 405
    reloaded = several.post("/models/good/reload", {})
    assert reloaded.status_code == 200
    answer = several.post("/predict", {"model": "good", "inputs": [ROW]})
    assert answer.json() == one.post("/predict", {"model": "good", "inputs": [ROW]}).json()


def test_a_long_answer_is_passed_on_in_parts_and_may_be_left(several: Server) -> None:
    rows = np.random.default_rng(1).normal(size=(5000, 4)).round(6).tolist()
    assert several.post("/predict", {"model": "good", "inputs": rows}).status_code == 200
    wait_for(lambda: metric(several, "candor_samples_kept_total") >= 5000)
    with httpx.stream("GET", several.url + "/samples/export?format=jsonl&status=all") as response:
        next(response.iter_bytes())
    whole = several.get("/samples/export?format=jsonl&status=all")
    assert whole.text.endswith("\n")
    samples = [json.loads(line)["id"] for line in whole.text.splitlines()]
    assert len({*samples}) == len(samples) >= 5000


def test_counts_are_those_of_all_processes(several: Server) -> None:
    before = counted(several)
    by_version = {"model": "good", "version": "1"}
    of_version = metric(several, "candor_version_requests_total", **by_version)
    outcomes: Counter[tuple[str, str]] = Counter()

    def ask(number: int) -> None:
        path, body = [
            ("/predict", {"model": "good", "inputs": [ROW], "seed": number}),
            ("/eval", {"model": "good", "inputs": [ROW]}),
            ("/predict", {"model": "good", "inputs": [[0.0]]}),
            ("/query", {"model": "good", "inputs": [ROW], "k": 1}),
        ][number % 4]
        # A connection each, so that all processes get some.
        code = several.post(path, body).status_code
        outcomes[path, str(code)] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200)))
    assert counted(several) - before == outcomes
    # All of them got as far as a version, also those that it refused.
    now = metric(several, "candor_version_requests_total", **by_version)
    assert now - of_version == 200
    timed = metric(several, "candor_version_request_seconds_count", **by_version)
    assert timed == now
    assert len(workers_of(several)) == WORKERS


def test_a_client_that_leaves_is_noticed_across_processes(several: Server) -> None:
    before = metric(several, "candor_rejected_total", reason="client_left")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            several.url + "/predict", json={"model": "slow", "inputs": [[1500.0]]}, timeout=0.4
        )
    wait_for(lambda: metric(several, "candor_rejected_total", reason="client_left") == before + 1)


def test_deadlines_hold_across_processes(several: Server) -> None:
    late = several.post(
        "/predict", {"model": "slow", "inputs": [[2000.0]]}, {"X-Request-Timeout": "0.2"}
    )
    assert late.status_code == 504


def test_a_worker_refuses_what_would_be_late_before_it_is_read(tmp_path: Path) -> None:
    write_model(tmp_path, "slow", SLOW, shape="[1]")
    with serving(tmp_path, "--workers", "2") as server, ThreadPoolExecutor(16) as threads:

        def ask(passes: int) -> int:
            return server.post("/predict", {"inputs": [[20.0]], "passes": passes}).status_code

        # How long its passes take is known by two sizes.
        assert [ask(passes) for passes in (2, 4, 8)] == [200] * 3
        busy = [threads.submit(ask, 10) for _ in range(16)]
        # No body ever comes.
        head = {"Content-Length": "9", "X-Request-Timeout": "0.2"}

        def refused() -> bool:
            with connect(server) as connection:
                connection.socket.settimeout(0.5)
                connection.send(request("POST", "/predict", b"", head))
                try:
                    return connection.answer().status == 429
                except TimeoutError:
                    assert not all(one.done() for one in busy)
                    return False

        wait_for(refused)
        assert {one.result() for one in busy} == {200}


def test_a_worker_that_is_killed_is_replaced_and_nobody_elses_request_suffers(
    models: Path,
) -> None:
    with serving(models, "--workers", "2") as server:
        stop = threading.Event()
        outcomes: Counter[str] = Counter()

        def load() -> None:
            while not stop.is_set():
                try:
                    outcomes[str(server.post("/eval", {"model": "good", "inputs": [ROW]}))] += 1
                except httpx.TransportError:
                    # Those that the killed process held are lost with their connections.
                    outcomes["lost"] += 1

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        first = workers_of(server)
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len({*workers_of(server)} - {*first}) == 1)
        stop.set()
        for thread in threads:
            thread.join()
        assert {*outcomes} <= {"<Response [200 OK]>", "lost"}, outcomes
        assert outcomes["lost"] <= 4
        server.says("another is started")
        assert server.post("/eval", {"model": "good", "inputs": [ROW]}).status_code == 200


def test_sigterm_finishes_what_all_processes_accepted(models: Path) -> None:
    with serving(models, "--workers", "2", "--drain-linger-s", "1", fresh=True) as server:
        with ThreadPoolExecutor(4) as pool:
            accepted = [
                pool.submit(server.post, "/predict", {"model": "slow", "inputs": [[400.0]]})
                for _ in range(4)
            ]
            wait_for(lambda: metric(server, "candor_requests_in_flight") == 4)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.get("/readyz").status_code == 503)
            refused = server.post("/predict", {"model": "good", "inputs": [ROW]})
            assert refused.status_code == 503
            assert refused.headers["Connection"] == "close"
            assert {future.result().status_code for future in accepted} == {200}
        children = workers_of(server)
        assert server.process.wait(30) == 0
        wait_for(lambda: not any(map(is_running, children)))


def test_without_the_process_that_computes_no_worker_stays(models: Path) -> None:
    with serving(models, "--workers", "2") as server:
        children = workers_of(server)
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(map(is_running, children)))
        with pytest.raises(httpx.ConnectError):
            server.get("/livez")
