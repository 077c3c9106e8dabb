"""Tells the board, every second, what its process has counted, and does what the board says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from prometheus_client import Metric
from starlette.types import Message

from service import logs
from service.api.replicas.asking import Others, ReplicaLost
from service.api.replicas.board import Order, Told
from service.api.replicas.requests import Whole

log = logging.getLogger(__name__)

_AGAIN_S = 1.0
_LEAVE_S = 2.0


class Clerk:
    """Of one process.

    Args:
        board: the only one.
        who: name of the process.
        kind: of it, as `board` names them.
        counted: what was counted so far.
        told: called with what the board tells, before the board is told that it was.
        change: answers an order; None where none are given.
        unloaded: models that were unloaded here on request.
    """

    def __init__(
        self,
        board: Others,
        who: str,
        kind: str,
        counted: Callable[[], list[Metric]],
        told: Callable[[Told], None],
        change: Callable[[Whole], Awaitable[list[Message]]] | None = None,
        unloaded: Callable[[], list[str]] = list,
    ) -> None:
        self._board = board
        self._who = who
        self._kind = kind
        self._counted = counted
        self._told = told
        self._change = change
        self._unloaded = unloaded
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._orders: set[asyncio.Task[None]] = set()
        self._begun: set[int] = set()
        self._away = logs.Repeated(log, "the board could not be asked: %d times")

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, and say so with the last counts."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Exception):
            async with asyncio.timeout(_LEAVE_S):
                await self._board.ask("leave", self._who, self._counted())

    async def _run(self) -> None:
        number = 0
        while True:
            try:
                told: Told = await self._board.ask(
                    *("sync", self._who, self._kind, self._counted(), number, self._unloaded())
                )
            except Exception as error:
                self._away.add("board")
                if not isinstance(error, ReplicaLost):
                    log.exception("telling the board")
                # Another takes its place, which knows nothing yet.
                number = 0
                await asyncio.sleep(_AGAIN_S)
                continue
            self._told(told)
            number = told.number
            for order in told.orders:
                if order.number in self._begun:
                    # It is told again where it may not have been heard.
                    continue
                self._begun.add(order.number)
                task = asyncio.get_running_loop().create_task(self._carry_out(order))
                self._orders.add(task)
                task.add_done_callback(self._orders.discard)

    async def _carry_out(self, order: Order) -> None:
        assert self._change is not None, "orders are for replicas"
        answer: list[Message] = []
        async with self._one_at_a_time:
            try:
                answer = await self._change(order.request)
            except Exception:
                # No answer is one, too: the board waits for it, and others wait for the board.
                log.exception("an order was not carried out")
        while True:
            try:
                await self._board.ask("done", order.number, answer)
            except ReplicaLost:
                # The one that gave it may wait for this; another that took its place does not mind.
                await asyncio.sleep(_AGAIN_S)
            else:
                return
