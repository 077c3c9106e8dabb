"""Work that is too long for the event loop and no step of the engine's: one at a time, aside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from service.errors import DeadlineExceeded, ModelNotReady, QueueFull

Result = TypeVar("Result")

MOST_WAITING = 8


class Aside:
    """One thread on one core, so that the engine keeps the others."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "aside", initializer=lambda: torch.set_num_threads(1))
        self._waiting = 0
        self._closed = False

    async def run(
        self, function: Callable[[Callable[[], bool]], Result], timeout_s: float
    ) -> Result:
        """What the function returns. It is not begun once the deadline has passed.

        Args:
            function: is given what says whether somebody still waits. It has to ask now and then:
                until it ends nothing else is done, nor does the process end.
            timeout_s: seconds until nobody does.

        Raises:
            QueueFull: too much waits.
            DeadlineExceeded: `timeout_s` passed.
            ModelNotReady: the server ended before it was begun.
        """
        if self._waiting >= MOST_WAITING:
            raise QueueFull(
                f"{self._waiting} selections are waiting or running already", retry_after_s=1.0
            )
        self._waiting += 1
        over = threading.Event()

        def begin() -> Result:
            if self._closed:
                raise ModelNotReady("the server ends, and chooses nothing more")
            return function(lambda: not (over.is_set() or self._closed))

        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, begin)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise DeadlineExceeded(
                f"nothing was chosen within {timeout_s:g} seconds; send fewer rows or passes, ask "
                "for fewer points, or allow more time"
            ) from None
        finally:
            over.set()
            self._waiting -= 1

    def close(self) -> None:
        """End what runs when it asks next, and begin nothing more."""
        self._closed = True
        self._thread.shutdown(wait=False)
