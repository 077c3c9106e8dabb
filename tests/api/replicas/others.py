"""Other processes that are none: what is asked of them is called here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from service.api.replicas.asking import ReplicaLost


class Here:
    """See `Others`: an object of this process.

    Args:
        asked: gets the calls.
        dying: how many calls die before one is answered.
    """

    def __init__(self, asked: object, dying: int = 0) -> None:
        self.asked = asked
        self.dying = dying
        self.calls: list[str] = []

    async def ask(self, method: str, *arguments: Any) -> Any:
        """See `Others`."""
        self._begin(method)
        return await getattr(self.asked, method)(*arguments)

    async def follow(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
        """See `Others`."""
        self._begin(method)
        async for part in getattr(self.asked, method)(*arguments):
            yield part

    def _begin(self, method: str) -> None:
        self.calls.append(method)
        if self.dying:
            self.dying -= 1
            raise ReplicaLost("killed")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def until(holds: Callable[[], bool]) -> None:
    """Give way to other tasks until something holds."""
    async with asyncio.timeout(30.0):
        while not holds():
            await asyncio.sleep(0.001)
