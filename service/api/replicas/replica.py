"""A process that computes: what doors ask of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Metric
from starlette.types import ASGIApp, Message

from service.api.health import note_states
from service.api.replicas import counting
from service.api.replicas.loads import Loads
from service.api.replicas.requests import BEGUN, Whole, answered
from service.api.scope import Service
from service.api.workers import messages
from service.errors import CandorError
from service.registry.policy import CANARY

log = logging.getLogger(__name__)

Answer = dict[str, Any]
"""`kind` says what it is: resolved, computed, failed or elsewhere."""


class Replica:
    """Answers doors with the parts of one server.

    Args:
        service: `running`.
        app: FastAPI's, for requests that no door answers itself.
    """

    def __init__(self, service: Service, app: ASGIApp) -> None:
        self._service = service
        self._app = app
        self._loads = Loads(service.registry)
        self._changing = False

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> Answer:
        """The version that serves a request: its digest, and what a door has to know of it."""
        try:
            model = self._service.registry.resolve(name, version, key)
            serving = self._service.registry.model(model.ref.name).serving
        except CandorError as error:
            return _failed(error)
        digest, written = self._loads.note(model)
        # Where a share of the requests gets another version, the next one may.
        by_key = version is None and CANARY in serving.labels
        return {"kind": "resolved", "digest": digest, "model": written, "by_key": by_key}

    async def compute(self, digest: str, inputs: NDArray[Any], call: Any) -> Answer:
        """What the version of that digest answers.

        Args:
            digest: as `resolve` of any replica gave it.
            inputs: [B, D...], checked.
            call: as `messages.write_call` wrote it.
        """
        model = self._loads.find(digest)
        if model is None:
            return {"kind": "elsewhere"}
        # What comes from another process must not be written, which tensors may be.
        own = inputs if inputs.flags.writeable else np.array(inputs)
        try:
            # A door whose client left cancels this task.
            computed = await self._service.engine.compute(
                model, own, messages.read_call(call), None
            )
        except CandorError as error:
            return _failed(error)
        plan = messages.write_plan(computed.plan)
        return {"kind": "computed", "fields": computed.fields, "plan": plan}

    async def answer(self, request: Whole) -> AsyncIterator[Message]:
        """What the routes of this process answer, part by part, after `BEGUN`."""
        yield {**BEGUN}
        async for part in self._answer(request):
            yield part

    async def _answer(self, request: Whole) -> AsyncIterator[Message]:
        state: dict[str, Any] = {
            "desk": self._service,
            "request_id": request.request_id,
            "token": request.token,
            "hold": _held_at_the_door,
        }
        async for part in answered(self._app, request, state):
            yield part

    async def change(self, request: Whole) -> list[Message]:
        """Answer a request that every replica is given; doors may go on with what served."""
        self._loads.look()
        return [part async for part in self._answer(request)]

    def told(self, *, changing: bool) -> None:
        """Whether models are being changed on replicas in turn: until they are on all, each holds
        what others still serve, and a little longer what doors have begun with."""
        if self._changing and not changing:
            self._loads.hold()
        self._changing = changing

    def unloaded(self) -> list[str]:
        """Models that were unloaded on request."""
        return [model.name for model in self._service.registry.models() if model.unloaded]

    def counted(self) -> list[Metric]:
        """What was counted here so far."""
        if not self._service.registry.loaded.is_set():
            # Nobody asks it yet, and a version is no less ready because one more process loads it.
            return []
        note_states(self._service)
        if not self._changing:
            self._loads.let_go()
        return counting.counted(self._service.metrics.registry)


def _held_at_the_door(_more_bytes: int) -> None:
    """The budget for bodies is of the process that they came to."""


def _failed(error: CandorError) -> Answer:
    return {"kind": "failed", "error": messages.write_error(error)}
