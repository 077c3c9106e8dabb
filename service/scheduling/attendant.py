"""Who watches over a wait: its deadline, and the client that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import ClientLeft, DeadlineExceeded

_ATTEND_AFTER_S = 0.1
"""A request that waits longer has its client and its deadline watched, which costs a task.

Most are answered sooner; a client that leaves is noticed no earlier than this.
"""


class Attendant:
    """Ends the wait for an answer when its deadline passes or its client leaves.

    Args:
        loop: the running one.
        answer: gets the error.
        timeout_s: seconds to the deadline.
        left: returns once nobody waits any more; None where that cannot be known.
        waited_s: that are over already.
    """

    __slots__ = ("_answer", "_left", "_task", "_timeout_s", "_timer", "_until_s")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[Any],
        timeout_s: float,
        left: Callable[[], Awaitable[object]] | None,
        waited_s: float = 0.0,
    ) -> None:
        self._answer = answer
        self._timeout_s = timeout_s
        left_s = max(0.0, timeout_s - waited_s)
        self._until_s = loop.time() + left_s
        self._left = left
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(min(_ATTEND_AFTER_S, left_s), self._begin)

    def dismiss(self) -> None:
        """The wait is over."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._attend())

    async def _attend(self) -> None:
        error: Exception
        try:
            async with asyncio.timeout_at(self._until_s):
                await (self._left() if self._left is not None else asyncio.Event().wait())
            error = ClientLeft("the client closed its connection before the answer was there")
        except TimeoutError:
            error = DeadlineExceeded(
                f"no answer within {self._timeout_s:g} seconds; send fewer rows or passes, or "
                "allow more time"
            )
        if not self._answer.done():
            self._answer.set_exception(error)
