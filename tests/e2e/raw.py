"""HTTP as bytes, for clients that no library would be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httptools

from tests.e2e.servers import Server

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """The documented form of an error, checked."""
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        assert found["detail"]
        assert found["request_id"] == self.headers["x-request-id"]
        return found


class _Reader:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue: the answer comes later.
            return
        self.answers.append(Answer(status, self._headers, self._body))
        self._headers, self._body = {}, b""


class Connection:
    """A socket that sends bytes and reads answers."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self._reader = _Reader()

    def send(self, content: bytes) -> None:
        """All of it, unless the server closes before."""
        self.socket.sendall(content)

    def answer(self) -> Answer:
        """The next answer; fails where the connection ends before it."""
        found = self.answer_or_end()
        assert found is not None, "closed without an answer"
        return found

    def answer_or_end(self) -> Answer | None:
        """The next answer; None where the connection ends before it."""
        while not self._reader.answers:
            try:
                part = self.socket.recv(2**16)
            except ConnectionResetError:
                # Closed while it was still being sent something.
                part = b""
            if not part:
                return None
            self._reader.feed(part)
        return self._reader.answers.pop(0)

    def to_the_end(self) -> list[Answer]:
        """Every answer until the server closes the connection."""
        found = []
        while (answer := self.answer_or_end()) is not None:
            found.append(answer)
        return found


@contextmanager
def connect(server: Server) -> Iterator[Connection]:
    """A connection to a server; closed afterwards."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=_PATIENCE_S) as opened:
        yield Connection(opened)


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """A request as bytes, its length with it."""
    given = {"Host": "x", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
