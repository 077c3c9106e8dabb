"""Starting, being watched, and ending without losing anything."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.e2e.servers import Server, serving

METRICS = (
    "candor_requests_total",
    "candor_request_seconds",
    "candor_queue_seconds",
    "candor_batch_rows",
    "candor_sampling_seconds",
    "candor_passes_total",
    "candor_uncertainty",
    "candor_ood_flagged_total",
    "candor_queue_depth",
    "candor_model_ready",
    "candor_rejected_total",
)


def test_sigterm_under_load_finishes_what_was_accepted_and_refuses_the_rest(
    odd_models: Path,
) -> None:
    with serving(odd_models, "--drain-linger-s", "3", fresh=True) as server:
        outcomes: Counter[int | str] = Counter()
        stop = threading.Event()

        def load(seed: int) -> None:
            with httpx.Client(timeout=60.0) as client:
                while not stop.is_set():
                    body = {"model": "slow", "inputs": [[20]], "seed": seed}
                    try:
                        outcomes[client.post(server.url + "/predict", json=body).status_code] += 1
                    except httpx.ConnectError:
                        # The socket is closed: the server has ended, and had not accepted this.
                        return
                    except httpx.TransportError as error:
                        outcomes[type(error).__name__] += 1
                        return

        threads = [threading.Thread(target=load, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60.0
        while not (answered_before := outcomes[200]):
            assert time.monotonic() < deadline, outcomes
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert httpx.get(server.url + "/readyz").status_code == 503
        assert httpx.get(server.url + "/livez").status_code == 200
        refused = server.post("/predict", {"model": "good", "inputs": [[0, 0, 0, 0]]})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert refused.headers["Connection"] == "close"
        assert server.process.wait(timeout=30) == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert outcomes[200] > answered_before, "what waited at the signal should be answered"
        assert outcomes[503] > 0
        assert set(outcomes) == {200, 503}, outcomes


def test_metrics_are_those_of_the_contract(shipped: Server) -> None:
    shipped.post("/predict", {"model": "co2", "inputs": [[1990.0]]})
    text = shipped.get("/metrics").text
    declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in METRICS:
        assert name in declared, name
    assert 'candor_requests_total{code="200",endpoint="/predict",model="co2"}' in text
    assert 'candor_model_ready{model="co2",version="1"} 1.0' in text
    assert 'candor_uncertainty_bucket{le="+Inf",measure="variance",model="co2"}' in text


def test_metric_labels_never_hold_names_that_nobody_checked(shipped: Server) -> None:
    shipped.post("/predict", {"model": "made-up-name", "inputs": [[1990.0]]})
    shipped.get("/made/up/path")
    assert "made" not in shipped.get("/metrics").text


def test_a_missing_repository_is_said_in_plain_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--models", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_in_which_nothing_serves_is_never_ready(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with serving(tmp_path) as server:
        answer = server.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["models"] == {"broken": "failed"}
        assert "model.toml" in server.get("/models/broken").json()["reason"]
