"""The engine in this process: registry, runner and sample store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import torch
from numpy.typing import NDArray

from service.api.engine import Call, Computed
from service.calibration.apply import OOD_FLAGGED
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.registry.verified import VerifiedModel
from service.scheduling.runner import Runner
from service.store.collector import Collector
from service.store.tables import SCORES
from service.types import Origin


class LocalEngine:
    """See `Engine`."""

    def __init__(self, registry: Registry, runner: Runner, collector: Collector) -> None:
        self._registry = registry
        self._runner = runner
        self._collector = collector

    @property
    def draining(self) -> bool:
        """See `Engine`."""
        return self._runner.draining

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        """See `Engine`."""
        return self._registry.resolve(name, version, key)

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Callable[[], Awaitable[object]],
    ) -> Computed:
        """See `Engine`."""
        loaded = cast(LoadedModel, model)
        keeps = call.keep and self._collector.keeps(loaded.ref.name)
        fields = await self._runner.submit(
            loaded,
            torch.from_numpy(inputs),
            call.plan,
            {*call.fields, *SCORES} if keeps else call.fields,
            timeout_s=call.timeout_s,
            left=left,
            origin=Origin(call.request_id, call.traceparent),
        )
        if keeps:
            flagged = fields.get(OOD_FLAGGED)
            ref = loaded.ref
            self._collector.consider(
                ref.name, ref.version, inputs, fields, flagged, call.request_id
            )
        return Computed(fields, call.plan)
