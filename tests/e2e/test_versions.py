"""Versions come, change and go under traffic: no gap, no wrong answer, no memory kept.

`RELOADS=200` (`make reload-loop`) makes the loop over memory long.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import safetensors.torch

from service.client import Client
from service.errors import ModelNotFound, ModelNotReady
from tests.e2e.servers import Server, serving
from tests.repositories import build_network, write_model
from tests.waiting import wait_for

INPUTS = [[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, -1.0, 3.0]]
SHARE = 0.2
WAIT_S = 60.0
RELOADS = int(os.environ.get("RELOADS", "20"))

HEAVY = """
import torch
from torch import nn

class Heavy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.register_buffer("table", torch.zeros(2**20))

    def forward(self, x):
        return self.layers(x) + self.table[:3]

def build():
    return Heavy()
"""
HEAVY_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("versions")
    write_model(root, "labelled")
    write_weights(root / "labelled", 2, seed=2)
    manifest = root / "labelled" / "model.toml"
    labels = "{ stable = 1, canary = 2, next = 3 }"
    table = f"[serving]\nlabels = {labels}\ncanary_share = {SHARE}\n"
    manifest.write_text(manifest.read_text() + table)
    write_model(root, "turning")
    write_model(root, "breaking")
    write_model(root, "leaving")
    write_model(root, "heavy", HEAVY)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    # Of one that was forked, memory that it shares becomes its own as it is written to.
    with serving(root, environment={"CANDOR_WATCH": "0.2"}, fresh=True) as server:
        yield server


def write_weights(folder: Path, version: int, seed: int) -> None:
    """In one step, as a deployment should: written beside, then moved."""
    target = folder / str(version) / "weights.safetensors"
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(".part")
    safetensors.torch.save_model(build_network(folder, seed), str(part))
    part.rename(target)


def predict(client: httpx.Client, url: str, model: str) -> httpx.Response:
    return client.post(url + "/predict", json={"model": model, "inputs": INPUTS, "passes": 10})


def test_a_request_may_name_a_label(server: Server) -> None:
    for endpoint, more in (("predict", {}), ("eval", {}), ("query", {"k": 1})):
        for label, version in (("stable", 1), ("canary", 2)):
            body = {"model": "labelled", "inputs": INPUTS, "version": label, **more}
            assert server.post(f"/{endpoint}", body).json()["version"] == version
    array = io.BytesIO()
    np.save(array, np.array(INPUTS, dtype=np.float32))
    for name, version in (("stable", 1), ("canary", 2), ("1", 1), ("2", 2)):
        answer = httpx.post(
            f"{server.url}/predict?model=labelled&version={name}",
            content=array.getvalue(),
            headers={"Content-Type": "application/x-npy"},
            timeout=60.0,
        )
        assert answer.json()["version"] == version
    with Client(server.url) as client:
        assert client.predict(INPUTS, model="labelled", version="canary").version == 2


def test_labels_that_cannot_be_had_are_refused_by_name(server: Server) -> None:
    def ask(version: object) -> httpx.Response:
        return server.post("/predict", {"model": "labelled", "inputs": INPUTS, "version": version})

    unknown = ask("newest")
    assert unknown.status_code == 404
    assert unknown.json()["expected"] == ["stable", "canary", "next"]
    assert unknown.json()["field"] == "version"
    missing = ask("next")
    assert missing.status_code == 503
    assert "version 3" in missing.json()["detail"]
    for no_version in (0, "", "1", True, [1], "Stable"):
        assert ask(no_version).status_code == 422, no_version
    shown = server.get("/models/labelled").json()
    assert shown["version_labels"] == {"stable": 1, "canary": 2, "next": 3}
    assert shown["default_version"] == 1
    assert any("'next'" in warning for warning in shown["warnings"])


def test_the_canary_gets_its_share_and_a_request_id_always_the_same_version(
    server: Server,
) -> None:
    versions: dict[int, int] = {}
    count = 300
    with httpx.Client(timeout=60.0) as client:
        for number in [*range(count), *range(20)]:
            answer = client.post(
                server.url + "/eval",
                json={"model": "labelled", "inputs": INPUTS},
                headers={"X-Request-ID": f"canary-{number}"},
            ).json()
            assert versions.setdefault(number, answer["version"]) == answer["version"]
    share = Counter(versions.values())[2] / count
    # Binomial: five standard deviations. The hash is fixed, so that this is no matter of luck.
    assert abs(share - SHARE) < 5 * math.sqrt(SHARE * (1 - SHARE) / count)


def test_a_reload_under_traffic_leaves_no_gap_and_mixes_nothing(server: Server, root: Path) -> None:
    folder = root / "turning"
    with httpx.Client(timeout=60.0) as client:

        def mean() -> tuple[float, ...]:
            return tuple(np.ravel(predict(client, server.url, "turning").json()["mean"]).tolist())

        def turn(seed: int) -> tuple[float, ...]:
            write_weights(folder, 1, seed)
            assert client.post(f"{server.url}/models/turning/reload").status_code == 200
            return mean()

        expected = {seed: np.array(turn(seed)) for seed in (0, 1)}
        assert np.abs(expected[0] - expected[1]).max() > 1e-2
        failures: list[str] = []
        answers: list[list[float]] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=60.0) as own:
                while not stop.is_set():
                    answer = predict(own, server.url, "turning")
                    if answer.status_code != 200:
                        failures.append(answer.text)
                        return
                    answers.append(np.ravel(answer.json()["mean"]).tolist())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(6):
                seed = number % 2
                # What is asked after a reload has returned is answered by what it loaded.
                np.testing.assert_allclose(turn(seed), expected[seed], atol=1e-5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    matches = np.array(
        [[np.abs(np.array(a) - e).max() < 1e-5 for e in expected.values()] for a in answers]
    )
    assert (matches.sum(axis=1) == 1).all(), "each is of one of the two, whole"
    assert matches.any(axis=0).all(), "both have answered"


def test_a_broken_reload_leaves_the_old_serving_with_the_reason(server: Server, root: Path) -> None:
    with httpx.Client(timeout=60.0) as client:
        before = predict(client, server.url, "breaking").json()["mean"]
        (root / "breaking" / "1" / "weights.safetensors").write_bytes(b"nonsense")
        shown = client.post(server.url + "/models/breaking/reload").json()["versions"][0]
        assert shown["state"] == "ready"
        assert "weights.safetensors" in shown["reason"]
        (root / "breaking" / "model.toml").write_text("nonsense")
        assert client.post(server.url + "/models/breaking/reload").status_code == 503
        assert "model.toml" in client.get(server.url + "/models/breaking").json()["reason"]
        assert predict(client, server.url, "breaking").json()["mean"] == before


def test_an_unloaded_model_answers_503_and_is_missed_by_nobody(server: Server) -> None:
    with Client(server.url, retries=0) as client:
        assert [v.state for v in client.unload("leaving").versions] == ["unloaded"]
        with pytest.raises(ModelNotReady, match="unloaded on request"):
            client.predict(INPUTS, model="leaving")
        assert server.get("/readyz").json()["models"]["leaving"] == "unloaded"
        assert 'candor_model_ready{model="leaving"' not in server.get("/metrics").text
        assert [v.state for v in client.load("leaving").versions] == ["ready"]
        assert client.predict(INPUTS, model="leaving").version == 1
        for call in (client.load, client.unload, client.reload):
            with pytest.raises(ModelNotFound):
                call("nowhere")
    assert 'candor_model_ready{model="leaving",version="1"} 1.0' in server.get("/metrics").text


def test_what_is_put_into_the_repository_serves_without_a_call_until_it_is_gone(
    server: Server, root: Path
) -> None:
    def serves() -> int | None:
        found: int | None = server.get("/models/coming").json().get("default_version")
        return found

    folder = write_model(root, "coming")
    wait_for(lambda: serves() == 1)
    write_weights(folder, 2, seed=5)
    wait_for(lambda: serves() == 2)
    assert server.post("/predict", {"model": "coming", "inputs": INPUTS}).json()["version"] == 2
    labels = 'code="200",endpoint="/predict",model="coming",version="2"'
    assert f"candor_version_requests_total{{{labels}}} 1.0" in server.get("/metrics").text
    shutil.rmtree(folder / "2")
    wait_for(lambda: serves() == 1)
    assert 'model="coming",version="2"' not in server.get("/metrics").text
    shutil.rmtree(folder)
    wait_for(lambda: server.get("/models/coming").status_code == 404)


def private_bytes(server: Server) -> int:
    """Memory of the process that it shares with nobody."""
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(300 + 10 * RELOADS)
def test_loading_and_unloading_again_and_again_keeps_no_memory(server: Server) -> None:
    """Were each time one copy of the weights kept, the memory would grow by 4 MiB a time."""
    seen: list[int] = []
    with httpx.Client(timeout=60.0) as client:
        for number in range(RELOADS):
            calls = ("reload",) if number % 2 else ("unload", "load")
            for call in calls:
                assert client.post(f"{server.url}/models/heavy/{call}").status_code == 200
            assert predict(client, server.url, "heavy").status_code == 200
            seen.append(private_bytes(server))
    if RELOADS > 20:
        print([round(each / 2**20, 1) for each in seen])
    warm = len(seen) // 4
    # The last against the first that are warm, each the least of several: garbage comes and goes.
    several = max(1, len(seen) // 10)
    grown = min(seen[-several:]) - min(seen[warm : warm + several])
    assert grown < HEAVY_BYTES * (len(seen) - warm - several) / 4


SLOW_TO_LOAD = """
import time
from pathlib import Path
from torch import nn

mark = Path(__file__).with_name("slow")
if mark.exists():
    mark.with_name("begun").touch()
    while True:
        time.sleep(0.01)

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
"""


def test_a_signal_while_a_model_is_reloaded_ends_the_server_cleanly(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "slow", SLOW_TO_LOAD)
    with serving(tmp_path, fresh=True) as server:
        (folder / "slow").touch()
        codes: list[int] = []

        def reload() -> None:
            codes.append(httpx.post(server.url + "/models/slow/reload", timeout=60).status_code)

        thread = threading.Thread(target=reload)
        thread.start()
        wait_for((folder / "begun").exists)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=WAIT_S) == 0
        thread.join()
        assert codes == [503]
        assert not any("Traceback" in line for line in server.printed)


def test_a_signal_while_models_are_loaded_at_the_start_ends_the_server_cleanly(
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path, "slow", SLOW_TO_LOAD)
    (folder / "slow").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--models", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CANDOR_DATABASE_URL": f"sqlite:///{tmp_path}/samples.sqlite"},
    )
    try:
        wait_for((folder / "begun").exists)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
