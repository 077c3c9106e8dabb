"""A door's engine: whichever replica takes a request answers it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, cast

from numpy.typing import NDArray

from service import logs
from service.api.engine import Call, Computed
from service.api.replicas.asking import Others, ReplicaLost
from service.api.workers import messages
from service.errors import DeadlineExceeded, ModelNotReady
from service.registry.verified import VerifiedModel
from service.scheduling.attendant import Attendant, Watch
from service.types import Priority

log = logging.getLogger(__name__)

_FRESH_S = 1.0
"""A door asks so often which version serves; a change on request tells it sooner."""

_GRACE_S = 1.0
"""The deadline is the replica's to watch; one that says nothing is given up so much later."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_STARTING_RETRY_S = 2.0
_ELSEWHERE_S = 5.0
"""A version that no replica has had for so long is gone."""


_may_take_s: ContextVar[float] = ContextVar("may_take_s", default=math.inf)
"""Of the request that this task answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel(VerifiedModel):
    """A version that replicas have loaded, by the digest of what is known of it here."""

    digest: str


@dataclass(frozen=True, slots=True)
class _Resolved:
    model: KnownModel
    asked_s: float


class ReplicatedEngine:
    """See `Engine`.

    A request whose replica dies is asked of another, as often as its deadline allows: whoever
    answers, the answer is the same.

    Args:
        replicas: that compute.
        patience_s: that a request waits for one to say which version serves.
    """

    def __init__(self, replicas: Others, patience_s: float) -> None:
        self._replicas = replicas
        self._patience_s = patience_s
        self._resolved: dict[tuple[str | None, int | str | None], _Resolved] = {}
        self._changing = False
        self._told = 0
        self.draining = False
        self._lost = logs.Repeated(log, "requests whose replica died were asked again: %d")

    def told(self, *, changing: bool) -> None:
        """Whether models are being changed on replicas in turn: until they are on all, what is
        known here stands."""
        self._changing = changing
        self._told += 1
        if not changing:
            self._resolved.clear()

    def look(self) -> None:
        """See `Engine`; what computes is not in this process."""

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        """See `Engine`. The queue is elsewhere, and so is who refuses.

        What is noted is how long this request may take.
        """
        _may_take_s.set(timeout_s)

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        """See `Engine`."""
        loop = asyncio.get_running_loop()
        known = self._resolved.get((name, version))
        if known is not None and (self._changing or loop.time() - known.asked_s < _FRESH_S):
            return known.model
        asked_s, told = loop.time(), self._told
        may_take_s = min(_may_take_s.get(), self._patience_s)
        try:
            async with asyncio.timeout(may_take_s):
                found = await self._ask("resolve", lambda: (name, version, key))
        except TimeoutError:
            if may_take_s < self._patience_s:
                raise DeadlineExceeded(
                    f"no replica answered within {may_take_s:g} seconds; allow more time "
                    "(X-Request-Timeout)"
                ) from None
            raise ModelNotReady(
                f"no replica answered within {self._patience_s:g} seconds; they may be starting",
                retry_after_s=_STARTING_RETRY_S,
            ) from None
        model = messages.read_model(found["model"])
        values = {field.name: getattr(model, field.name) for field in fields(model)}
        resolved = KnownModel(**values, digest=found["digest"])
        # What was asked before a change was over may be what was before it.
        if not found["by_key"] and told == self._told:
            self._resolved[name, version] = _Resolved(resolved, asked_s)
        return resolved

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Watch | None,
    ) -> Computed:
        """See `Engine`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Computed] = loop.create_future()
        task = loop.create_task(self._compute(cast(KnownModel, model).digest, inputs, call))

        def ended(done: asyncio.Task[Computed]) -> None:
            error = None if done.cancelled() else done.exception()
            if answer.done():
                return
            if done.cancelled():
                answer.cancel()
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        task.add_done_callback(ended)
        attendant = Attendant(loop, answer, call.timeout_s + _GRACE_S, left, call.waited_s)
        try:
            return await answer
        finally:
            attendant.dismiss()
            task.cancel()

    async def _compute(self, digest: str, inputs: NDArray[Any], call: Call) -> Computed:
        loop = asyncio.get_running_loop()
        came_s = loop.time() - call.waited_s

        def arguments() -> Sequence[Any]:
            waited_s = loop.time() - came_s
            if waited_s >= call.timeout_s:
                raise DeadlineExceeded(
                    f"no answer within {call.timeout_s:g} seconds: no replica that has the version "
                    "could be asked until then, or one died; send it again, or allow more time "
                    "(X-Request-Timeout)"
                )
            now = dataclasses.replace(call, waited_s=waited_s)
            return digest, inputs, messages.write_call(now)

        found = await self._ask("compute", arguments)
        return Computed(found["fields"], messages.read_plan(found["plan"]))

    async def _ask(self, method: str, arguments: Callable[[], Sequence[Any]]) -> dict[str, Any]:
        """What a replica answers; where it dies another is asked, where it lacks the version, too.

        Args:
            method: of the replica.
            arguments: made for each that is asked; what it raises ends the asking.

        Raises:
            CandorError: that a replica, or `arguments`, raised on purpose.
        """
        loop = asyncio.get_running_loop()
        pause_s, elsewhere_until_s = _FIRST_PAUSE_S, loop.time() + _ELSEWHERE_S
        while True:
            try:
                found: dict[str, Any] = await self._replicas.ask(method, *arguments())
            except ReplicaLost:
                self._lost.add("replica_lost")
            else:
                if found["kind"] == "failed":
                    raise messages.read_error(found["error"])
                if found["kind"] != "elsewhere":
                    return found
                if loop.time() > elsewhere_until_s:
                    # Not even while models are changed does what is known of it stand any more.
                    self._resolved.clear()
                    raise ModelNotReady("the version was unloaded meanwhile", retry_after_s=1.0)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
