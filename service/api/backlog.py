"""What was read of connections, and waits until all else that an event loop does had its turn.

A turn of uvloop reads whatever has come on all connections before it runs anything else, and begins
again while a thousand of them have something. Where refusing is all that most of it takes, clients
come back at once, and what was let in would wait for seconds. So what is read after the first
milliseconds of a turn waits, which takes next to nothing, and is served a few milliseconds at a
time; in between, tasks run, new connections are let in and the engine gets its next step.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

_SLICE_S = 0.005


class Reader(Protocol):
    """A connection."""

    def read(self, data: bytes, came_s: float) -> None:
        """Serve what came, when it came by the monotonic clock."""
        ...


class Backlog:
    """Of all connections of an event loop, in the order in which they sent."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Reader, bytes, float]] = deque()
        self._until_s: float | None = None
        """When what comes has to wait; None before the first in a turn."""

    def has_room(self, loop: asyncio.AbstractEventLoop, now_s: float) -> bool:
        """Whether what comes now may be served at once."""
        if self._waiting:
            return False
        if self._until_s is None:
            self._until_s = now_s + _SLICE_S
            loop.call_soon(self._turn_ends)
            return True
        return now_s < self._until_s

    def add(
        self, reader: Reader, data: bytes, came_s: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Have it wait."""
        if not self._waiting:
            loop.call_soon(self._go_on, loop)
        self._waiting.append((reader, data, came_s))

    def empty(self) -> None:
        """Serve all that waits: the server ends."""
        while self._waiting:
            self._serve_first()

    def _turn_ends(self) -> None:
        self._until_s = None

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        until_s = time.monotonic() + _SLICE_S
        try:
            while self._waiting:
                self._serve_first()
                if time.monotonic() >= until_s:
                    break
        finally:
            if self._waiting:
                loop.call_soon(self._go_on, loop)

    def _serve_first(self) -> None:
        reader, data, came_s = self._waiting.popleft()
        reader.read(data, came_s)
