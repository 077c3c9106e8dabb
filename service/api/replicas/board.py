"""What all processes of one service have to know of each other.

Each tells the board every second that it is there and what it has counted so far, and is told what
is going on. A request that changes models is given to one replica after the other; meanwhile doors
go on with what they know, and replicas keep what they replace, so that no request is between two
versions. When all have changed, all doors ask anew, and only then is the request answered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Metric
from starlette.types import Message

from service.api.replicas import counting
from service.api.replicas.requests import Whole
from service.errors import ModelNotReady

log = logging.getLogger(__name__)

DOOR, REPLICA = "door", "replica"

_TELL_S = 1.0
"""Who asks what is going on is answered after so long where nothing is."""

_GONE_S = 10.0
"""Who says nothing for so long is gone."""

_TOLD_S = 5.0
"""Who was not told of a change by then is passed over."""

_COUNTED_S = 2.0
"""Of whoever does not say by then what it counted, what it said last counts."""

_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """A request that a replica is to answer, and to say what it answered.

    Args:
        number: by which it is answered.
        request: that every replica is given.
    """

    number: int
    request: Whole


@dataclass(frozen=True, slots=True)
class Told:
    """What a process is told.

    Args:
        number: of the state of things, which it says next time.
        changing: whether models are being changed.
        orders: for it.
    """

    number: int
    changing: bool
    orders: Sequence[Order] = ()


@dataclass(slots=True)
class _Process:
    kind: str
    counted: list[Metric]
    seen_s: float
    number: int
    orders: list[Order] = field(default_factory=list)
    given: list[Order] = field(default_factory=list)
    """Orders that it was told of and has not answered."""


class Board:
    """One process, of which there is one.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._processes: dict[str, _Process] = {}
        self._past: dict[str, list[Metric]] = {}
        self._long_past: list[Metric] = []
        self._unloaded: set[str] = set()
        self._latest: dict[str, Whole] = {}
        self._number = 1
        self._changing = False
        self._one_at_a_time = asyncio.Lock()
        self._news = asyncio.Event()
        self._heard = asyncio.Event()
        # None of them is one of a board that was here before.
        self._numbers = itertools.count(random.getrandbits(48))
        self._answers: dict[int, asyncio.Future[list[Message]]] = {}
        self._tasks: set[asyncio.Task[list[Message]]] = set()

    async def join(self, who: str, kind: str) -> list[str]:
        """A process begins, and looks at models after this: no change passes it by any more.

        Returns:
            Models that were unloaded on request, which it does not load.
        """
        self._seen(who, kind, [], 0)
        return sorted(self._unloaded)

    async def sync(
        self,
        who: str,
        kind: str,
        counted: list[Metric],
        number: int,
        unloaded: Collection[str] = (),
    ) -> Told:
        """A process says that it is there; answered as soon as there is something to tell.

        Args:
            who: its own name.
            kind: door or replica.
            counted: so far, since it began.
            number: that it was told last, and has acted on; 0 at first.
            unloaded: models that it has unloaded on request.
        """
        if number == 0 and not self._latest:
            # Another board was here before this one, and has died with what it knew.
            self._unloaded.update(unloaded)
        process = self._seen(who, kind, counted, number)
        if number == 0:
            # What it was told last may not have reached it.
            process.orders, process.given = [*process.given, *process.orders], []
        if number == self._number and not process.orders:
            news = self._news
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL_S):
                    await news.wait()
            process.seen_s = self._clock()
        orders, process.orders = process.orders, []
        process.given += orders
        return Told(self._number, self._changing, orders)

    async def done(self, number: int, answer: list[Message]) -> None:
        """What a replica answered to an order."""
        for process in self._processes.values():
            process.given = [order for order in process.given if order.number != number]
        waiting = self._answers.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def leave(self, who: str, counted: list[Metric]) -> None:
        """A process ends."""
        process = self._processes.get(who)
        if process is not None:
            process.counted = counted
            self._forget(who)

    async def counted(self) -> list[Metric]:
        """What all have counted until now; those that ended, until they last said so."""
        self._tell()
        await self._until_told(_COUNTED_S)
        here = [process.counted for process in self._here().values()]
        return counting.summed([*here, *self._past.values(), self._long_past])

    async def change(self, request: Whole) -> list[Message]:
        """Have a request that changes models answered by every replica, one after the other.

        The first answer that is none of success ends it: what one refuses is not tried on more.

        Raises:
            ModelNotReady: there is no replica.
        """
        changing = asyncio.get_running_loop().create_task(self._change(request))
        self._tasks.add(changing)
        changing.add_done_callback(self._tasks.discard)
        # Who asked may leave; what was begun on some is done on all.
        return await asyncio.shield(changing)

    async def by_each(self, request: Whole) -> list[list[Message]]:
        """What each replica answers to a request that all carry out for themselves.

        Raises:
            ModelNotReady: there is no replica.
        """
        replicas = [who for who, process in self._here().items() if process.kind == REPLICA]
        found = await asyncio.gather(*(self._by(who, request) for who in replicas))
        # With one that has gone meanwhile has gone what only it could have carried out.
        if not (answers := [answer for answer in found if answer is not None]):
            raise _no_replica()
        return answers

    async def _change(self, request: Whole) -> list[Message]:
        assert request.change is not None
        name, change = request.change
        async with self._one_at_a_time:
            self._changing = True
            try:
                self._tell()
                await self._until_told(_TOLD_S)
                answer = await self._by_all(request)
                if succeeded(answer):
                    self._latest[name] = request
                    (self._unloaded.add if change == "unload" else self._unloaded.discard)(name)
                return answer
            finally:
                self._changing = False
                self._tell()
                await self._until_told(_TOLD_S)

    async def _by_all(self, request: Whole) -> list[Message]:
        answer: list[Message] | None = None
        asked: set[str] = set()
        # One that has come meanwhile may have loaded what was there before.
        while (who := self._next_replica(asked)) is not None:
            asked.add(who)
            found = await self._by(who, request)
            if found is None:
                log.warning("a replica has gone while models were changed")
                # Where it comes back, it is asked then.
                asked.discard(who)
                continue
            answer = found
            if not succeeded(answer):
                break
        if answer is None:
            raise _no_replica()
        return answer

    def _next_replica(self, but: set[str]) -> str | None:
        here = sorted(who for who, process in self._here().items() if process.kind == REPLICA)
        return next((who for who in here if who not in but), None)

    async def _by(self, who: str, request: Whole) -> list[Message] | None:
        """What a replica answers; None where it has gone."""
        if (process := self._processes.get(who)) is None:
            return None
        number = next(self._numbers)
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        process.orders.append(Order(number, request))
        self._wake()
        try:
            while who in self._here():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        return await asyncio.shield(waiting)
            return None
        finally:
            del self._answers[number]

    def _seen(self, who: str, kind: str, counted: list[Metric], number: int) -> _Process:
        process = self._processes.get(who)
        if process is None:
            process = self._processes[who] = _Process(kind, counted, self._clock(), number)
            if self._past.pop(who, None) is not None and kind == REPLICA:
                # It was taken for gone, and changes may have passed it by.
                process.orders += [
                    Order(next(self._numbers), missed) for missed in self._latest.values()
                ]
        process.counted, process.seen_s, process.number = counted, self._clock(), number
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()
        return process

    def _here(self) -> dict[str, _Process]:
        until_s = self._clock() - _GONE_S
        for who in [who for who, process in self._processes.items() if process.seen_s < until_s]:
            log.warning("a %s says nothing any more", self._processes[who].kind)
            self._forget(who)
        return self._processes

    def _forget(self, who: str) -> None:
        self._past[who] = counting.totals(self._processes.pop(who).counted)
        while len(self._past) > _PAST:
            # None comes back that has gone before so many others.
            first = self._past.pop(next(iter(self._past)))
            self._long_past = counting.summed([self._long_past, first])

    def _tell(self) -> None:
        self._number += 1
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _until_told(self, limit_s: float) -> None:
        """Wait until all that are here have acted on what is going on now, but no longer."""
        number = self._number
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(process.number < number for process in self._here().values()):
                    heard = self._heard
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            await heard.wait()


_PAST = 100
"""Processes that have gone whose counts are held each by itself."""


def _no_replica() -> ModelNotReady:
    return ModelNotReady("no replica is there to do it", retry_after_s=1.0)


def succeeded(answer: Sequence[Message]) -> bool:
    """Whether a request was carried out."""
    status: Any = answer[0].get("status") if answer else None
    return status is not None and status < 400
