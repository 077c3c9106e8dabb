"""Two machines' worth of processes on Ray answer as one server, whoever of them dies."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.pools.scoring import PART_ROWS
from tests import waiting
from tests.databases import PostgreSQL
from tests.e2e.clusters import cluster, processes
from tests.e2e.servers import Server, serving
from tests.e2e.test_cli import candor
from tests.e2e.test_workers import BODIES, ROW, counted, metric
from tests.repositories import FRAGILE, SLOW, write_model, write_version

ROWS = int(os.environ.get("RAY_ROWS", str(5 * PART_ROWS - 1000)))
"""Of the pool that is scored; `make ray-pool` has a million."""

CASES = ("predict", "eval", "query", "infer", "metadata", "fails")
"""One of each endpoint, and an error that a replica raises."""

COMPUTES = "ServeReplica:candor:Replica"
SCORES = "_Scorer"
ROUNDS = 32
CLIENTS, SEEDS = 8, 40
LONG_S = 180.0

wait_for = functools.partial(waiting.wait_for, patience_s=LONG_S)
"""Processes of Ray take long to start on a busy machine, and a change of models waits for them."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster(nodes=2, cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of processes that are to answer alike to the last bit: what the first measures all
    others take over."""
    folder = tmp_path_factory.mktemp("tuning")
    return {"CANDOR_PRECISION": "float32", "CANDOR_TUNING": str(folder)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray")
    write_model(root, "good", more='labels = ["a", "b", "c"]')
    write_model(root, "slow", SLOW, shape="[1]", more="passes = 2")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    write_model(root, "spare")
    return root


@pytest.fixture(scope="module")
def one(models: Path, alike: dict[str, str]) -> Iterator[Server]:
    with serving(models, environment=alike) as server:
        yield server


@pytest.fixture(scope="module")
def several(
    one: Server, models: Path, alike: dict[str, str], address: str, postgresql: PostgreSQL
) -> Iterator[Server]:
    """Two that compute, on two nodes, behind one that speaks HTTP; beside `one`, which came first
    and has measured."""
    # As many threads as the tests' other servers have (`conftest.py`).
    scale = ("--ray-replicas", "2", "--ray-doors", "1", "--ray-cpus", "1")
    environment = {
        **alike,
        "CANDOR_DATABASE_URL": postgresql.database(),
        "CANDOR_KEEP_SAMPLES": "spare=all",
    }
    with serving(models, "--ray", address, *scale, environment=environment) as server:
        yield server


def content(response: httpx.Response) -> tuple[int, object]:
    """All of an answer but what each request has of its own."""
    found = response.json()
    if isinstance(found, dict):
        found.pop("request_id", None)
    return response.status_code, found


def post(server: Server, path: str, body: object) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    text = json.dumps(body)
    return httpx.post(server.url + path, content=text, headers=headers, timeout=LONG_S)


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_one_server_to_the_last_bit(
    one: Server, several: Server, case: str
) -> None:
    path, body = BODIES[case]
    expected = content(post(one, path, body))
    assert content(post(several, path, body)) == expected
    with ThreadPoolExecutor(1) as threads:
        # While one has something to do the other is given what comes.
        before = metric(several, "candor_requests_in_flight")
        busy = threads.submit(post, several, "/eval", {"model": "slow", "inputs": [[500.0]]})
        wait_for(lambda: busy.done() or metric(several, "candor_requests_in_flight") > before)
        assert content(post(several, path, body)) == expected
        assert busy.result().status_code == 200


def test_every_answer_has_one_request_id_which_is_the_callers(several: Server) -> None:
    response = httpx.get(several.url + "/livez", headers={"X-Request-ID": "mine"}, timeout=60)
    assert response.headers.get_list("x-request-id") == ["mine"]
    made = post(several, "/predict", {"model": "good", "inputs": [[1.0]]})
    [number] = made.headers.get_list("x-request-id")
    assert made.json()["request_id"] == number


def at_once(ask: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Answers to several requests: those that come one after the other all go to the same one."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(lambda _: ask(), range(ROUNDS)))


def computed_by_each(server: Server) -> set[tuple[int, int]]:
    """Rows that each has computed, and when it last did: each says this for itself."""
    found = at_once(lambda: httpx.get(server.url + "/v2/models/good/stats", timeout=LONG_S))
    counts = [response.json()["model_stats"][0] for response in found]
    return {(each["inference_count"], each["last_inference"]) for each in counts}


def test_requests_are_spread_over_both(several: Server) -> None:
    body = {"model": "good", "inputs": [ROW]}

    def both() -> set[tuple[int, int]]:
        at_once(lambda: post(several, "/predict", body))
        return computed_by_each(several)

    wait_for(lambda: len(found := both()) == 2 and all(rows > 0 for rows, _ in found))


def test_counts_of_all_are_one_sum(several: Server) -> None:
    labels = {"model": "good", "version": "1"}
    before, passes = counted(several), metric(several, "candor_passes_total", model="good")
    of_version = metric(several, "candor_version_requests_total", **labels)
    for _ in range(10):
        post(several, "/predict", {"model": "good", "inputs": [ROW], "passes": 7})
    post(several, "/predict", {"model": "good", "inputs": [[1.0]]})
    # What doors count, and what replicas do; one that is too busy to say so is waited for.
    expected = {("/predict", "200"): 10, ("/predict", "422"): 1}
    wait_for(lambda: counted(several) - before == expected)
    wait_for(lambda: metric(several, "candor_passes_total", model="good") == passes + 70)
    assert metric(several, "candor_version_requests_total", **labels) == of_version + 11
    assert metric(several, "candor_model_ready", model="good") == 1


def test_kept_rows_of_all_are_in_one_store_and_deleted_from_all(several: Server) -> None:
    for number in range(6):
        body = {"model": "spare", "inputs": [[float(number), 0, 0, 0]]}
        assert post(several, "/predict", body).status_code == 200

    def kept() -> list[Any]:
        found = several.get("/samples?model=spare&limit=100").json()["samples"]
        return sorted(sample["input"][0] for sample in found)

    wait_for(lambda: len(kept()) == 6)
    assert {tuple(kept()) for _ in range(4)} == {(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)}
    lines = several.get("/samples/export?model=spare&status=all").text.splitlines()
    assert len(lines) == 6
    deleted = httpx.delete(several.url + "/samples?model=spare", timeout=LONG_S)
    assert (deleted.status_code, deleted.json()) == (200, {"deleted": 6})
    assert kept() == []


class Load:
    """Requests of eight clients, each with its next seed at once, until they are ended."""

    def __init__(self, server: Server) -> None:
        self.answers: list[tuple[int, httpx.Response]] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(server, client)) for client in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, server: Server, number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=LONG_S) as http:
            while not self._stop.is_set():
                seed = number % SEEDS
                body = {"model": "good", "inputs": [ROW], "passes": 20, "seed": seed}
                self.answers.append((seed, http.post("/predict", json=body)))
                number += CLIENTS

    def wait_for_more(self, count: int) -> None:
        """Until so many more are answered."""
        until = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= until)

    def end(self) -> list[tuple[int, httpx.Response]]:
        """All that were answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers


@pytest.fixture
def load(several: Server) -> Iterator[Load]:
    """Begun, and ended whatever happens."""
    found = Load(several)
    yield found
    found.end()


def test_models_change_on_all_under_load_and_no_request_is_between_two_versions(
    several: Server, models: Path, load: Load
) -> None:
    load.wait_for_more(20)
    second = write_version(models / "good", 2, seed=1)
    response = post(several, "/models/good/reload", {})
    assert response.status_code == 200
    assert response.json()["default_version"] == 2
    # From the answer on nobody gets the old one.
    asked = {"model": "good", "inputs": [ROW]}
    later = at_once(lambda: post(several, "/predict", asked))
    assert {response.json()["version"] for response in later} == {2}
    found = load.end()
    assert Counter(response.status_code for _, response in found) == {200: len(found)}
    assert {response.json()["version"] for _, response in found} <= {1, 2}
    shutil.rmtree(second)
    assert post(several, "/models/good/reload", {}).json()["default_version"] == 1


def test_one_that_dies_under_load_loses_no_request_and_another_serves_what_it_served(
    one: Server, several: Server, load: Load
) -> None:
    unloaded = {"model": "slow", "inputs": [[0.0]]}
    assert post(several, "/predict", unloaded).status_code == 200
    assert post(several, "/models/slow/unload", {}).status_code == 200
    load.wait_for_more(50)
    answered = metric(several, "candor_requests_total", model="good", endpoint="/predict")
    passes = metric(several, "candor_passes_total", model="good")
    before = len(load.answers)
    first, _ = processes(COMPUTES)
    os.kill(first, signal.SIGKILL)
    load.wait_for_more(100)
    found = load.end()
    assert Counter(response.status_code for _, response in found) == {200: len(found)}
    body = {"model": "good", "inputs": [ROW], "passes": 20}
    expected = [post(one, "/predict", {**body, "seed": seed}).json() for seed in range(SEEDS)]
    for seed, response in found:
        answer = response.json()
        for name in ("mean", "std", "mutual_information"):
            # What shares a batch is rounded otherwise, as in one server.
            np.testing.assert_allclose(answer[name], expected[seed][name], atol=1e-6)
        assert answer["label"] == expected[seed]["label"]
    # Each client's last one may have been counted before it came.
    least = answered + len(found) - before - CLIENTS
    of_good = {"model": "good", "endpoint": "/predict"}
    wait_for(lambda: metric(several, "candor_requests_total", **of_good) >= least)
    # What the dead one had counted is not forgotten.
    assert metric(several, "candor_passes_total", model="good") > passes
    # Until both serve again: each says for itself what it has computed.
    wait_for(lambda: len(computed_by_each(several)) == 2)
    assert first not in processes(COMPUTES)
    assert {a.status_code for a in at_once(lambda: post(several, "/predict", unloaded))} == {503}
    assert post(several, "/models/slow/load", {}).status_code == 200
    assert {a.status_code for a in at_once(lambda: post(several, "/predict", unloaded))} == {200}
    refused = post(several, "/models/nothing/load", {})
    assert refused.status_code == 404
    assert "no folder of model 'nothing'" in refused.json()["detail"]


def test_a_signal_ends_the_service_and_leaves_the_cluster(several: Server, address: str) -> None:
    several.process.send_signal(signal.SIGTERM)
    assert several.process.wait(LONG_S) == 0
    wait_for(lambda: not processes("ServeReplica:candor"))
    assert processes("")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.npy"
    rows = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    np.save(path, rows)
    return path


def begin(alike: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """A command in a process of its own, since it is a part of the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "service", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **alike},
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed."""
    out, err = process.communicate(timeout=2 * LONG_S)
    assert process.returncode == 0, err
    return out, err


def parts_of(output: Path) -> int:
    return len([*output.with_name(f"{output.name}.parts").glob("*.arrow")])


def test_a_table_by_many_is_that_of_one_to_the_last_bit_whoever_is_killed_half_way(
    address: str, models: Path, pool: Path, alike: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, whole = pool.with_name("many.parquet"), pool.with_name("whole.parquet")
    words = ("score", str(pool), "--models", str(models), "--model", "good", "--passes", "10")
    many = (*words, "-o", str(output), "--ray", address)

    def wait_for_parts(process: subprocess.Popen[str], count: int) -> None:
        wait_for(lambda: parts_of(output) >= count or process.poll() is not None)
        assert process.poll() is None, process.communicate()

    # The run itself first, then one of those that compute for the next, which has to finish.
    process = begin(alike, *many, "--ray-replicas", "1")
    wait_for_parts(process, 1)
    process.kill()
    process.communicate()
    done = parts_of(output)
    assert not output.exists()
    process = begin(alike, *many, "--ray-replicas", "2")
    wait_for_parts(process, done + 1)
    # Each of the two has parts left to do.
    os.kill(processes(SCORES)[0], signal.SIGKILL)
    _, printed = ended(process)
    assert f"wrote {ROWS} rows" in printed
    assert "of them by an earlier run" in printed
    assert "rounded otherwise" not in printed
    assert not parts_of(output)

    for name, value in alike.items():
        monkeypatch.setenv(name, value)
    candor(*words, "-o", str(whole))
    assert output.read_bytes() == whole.read_bytes()


def test_points_chosen_on_a_cluster_are_those_of_one_process(
    address: str, models: Path, pool: Path, alike: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Candidates are found part by part elsewhere, and chosen among here.
    # `tests/pools/test_selection.py` has all strategies.
    exclude = pool.with_name("exclude.txt")
    exclude.write_text("\n".join(map(str, range(0, ROWS, 3))))
    words = [
        *("query", "--pool", str(pool), "--models", str(models), "--model", "good", "-k", "5"),
        *("--strategy", "batch_bald", "--passes", "5", "--exclude", str(exclude)),
    ]
    printed, _ = ended(begin(alike, *words, "--ray", address, "--ray-replicas", "1"))
    for name, value in alike.items():
        monkeypatch.setenv(name, value)
    assert printed == candor(*words).stdout
    chosen = [int(line.split("\t")[0]) for line in printed.splitlines()]
    assert len({*chosen}) == 5
    assert not any(number % 3 == 0 for number in chosen)
