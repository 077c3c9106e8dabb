"""The points of a pool whose labels would say most, without ever holding the pool."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.inference import acquisition
from service.inference.acquisition import Scores
from service.inference.choosing import (
    BATCH_BALD,
    Best,
    Chosen,
    needs,
    plan_of,
    together,
    with_noise,
)
from service.inference.fields import Fields
from service.pools.readers import Pool
from service.pools.scoring import ROWS_AT_ONCE, score_rows
from service.registry.loading import LoadedModel
from service.types import Progress, SamplePlan

CANDIDATES = 10_000
"""Points of a large pool, the highest by BALD, among which `batch_bald` chooses."""

_SAMPLE_NUMBERS = 2**27
"""Numbers of single passes of candidates that are held, T × N × C: 512 MiB as float32."""


def select_from_pool(
    model: LoadedModel,
    pool: Pool,
    strategy: str,
    k: int,
    plan: SamplePlan,
    progress: Progress,
    exclude: Collection[int] = (),
) -> Chosen:
    """The same of a pool of any size: what is held is a part of it and the best so far.

    `batch_bald` looks at `CANDIDATES` points with the most mutual information by themselves: no
    point gains more in a batch than alone.
    """
    plan = plan_of(strategy, plan)
    best = Best(kept_of(model, pool, strategy, k, plan))
    for first, fields in _parts(model, pool, plan, acquisition.NEEDS[alone(strategy)], progress):
        best.add(_scored(model, fields, strategy, plan, first), first, exclude)
    return choose_among(model, pool, strategy, k, plan, best)


def alone(strategy: str) -> str:
    """By which points are first looked at one by one."""
    return "bald" if strategy == BATCH_BALD else strategy


def kept_of(model: LoadedModel, pool: Pool, strategy: str, k: int, plan: SamplePlan) -> int:
    """How many points are kept of those that are looked at one by one."""
    if strategy != BATCH_BALD:
        return k
    return max(k, min(CANDIDATES, _SAMPLE_NUMBERS // _width(model, pool, plan)))


def best_of_part(
    model: LoadedModel,
    rows: NDArray[Any],
    first: int,
    strategy: str,
    plan: SamplePlan,
    kept: int,
    exclude: Collection[int] = (),
) -> Chosen:
    """The best of a part of a pool, one by one.

    Args:
        model: loaded.
        rows: of the part, [B, D...].
        first: number of the first in the pool.
        strategy: of the choice.
        plan: of `plan_of`.
        kept: as `kept_of` says of the pool.
        exclude: numbers of rows that are not to be chosen.
    """
    best = Best(kept)
    wanted = acquisition.NEEDS[alone(strategy)]
    for offset in range(0, len(rows), ROWS_AT_ONCE):
        number = first + offset
        fields = score_rows(model, rows[offset : offset + ROWS_AT_ONCE], number, plan, wanted)
        best.add(_scored(model, fields, strategy, plan, number), number, exclude)
    return best.chosen()


def choose_among(
    model: LoadedModel, pool: Pool, strategy: str, k: int, plan: SamplePlan, best: Best
) -> Chosen:
    """The choice, from the best of the whole pool one by one."""
    if strategy != BATCH_BALD:
        return best.chosen()
    candidates = sorted(best.chosen().indices)
    rows = pool.take(candidates)
    answers = [
        score_rows(model, rows[start : start + ROWS_AT_ONCE], start, plan, needs(strategy))
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    found = together(_joined(answers), model.manifest.task, k, plan.seed, ())
    return Chosen([candidates[index] for index in found.indices], found.scores)


def _scored(
    model: LoadedModel, fields: Fields, strategy: str, plan: SamplePlan, first: int
) -> Scores:
    scores_B = acquisition.SCORES[alone(strategy)](fields, model.manifest.task)
    return with_noise(scores_B, alone(strategy), plan.seed, first)


def _parts(
    model: LoadedModel,
    pool: Pool,
    plan: SamplePlan,
    fields: tuple[str, ...],
    progress: Progress,
) -> Iterator[tuple[int, Fields]]:
    first = 0
    progress(0, pool.rows)
    for rows in pool.parts(0, ROWS_AT_ONCE):
        yield first, score_rows(model, rows, first, plan, fields)
        first += len(rows)
        progress(first, pool.rows)


def _joined(answers: list[Fields]) -> Fields:
    found: Fields = {}
    for name in answers[0]:
        arrays = [array for answer in answers if (array := answer[name]) is not None]
        if arrays and name != "passes":
            found[name] = np.concatenate(arrays, axis=1 if name == "samples" else 0)
    return found


def _width(model: LoadedModel, pool: Pool, plan: SamplePlan) -> int:
    """Numbers of single passes of one point, T × C."""
    fields = score_rows(model, pool.take([0]), 0, plan, ("mean",))
    mean = fields["mean"]
    assert mean is not None
    return plan.passes * mean.size
