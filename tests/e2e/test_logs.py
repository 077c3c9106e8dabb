"""What a real server writes into its log: whose request it was, and nothing that was in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.servers import Server, serving
from tests.repositories import FRAGILE, write_model

INPUT = 0.123456789
SECRET = "sesame-opens-this"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    flags = ("--log-level", "debug", "--log-format", "json", "--keep-samples", "all")
    with serving(Path(root), *flags) as started:
        yield started


def line_of(server: Server, number: str, logger: str) -> dict[str, Any]:
    """The line of a request that a logger wrote; it may come a moment after the answer."""
    deadline = time.monotonic() + 30.0
    while True:
        found = [
            line
            for line in lines(server)
            if line.get("request_id") == number and line["logger"] == logger
        ]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < deadline, "".join(server.printed)
        time.sleep(0.02)


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.printed if line.startswith("{")]


def test_every_request_leaves_a_line_at_debug(server: Server) -> None:
    body = {"inputs": [[INPUT]], "passes": 2}
    assert server.post("/predict", body, {"X-Request-ID": "r-1"}).status_code == 200
    line = line_of(server, "r-1", "service.access")
    assert line["level"] == "debug"
    assert line["message"] == "POST /predict: 200"
    assert (line["method"], line["path"], line["endpoint"]) == ("POST", "/predict", "/predict")
    assert (line["status"], line["model"]) == (200, "fragile")
    assert 0 < line["seconds"] < 60


def test_a_path_leaves_its_query_out_and_a_route_its_parameters(server: Server) -> None:
    path = f"/models/fragile?passes={SECRET}"
    httpx.get(server.url + path, headers={"X-Request-ID": "r-2"})
    line = line_of(server, "r-2", "service.access")
    assert (line["path"], line["endpoint"]) == ("/models/fragile", "/models/{name}")


def test_a_refusal_says_why(server: Server) -> None:
    answer = server.post("/predict", {"inputs": [["x"]]}, {"X-Request-ID": "r-3"})
    assert answer.status_code == 422
    assert line_of(server, "r-3", "service.access")["reason"] == "invalid"


def test_the_engine_says_on_whose_request_a_model_failed(server: Server) -> None:
    answer = server.post("/predict", {"inputs": [[101.0]]}, {"X-Request-ID": "r-4"})
    assert answer.status_code == 500
    line = line_of(server, "r-4", "service.scheduling.computation")
    assert (line["level"], line["model"], line["version"]) == ("error", "fragile", 1)
    assert "RuntimeError: above one hundred" in line["exception"]


def test_a_path_cannot_forge_a_line(server: Server) -> None:
    forged = '/x%0a{"message": "forged"}%1b%e2%80%a8'
    httpx.get(server.url + forged, headers={"X-Request-ID": "r-5"})
    line = line_of(server, "r-5", "service.access")
    assert line["path"] == '/x\n{"message": "forged"}\x1b\u2028'
    assert all("message" in line and line["message"] != "forged" for line in lines(server))


def test_no_inputs_and_no_secrets_are_written(server: Server) -> None:
    body = {"inputs": [[INPUT]], "passes": 2, "return": ["samples"]}
    headers = {"X-Request-ID": "r-6", "Authorization": f"Bearer {SECRET}"}
    server.post("/predict", body, headers)
    server.post(f"/predict?token={SECRET}", {"inputs": [[INPUT], [[INPUT]]]}, headers)
    server.post("/query", {"inputs": [[INPUT]] * 3, "k": 1, "x": INPUT}, headers)
    deadline = time.monotonic() + 30.0
    while not server.get("/samples").json()["samples"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.get("/livez")
    printed = "".join(server.printed)
    assert str(INPUT) not in printed
    assert "0.12345" not in printed
    assert SECRET not in printed


def test_the_log_is_json_where_nobody_sits_at_a_terminal(server: Server) -> None:
    started = next(line for line in lines(server) if line["logger"] == "uvicorn.error")
    assert started["level"] == "info"
    assert {line["level"] for line in lines(server)} <= {"debug", "info", "warning", "error"}
