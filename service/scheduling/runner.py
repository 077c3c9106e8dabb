"""Between the event loop, which never waits on torch, and the engine thread, which only computes.

Whatever arrives while the engine is busy runs together in its next step. There is no timer: when
the engine is idle, a request starts in the same turn of the event loop that brought it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from service.errors import DeadlineExceeded, EngineFailure, ModelNotReady
from service.inference.prediction import EVALUATION_FIELDS, Fields, Request
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.scheduling.scheduler import Scheduler
from service.scheduling.work import Step, Work
from service.types import SamplePlan

log = logging.getLogger(__name__)

_DRAINING_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Job:
    """What the engine needs for one work. `plan` is None for a deterministic pass."""

    model: LoadedModel
    inputs: Tensor
    plan: SamplePlan | None
    fields: frozenset[str]
    answer: asyncio.Future[Fields]


class Runner:
    """Accepts work on the event loop and computes it on one thread.

    All methods but `_compute…` run on the event loop, so nothing here needs a lock.
    """

    def __init__(self, scheduler: Scheduler, metrics: Metrics) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._jobs: dict[int, _Job] = {}
        self._numbers = itertools.count()
        self._engine = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._busy = False
        self._wake_planned = False
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def submit(
        self,
        model: LoadedModel,
        inputs: Tensor,
        plan: SamplePlan | None,
        fields: Collection[str] = EVALUATION_FIELDS,
        *,
        timeout_s: float,
    ) -> Fields:
        """Queue a request and wait for its answer.

        Args:
            model: that serves it.
            inputs: [B, D...], checked.
            plan: None for a deterministic pass.
            fields: wanted of a prediction.
            timeout_s: seconds until it is given up.

        Raises:
            QueueFull: too much waits.
            ModelNotReady: the server is draining.
            DeadlineExceeded: `timeout_s` passed.
            EngineFailure: the model raised on it.
        """
        if self.draining:
            raise ModelNotReady(
                "the server is shutting down and takes no new requests",
                retry_after_s=_DRAINING_RETRY_S,
            )
        number = next(self._numbers)
        work = self._work(number, model, inputs, plan)
        self._scheduler.add(work)
        answer: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._jobs[number] = _Job(model, inputs, plan, frozenset(fields), answer)
        self._started(work)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {timeout_s:g} seconds; send fewer rows or passes, or allow more "
                "time"
            ) from None
        finally:
            self._scheduler.cancel(number)
            self._jobs.pop(number, None)
            self._finished(work)

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work and wait until all that was accepted is answered; whether it was."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End the engine thread once its current step is over."""
        self._engine.shutdown(wait=False, cancel_futures=True)

    def _work(
        self, number: int, model: LoadedModel, inputs: Tensor, plan: SamplePlan | None
    ) -> Work:
        # A deterministic pass runs alone: its answer is that of this very batch, bit for bit.
        together = (model.ref, plan, inputs.shape[1:]) if plan else number
        return Work(
            number,
            model.ref.name,
            together,
            rows=len(inputs),
            passes=plan.passes if plan else 1,
            size_bytes=inputs.nbytes,
            queued_s=time.monotonic(),
        )

    def _started(self, work: Work) -> None:
        self._unfinished += 1
        self._idle.clear()
        self._metrics.queue_depth.labels(work.model).set(self._scheduler.depth(work.model))
        if not self._busy and not self._wake_planned:
            # At the end of this turn, so that requests of one turn share a step.
            self._wake_planned = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _finished(self, work: Work) -> None:
        self._unfinished -= 1
        self._metrics.queue_depth.labels(work.model).set(self._scheduler.depth(work.model))
        if self._unfinished == 0:
            self._idle.set()

    def _wake(self) -> None:
        self._wake_planned = False
        if self._busy:
            return
        step = self._scheduler.schedule()
        if step is None:
            return
        self._busy = True
        jobs = [self._jobs[work.number] for work in step.works]
        self._observe_start(step)
        task = asyncio.get_running_loop().run_in_executor(self._engine, _compute, jobs)
        task.add_done_callback(lambda done: self._deliver(step, jobs, done))

    def _deliver(self, step: Step, jobs: list[_Job], done: asyncio.Future[list[_Outcome]]) -> None:
        self._busy = False
        if not done.cancelled():
            outcomes = done.result()
            self._observe_end(step, jobs, outcomes)
            for job, outcome in zip(jobs, outcomes, strict=True):
                # The client may have left, or its deadline passed, meanwhile.
                if job.answer.done():
                    continue
                if outcome.fields is not None:
                    job.answer.set_result(outcome.fields)
                else:
                    job.answer.set_exception(outcome.error or EngineFailure("no answer"))
        self._wake()

    def _observe_start(self, step: Step) -> None:
        now = time.monotonic()
        model = step.works[0].model
        self._metrics.batch_rows.labels(model).observe(step.rows)
        for work in step.works:
            self._metrics.queue_seconds.labels(model).observe(now - work.queued_s)

    def _observe_end(self, step: Step, jobs: list[_Job], outcomes: list[_Outcome]) -> None:
        if jobs[0].plan is None:
            return
        model = step.works[0].model
        self._metrics.sampling_seconds.labels(model).observe(sum(o.seconds for o in outcomes))
        passes = [o.fields["passes"] for o in outcomes if o.fields is not None]
        self._metrics.passes_total.labels(model).inc(
            sum(int(p.sum()) for p in passes if p is not None)
        )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """An answer or why there is none, and its share of the engine's time in seconds."""

    fields: Fields | None
    error: Exception | None
    seconds: float


def _compute(jobs: list[_Job]) -> list[_Outcome]:
    """On the engine thread. If a batch fails its works are tried alone, so that one harms none."""
    started = time.perf_counter()
    try:
        answers = _compute_together(jobs)
    except Exception as error:
        if len(jobs) > 1:
            return [outcome for job in jobs for outcome in _compute([job])]
        log.exception("model %s failed on a request", jobs[0].model.ref)
        failure = EngineFailure(
            f"the model {jobs[0].model.ref} failed on these inputs: {type(error).__name__}: {error}"
        )
        return [_Outcome(None, failure, time.perf_counter() - started)]
    share = (time.perf_counter() - started) / len(jobs)
    return [_Outcome(answer, None, share) for answer in answers]


def _compute_together(jobs: list[_Job]) -> list[Fields | None]:
    first = jobs[0]
    if first.plan is None:
        return [first.model.evaluate(first.inputs)]
    requests = [Request(job.inputs, job.plan, job.fields) for job in jobs if job.plan]
    # Another thread's futures may be asked whether they are done, and nothing else.
    return first.model.predict(requests, lambda number: not jobs[number].answer.done())
