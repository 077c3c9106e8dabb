"""What the traces of requests say of the steps that computed them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.scheduling.computation import Job, Outcome
from service.scheduling.work import Step
from service.tracing import Attributes, Part

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


class StepTraces:
    """Follows steps from when the engine gets them until their outcomes are there."""

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self._begun_s: dict[int, float] = {}

    def begun(self, step: Step, now_s: float) -> None:
        """The engine got a step."""
        if self._tracing is not None:
            self._begun_s[step.works[0].number] = now_s

    def ended(self, step: Step, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """The outcomes of a step are there."""
        if self._tracing is None:
            return
        begun_s = self._begun_s.pop(step.works[0].number)
        parts = _parts_of(step, jobs)
        if not parts:
            return
        model = jobs[0].model
        attributes: Attributes = {
            "candor.model": model.ref.name,
            "candor.version": model.ref.version,
            "candor.strategy": model.sampler.strategy.name,
            "candor.device": str(model.sampler.device),
            "candor.batch.requests": len(jobs),
            "candor.batch.rows": step.rows,
            "candor.engine.seconds": sum(outcome.seconds for outcome in outcomes),
        }
        name = "evaluate" if jobs[0].plan is None else "sample"
        self._tracing.step(name, begun_s, time.monotonic(), attributes, parts)


def _parts_of(step: Step, jobs: Sequence[Job]) -> list[Part]:
    return [
        Part(
            job.origin.traceparent,
            work.queued_s,
            {"candor.rows": work.rows, "candor.passes": work.passes},
        )
        for work, job in zip(step.works, jobs, strict=True)
        if job.origin.traceparent is not None
    ]
