"""What an endpoint asks of the engine, wherever it runs: a model, and then its answer.

Endpoints know nothing of queues, threads or processes. They resolve a model, check what came
against it, and have it computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from numpy.typing import NDArray

from service.api.limits import priority, timeout_s
from service.api.scope import client_left, desk_of, note_version, request_id, trace_of
from service.inference.fields import EVALUATION_FIELDS, Fields
from service.registry.verified import VerifiedModel
from service.types import Priority, SamplePlan


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the engine.

    Args:
        request_id: of the HTTP request.
        plan: None for a deterministic pass.
        fields: wanted; the answer may hold more.
        keep: whether its rows may be kept for labelling.
        timeout_s: seconds until it is given up.
        traceparent: of its span, where it is traced.
        priority: the higher ones go first.
        degradable: whether it may get fewer passes than its plan says while others wait.
    """

    request_id: str
    plan: SamplePlan | None
    fields: tuple[str, ...]
    keep: bool
    timeout_s: float
    traceparent: str | None = None
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

    def check_door(self, timeout_s: float, priority: Priority) -> None:
        """Refuse a request before anything of it is read, where it would be whatever it holds.

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
        left: Callable[[], Awaitable[object]],
    ) -> Computed:
        """Queue a request and wait for its answer; see `Runner.submit`.

        Args:
            model: as `resolve` gave it.
            inputs: [B, D...], checked, of the model's dtype.
            call: what is wanted of them.
            left: returns once nobody waits for the answer any more.
        """
        ...


def check_door(request: Request) -> None:
    """Refuse a request before its body is read, where it would be whatever it holds.

    Raises:
        CandorError: of `Runner.check_door`.
        InvalidInput: a header that does not fit.
    """
    desk_of(request).engine.check_door(timeout_s(request), priority(request))


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
    note_version(request, model.ref.version)
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
        priority=urgency,
        degradable=degradable,
    )
    engine = desk_of(request).engine
    computed = await engine.compute(model, inputs, call, lambda: client_left(request))
    if trace is not None:
        trace.computed(degraded=computed.plan != plan)
    return computed
