"""The engine's side of all workers: their requests are computed here, their counts added up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from service.api.engine import Engine
from service.api.workers import messages
from service.api.workers.channel import Channel, Head, pack, unpack
from service.api.workers.forwarding import Forwarded
from service.errors import CandorError, ModelNotReady
from service.metrics import Tally
from service.registry.verified import VerifiedModel
from service.scheduling.admission import Outlook

log = logging.getLogger(__name__)

Outlooks = Callable[[], list[Outlook] | None]

_HELD_S = 5.0
"""A worker that asked which version serves gets so long to send what it is to compute, where that
version serves no more."""

_TOLD_S = 0.01
"""Between two times that workers are told how much waits."""

_REPORT_S = 2.0
"""A worker that does not say what it counted by then is passed over."""


@dataclass(slots=True)
class _Load:
    """A version that a worker was told of; held, so that what it began is finished on it."""

    number: int
    model: VerifiedModel
    asked_s: float


class Extension:
    """One worker, seen from here.

    Args:
        engine: computes.
        tally: counts what the worker counted.
        app: answers what the worker passes on.
        ready: called once the worker listens.
        busy: called whenever the engine is given something to do.
        ended: called once when the worker is gone.
    """

    def __init__(
        self,
        engine: Engine,
        tally: Tally,
        app: ASGIApp,
        ready: Callable[[], None],
        busy: Callable[[], None],
        ended: Callable[[Extension], None],
    ) -> None:
        self._engine = engine
        self._tally = tally
        self._app = app
        self._ready = ready
        self._busy = busy
        self._ended = ended
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._forwarded: dict[int, Forwarded] = {}
        self._loads: dict[int, _Load] = {}
        self._numbers = itertools.count(1)
        self._reports: dict[int, asyncio.Future[None]] = {}
        self._listens = False
        self._sweep: asyncio.Task[None] | None = None
        self.channel = Channel(self._received, self._lost)

    async def report(self) -> None:
        """Wait until what the worker counted so far is counted here."""
        if not self._listens:
            # It is still starting, and would not answer until it has.
            return
        number = next(self._numbers)
        done = self._reports[number] = asyncio.get_running_loop().create_future()
        self.channel.send({"kind": "report", "report": number})
        try:
            async with asyncio.timeout(_REPORT_S):
                await done
        except TimeoutError:
            log.warning("a worker did not say in %g s what it counted", _REPORT_S)
        finally:
            self._reports.pop(number, None)

    def _received(self, head: Head, buffers: list[bytearray]) -> None:
        kind = head["kind"]
        if kind == "compute":
            self._begin(head, self._compute, head, buffers)
        elif kind == "resolve":
            self._begin(head, self._resolve, head)
        elif kind == "http":
            forwarded = self._forwarded[head["number"]] = Forwarded(self.channel, head)
            self._begin(head, forwarded.run, self._app)
        elif kind in ("part", "sent", "left"):
            self._about(head, buffers)
        elif kind == "tally":
            for model, version, endpoint, code, elapsed_s in head["answered"]:
                self._tally.answered(model, version, endpoint, code, elapsed_s)
            for reason, count in head["rejected"].items():
                for _ in range(count):
                    self._tally.rejected(reason)
        elif kind == "reported":
            if (report := self._reports.get(head["report"])) is not None and not report.done():
                report.set_result(None)
        elif kind == "ready":
            self._listens = True
            self._ready()

    def _begin(self, head: Head, work: Callable[..., Awaitable[None]], *of: Any) -> None:
        number: int = head["number"]

        async def run() -> None:
            try:
                await self._tell_what_fails(number, work(*of))
            except Exception as error:
                log.exception("a request of a worker failed", extra=_whose(head))
                # In ASCII, which any message holds.
                reason = ascii(f"{type(error).__name__}: {error}")
                self.channel.send({"kind": "broken", "number": number, "reason": reason})

        def ended(_: object) -> None:
            self._tasks.pop(number, None)
            self._forwarded.pop(number, None)

        task = self._tasks[number] = asyncio.get_running_loop().create_task(run())
        # Not at the end of `run`: a task that is cancelled before its first step never gets there.
        task.add_done_callback(ended)

    async def _tell_what_fails(self, number: int, work: Awaitable[None]) -> None:
        try:
            await work
        except CandorError as error:
            written = messages.write_error(error)
            self.channel.send({"kind": "failed", "number": number, "error": written})

    async def _resolve(self, head: Head) -> None:
        model = await self._engine.resolve(head["name"], head["version"], head["key"])
        answer: Head = {"kind": "resolved", "number": head["number"]}
        load = next((one for one in self._loads.values() if one.model is model), None)
        if load is None:
            load = _Load(next(self._numbers), model, 0.0)
            self._loads[load.number] = load
            answer["model"] = messages.write_model(model)
        load.asked_s = time.monotonic()
        self.channel.send({**answer, "load": load.number})
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.get_running_loop().create_task(self._let_go())

    async def _let_go(self) -> None:
        """Versions that serve no more and that nobody asked for lately may leave the memory."""
        while self._loads:
            await asyncio.sleep(_HELD_S)
            # By itself, so that nothing of what it found is held while this waits.
            await self._let_go_now()

    async def _let_go_now(self) -> None:
        until_s = time.monotonic() - _HELD_S
        for load in [one for one in self._loads.values() if one.asked_s < until_s]:
            if not await self._serves(load.model):
                del self._loads[load.number]
                self.channel.send({"kind": "forget", "load": load.number})

    async def _serves(self, model: VerifiedModel) -> bool:
        try:
            return await self._engine.resolve(model.ref.name, model.ref.version, "") is model
        except CandorError:
            return False

    async def _compute(self, head: Head, buffers: list[bytearray]) -> None:
        load = self._loads.get(head["load"])
        if load is None:
            raise ModelNotReady("the version was unloaded meanwhile", retry_after_s=1.0)
        inputs = unpack(head["arrays"], buffers)["inputs"]
        assert inputs is not None
        call = messages.read_call(head["call"])
        self._busy()
        # A worker whose client left says so, which ends this task.
        computed = await self._engine.compute(load.model, inputs, call, None)
        arrays, packed = pack(computed.fields)
        answer = {"kind": "computed", "number": head["number"], "arrays": arrays}
        self.channel.send({**answer, "plan": messages.write_plan(computed.plan)}, packed)

    def _about(self, head: Head, buffers: list[bytearray]) -> None:
        number: int = head["number"]
        if (forwarded := self._forwarded.get(number)) is not None:
            forwarded.received(head, buffers)
        elif head["kind"] == "left" and (task := self._tasks.get(number)) is not None:
            task.cancel()

    def _lost(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._loads.clear()
        for forwarded in self._forwarded.values():
            forwarded.received({"kind": "left"}, [])
        for number, task in self._tasks.items():
            if number not in self._forwarded:
                task.cancel()
        for report in self._reports.values():
            if not report.done():
                report.set_result(None)
        self._ended(self)


def _whose(head: Head) -> dict[str, str]:
    """For the log: whose request a message is of, where it says."""
    return {"request_id": head["call"]["request_id"] if "call" in head else head.get("key", "")}


class Switchboard:
    """All workers.

    Args:
        workers: how many there are to be.
        outlooks: what a request that came now could expect, by its priority; None where all are let
            in.
    """

    def __init__(self, workers: int, outlooks: Outlooks = lambda: None) -> None:
        self.extensions: set[Extension] = set()
        self._outlooks = outlooks
        self._telling: asyncio.Task[None] | None = None
        self._missing = workers
        self.ready = threading.Event()
        """All workers listen. Threads may wait for it."""
        if not workers:
            self.ready.set()

    def listens(self) -> None:
        """One worker more listens."""
        self._missing -= 1
        if self._missing <= 0:
            self.ready.set()

    def tell(self, kind: str, **more: Any) -> None:
        """Say something to every worker."""
        for extension in self.extensions:
            extension.channel.send({"kind": kind, **more})

    def busy(self) -> None:
        """As long as much waits, workers know how much, and refuse by themselves what would be too
        late: under a load far above what can be served that is most of it."""
        if (self._telling is None or self._telling.done()) and self._outlooks() is not None:
            self._telling = asyncio.get_running_loop().create_task(self._tell_outlooks())

    async def _tell_outlooks(self) -> None:
        while (outlooks := self._outlooks()) is not None:
            # Each of them hears of the others' requests only the next time.
            shared = [one._replace(each_s=one.each_s * len(self.extensions)) for one in outlooks]
            written = messages.write_outlooks(shared)
            self.tell("outlook", at_s=time.monotonic(), outlooks=written)
            await asyncio.sleep(_TOLD_S)
        self.tell("outlook", at_s=time.monotonic(), outlooks=None)

    async def gather(self) -> None:
        """Wait until what all workers counted so far is counted here."""
        await asyncio.gather(*(extension.report() for extension in list(self.extensions)))
