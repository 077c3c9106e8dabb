"""What an endpoint asks of the engine, wherever it runs: a model, and then its answer.

Endpoints know nothing of queues, threads or processes. They resolve a model, check what came
against it, and have it computed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from numpy.typing import NDArray

from service.api.limits import priority, timeout_s
from service.api.scope import (
    behind_s,
    client_leaves,
    desk_of,
    has_come,
    request_id,
    spare_s,
    trace_of,
    waited_s,
)
from service.errors import DeadlineUnreachable, QueueFull, Standing
from service.inference.fields import EVALUATION_FIELDS, Fields
from service.registry.verified import VerifiedModel
from service.scheduling.admission import stands_s
from service.scheduling.attendant import Watch
from service.types import Priority, SamplePlan

_OF_DEADLINE = 0.75
"""Share of its time that a request may be expected to spend outside the engine. Estimates err."""

_TIMES_WAITED = 3.0
"""Of what a request waited to be read, the time that it has to have left."""

_SPREAD_S = 2.0
"""Over which those that are sent away come back, that they do not come at once."""

_random = random.Random()


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the engine.

    Args:
        request_id: of the HTTP request.
        plan: None for a deterministic pass.
        fields: wanted; the answer may hold more.
        keep: whether its rows may be kept for labelling.
        timeout_s: seconds from when all of it had come until it is given up.
        traceparent: of its span, where it is traced.
        waited_s: seconds since all of it had come.
        spare_s: seconds that its answer is expected to need once it is computed.
        priority: the higher ones go first.
        degradable: whether it may get fewer passes than its plan says while others wait.
    """

    request_id: str
    plan: SamplePlan | None
    fields: tuple[str, ...]
    keep: bool
    timeout_s: float
    traceparent: str | None = None
    waited_s: float = 0.0
    spare_s: float = 0.0
    priority: Priority = Priority.NORMAL
    degradable: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """An answer, and the plan by which it came about."""

    fields: Fields
    plan: SamplePlan | None


class Engine(Protocol):
    """Resolves models and computes answers."""

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down and takes no new requests."""
        ...

    def look(self) -> None:
        """Have what computes go on, if it waits for the end of this turn of the event loop."""
        ...

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        """Refuse a request before anything of it is read; see `Runner.check_door`.

        Refusing has to cost little: under a load far above what can be served it is most of what
        a server does.
        """
        ...

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        """The version that serves the request of this id; see `Registry.resolve`."""
        ...

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Watch | None,
    ) -> Computed:
        """Queue a request and wait for its answer; see `Runner.submit`.

        Args:
            model: as `resolve` gave it.
            inputs: [B, D...], checked, of the model's dtype.
            call: what is wanted of them.
            left: watches whoever waits for the answer; None where their leaving ends the task.
        """
        ...


def check_door(request: Request, outside_s: float, coming: int) -> None:
    """Refuse a request before its body is read, where it would be refused later.

    Args:
        request: it.
        outside_s: seconds that it will spend in this process outside the engine.
        coming: others that were let in and have not come to the engine.

    Raises:
        DeadlineUnreachable: those seconds are too many.
        CandorError: of `Runner.check_door`.
        InvalidInput: a header that does not fit.
    """
    waited_s = behind_s(request)
    left_s = timeout_s(request) - waited_s
    short_s = max(outside_s / _OF_DEADLINE, _TIMES_WAITED * waited_s)
    if left_s < short_s:
        raise _behind(waited_s + outside_s, short_s)
    try:
        desk_of(request).engine.check_door(left_s - outside_s, priority(request), coming)
    except QueueFull as error:
        if error.standing is not None:
            error.standing = error.standing.with_more(outside_s)
        raise


def _behind(outside_s: float, short_s: float) -> DeadlineUnreachable:
    def retry_after_s(_: float) -> float:
        return outside_s + _random.uniform(0.0, _SPREAD_S)

    now_s = time.monotonic()
    error = DeadlineUnreachable(
        f"this process is behind: an answer would take {outside_s:.2g} seconds beside what the "
        "model needs, too long for the time that this request has; send it again later, or allow "
        "more time (X-Request-Timeout)",
        retry_after_s=retry_after_s(now_s),
    )
    error.standing = Standing(now_s + stands_s(outside_s), short_s, retry_after_s)
    return error


async def compute(
    request: Request,
    model: VerifiedModel,
    inputs: NDArray[Any],
    plan: SamplePlan | None,
    fields: Collection[str] = EVALUATION_FIELDS,
    *,
    keep: bool = False,
    degradable: bool = False,
    within_s: float | None = None,
    of_priority: Priority | None = None,
) -> Computed:
    """Have a request computed, within its own deadline and as long as its client waits.

    Args:
        request: it.
        model: that serves it.
        inputs: [B, D...], checked.
        plan: None for a deterministic pass.
        fields: wanted; the answer may hold more.
        keep: whether its rows may be kept for labelling.
        degradable: whether it may get fewer passes while others wait; `Computed.plan` says.
        within_s: a deadline that stands elsewhere than in the request's headers.
        of_priority: one that stands elsewhere than in its headers.

    Raises:
        CandorError: of `Runner.submit`.
    """
    urgency = priority(request) if of_priority is None else of_priority
    trace = trace_of(request)
    if trace is not None:
        trace.parsed(
            {
                "candor.version": model.ref.version,
                "candor.rows": len(inputs),
                "candor.passes": 1 if plan is None else plan.passes,
                "candor.priority": urgency.name.lower(),
            }
        )
    traceparent = None if trace is None else trace.traceparent
    timeout = timeout_s(request) if within_s is None else min(timeout_s(request), within_s)
    call = Call(
        *(request_id(request), plan, tuple(fields), keep, timeout, traceparent),
        waited_s=waited_s(request),
        spare_s=spare_s(request),
        priority=urgency,
        degradable=degradable,
    )
    engine = desk_of(request).engine
    has_come(request)
    computed = await engine.compute(model, inputs, call, client_leaves(request))
    if trace is not None:
        trace.computed(degraded=computed.plan != plan)
    return computed
