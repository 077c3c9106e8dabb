"""HTTP/1.1 from the side of a client that sends prepared bytes: one request at a time a connection.

Some 30 µs of a processor a request, so that the server has the machine.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

import httptools

_IDLE_S = 2.0
"""A connection that waited longer is not used again: the server may be closing it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def request(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[bytes, bytes]:
    """What goes over the wire before and after the request's id."""
    head = {"Host": "localhost", **headers, "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "X-Request-ID: "]).encode(), b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.used_s = 0.0
        self.transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []

    def ask(self, content: bytes) -> asyncio.Future[Answer]:
        assert self.transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(content)
        return self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none of asyncio's by inheritance.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"that is no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fail(exc or ConnectionError("closed without an answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        answer = Answer(status, self._headers, b"".join(self._parts))
        if not self._parser.should_keep_alive() and self.transport is not None:
            self.transport.close()
            self.transport = None
        self._begin()
        self.used_s = time.monotonic()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


class Connections:
    """Kept-alive connections to one server on this machine; as many as requests are open.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def ask(self, content: bytes) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            OSError: the connection could not be made, or ended before the answer did.
        """
        connection = self._take() or await self._open()
        answer = await connection.ask(content)
        if connection.transport is not None:
            self._idle.append(connection)
        return answer

    async def leave(self, content: bytes, after_s: float) -> None:
        """Send this much and close the connection a little later, whatever came back.

        Raises:
            OSError: the connection could not be made.
        """
        connection = await self._open()
        assert connection.transport is not None
        connection.transport.write(content)
        await asyncio.sleep(after_s)
        if connection.transport is not None:
            connection.transport.close()

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        until = time.monotonic() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is None:
                continue
            if connection.used_s > until:
                return connection
            connection.transport.close()
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection
