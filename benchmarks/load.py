"""A small HTTP load generator: so many connections, each sending its next request at once.

One process, some 30 µs of it a request: `Load.generator_share` says how much of a core it took, and
as long as that is far from 1 it is not what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

JSON = {"Content-Type": "application/json"}
ARRAYS = {"Content-Type": "application/x-npy", "Accept": "application/x-npz"}


_BLANK = b"\r\n\r\n"
_BUFFER_BYTES = 2**18


@dataclass(frozen=True)
class Load:
    """What a run of requests saw: rate, latencies in seconds, the generator's share of a core."""

    requests_per_s: float
    p50_s: float
    p99_s: float
    generator_share: float


def post(body: bytes, headers: dict[str, str], path: str = "/predict") -> bytes:
    """A POST as it goes over the wire."""
    head = {"Host": "localhost", **headers, "Content-Length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.BufferedProtocol):
    """Sends the request, reads the answer, and begins again until the time is over.

    A protocol that counts what comes instead of a stream that keeps it: with answers of many rows
    the streams' copies took as much of a core as the server did.
    """

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._until = until
        self._latencies = latencies
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._transport: asyncio.Transport | None = None
        self._begin()

    def _begin(self) -> None:
        self._started = time.perf_counter()
        self._head = b""
        self._missing: int | None = None
        """Bytes of the body still to come; None where only its last chunk says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            answered = self._read(self._buffer[:nbytes])
        except Exception as error:
            self._end(error)
            return
        if not answered:
            return
        assert self._transport is not None
        now = time.perf_counter()
        self._latencies.append(now - self._started)
        if now < self._until:
            self._begin()
            self._transport.write(self._request)
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server closed the connection"))

    def _read(self, part: memoryview) -> bool:
        """Whether the answer is complete with this part of it."""
        if self._missing is not None:
            self._missing -= len(part)
        else:
            self._head += part
            head, blank, body = self._head.partition(_BLANK)
            if not blank:
                return False
            head = head.lower()
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(self._head.decode(errors="replace"))
            if b"content-length:" not in head:
                return body.endswith(b"0" + _BLANK)
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            self._missing = length - len(body)
        return self._missing == 0

    def _end(self, error: Exception | None = None) -> None:
        if self._transport is not None:
            self._transport.close()
        if not self.ended.done():
            self.ended.set_result(None) if error is None else self.ended.set_exception(error)


async def _all(ports: Sequence[int], request: bytes, connections: int, seconds: float) -> Load:
    latencies: list[float] = []
    started, used = time.perf_counter(), time.process_time()
    until = started + seconds
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(
            lambda: _Connection(request, until, latencies), "127.0.0.1", ports[i % len(ports)]
        )
        for i in range(connections)
    ]
    await asyncio.gather(*(connection.ended for _, connection in opened))
    elapsed = time.perf_counter() - started
    latencies.sort()
    return Load(
        len(latencies) / elapsed,
        latencies[len(latencies) // 2],
        latencies[int(len(latencies) * 0.99)],
        (time.process_time() - used) / elapsed,
    )


def press(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Send `request` to a server on this machine, again and again.

    Args:
        port: of the server.
        request: as `post` makes it.
        connections: at the same time.
        seconds: for how long.

    Raises:
        RuntimeError: an answer that is not 200.
        ConnectionError: the server closed a connection.
    """
    return press_several([port], request, connections, seconds)


def press_several(ports: Sequence[int], request: bytes, connections: int, seconds: float) -> Load:
    """As `press`, the connections parted evenly among servers; what all of them saw together."""
    return asyncio.run(_all(ports, request, connections, seconds))
