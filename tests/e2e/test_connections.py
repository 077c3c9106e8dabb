"""Clients that hold on to their connections are cut off, and others are served meanwhile."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.raw import Connection, connect, request
from tests.e2e.servers import Server, serving
from tests.waiting import wait_for

GOOD = {"model": "good", "inputs": [[0.0, 0.0, 0.0, 0.0]]}
JSON = {"Content-Type": "application/json"}
POST = request("POST", "/predict", json.dumps(GOOD).encode(), JSON)
CHUNKED = request("POST", "/predict", b"", JSON).replace(
    b"Content-Length: 0", b"Transfer-Encoding: chunked"
)
ROOM = 40
HEAD_BYTES = 4096


@pytest.fixture(scope="module")
def hasty(odd_models: Path) -> Iterator[Server]:
    """A server with little patience and room for few."""
    patience = ("--header-timeout-s", "1.0", "--body-timeout-s", "1.5", "--idle-timeout-s", "2.0")
    room = ("--max-connections", str(ROOM), "--max-header-bytes", str(HEAD_BYTES))
    with serving(odd_models, *patience, *room) as server:
        yield server


def _serves(server: Server) -> bool:
    return server.post("/predict", GOOD).status_code == 200


def _rejected(server: Server, reason: str) -> float:
    name = f'candor_rejected_total{{reason="{reason}"}} '
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def _drip(connection: Connection, part: bytes) -> None:
    """A byte now and then, until the server has enough of it."""
    try:
        while True:
            connection.send(part)
            connection.socket.settimeout(0.05)
            try:
                if not connection.socket.recv(1, socket.MSG_PEEK):
                    return
            except TimeoutError:
                continue
            return
    except OSError:
        return
    finally:
        connection.socket.settimeout(60.0)


def test_a_head_that_comes_byte_by_byte_is_cut_off(hasty: Server) -> None:
    before = _rejected(hasty, "slow_client")
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(hasty)) for _ in range(ROOM // 2)]
        for connection in slow:
            connection.send(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
        assert _serves(hasty)
        _drip(slow[0], b"X")
        for connection in slow:
            [answer] = connection.to_the_end()
            assert answer.status == 408
            assert "CANDOR_HEADER_TIMEOUT_S" in answer.problem()["detail"]
        assert _rejected(hasty, "slow_client") == before + len(slow)


def test_a_body_that_comes_byte_by_byte_is_cut_off(hasty: Server) -> None:
    head = request("POST", "/predict", b"", {**JSON, "Content-Length": "1000000"})
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(hasty)) for _ in range(ROOM // 2)]
        for connection in slow:
            connection.send(head + b"{")
        assert _serves(hasty)
        _drip(slow[0], b" ")
        for connection in slow:
            [answer] = connection.to_the_end()
            assert answer.status == 408
            assert "CANDOR_BODY_TIMEOUT_S" in answer.problem()["detail"]


def test_a_body_of_chunks_without_an_end_is_cut_off_however_small_they_are(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.send(CHUNKED)
        _drip(connection, b"1\r\n \r\n" * 10)
        assert [answer.status for answer in connection.to_the_end()] == [408]
    assert _serves(hasty)


def test_what_is_around_chunks_may_not_grow_for_ever(hasty: Server) -> None:
    for flood in (b"1;" + b"x" * 2**20, b"0\r\nX-Trailer: " + b"y" * 2**20):
        with connect(hasty) as connection:
            # It may have closed the connection already.
            with suppress(OSError):
                connection.send(CHUNKED)
                connection.send(flood)
            assert [answer.status for answer in connection.to_the_end()] in ([400], [])
    assert _serves(hasty)


def test_a_connection_that_says_nothing_is_closed(hasty: Server) -> None:
    with connect(hasty) as silent, connect(hasty) as kept:
        kept.send(POST)
        assert kept.answer().status == 200
        assert silent.to_the_end() == []
        assert kept.to_the_end() == []
    assert _serves(hasty)


def test_an_answer_that_nobody_takes_is_thrown_away(hasty: Server) -> None:
    body = {"model": "good", "inputs": [[0.0] * 4] * 400, "passes": 500, "return": ["samples"]}
    before = _rejected(hasty, "slow_client")
    with connect(hasty) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(request("POST", "/predict", json.dumps(body).encode(), JSON))
        wait_for(lambda: _rejected(hasty, "slow_client") == before + 1, patience_s=30.0)
        assert _serves(hasty)
        # What the kernel holds can still be read, so little at a time for minutes; the rest never
        # comes.
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        if sys.platform == "linux":
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 2**20)
        assert connection.to_the_end() == []


def test_one_connection_more_takes_the_place_of_the_one_that_is_idle_the_longest(
    hasty: Server,
) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(hasty)) for _ in range(ROOM)]
        for _ in range(3):
            assert _serves(hasty)
        for connection in idle:
            assert connection.to_the_end() == []


def test_where_none_is_idle_one_connection_more_is_told_so(hasty: Server) -> None:
    head = request("POST", "/predict", b"", {**JSON, "Content-Length": "100"})
    with ExitStack() as stack:
        for _ in range(ROOM):
            stack.enter_context(connect(hasty)).send(head + b"{")
        refused = [hasty.get("/livez") for _ in range(3)]
        for answer in refused:
            if answer.status_code == 503:
                assert answer.headers["Retry-After"] == "1"
                assert answer.headers["Connection"] == "close"
                assert "CANDOR_MAX_CONNECTIONS" in answer.json()["detail"]
                assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
        assert refused[0].status_code == 503
    wait_for(lambda: hasty.get("/livez").status_code == 200, patience_s=30.0)
    assert _serves(hasty)


@pytest.mark.parametrize("value_bytes", [HEAD_BYTES, 2**20])
def test_a_head_may_not_grow_for_ever(hasty: Server, value_bytes: int) -> None:
    with connect(hasty) as connection:
        # It may have closed the connection already.
        with suppress(OSError):
            connection.send(request("GET", "/livez", headers={"X-Long": "y" * value_bytes}))
        answers = connection.to_the_end()
        assert [answer.status for answer in answers] in ([431], [])
        for answer in answers:
            assert "CANDOR_MAX_HEADER_BYTES" in answer.problem()["detail"]
    assert _serves(hasty)


def test_below_v2_these_answers_are_errors_of_the_protocol(hasty: Server) -> None:
    path = "/v2/models/good/infer"
    large = request("POST", path, b"{}", {"X-Large": "x" * HEAD_BYTES})
    slow = request("POST", path, b"{", {"Content-Length": "1000000"})
    for message, status, said in ((large, 431, "HEADER_BYTES"), (slow, 408, "BODY_TIMEOUT_S")):
        with connect(hasty) as connection:
            connection.send(message)
            [answer] = connection.to_the_end()
            assert answer.status == status
            error = json.loads(answer.body)
            assert error.keys() == {"error"}
            assert said in error["error"]


def test_a_head_just_within_the_limit_is_read(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.send(request("GET", "/livez", headers={"X-Long": "y" * (HEAD_BYTES - 200)}))
        assert connection.answer().status == 200


def test_a_body_that_moves_may_take_its_time(hasty: Server) -> None:
    """Longer than the head's time-out, and a server that is still there for it."""
    content = json.dumps(GOOD).encode()
    with connect(hasty) as connection:
        connection.send(
            request("POST", "/predict", b"", {**JSON, "Content-Length": str(len(content) + 60_000)})
        )
        for _ in range(4):
            connection.send(b" " * 15_000)
            time.sleep(0.5)
        connection.send(content)
        assert connection.answer().status == 200
