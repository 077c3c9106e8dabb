"""A small HTTP load generator: so many connections, each sending its next request at once.

One process, some 30 µs of it a request: `Load.generator_share` says how much of a core it took, and
as long as that is far from 1 it is not what is measured.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

JSON = {"Content-Type": "application/json"}
ARRAYS = {"Content-Type": "application/x-npy", "Accept": "application/x-npz"}


@dataclass(frozen=True)
class Load:
    """What a run of requests saw: rate, latencies in seconds, the generator's share of a core."""

    requests_per_s: float
    p50_s: float
    p99_s: float
    generator_share: float


def post(body: bytes, headers: dict[str, str]) -> bytes:
    """A POST to /predict as it goes over the wire."""
    head = {"Host": "localhost", **headers, "Content-Length": str(len(body))}
    lines = ["POST /predict HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _one_connection(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(request)
        await _read_answer(reader)
        latencies.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(head.decode())
    if b"content-length:" in head:
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


async def _all(port: int, request: bytes, connections: int, seconds: float) -> Load:
    latencies: list[float] = []
    started, used = time.perf_counter(), time.process_time()
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
    """
    return asyncio.run(_all(port, request, connections, seconds))
