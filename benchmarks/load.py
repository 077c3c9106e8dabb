"""A small HTTP load generator: so many connections, each sending its next request at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What a run of requests saw: rate and latencies in seconds."""

    requests_per_s: float
    p50_s: float
    p99_s: float


async def _one_connection(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(head.decode())
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()


async def _all(port: int, body: bytes, connections: int, seconds: float) -> Load:
    request = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body
    latencies: list[float] = []
    started = time.perf_counter()
    until = started + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_one_connection(port, request, until, latencies))
    elapsed = time.perf_counter() - started
    latencies.sort()
    return Load(
        len(latencies) / elapsed,
        latencies[len(latencies) // 2],
        latencies[int(len(latencies) * 0.99)],
    )


def press(port: int, body: bytes, connections: int, seconds: float) -> Load:
    """POST `body` to /predict of a server on this machine.

    Args:
        port: of the server.
        body: JSON.
        connections: at the same time.
        seconds: for how long.

    Raises:
        RuntimeError: an answer that is not 200.
    """
    return asyncio.run(_all(port, body, connections, seconds))
