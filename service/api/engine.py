"""What an endpoint asks of the engine, wherever it runs: a model, and then its answer.

Endpoints know nothing of queues, threads or processes. They resolve a model, check what came
against it, and have it computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from fastapi import Request
from numpy.typing import NDArray

from service.api.limits import timeout_s
from service.api.scope import client_left, request_id, service_of
from service.calibration.apply import OOD_FLAGGED
from service.inference.fields import EVALUATION_FIELDS, Fields
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.registry.verified import VerifiedModel
from service.scheduling.runner import Runner
from service.store.collector import Collector
from service.store.tables import SCORES
from service.types import SamplePlan


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the engine.

    Args:
        request_id: of the HTTP request.
        inputs: [B, D...], checked, of the model's dtype.
        plan: None for a deterministic pass.
        fields: wanted; the answer may hold more.
        keep: whether its rows may be kept for labelling.
        timeout_s: seconds until it is given up.
    """

    request_id: str
    inputs: NDArray[Any]
    plan: SamplePlan | None
    fields: Collection[str]
    keep: bool
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Computed:
    """An answer, and the plan by which it came about."""

    fields: Fields
    plan: SamplePlan | None


class Engine(Protocol):
    """Resolves models and computes answers."""

    async def resolve(self, name: str | None, version: int | None) -> VerifiedModel:
        """The version that serves a request; see `Registry.resolve`."""
        ...

    async def compute(
        self, model: VerifiedModel, call: Call, left: Callable[[], Awaitable[object]]
    ) -> Computed:
        """Queue a request and wait for its answer; see `Runner.submit`."""
        ...


class LocalEngine:
    """The engine in this process."""

    def __init__(self, registry: Registry, runner: Runner, collector: Collector) -> None:
        self._registry = registry
        self._runner = runner
        self._collector = collector

    async def resolve(self, name: str | None, version: int | None) -> VerifiedModel:
        """See `Engine`."""
        return self._registry.resolve(name, version)

    async def compute(
        self, model: VerifiedModel, call: Call, left: Callable[[], Awaitable[object]]
    ) -> Computed:
        """See `Engine`."""
        loaded = cast(LoadedModel, model)
        keeps = call.keep and self._collector.keeps(loaded.ref.name)
        fields = await self._runner.submit(
            loaded,
            torch.from_numpy(call.inputs),
            call.plan,
            {*call.fields, *SCORES} if keeps else call.fields,
            timeout_s=call.timeout_s,
            left=left,
        )
        if keeps:
            flagged = fields.get(OOD_FLAGGED)
            ref = loaded.ref
            self._collector.consider(
                ref.name, ref.version, call.inputs, fields, flagged, call.request_id
            )
        return Computed(fields, call.plan)


async def compute(
    request: Request,
    model: VerifiedModel,
    inputs: NDArray[Any],
    plan: SamplePlan | None,
    fields: Collection[str] = EVALUATION_FIELDS,
    *,
    keep: bool = False,
) -> Computed:
    """Have a request computed, within its own deadline and as long as its client waits.

    Raises:
        CandorError: of `Runner.submit`.
    """
    call = Call(request_id(request), inputs, plan, fields, keep, timeout_s(request))
    return await service_of(request).engine.compute(model, call, lambda: client_left(request))
