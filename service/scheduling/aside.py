"""Work that is too long for the event loop and no step of the engine's: one at a time, aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from service.errors import DeadlineExceeded, QueueFull

Result = TypeVar("Result")

MOST_WAITING = 8


class Aside:
    """One thread on one core, so that the engine keeps the others."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "aside", initializer=lambda: torch.set_num_threads(1))
        self._waiting = 0

    async def run(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """What the function returns. It is not begun once the deadline has passed.

        Raises:
            QueueFull: too much waits.
            DeadlineExceeded: `timeout_s` passed.
        """
        if self._waiting >= MOST_WAITING:
            raise QueueFull(
                f"{self._waiting} selections are waiting or running already", retry_after_s=1.0
            )
        self._waiting += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, function)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise DeadlineExceeded(
                f"nothing was chosen within {timeout_s:g} seconds; send fewer rows or passes, ask "
                "for fewer points, or allow more time"
            ) from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End once what runs is over."""
        self._thread.shutdown(wait=False, cancel_futures=True)
