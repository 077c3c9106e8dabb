"""From answered requests to the store: by the rule, behind a queue, never in anybody's way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.store.contract import NewSample
from service.store.keeping import Keeper, Rules
from service.store.samples import Limits, SampleStore
from service.store.tables import SCORES
from service.store.writer import SampleWriter

TIDY_EVERY = 1000
"""Samples of a model that are written before what is too old or too much leaves."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of samples; each gets the model's name and a number of samples.

    Args:
        kept: that are on the disk now and were not before.
        dropped: that found the queue full; of whatever model.
    """

    kept: Callable[[str, int], None]
    dropped: Callable[[int], None]


class Collector:
    """Keeps what a rule chooses of every answer.

    Args:
        store: where.
        rules: of which models what.
        score: that rows are chosen and ordered by, one of `SCORES`.
        quantile: above which a row is uncertain where no threshold was calibrated.
        most_bytes: of inputs that may wait.
        limits: of each model.
        told: who hears of it.
    """

    def __init__(
        self,
        store: SampleStore,
        rules: Rules,
        score: str,
        quantile: float,
        most_bytes: int,
        limits: Limits,
        told: Told,
    ) -> None:
        self._store = store
        self._rules = rules
        self._score = score
        self._quantile = quantile
        self._limits = limits
        self._told = told
        self._keepers: dict[str, Keeper] = {}
        self._since_tidied: dict[str, int] = {}
        self._writer = SampleWriter(store, most_bytes, self._written, told.dropped)

    def consider(
        self,
        model: str,
        version: int,
        inputs: NDArray[Any],
        fields: Mapping[str, NDArray[Any] | None],
        threshold: float | None,
        request_id: str,
    ) -> None:
        """Keep the rows of an answer that the rule chooses. Returns at once.

        Args:
            model: that answered.
            version: of it.
            inputs: [B, D...].
            fields: of the answer, `SCORES` among them where the task has them.
            threshold: of the score, where one was calibrated.
            request_id: of the request.
        """
        scores = {
            name: array.reshape(len(array), -1).mean(axis=1)
            for name in SCORES
            if (array := fields.get(name)) is not None
        }
        if self._score not in scores:
            return
        keeper = self._keepers.get(model)
        if keeper is None:
            keeper = self._keepers[model] = Keeper(self._rules.of(model), self._quantile)
        now = time.time()
        self._writer.offer(
            [
                NewSample(
                    model=model,
                    version=version,
                    time=now,
                    request_id=request_id,
                    row=row,
                    input=np.array(inputs[row]),
                    scores={name: float(values[row]) for name, values in scores.items()},
                )
                for row in keeper.choose(scores[self._score], threshold)
            ]
        )

    def close(self, timeout_s: float) -> bool:
        """Write what waits; whether all of it was written in time."""
        return self._writer.close(timeout_s)

    def _written(self, batch: Sequence[NewSample], new: int) -> None:
        """On the writer's thread."""
        models = {sample.model for sample in batch}
        for model in models:
            count = sum(sample.model == model for sample in batch)
            self._told.kept(model, count if len(models) > 1 else new)
            self._since_tidied[model] = self._since_tidied.get(model, 0) + count
            if self._since_tidied[model] >= TIDY_EVERY:
                self._since_tidied[model] = 0
                self._store.tidy(model, self._limits, self._score)
