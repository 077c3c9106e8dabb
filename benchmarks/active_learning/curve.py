"""One learning curve: train, test, choose, ask, and again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.active_learning.measures import labels_needed
from benchmarks.active_learning.network import STEPS, scaled, train
from benchmarks.active_learning.pools import Pool
from benchmarks.evaluation.data import Array
from benchmarks.evaluation.engine import Engine
from benchmarks.evaluation.seeds import seed_of
from benchmarks.evaluation.workers import Advance
from service.inference import acquisition
from service.inference.choosing import needs, select
from service.inference.fields import Fields
from service.types import Task

BATCH = 10
PASSES = 50
TEST_PASSES = 20
PRECISION = "bfloat16"
"""As `CANDOR_PRECISION` may say: a third of float32's time for this network, where a processor has
units for it."""

_LEARNING = "active learning"
_TASK = Task.CLASSIFICATION


@dataclass(frozen=True, slots=True)
class Course:
    """How far a curve goes, and with how much effort.

    Args:
        least: labels that every curve has at its end.
        most: labels at which it ends even where it has not reached what is wanted.
        steps: of each training.
        passes: T by which labels are chosen.
        test_passes: T of the test.
    """

    least: int
    most: int
    steps: int = STEPS
    passes: int = PASSES
    test_passes: int = TEST_PASSES


def curve(
    pool: Pool,
    test: tuple[Array, Array],
    strategy: str,
    seed: int,
    course: Course,
    advance: Advance,
) -> dict[str, Any]:
    """Test accuracy after every batch of labels that a strategy asked for.

    What is drawn (first weights, masks, labels of a batch) depends on the seed and the number of
    labels, not on the strategy.

    Args:
        pool: whose labels are known from the start in part, and told when asked for.
        test: pictures and labels, of the accuracy alone.
        strategy: of `service.inference.choosing`.
        seed: of all that is drawn.
        course: to its end.
        advance: progress.
    """
    started = time.perf_counter()
    x, test_x = (scaled(torch.from_numpy(array)) for array in (pool.x, test[0]))
    y = torch.from_numpy(pool.y)
    points = [*pool.start]
    labels: list[int] = []
    accuracies: list[float] = []
    engine: Engine | None = None
    while True:
        rows = torch.from_numpy(pool.pictures(points))
        drawn = seed_of(_LEARNING, "training", seed, len(points))
        fitted = train(x[rows], y[rows], drawn, course.steps)
        engine = Engine(fitted, _TASK, x, course.passes, PRECISION, like=engine)
        labels.append(len(points))
        accuracies.append(_accuracy(engine, test_x, test[1], seed, course.test_passes))
        advance(BATCH / (course.most - len(pool.start) + BATCH))
        if ended(labels, accuracies, course):
            break
        drawn = seed_of(_LEARNING, "choice", seed, len(points))
        fields = pool.of_points(_fields(engine, x, strategy, drawn))
        points += select(fields, _TASK, strategy, BATCH, drawn, exclude=points).indices
    return {
        "strategy": strategy,
        "seed": seed,
        "labels": labels,
        "accuracies": accuracies,
        "different_pictures": len(np.unique(pool.pictures(points))),
        "seconds": round(time.perf_counter() - started, 1),
    }


def ended(labels: list[int], accuracies: list[float], course: Course) -> bool:
    """Whether a curve needs no further point."""
    if labels[-1] >= course.most:
        return True
    return labels[-1] >= course.least and labels_needed(labels, accuracies) is not None


def _accuracy(engine: Engine, x: Tensor, y: Array, seed: int, passes: int) -> float:
    """Of the label of the mean over passes."""
    drawn = seed_of(_LEARNING, "test", seed)
    return float(np.mean(engine.sample(x, ["label"], drawn, passes)["label"] == y))


def _fields(engine: Engine, x: Tensor, strategy: str, seed: int) -> Fields:
    if strategy == "random":
        # Chance looks at nothing but how many there are.
        return dict.fromkeys(acquisition.NEEDS[strategy], np.zeros((len(x), 1)))
    return {**engine.sample(x, needs(strategy), seed)}
