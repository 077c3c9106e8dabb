"""The engine in this process: registry, runner and sample store."""

from __future__ import annotations

from typing import Any, cast

import torch
from numpy.typing import NDArray

from service.api.engine import Call, Computed
from service.api.limits import check_answer
from service.calibration.apply import OOD_FLAGGED
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.registry.verified import VerifiedModel
from service.scheduling.attendant import Watch
from service.scheduling.degrading import Degrading
from service.scheduling.runner import Runner
from service.store.collector import Collector
from service.store.tables import SCORES
from service.types import Origin, Priority, SamplePlan


class LocalEngine:
    """See `Engine`."""

    def __init__(
        self,
        registry: Registry,
        runner: Runner,
        collector: Collector,
        degrading: Degrading,
        metrics: Metrics,
        max_answer_bytes: int,
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._collector = collector
        self._degrading = degrading
        self._metrics = metrics
        self._max_answer_bytes = max_answer_bytes

    @property
    def draining(self) -> bool:
        """See `Engine`."""
        return self._runner.draining

    def look(self) -> None:
        """See `Engine`."""
        self._runner.look()

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        """See `Engine`."""
        self._runner.check_door(self._registry.serving, timeout_s, priority, coming)

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        """See `Engine`."""
        return self._registry.resolve(name, version, key)

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Watch | None,
    ) -> Computed:
        """See `Engine`."""
        loaded = cast(LoadedModel, model)
        keeps = call.keep and self._collector.keeps(loaded.ref.name)
        check_answer(loaded, inputs.shape, call.plan, call.fields, self._max_answer_bytes)
        plan = self._degraded(loaded, call)
        fields = await self._runner.submit(
            loaded,
            torch.from_numpy(inputs),
            plan,
            {*call.fields, *SCORES} if keeps else call.fields,
            timeout_s=call.timeout_s,
            waited_s=call.waited_s,
            spare_s=call.spare_s,
            priority=call.priority,
            left=left,
            origin=Origin(call.request_id, call.traceparent),
        )
        if plan != call.plan:
            self._metrics.degraded_total.labels(loaded.ref.name).inc()
        if keeps:
            flagged = fields.get(OOD_FLAGGED)
            ref = loaded.ref
            self._collector.consider(
                ref.name, ref.version, inputs, fields, flagged, call.request_id
            )
        return Computed(fields, plan)

    def _degraded(self, model: LoadedModel, call: Call) -> SamplePlan | None:
        if not call.degradable or call.plan is None or self._degrading.after_s is None:
            return call.plan
        wait_s = self._runner.wait_s(model.ref.name, call.priority)
        return self._degrading.plan(call.plan, wait_s, model.sampler.members)
