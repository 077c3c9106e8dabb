"""Who watches over a wait: its deadline, and the client that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import ClientLeft, DeadlineExceeded

_ATTEND_AFTER_S = 0.1
"""A request that waits longer has its client watched; most are answered sooner.

A client that leaves is noticed no earlier than this.
"""

Watch = Callable[[Callable[[], None]], Callable[[], object]]
"""Has somebody told once nobody waits for an answer any more; gives what ends that."""


def by_waiting(left: Callable[[], Awaitable[object]]) -> Watch:
    """A watch by a task of its own.

    Args:
        left: returns once nobody waits any more.
    """

    def watch(tell: Callable[[], None]) -> Callable[[], object]:
        async def wait() -> None:
            await left()
            tell()

        return asyncio.get_running_loop().create_task(wait()).cancel

    return watch


class Attendant:
    """Ends the wait for an answer when its deadline passes or its client leaves.

    Args:
        loop: the running one.
        answer: gets the error.
        timeout_s: seconds to the deadline.
        left: watches the client; None where that cannot be known.
        waited_s: that are over already.
    """

    __slots__ = ("_answer", "_left", "_loop", "_stop", "_timeout_s", "_timer", "_until_s")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[Any],
        timeout_s: float,
        left: Watch | None,
        waited_s: float = 0.0,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._timeout_s = timeout_s
        left_s = max(0.0, timeout_s - waited_s)
        self._until_s = loop.time() + left_s
        self._left = left
        self._stop: Callable[[], object] | None = None
        self._timer = loop.call_later(min(_ATTEND_AFTER_S, left_s), self._begin)

    def dismiss(self) -> None:
        """The wait is over."""
        self._timer.cancel()
        if self._stop is not None:
            self._stop()

    def _begin(self) -> None:
        self._timer = self._loop.call_at(self._until_s, self._too_late)
        if self._left is not None:
            self._stop = self._left(self._client_left)

    def _client_left(self) -> None:
        self._end(ClientLeft("the client closed its connection before the answer was there"))

    def _too_late(self) -> None:
        self._end(
            DeadlineExceeded(
                f"no answer within {self._timeout_s:g} seconds; send fewer rows or passes, or "
                "allow more time"
            )
        )

    def _end(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
