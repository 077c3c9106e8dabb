"""From answered requests to the store: by the rule, behind a queue, never in anybody's way."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.store.contract import NewRows, NewSample, Status
from service.store.keeping import Keeper, Kind, Rules
from service.store.samples import BY_TIME, Limits, SampleStore
from service.store.tables import SCORES
from service.store.writer import TEND_EVERY_S, SampleWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of samples. Both are called from other threads.

    Args:
        kept: a model's name, and how many samples of it are on the disk now that were not before.
        dropped: how many, of whatever model, will not be kept.
    """

    kept: Callable[[str, int], None]
    dropped: Callable[[int], None]


class Collector:
    """Keeps what a rule chooses of every answer.

    Args:
        store: where.
        rules: of which models what.
        score: one of `SCORES`, by which a row is uncertain where no threshold was calibrated, and
            by which the least uncertain leave.
        quantile: of the last rows' scores, above which a row is uncertain.
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
        self._counts: Counter[str] | None = None
        self._tidied_s = 0.0
        self._writer = SampleWriter(store, most_bytes, self._written, told.dropped, self._tend)

    @property
    def troubled(self) -> bool:
        """Whether the store could not be used at the last attempt."""
        return self._writer.troubled

    def keeps(self, model: str) -> bool:
        """Whether anything of this model may be kept."""
        return self._rules.of(model).kind is not Kind.OFF

    def consider(
        self,
        model: str,
        version: int,
        inputs: NDArray[Any],
        fields: Mapping[str, NDArray[Any] | None],
        flagged_B: NDArray[np.bool_] | None,
        request_id: str,
    ) -> None:
        """Keep the rows of an answer that the rule chooses. Returns soon, and raises nothing.

        Args:
            model: that answered.
            version: of it.
            inputs: [B, D...].
            fields: of the answer, `SCORES` among them where the task has them. Of a dense output
                the mean of a row's places counts.
            flagged_B: rows above a calibrated threshold; None where none was calibrated.
            request_id: of the request.
        """
        try:
            rows = self._chosen(model, version, inputs, fields, flagged_B, request_id)
        except Exception:
            # The answer is there, and nobody who asked for it wants to hear of this.
            log.exception("rows of request %s are not kept", request_id)
            self._told.dropped(len(inputs))
            return
        if rows is not None:
            self._writer.offer(rows)

    def _chosen(
        self,
        model: str,
        version: int,
        inputs: NDArray[Any],
        fields: Mapping[str, NDArray[Any] | None],
        flagged_B: NDArray[np.bool_] | None,
        request_id: str,
    ) -> NewRows | None:
        rule = self._rules.of(model)
        if rule.kind is Kind.OFF:
            return None
        scores = {
            name: array.reshape(len(array), -1).mean(axis=1)
            for name in SCORES
            if (array := fields.get(name)) is not None
        }
        keeper = self._keepers.get(model)
        if keeper is None:
            keeper = self._keepers[model] = Keeper(rule, self._quantile)
        by = scores[self._score if self._score in scores else "variance"]
        rows = keeper.choose(by, flagged_B)
        # What will not fit need not be copied.
        room = self._writer.room(inputs[:1].nbytes)
        if len(rows) > room:
            self._told.dropped(len(rows) - room)
            rows = rows[:room]
        if not len(rows):
            return None
        picked = {name: values[rows] for name, values in scores.items()}
        return NewRows(model, version, time.time(), request_id, rows, inputs[rows], picked)

    def discard(self, model: str | None, request_id: str | None, timeout_s: float) -> int:
        """Forget what waits of a model, a request, or a model's request; see `SampleWriter`."""

        def unwanted(rows: NewRows) -> bool:
            return model in (None, rows.model) and request_id in (None, rows.request_id)

        return self._writer.discard(unwanted, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was chosen before is written; whether it was in time."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits; whether all of it was written in time."""
        return self._writer.close(timeout_s)

    def _written(self, _batch: Sequence[NewSample], new: Counter[str]) -> None:
        for model, count in new.items():
            self._told.kept(model, count)
        if self._counts is not None:
            self._counts.update(new)

    def _tend(self) -> None:
        """Let leave what is too much or too old.

        Counting is dear, so that between two full looks only what was written here is added up.
        """
        if not self._store.is_there:
            return
        now = time.monotonic()
        if self._counts is None or now > self._tidied_s + TEND_EVERY_S:
            self._counts = Counter()
            for (model, status), count in self._store.counts().items():
                self._counts[model] += count if status == Status.UNLABELLED else 0
            models = list(self._counts)
            self._tidied_s = now
        else:
            models = [m for m, count in self._counts.items() if count > self._limits.samples]
        for model in models:
            self._counts[model] -= self._store.tidy(model, self._limits, self._order_of(model))

    def _order_of(self, model: str) -> str:
        """What is kept to be like all requests must not lose the surest of them."""
        kind = self._rules.of(model).kind
        return self._score if kind in (Kind.UNCERTAIN, Kind.OFF) else BY_TIME
