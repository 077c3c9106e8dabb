"""The load generator counts answers, whole ones, and none that is not 200."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.load import JSON, post, press

BODY = b'{"inputs": [[1.0]]}'


@contextmanager
def _answering(*parts: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers every request with these parts, or closes the connection if none.

    Gives its port and what it was sent.
    """
    received: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.readline():
                while not head.endswith(b"\r\n\r\n"):
                    head += self.rfile.readline()
                received.append(head + self.rfile.read(len(BODY)))
                for part in parts:
                    self.wfile.write(part)
                    time.sleep(0.001)
                if not parts:
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], received
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"],
        [b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 4\r\n\r\n", b"ab", b"cd"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"0\r\n\r\n"],
    ],
)
def test_an_answer_counts_once_however_it_comes(parts: list[bytes]) -> None:
    request = post(BODY, JSON)
    with _answering(*parts) as (port, received):
        load = press(port, request, connections=3, seconds=0.2)
    assert set(received) == {request}
    assert load.requests_per_s * 0.2 <= len(received)
    assert len(received) >= 3
    assert 0 < load.p50_s <= load.p99_s


def test_an_answer_that_is_not_200_ends_the_run_with_it() -> None:
    with (
        _answering(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nfull") as (port, _),
        pytest.raises(RuntimeError, match="503 Unavailable"),
    ):
        press(port, post(BODY, JSON), connections=1, seconds=0.2)


def test_a_connection_that_ends_before_its_answer_ends_the_run() -> None:
    with _answering() as (port, _), pytest.raises(ConnectionError):
        press(port, post(BODY, JSON), connections=1, seconds=0.2)
