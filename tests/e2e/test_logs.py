"""What a real server writes into its log: whose request it was, and nothing that was in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.servers import Server, serving
from tests.repositories import FRAGILE, write_model
from tests.waiting import wait_for

INPUT = 0.123456789
SECRET = "sesame-opens-this"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    flags = ("--log-level", "debug", "--log-format", "json", "--keep-samples", "all")
    with serving(root, *flags, "--workers", "2", environment={"CANDOR_TOKEN": SECRET}) as started:
        yield started


def ask(server: Server, number: str, method: str, path: str, body: object = None) -> int:
    headers = {"X-Request-ID": number, "Authorization": f"Bearer {SECRET}"}
    return server.request(method, path, json=body, headers=headers).status_code


def line_of(server: Server, number: str, logger: str) -> dict[str, Any]:
    """The line of a request that a logger wrote; it may come a moment after the answer."""

    def found() -> list[dict[str, Any]]:
        return [
            line
            for line in lines(server)
            if line.get("request_id") == number and line["logger"] == logger
        ]

    wait_for(lambda: bool(found()), 30.0, otherwise=lambda: "".join(server.printed))
    [line] = found()
    return line


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.printed if line.startswith("{")]


def test_every_request_leaves_a_line_at_debug(server: Server) -> None:
    body = {"inputs": [[INPUT]], "passes": 2}
    assert ask(server, "r-1", "POST", "/predict", body) == 200
    line = line_of(server, "r-1", "service.access")
    assert line["level"] == "debug"
    assert line["message"] == "POST /predict: 200"
    assert (line["method"], line["path"], line["endpoint"]) == ("POST", "/predict", "/predict")
    assert (line["status"], line["model"], line["version"]) == (200, "fragile", 1)
    assert line["token"] == "token"
    assert 0 < line["seconds"] < 60


def test_a_path_leaves_its_query_out_and_a_route_its_parameters(server: Server) -> None:
    path = f"/models/fragile?passes={SECRET}"
    ask(server, "r-2", "GET", path)
    line = line_of(server, "r-2", "service.access")
    assert (line["path"], line["endpoint"]) == ("/models/fragile", "/models/{name}")


def test_a_refusal_says_why(server: Server) -> None:
    assert ask(server, "r-3", "POST", "/predict", {"inputs": [["x"]]}) == 422
    assert line_of(server, "r-3", "service.access")["reason"] == "invalid"


def test_the_engine_says_on_whose_request_a_model_failed(server: Server) -> None:
    assert ask(server, "r-4", "POST", "/predict", {"inputs": [[101.0]]}) == 500
    line = line_of(server, "r-4", "service.scheduling.computation")
    assert (line["level"], line["model"], line["version"]) == ("error", "fragile", 1)
    assert "RuntimeError: above one hundred" in line["exception"]


def test_a_path_cannot_forge_a_line(server: Server) -> None:
    forged = '/x%0a{"message": "forged"}%1b%e2%80%a8'
    ask(server, "r-5", "GET", forged)
    line = line_of(server, "r-5", "service.access")
    assert line["path"] == '/x\n{"message": "forged"}\x1b\u2028'
    assert all("message" in line and line["message"] != "forged" for line in lines(server))


def test_no_inputs_and_no_secrets_are_written(server: Server) -> None:
    rows = [[INPUT]] * 3
    assert ask(server, "r-6", "POST", "/predict", {"inputs": rows, "return": ["samples"]}) == 200
    ask(server, "r-7", "POST", f"/predict?token={SECRET}", {"inputs": [*rows, rows]})
    ask(server, "r-8", "POST", "/query", {"inputs": rows, "k": 1, "x": INPUT})
    server.request("GET", "/models", headers={"Authorization": f"Bearer {SECRET}x"})
    wait_for(lambda: 'candor_samples_kept_total{model="fragile"} ' in metrics_of(server), 30.0)
    for number in ("r-6", "r-7", "r-8"):
        line_of(server, number, "service.access")
    printed = "".join(server.printed)
    assert "0.12345" not in printed
    assert SECRET not in printed


def metrics_of(server: Server) -> str:
    headers = {"Authorization": f"Bearer {SECRET}"}
    return server.request("GET", "/metrics", headers=headers).text


def test_the_log_is_json_where_nobody_sits_at_a_terminal(server: Server) -> None:
    started = next(line for line in lines(server) if line["logger"] == "uvicorn.error")
    assert started["level"] == "info"
    assert {line["level"] for line in lines(server)} <= {"debug", "info", "warning", "error"}
