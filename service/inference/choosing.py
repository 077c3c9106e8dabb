"""From a prediction's fields to the points whose labels would say most, by any strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.inference import acquisition, joint
from service.inference.acquisition import Scores
from service.inference.fields import Fields
from service.types import Masks, SamplePlan, Task

BATCH_BALD = "batch_bald"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Points of a pool, the most informative first.

    Args:
        indices: [k].
        scores: [k] by which they were chosen.
    """

    indices: list[int]
    scores: list[float]


def strategies_of(task: Task) -> tuple[str, ...]:
    """Names of the strategies that a task has."""
    joint_too = () if task is Task.MULTILABEL else (BATCH_BALD,)
    return (*acquisition.strategies_of(task), *joint_too)


def check_strategy(strategy: str, task: Task) -> None:
    """Refuse a strategy that there is not, or not for this task.

    Raises:
        InvalidInput: naming those that there are.
    """
    known = strategies_of(task)
    if strategy not in known:
        raise InvalidInput(
            f"`strategy` is {strategy!r}; of a {task.value} model it is one of {', '.join(known)}",
            field="strategy",
            expected=list(known),
            received=strategy,
        )


def check_left(k: int, rows: int, exclude: Collection[int]) -> None:
    """Refuse to choose more points than are left.

    Args:
        k: points wanted.
        rows: of the pool.
        exclude: those that are not to be chosen, each once.

    Raises:
        InvalidInput: `exclude` names a row that there is not, or `k` are not left.
    """
    if exclude and max(exclude) >= rows:
        raise InvalidInput(
            f"`exclude` names row {max(exclude)}; the pool has {rows}, 0 to {rows - 1}",
            field="exclude",
            expected=f"0 to {rows - 1}",
            received=max(exclude),
        )
    left = rows - len(exclude)
    if k > left:
        raise InvalidInput(
            f"`k` is {k}, and {left} rows are left to choose from",
            field="k",
            expected=f"1 to {left}",
            received=k,
        )


def needs(strategy: str) -> tuple[str, ...]:
    """Fields of a prediction that a strategy reads."""
    if strategy == BATCH_BALD:
        return ("samples", "aleatoric_std")
    return acquisition.NEEDS[strategy]


def plan_of(strategy: str, plan: SamplePlan) -> SamplePlan:
    """The plan by which a strategy chooses: what points tell together is told by passes that are
    the same network for all of them."""
    if strategy == BATCH_BALD:
        return dataclasses.replace(plan, masks=Masks.SHARED)
    return plan


def select(
    fields: Fields,
    task: Task,
    strategy: str,
    k: int,
    seed: int,
    exclude: Collection[int] = (),
    wanted: Callable[[], bool] = joint.always,
) -> Chosen:
    """The k best points of one answer that holds the fields that the strategy needs.

    Args:
        fields: of all points.
        task: of the model.
        strategy: that the task has.
        k: points wanted; fewer come where fewer are left.
        seed: of what is drawn.
        exclude: indices that are not to be chosen.
        wanted: see `joint.batch_bald`.
    """
    if strategy == BATCH_BALD:
        return together(fields, task, k, seed, exclude, wanted)
    scores_B = acquisition.SCORES[strategy](fields, task)
    best = Best(k)
    best.add(with_noise(scores_B, strategy, seed, 0), 0, exclude)
    return best.chosen(scores_B if strategy not in acquisition.DRAWS else None)


class Best:
    """The k highest scores seen so far; of equal ones the first.

    Args:
        k: how many are kept.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._indices: NDArray[np.int64] = np.empty(0, np.int64)
        self._scores: Scores = np.empty(0)

    def add(self, scores_B: Scores, first: int, exclude: Collection[int]) -> None:
        """Look at the points from number `first` on."""
        indices_B = np.arange(first, first + len(scores_B))
        allowed_B = ~np.isin(indices_B, list(exclude)) if exclude else np.ones(len(indices_B), bool)
        self.merge(indices_B[allowed_B], scores_B[allowed_B])

    def merge(self, indices_B: NDArray[np.int64], scores_B: Scores) -> None:
        """Look at these points, as the best of a part that was looked at elsewhere."""
        indices = np.concatenate([self._indices, indices_B])
        scores = np.concatenate([self._scores, scores_B])
        order = np.lexsort((indices, -scores))[: self._k]
        self._indices, self._scores = indices[order], scores[order]

    def chosen(self, scores_B: Scores | None = None) -> Chosen:
        """Those that are kept, with these scores instead of the ones that they were kept by."""
        scores = self._scores if scores_B is None else scores_B[self._indices]
        return Chosen(self._indices.tolist(), scores.tolist())


def with_noise(scores_B: Scores, strategy: str, seed: int, first: int) -> Scores:
    """What points are kept by: their scores, and noise where the strategy draws. → [B]."""
    if strategy not in acquisition.DRAWS:
        return scores_B
    return scores_B + acquisition.noise(seed, first, len(scores_B))


def together(
    fields: Fields,
    task: Task,
    k: int,
    seed: int,
    exclude: Collection[int],
    wanted: Callable[[], bool] = joint.always,
) -> Chosen:
    """Points chosen as one batch, from `samples` with shared masks."""
    samples = fields["samples"]
    assert samples is not None
    samples_TNC = torch.from_numpy(samples.reshape(*samples.shape[:2], -1))
    if task.is_regression:
        noise = fields.get("aleatoric_std")
        noise_NC = None
        if noise is not None:
            noise_NC = torch.from_numpy(noise.reshape(len(noise), -1)).double().square()
        found = joint.log_determinant(
            samples_TNC, k, noise_variance_NC=noise_NC, exclude=exclude, wanted=wanted
        )
    else:
        if task is Task.BINARY:
            samples_TNC = torch.cat([1 - samples_TNC, samples_TNC], dim=-1)
        generator = torch.Generator().manual_seed(seed % 2**63)
        found = joint.batch_bald(
            samples_TNC.float(), k, generator=generator, exclude=exclude, wanted=wanted
        )
    return Chosen(found.indices, found.gains)
