"""Between the event loop, which never waits on torch, and the engine thread, which only computes.

Whatever arrives while the engine is busy runs together in its next step. There is no timer: when
the engine is idle, a request starts in the same turn of the event loop that brought it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.calibration.apply import CALIBRATED_FIELDS, OOD_FLAGGED, OOD_VALUES
from service.errors import (
    DeadlineExceeded,
    EngineFailure,
    ModelNotReady,
    QueueFull,
    QueueTimeout,
)
from service.inference.fields import EVALUATION_FIELDS, FIELDS, Fields
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.scheduling.admission import Outlook
from service.scheduling.attendant import Attendant, Watch
from service.scheduling.computation import Computation, Job, Outcome
from service.scheduling.door import Door
from service.scheduling.drift import Drift
from service.scheduling.engine import EngineThread, Slice
from service.scheduling.scheduler import Scheduler
from service.scheduling.statistics import Ran, Statistics
from service.scheduling.traces import StepTraces
from service.scheduling.work import Step, Work
from service.types import UNKNOWN, ModelRef, Origin, Priority, SamplePlan

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

log = logging.getLogger(__name__)

_DRAINING_RETRY_S = 1.0

_DISPLACED_RETRY_S = 2.0
_EXPIRED_RETRY_S = 2.0
_HUNG_RETRY_S = 10.0

_WATCH_S = 0.1
"""Between two looks at what has waited too long, and whether the engine's thread lives."""

_STEPS = 2
"""Steps that the engine has at most: the one that it computes, and one so that it need not wait for
the event loop, which is busy with answers."""

_FEW = 8
"""With so few waiting nobody looks at the door: what is too much is refused when it was read."""

_OBSERVED = frozenset({"predictive_entropy", "mutual_information", "variance", "ood"})
"""Computed of every prediction, asked for or not, for `candor_uncertainty` and drift."""

_COMPUTED = frozenset({*FIELDS, *CALIBRATED_FIELDS})


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds.

    Args:
        queue_timeout_s: that a request may wait for the engine.
        slice_s: after which a long request is put aside, between two chunks, if others wait.
        hang_s: for one chunk until the engine counts as hung.
    """

    queue_timeout_s: float = math.inf
    slice_s: float = 0.02
    hang_s: float = math.inf


class Runner:
    """Accepts work on the event loop and computes it on one thread.

    All methods run on the event loop, so nothing here needs a lock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        metrics: Metrics,
        drift_rows: int = 1000,
        times: Times = Times(),
        tracing: Tracing | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._door = Door(scheduler.admission)
        self._times = times
        self._traces = StepTraces(tracing)
        self._drift = Drift(metrics, drift_rows)
        self._jobs: dict[int, Job] = {}
        self._computations: dict[int, Computation] = {}
        self._numbers = itertools.count()
        self._engine = EngineThread(times.slice_s, lambda: scheduler.others_wait)
        self._running = 0
        self._wake_planned = False
        self._watching = False
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.statistics = Statistics()
        metrics.read_when_asked(lambda: scheduler.size_bytes, lambda: self._unfinished)

    @property
    def hung_s(self) -> float | None:
        """Seconds that the engine has spent on one chunk, where it seems never to come back."""
        busy_s = self._engine.busy_s
        return busy_s if busy_s > self._times.hang_s else None

    def wait_s(self, model: str, priority: Priority = Priority.NORMAL) -> float:
        """Estimate of when a request that came now would begin, in seconds."""
        return self._scheduler.wait_s(model, priority, time.monotonic())

    def check_door(
        self,
        models: Callable[[], Collection[str]],
        timeout_s: float,
        priority: Priority,
        coming: int = 0,
    ) -> None:
        """Refuse a request before anything of it is read, where it would be whatever it holds.

        Args:
            models: gives those that serve.
            timeout_s: seconds until it is given up.
            priority: of the request.
            coming: others that were let in and have not been submitted yet.

        Raises:
            ModelNotReady: the server is draining, or its engine hangs.
            QueueFull: too much waits, or more than can be done in that time.
        """
        self._check_takes()
        if len(self._scheduler) + coming < _FEW:
            return
        now_s = time.monotonic()
        self._door.check(
            lambda: self._scheduler.outlook(models(), priority, now_s, coming),
            priority,
            timeout_s,
            self._times.queue_timeout_s,
            now_s,
        )

    def look(self) -> None:
        """Give the engine its next step if it has finished one; see `EngineThread.look`."""
        self._engine.look()

    def outlooks(self, models: Callable[[], Collection[str]]) -> list[Outlook] | None:
        """What a request that came now could expect, by its priority; for whoever looks at the door
        elsewhere. None where nobody is refused before it was read.

        Args:
            models: gives those that serve.
        """
        if len(self._scheduler) < _FEW:
            return None
        now_s, names = time.monotonic(), models()
        found = [self._scheduler.outlook(names, priority, now_s) for priority in Priority]
        return [outlook for outlook in found if outlook is not None] or None

    async def submit(
        self,
        model: LoadedModel,
        inputs: Tensor,
        plan: SamplePlan | None,
        fields: Collection[str] = EVALUATION_FIELDS,
        *,
        timeout_s: float,
        waited_s: float = 0.0,
        spare_s: float = 0.0,
        priority: Priority = Priority.NORMAL,
        left: Watch | None = None,
        origin: Origin = UNKNOWN,
    ) -> Fields:
        """Queue a request and wait for its answer.

        Args:
            model: that serves it.
            inputs: [B, D...], checked.
            plan: None for a deterministic pass.
            fields: wanted of a prediction; the answer may hold more.
            timeout_s: seconds until it is given up.
            waited_s: that are over already.
            spare_s: that its answer is expected to need once it is computed.
            priority: the higher ones go first.
            left: watches whoever waits for the answer.
            origin: of the request, for logs and traces.

        Raises:
            QueueFull: too much waits, or more than can be done in that time; also later, when it
                has to leave for another.
            QueueTimeout: it waited longer than requests may.
            ModelNotReady: the server is draining, or its engine hangs.
            DeadlineExceeded: `timeout_s` passed.
            ClientLeft: nobody waits for it any more.
            EngineFailure: the model raised on it.
        """
        self._check_takes()
        loop = asyncio.get_running_loop()
        now_s = time.monotonic()
        together = (model.generation, plan.masks, inputs.shape[1:]) if plan else None
        work = Work(
            next(self._numbers),
            model.ref.name,
            # A deterministic pass runs alone: its answer is that of this very batch, bit for bit.
            together,
            rows=inputs.shape[0],
            passes=plan.passes if plan else 1,
            size_bytes=inputs.nbytes,
            queued_s=now_s,
            begin_by_s=now_s + self._times.queue_timeout_s,
            deadline_s=now_s - waited_s + timeout_s - spare_s,
            priority=priority,
            waited_s=waited_s,
        )
        self._give_up(self._scheduler.add(work, now_s), _displaced)
        answer: asyncio.Future[Fields] = loop.create_future()
        computed = _computed(frozenset(fields))
        if model.calibration is not None:
            computed |= model.calibration.references.keys()
        self._jobs[work.number] = Job(model, inputs, plan, computed, answer, origin)
        self._started()
        attendant = Attendant(loop, answer, timeout_s, left, waited_s)
        try:
            return await answer
        finally:
            attendant.dismiss()
            self._scheduler.cancel(work.number)
            self._jobs.pop(work.number, None)
            self._finished()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work and wait until all that was accepted is answered; whether it was."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def watch_drift_of(self, refs: Collection[ModelRef]) -> None:
        """Forget in which way the answers of all versions but these drift."""
        self._drift.keep(refs)

    def close(self) -> None:
        """End the engine thread once its current step is over."""
        self._engine.close()

    def _check_takes(self) -> None:
        if self.draining:
            raise ModelNotReady(
                "the server is shutting down and takes no new requests",
                retry_after_s=_DRAINING_RETRY_S,
            )
        if (hung_s := self.hung_s) is not None:
            raise ModelNotReady(
                f"the engine has not come back from a model for {hung_s:.0f} seconds; if it never "
                "does, the server has to be started again (GET /livez says 503 meanwhile)",
                retry_after_s=_HUNG_RETRY_S,
            )

    def _started(self) -> None:
        self._unfinished += 1
        self._idle.clear()
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_WATCH_S, self._watch)
        if self._running < _STEPS and not self._wake_planned:
            # At the end of this turn, so that requests of one turn share a step.
            self._wake_planned = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _finished(self) -> None:
        self._unfinished -= 1
        if self._unfinished == 0:
            self._idle.set()

    def _watch(self) -> None:
        """Look after what waits, as long as anything does."""
        self._watching = self._unfinished > 0
        if not self._watching:
            return
        asyncio.get_running_loop().call_later(_WATCH_S, self._watch)
        expired = self._scheduler.expire(time.monotonic())
        self._give_up(expired, functools.partial(_expired, self._times.queue_timeout_s))
        if self._engine.revive():
            self._metrics.engine_restarts_total.inc()

    def _give_up(self, works: Collection[Work], why: Callable[[], Exception]) -> None:
        for work in works:
            answer = self._jobs[work.number].answer
            if not answer.done():
                answer.set_exception(why())

    def _wake(self) -> None:
        self._wake_planned = False
        while self._running < _STEPS:
            now_s = time.monotonic()
            if self._running:
                step = self._scheduler.schedule_ahead(now_s)
            else:
                step = self._scheduler.schedule(now_s)
            self._give_up(self._scheduler.take_hopeless(), _hopeless)
            if step is None:
                return
            self._start(step)

    def _start(self, step: Step) -> None:
        self._running += 1
        computation = self._computations.get(step.number)
        if computation is None:
            computation = Computation([self._jobs[work.number] for work in step.works])
            self._computations[step.number] = computation
            self._observe_start(step)
        self._engine.submit(computation, functools.partial(self._deliver, step), step.longer)

    def _deliver(self, step: Step, slice_: Slice) -> None:
        self._running -= 1
        now_s = time.monotonic()
        if slice_.outcomes is None:
            self._scheduler.put_aside(step, slice_.seconds, now_s)
            self._wake()
            return
        answered = [
            work
            for work, outcome in zip(step.works, slice_.outcomes, strict=True)
            if outcome.fields is not None
        ]
        self._scheduler.finish(step, slice_.seconds, now_s, answered)
        jobs = self._computations.pop(step.number).jobs
        # The engine goes on before anybody is told: answers are written while it computes.
        self._wake()
        for job, outcome in zip(jobs, slice_.outcomes, strict=True):
            # The client may have left, or its deadline passed, meanwhile.
            if job.answer.done():
                continue
            if outcome.fields is not None:
                job.answer.set_result(outcome.fields)
            else:
                job.answer.set_exception(outcome.error or EngineFailure("no answer"))
        self._observe_end(step, jobs, slice_.outcomes)

    def _observe_start(self, step: Step) -> None:
        now = time.monotonic()
        self._traces.begun(step, now)
        model = step.works[0].model
        metrics = self._metrics.of(model)
        # Read when somebody looks, instead of set whenever a request comes or goes.
        metrics.queue_depth.set_function(functools.partial(self._scheduler.depth, model))
        for work in step.works:
            metrics.queue_seconds.observe(now - work.queued_s)

    def _observe_end(self, step: Step, jobs: Sequence[Job], outcomes: list[Outcome]) -> None:
        self._traces.ended(step, jobs, outcomes)
        ref = jobs[0].model.ref
        metrics = self._metrics.of(ref.name)
        seconds = sum(outcome.seconds for outcome in outcomes)
        metrics.busy_seconds_total.inc(seconds)
        now = time.monotonic()
        ran = [
            Ran(work.rows, now - work.queued_s, failed=outcome.fields is None)
            for work, outcome in zip(step.works, outcomes, strict=True)
            if outcome.fields is not None or outcome.error is not None
        ]
        self.statistics.add(ref, ran, seconds)
        if ran:
            metrics.batch_rows.observe(sum(one.rows for one in ran))
        if jobs[0].plan is None:
            return
        metrics.sampling_seconds.observe(seconds)
        answered: list[Fields] = []
        for outcome in outcomes:
            if outcome.fields is not None:
                answered.append(outcome.fields)
                metrics.passes_total.inc(_passes_of(outcome.fields))
        for measure in _OBSERVED:
            for fields in answered:
                if (values := fields.get(measure)) is not None:
                    self._metrics.uncertainty.observe(ref, measure, values)
        calibration = jobs[0].model.calibration
        if calibration is not None:
            calibrated = [fields for fields in answered if OOD_VALUES in fields]
            self._drift.observe(jobs[0].model, calibration, calibrated)
            if (flags := _joined(calibrated, OOD_FLAGGED)) is not None:
                self._metrics.ood_flagged_total.labels(ref.name).inc(int(np.count_nonzero(flags)))


@functools.lru_cache(maxsize=256)
def _computed(fields: frozenset[str]) -> frozenset[str]:
    """What is computed where these are wanted."""
    return _OBSERVED.union(fields).intersection(_COMPUTED)


def _displaced() -> Exception:
    return QueueFull(
        "the queue was full and one of a higher priority, or of a model that had less of the "
        "queue, came; send it again later",
        retry_after_s=_DISPLACED_RETRY_S,
    )


def _hopeless() -> Exception:
    return DeadlineExceeded(
        "its turn came too late to be done within its deadline, and others wait; send it again "
        "later, or allow more time (X-Request-Timeout)"
    )


def _expired(queue_timeout_s: float) -> Exception:
    return QueueTimeout(
        f"it waited {queue_timeout_s:g} seconds for the engine, the limit "
        "(CANDOR_QUEUE_TIMEOUT_S), and was not begun; send it again later",
        retry_after_s=_EXPIRED_RETRY_S,
    )


def _joined(answers: list[Fields], name: str) -> NDArray[Any] | None:
    """One field of all answers; None where the task has no such field."""
    values = [found for fields in answers if (found := fields.get(name)) is not None]
    return (np.concatenate(values) if len(values) > 1 else values[0]) if values else None


def _passes_of(fields: Fields) -> int:
    """Rows × passes that an answer took."""
    passes_B = fields["passes"]
    return 0 if passes_B is None else int(passes_B.sum())
