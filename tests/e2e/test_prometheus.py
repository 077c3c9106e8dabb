"""A real Prometheus scrapes a server of several processes: its sums are what was answered."""

from __future__ import annotations

import asyncio
import functools
import random
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import waiting
from tests.e2e.servers import Server, serving
from tests.repositories import MLP, write_model

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts.yml"
WORKERS = 3
REQUESTS = 600
CONNECTIONS = 12
INFER = "/v2/models/good/infer"
_WAIT_S = 120.0

wait_for = functools.partial(waiting.wait_for, patience_s=_WAIT_S)

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed (apt-get install --no-install-recommends prometheus)",
)


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30.0).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def sums(self, query: str, *labels: str) -> Counter[tuple[str, ...]]:
        """A query's values by the labels of each."""
        found: Counter[tuple[str, ...]] = Counter()
        for series in self.get("query", query=query)["result"]:
            found[tuple(series["metric"][label] for label in labels)] = int(series["value"][1])
        return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def scraping(server: Server, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server, with the project's own rules."""
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "candor",
                "static_configs": [{"targets": [server.url.removeprefix("http://")]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _WAIT_S
        while not _ready(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Seen:
    """What the load generator counted of the answers it got."""

    answers: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """By endpoint and code."""
    passes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Rows × passes, by model."""
    invalid: int = 0


def _draw(random_: random.Random) -> tuple[str, str, dict[str, Any], int]:
    """Path, its route, a body, and the rows × passes of it if it is answered."""
    rows, passes = random_.randint(1, 4), random_.randint(2, 30)
    inputs = [[random_.random() for _ in range(4)] for _ in range(rows)]
    kind = random_.choice(["predict", "predict", "predict", "eval", "infer", "bad", "unknown"])
    body = {"model": "good", "inputs": inputs}
    if kind == "eval":
        return "/eval", "/eval", body, 0
    if kind == "infer":
        flat = [value for row in inputs for value in row]
        tensor = {"name": "input", "datatype": "FP32", "shape": [rows, 4], "data": flat}
        infer = {"inputs": [tensor], "parameters": {"passes": passes}}
        return INFER, "/v2/models/{name}/infer", infer, rows * passes
    if kind == "bad":
        return "/predict", "/predict", {**body, "inputs": [["x"] * 4]}, 0
    if kind == "unknown":
        return "/predict", "/predict", {**body, "model": "nobody"}, 0
    return "/predict", "/predict", {**body, "passes": passes}, rows * passes


async def _load(url: str) -> Seen:
    seen = Seen()

    async def connection(number: int) -> None:
        random_ = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
            for _ in range(REQUESTS // CONNECTIONS):
                path, route, body, cost = _draw(random_)
                response = await client.post(path, json=body)
                seen.answers[route, str(response.status_code)] += 1
                seen.passes["good",] += cost * (response.status_code == 200)
                seen.invalid += response.status_code == 422

    await asyncio.gather(*map(connection, range(CONNECTIONS)))
    return seen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "good", MLP)
    with serving(root, "--workers", str(WORKERS)) as started:
        yield started


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with scraping(server, tmp_path_factory.mktemp("prometheus")) as started:
        yield started


def test_the_sums_are_what_the_load_generator_counted(
    server: Server, prometheus: Prometheus
) -> None:
    seen = asyncio.run(_load(server.url))
    assert sum(seen.answers.values()) == REQUESTS
    assert {code for _, code in seen.answers} == {"200", "404", "422"}

    def requests() -> Counter[tuple[str, ...]]:
        query = 'sum by (endpoint, code) (candor_requests_total{endpoint!~"/metrics|/readyz"})'
        return prometheus.sums(query, "endpoint", "code")

    def scrapes() -> int:
        return prometheus.sums("sum by (job) (count_over_time(up[1h]))", "job")["candor",]

    wait_for(lambda: requests() == seen.answers, otherwise=lambda: (requests(), seen.answers))
    before = scrapes()
    wait_for(lambda: scrapes() >= before + 3, otherwise=scrapes)
    assert requests() == seen.answers

    timed: Counter[tuple[str, ...]] = Counter()
    for (endpoint, _), count in seen.answers.items():
        timed[endpoint,] += count
    query = 'sum by (endpoint) (candor_request_seconds_count{endpoint!~"/metrics|/readyz"})'
    assert prometheus.sums(query, "endpoint") == timed
    assert prometheus.sums("sum by (model) (candor_passes_total)", "model") == seen.passes
    refused = prometheus.sums("sum by (reason) (candor_rejected_total)", "reason")
    assert refused == {("invalid",): seen.invalid}
    ready = prometheus.sums("candor_model_ready", "model", "version")
    assert ready == {("good", "1"): 1}


def test_every_rule_is_evaluated_and_a_healthy_server_alarms_nobody(
    server: Server, prometheus: Prometheus
) -> None:
    server.post("/predict", {"inputs": [[0.0] * 4]})

    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    wait_for(lambda: all(rule["health"] == "ok" for rule in rules()), otherwise=rules)
    assert {rule["name"] for rule in rules()} >= {"CandorDown", "CandorDrift"}
    assert [a for a in prometheus.get("alerts")["alerts"] if a["state"] == "firing"] == []
