"""One step as far as it has been computed: it can be put aside between chunks and gone on with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from service.errors import EngineFailure
from service.inference.fields import Fields
from service.inference.memory import is_out_of_memory
from service.inference.prediction import Prediction, Request, never
from service.registry.calibrated import CalibratedPrediction
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


class Computation:
    """The jobs of one step. All of it but `jobs` belongs to the engine's thread.

    If a batch fails its halves are tried, and theirs, so that one job harms none: of many it costs
    about another batch, and not each of them a run of its own. Nothing that a model raises
    leaves here, not even what ends a program elsewhere.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self._seconds = 0.0
        self._live: dict[int, Job] = {}
        self._run: Prediction | CalibratedPrediction | None = None

    def advance(self, enough: Callable[[], bool] = never) -> list[Outcome] | None:
        """Compute until all is done or `enough`; the outcomes of the jobs, or None where it is not.

        Args:
            enough: asked between chunks.
        """
        started_s = time.perf_counter()
        try:
            answers = self._advance(enough)
        except BaseException as error:
            self._run = None
            seconds = self._seconds + time.perf_counter() - started_s
            if len(self.jobs) > 1:
                middle = len(self.jobs) // 2
                return [*_outcomes(self.jobs[:middle]), *_outcomes(self.jobs[middle:])]
            return [Outcome(None, _in_words(self.jobs[0], error), seconds)]
        self._seconds += time.perf_counter() - started_s
        if answers is None:
            return None
        share_s = self._seconds / len(self.jobs)
        return [Outcome(answer, None, share_s) for answer in answers]

    def _advance(self, enough: Callable[[], bool]) -> list[Fields | None] | None:
        first = self.jobs[0]
        if first.plan is None:
            return [first.model.evaluate(first.inputs) if first.wanted else None]
        if self._run is None:
            # Clients may have left since the step was handed over.
            self._live = {number: job for number, job in enumerate(self.jobs) if job.wanted}
            live = list(self._live.values())
            requests = [Request(job.inputs, job.plan, job.fields) for job in live if job.plan]
            if not requests:
                return [None] * len(self.jobs)
            self._run = first.model.begin(requests, lambda place: live[place].wanted)
        if not self._run.advance(enough):
            return None
        answers: list[Fields | None] = [None] * len(self.jobs)
        for number, answer in zip(self._live, self._run.answers(), strict=True):
            answers[number] = answer
        return answers


def _outcomes(jobs: Sequence[Job]) -> list[Outcome]:
    return Computation(jobs).advance() or []


def _in_words(job: Job, error: BaseException) -> EngineFailure:
    ref = job.model.ref
    about = {"request_id": job.origin.request_id, "model": ref.name, "version": ref.version}
    log.error("model %s failed on a request", ref, exc_info=error, extra=about)
    if isinstance(error, Exception) and is_out_of_memory(error):
        return EngineFailure(
            f"the memory of the server ran out at {job.inputs.shape[0]} rows of the model "
            f"{ref}, in chunks however small; send fewer rows at once, or ask for fewer "
            "fields that keep every pass (samples, quantiles)"
        )
    return EngineFailure(f"the model {ref} failed on these inputs: {type(error).__name__}: {error}")
