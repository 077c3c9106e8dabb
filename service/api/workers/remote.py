"""A worker's side: the engine and the tally are elsewhere, and asked through a channel."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from service.api.engine import Call, Computed
from service.api.workers import messages
from service.api.workers.channel import Buffer, Channel, Head, pack, unpack
from service.errors import ClientLeft, DeadlineExceeded, ModelNotReady
from service.registry.verified import VerifiedModel
from service.scheduling.admission import Admission, Outlook
from service.scheduling.attendant import Attendant, Watch
from service.types import Priority

_GRACE_S = 1.0
"""The deadline is the engine's to watch; one that does not answer at all is given up so much later.
"""

_TELL_AFTER_S = 0.1
"""The first request that was counted waits so long for others to be told of together."""

_OLD_S = 1.0
"""What was said of the queue longer ago is nothing to refuse anybody by."""

Listener = Callable[[Head, list[bytearray]], None]
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel(VerifiedModel):
    """A version that is loaded elsewhere, in its load of that number."""

    load: int


def engine_gone() -> ModelNotReady:
    """The process that computes has ended, and with it all that it was asked."""
    return ModelNotReady(
        "the process that computes has ended; whoever watches over the server starts it again",
        retry_after_s=1.0,
    )


class Line:
    """A worker's end of the channel: gives each answer to whoever asked."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._listeners: dict[int, Listener] = {}
        self._told: dict[str, Listener] = {}
        self.channel = Channel(self._received, self._lost)
        self.gone = asyncio.Event()

    def on(self, kind: str, listener: Listener) -> None:
        """Have messages of a kind that answer nothing given to a listener."""
        self._told[kind] = listener

    def ask(self, head: Head, buffers: list[Buffer], listener: Listener) -> int:
        """Send a message; the listener gets all that answers it until it is `forgotten`."""
        number = next(self._numbers)
        self.channel.send({**head, "number": number}, buffers)
        if self.gone.is_set():
            listener({"kind": "gone"}, [])
        else:
            self._listeners[number] = listener
        return number

    def forget(self, number: int) -> None:
        """What still answers that message is nobody's."""
        self._listeners.pop(number, None)

    def _received(self, head: Head, buffers: list[bytearray]) -> None:
        number = head.get("number")
        listener = (
            self._told[head["kind"]] if number is None else self._listeners.get(cast(int, number))
        )
        if listener is not None:
            listener(head, buffers)

    def _lost(self) -> None:
        self.gone.set()
        listeners = list(self._listeners.values())
        self._listeners.clear()
        for listener in listeners:
            listener({"kind": "gone"}, [])


class RemoteEngine:
    """See `Engine`."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._models: dict[int, RemoteModel] = {}
        self._draining = False
        self._admission = Admission()
        self._outlooks: list[Outlook] | None = None
        self._looked_s = 0.0
        self._asked = 0
        """Since then."""
        line.on("draining", lambda *_: self._drain())
        line.on("outlook", lambda head, _: self._look(head))
        line.on("forget", lambda head, _: self._forget(head["load"]))

    @property
    def draining(self) -> bool:
        """See `Engine`."""
        return self._draining

    def _forget(self, load: int) -> None:
        self._models.pop(load, None)

    def _drain(self) -> None:
        self._draining = True

    def _look(self, head: Head) -> None:
        written = head["outlooks"]
        self._outlooks = None if written is None else messages.read_outlooks(written)
        self._looked_s = head["at_s"]
        self._asked = 0

    def look(self) -> None:
        """See `Engine`; what computes is not in this process."""

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        """See `Engine`. The queue is elsewhere, and was as it is known here a moment ago."""
        if self._outlooks is None:
            return
        now_s = time.monotonic()
        elapsed_s = now_s - self._looked_s
        if elapsed_s > _OLD_S:
            return
        outlook = self._outlooks[priority].later(elapsed_s, self._asked + coming)
        self._admission.check(outlook, priority, timeout_s, math.inf, now_s, stands=True)

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        """See `Engine`."""
        head: Head = {"kind": "resolve", "name": name, "version": version, "key": key}
        return await self._answer(head, [], self._resolved)

    def _resolved(self, head: Head, _: list[bytearray]) -> RemoteModel:
        load: int = head["load"]
        if (description := head.get("model")) is not None:
            known = messages.read_model(description)
            values = {field.name: getattr(known, field.name) for field in fields(known)}
            self._models[load] = RemoteModel(**values, load=load)
        return self._models[load]

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Watch | None,
    ) -> Computed:
        """See `Engine`."""
        self._asked += 1
        arrays, buffers = pack({"inputs": inputs})
        load = cast(RemoteModel, model).load
        head: Head = {"kind": "compute", "load": load, "call": messages.write_call(call)}
        return await self._answer(
            {**head, "arrays": arrays}, buffers, _computed, call.timeout_s - call.waited_s, left
        )

    async def _answer(
        self,
        head: Head,
        buffers: list[Buffer],
        read: Callable[[Head, list[bytearray]], AnswerT],
        timeout_s: float = math.inf,
        left: Watch | None = None,
    ) -> AnswerT:
        """What `read` makes of the answer, as soon as it is there: later messages may end it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AnswerT] = loop.create_future()

        def listener(head: Head, received: list[bytearray]) -> None:
            if answer.done():
                return
            if head["kind"] == "failed":
                answer.set_exception(messages.read_error(head["error"]))
            elif head["kind"] == "gone":
                answer.set_exception(engine_gone())
            elif head["kind"] == "broken":
                answer.set_exception(RuntimeError(head["reason"]))
            else:
                try:
                    answer.set_result(read(head, received))
                except Exception as error:
                    # That of whoever asked; the line is everybody's.
                    answer.set_exception(error)

        number = self._line.ask(head, buffers, listener)
        attendant = None
        if left is not None:
            attendant = Attendant(loop, answer, timeout_s + _GRACE_S, left)
        try:
            return await answer
        except (ClientLeft, DeadlineExceeded, asyncio.CancelledError):
            self._line.channel.send({"kind": "left", "number": number})
            raise
        finally:
            if attendant is not None:
                attendant.dismiss()
            self._line.forget(number)


def _computed(head: Head, received: list[bytearray]) -> Computed:
    return Computed(unpack(head["arrays"], received), messages.read_plan(head["plan"]))


class RemoteTally:
    """See `Tally`: what is counted here is told to the process that `/metrics` asks."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._answered: list[tuple[str, int | None, str, int, float]] = []
        self._rejected: Counter[str] = Counter()
        self._planned: asyncio.TimerHandle | None = None
        line.on("report", lambda head, _: self._report(head))

    def answered(
        self, model: str, version: int | None, endpoint: str, code: int, elapsed_s: float
    ) -> None:
        """See `Tally`."""
        self._answered.append((model, version, endpoint, code, elapsed_s))
        self._plan()

    def rejected(self, reason: str) -> None:
        """See `Tally`."""
        self._rejected[reason] += 1
        self._plan()

    def tell(self) -> None:
        """Send what was counted and not told yet."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        if self._answered or self._rejected:
            head = {"kind": "tally", "answered": self._answered, "rejected": self._rejected}
            self._line.channel.send(head)
            self._answered, self._rejected = [], Counter()

    def _plan(self) -> None:
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(_TELL_AFTER_S, self.tell)

    def _report(self, head: Head) -> None:
        self.tell()
        self._line.channel.send({"kind": "reported", "report": head["report"]})
