"""The thread that computes, and nothing else: steps in their order, each to its end.

What `run_in_executor` does with two futures, a callback on each and a look at what kind of function
it was given, is one queue here. That matters because it happens while the engine waits for the
interpreter's lock to begin its next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from torch import Tensor

from service.errors import EngineFailure
from service.inference.fields import Fields
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from service.types import UNKNOWN, Origin, SamplePlan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine needs for one work. `plan` is None for a deterministic pass."""

    model: LoadedModel
    inputs: Tensor
    plan: SamplePlan | None
    fields: frozenset[str]
    answer: asyncio.Future[Fields]
    origin: Origin = UNKNOWN

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the answer. Any thread may ask."""
        return not self.answer.done()


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer or why there is none, and its share of the engine's time in seconds.

    There is neither where nobody waits for the answer any more.
    """

    fields: Fields | None
    error: Exception | None
    seconds: float


Told = Callable[[list[Outcome]], None]
"""Gets the outcomes of a step's jobs, in their order, on the event loop."""


class EngineThread:
    """Computes steps one after the other and tells the event loop of each."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[tuple[Sequence[Job], asyncio.AbstractEventLoop, Told] | None] = (
            SimpleQueue()
        )
        # A step that never ends must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job], told: Told) -> None:
        """Have a step computed after those that were submitted before; call from the loop."""
        self._steps.put((jobs, asyncio.get_running_loop(), told))

    def close(self) -> None:
        """End once the current step is over; what waits is not computed."""
        with contextlib.suppress(Empty):
            while True:
                self._steps.get_nowait()
        self._steps.put(None)

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            jobs, loop, told = step
            outcomes = compute(jobs)
            # A loop that was closed meanwhile has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(told, outcomes)


def compute(jobs: Sequence[Job]) -> list[Outcome]:
    """The outcome of each. If a batch fails its jobs are tried alone, so that one harms none.

    Nothing that a model raises leaves here, not even what ends a program elsewhere.
    """
    started = time.perf_counter()
    try:
        answers = _compute_together(jobs)
    except BaseException as error:
        if len(jobs) > 1:
            return [outcome for job in jobs for outcome in compute([job])]
        ref, number = jobs[0].model.ref, jobs[0].origin.request_id
        about = {"request_id": number, "model": ref.name, "version": ref.version}
        log.exception("model %s failed on a request", ref, extra=about)
        failure = EngineFailure(
            f"the model {ref} failed on these inputs: {type(error).__name__}: {error}"
        )
        return [Outcome(None, failure, time.perf_counter() - started)]
    share = (time.perf_counter() - started) / len(jobs)
    return [Outcome(answer, None, share) for answer in answers]


def _compute_together(jobs: Sequence[Job]) -> list[Fields | None]:
    first = jobs[0]
    if first.plan is None:
        return [first.model.evaluate(first.inputs) if first.wanted else None]
    # Clients may have left since the step was handed over.
    live = {number: job for number, job in enumerate(jobs) if job.wanted}
    requests = [Request(job.inputs, job.plan, job.fields) for job in live.values() if job.plan]
    numbers = list(live)
    found = (
        first.model.predict(requests, lambda place: live[numbers[place]].wanted) if requests else []
    )
    answers: list[Fields | None] = [None] * len(jobs)
    for number, answer in zip(numbers, found, strict=True):
        answers[number] = answer
    return answers
