"""From requests to the fields of their answers, by task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.inference import jackknife, measures, regression
from service.inference.fields import (
    EVALUATION_FIELDS,
    FIELDS,
    JACKKNIFE_FIELDS,
    KEPT_FIELDS,
    QUANTILES,
    ROWS_SECOND,
    SUMMARY_FIELDS,
    Array,
    Fields,
)
from service.inference.kept import KeptPasses
from service.inference.outputs import labels, log_variances, outputs_after_rows, values
from service.inference.posterior import OpenRows, Posterior
from service.inference.progress import Progress, Rows
from service.inference.statistics import RunningStatistics, Summary
from service.inference.stopping import looks, may_stop
from service.types import SamplePlan, Task

_OF_OUTPUTS = frozenset(
    {"mean", "std", "standard_error", "aleatoric_std", "epistemic_std", *ROWS_SECOND}
)
"""Fields in the network's own precision; the others, differences of sums, are in float64."""

_CORRECTION = "jackknife"
"""What the jackknife adds to the fields that it corrects."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one client wants.

    Args:
        inputs: [B, D...].
        plan: passes or tolerance, seed and masks.
        fields: which of `FIELDS`; `samples` only where all rows have the same passes.
        rows: number of each row within the request, 0 to B − 1 by default; with independent masks
            it decides what drops. To send a long request in parts, number them on.
    """

    inputs: Tensor
    plan: SamplePlan
    fields: Collection[str]
    rows: Sequence[int] | None = None

    def numbers(self) -> Sequence[int]:
        """[B]: of its rows."""
        return range(self.inputs.shape[0]) if self.rows is None else self.rows


def always(_request: int) -> bool:
    """Every request is waited for to the end."""
    return True


def predict(
    posterior: Posterior,
    task: Task,
    requests: Sequence[Request],
    wanted: Callable[[int], bool] = always,
) -> list[Fields | None]:
    """Sample and reduce; each answer is what its request gets alone.

    Args:
        posterior: of the model.
        task: of the model.
        requests: of one mode of masks and one shape of rows; all else may differ.
        wanted: whether somebody still waits for the request of that number; asked between chunks.

    Returns:
        For each request its fields as arrays: [B, C, D...], [B, D...], [T, B, C, D...] or
        [Q, B, C, D...], and the `passes` [B] of each row. None where it was no longer wanted.
    """
    run = Prediction(posterior, task, requests, wanted)
    run.advance()
    return run.answers()


def never() -> bool:
    """Nobody else waits."""
    return False


class Prediction:
    """Requests that run together, as far as they are: each row leaves when it may.

    It may be put aside between two chunks and gone on with later; what is held meanwhile is what
    comes before the first site, and the sums. All of it happens in one thread.

    Args:
        posterior: of the model.
        task: of the model.
        requests: see `predict`.
        wanted: see `predict`.
    """

    def __init__(
        self,
        posterior: Posterior,
        task: Task,
        requests: Sequence[Request],
        wanted: Callable[[int], bool] = always,
    ) -> None:
        self._task = task
        self._requests = requests
        self._progress = Progress(
            [r.inputs.shape[0] for r in requests],
            [_stops(r.plan, posterior.members) for r in requests],
        )
        self._statistics = RunningStatistics(task, len(self._progress.passes))
        self._kept = {
            i: KeptPasses() for i, r in enumerate(requests) if {*r.fields} & {*KEPT_FIELDS}
        }
        self._left: set[int] = set()
        self._precision = torch.float32
        self._interruptible = True
        [masks] = {request.plan.masks for request in requests}
        batch = posterior.open(
            torch.cat([r.inputs for r in requests]) if len(requests) > 1 else requests[0].inputs,
            masks,
            [r.plan.seed for r in requests for _ in range(r.inputs.shape[0])],
            [n for r in requests for n in r.numbers()],
        )
        self._pauses = self._run(batch, wanted)

    def advance(self, enough: Callable[[], bool] | None = None) -> bool:
        """Run all passes that somebody waits for, or until `enough`; whether all are run.

        Args:
            enough: asked between chunks; None where nobody else waits. Then the same requests give
                the same answers to the last bit, however long their chunks take.
        """
        self._interruptible = enough is not None
        asked = enough or never
        with torch.inference_mode():
            return not any(asked() for _ in self._pauses)

    def _run(self, batch: OpenRows, wanted: Callable[[int], bool]) -> Iterator[None]:
        """Gives way between chunks."""
        selected, part = np.arange(len(batch)), batch
        while (segment := self._progress.next()) is not None:
            if not np.array_equal(segment.rows, selected):
                selected, part = segment.rows, batch.select(segment.rows.tolist())
            for chunk in part.run(segment.passes, interruptible=self._interruptible):
                self._add(selected[np.asarray(chunk.rows)], chunk.passes, chunk.outputs)
                gone = [i for i in self._progress.live_requests if not wanted(i)]
                if gone:
                    # What others still lack of this segment is the next one's.
                    self._left.update(gone)
                    self._progress.drop(gone)
                    break
                if self._progress.lacks(segment):
                    yield
            else:
                self._look(segment.passes.stop)
            if self._progress.live_requests:
                yield

    def _add(self, rows: Rows, passes: range, outputs: Tensor) -> None:
        if outputs.dtype == torch.float64:
            self._precision = torch.float64
        self._statistics.update(outputs, rows)
        self._progress.ran(rows, passes)
        for request, kept in self._kept.items():
            place = self._progress.slices[request]
            here = np.flatnonzero((rows >= place.start) & (rows < place.stop))
            if len(here):
                own = outputs if len(here) == len(rows) else outputs[:, here.tolist()]
                kept.add(rows[here] - place.start, passes, own)

    def _look(self, passes: int) -> None:
        """Finish the rows that have had what they need."""
        for number in [*self._progress.live_requests]:
            rows = self._progress.at_stop(number, passes)
            plan = self._requests[number].plan
            if len(rows) and plan.tolerance is not None and passes < plan.passes:
                std_BC = self._statistics.std(rows)
                rows = rows[may_stop(std_BC, passes, plan.tolerance).cpu().numpy()]
            self._progress.finish(number, rows)

    def answers(self) -> list[Fields | None]:
        """Of each request, once all passes are run; None where nobody waited to the end."""
        with torch.inference_mode():
            return self._answers()

    def _answers(self) -> list[Fields | None]:
        waited = [r for i, r in enumerate(self._requests) if i not in self._left]
        if not waited:
            return [None] * len(self._requests)
        asked = {JACKKNIFE_FIELDS.get(name, name) for request in waited for name in request.fields}
        summary = self._arrays(self._statistics.summary(asked & {*SUMMARY_FIELDS}))
        return [
            None if i in self._left else self._answer(i, request, summary)
            for i, request in enumerate(self._requests)
        ]

    def _answer(self, number: int, request: Request, summary: dict[str, Array]) -> Fields:
        place = self._progress.slices[number]
        passes_B = self._progress.passes[place]
        found = {name: array[place] for name, array in summary.items()}
        if number in self._kept:
            kept = _from_kept(self._task, self._kept[number], passes_B, request.fields)
            found |= self._arrays(kept)
            if (correction := found.get(_CORRECTION)) is not None:
                found |= {
                    to: found[of] + correction
                    for to, of in JACKKNIFE_FIELDS.items()
                    if to in request.fields
                }
        fields: Fields = {name: found.get(name) for name in FIELDS if name in request.fields}
        return {"passes": passes_B, **fields}

    def _arrays(self, tensors: Summary) -> dict[str, Array]:
        return {
            name: (tensor.to(self._precision) if name in _OF_OUTPUTS else tensor).cpu().numpy()
            for name, tensor in tensors.items()
        }


def _stops(plan: SamplePlan, members: int) -> tuple[int, ...]:
    """Numbers of passes at which rows of this plan may be finished; at the last they are.

    None is finished before every member was asked once.
    """
    if plan.tolerance is None:
        return (plan.passes,)
    return (*(look for look in looks(plan.passes) if look >= members), plan.passes)


def _from_kept(task: Task, kept: KeptPasses, passes_B: Rows, fields: Collection[str]) -> Summary:
    """`quantiles` [Q, B, C, D...], `samples` [T, B, C, D...] and the jackknife's correction
    [B, D...], where asked for."""
    parts: list[tuple[Rows, Summary]] = []
    for rows, outputs in kept.together(passes_B):
        values_TBC = values(task, outputs.double())
        part: Summary = {}
        if "samples" in fields:
            part["samples"] = values_TBC.movedim(-1, 2)
        if "quantiles" in fields:
            quantiles = np.quantile(values_TBC.cpu().numpy(), QUANTILES, axis=0)
            part["quantiles"] = torch.from_numpy(quantiles).movedim(-1, 2)
        if not task.is_regression and not JACKKNIFE_FIELDS.keys().isdisjoint(fields):
            part[_CORRECTION] = jackknife.correction(task, values_TBC)
        parts.append((rows, part))
    order = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in parts])))
    found: Summary = {}
    for name in parts[0][1]:
        dim = 1 if name in ROWS_SECOND else 0
        together = torch.cat([part[name] for _, part in parts], dim=dim).cpu()
        found[name] = together.index_select(dim, order)
    return found


def evaluate(posterior: Posterior, task: Task, inputs: Tensor) -> Fields:
    """One deterministic pass, dropout off: `mean`, `predictive_entropy` and `label`.

    Of several members the mean of their probabilities or values, as Lakshminarayanan et al. (2017)
    define what an ensemble predicts; with predicted noise the entropy is that of the Gaussian with
    the mean and variance of their mixture (section 2.4 there).

    Shapes as of `predict`. A regression without predicted noise has no predictive entropy.
    """
    outputs = posterior.deterministic_members(inputs)
    with torch.inference_mode():
        values_MBC = values(task, outputs)
        mean_BC = values_MBC.mean(dim=0)
        found: dict[str, Tensor] = {"mean": outputs_after_rows(mean_BC)}
        if task is Task.HETEROSCEDASTIC_REGRESSION:
            noise_MBC = log_variances(outputs).double()
            found["predictive_entropy"] = regression.mixture_entropy(values_MBC.double(), noise_MBC)
        elif not task.is_regression:
            found["predictive_entropy"] = measures.entropy_of(task)(mean_BC.double())
            found["label"] = labels(task, mean_BC)
        arrays: Fields = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    return {name: arrays.get(name) for name in EVALUATION_FIELDS}
