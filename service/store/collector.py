"""From answered requests to the store: by the rule, behind a queue, never in anybody's way."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import StoreError
from service.store.contract import NewRows, NewSample, Status
from service.store.keeping import Keeper, Kind, Rules
from service.store.samples import BY_TIME, Limits, SampleStore
from service.store.tables import SCORES
from service.store.writer import ROW_BYTES, TEND_EVERY_S, SampleWriter

log = logging.getLogger(__name__)

_GATHER_S = 0.1
"""How long the first of several answers waits for others to be looked at together."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of samples. Both are called from other threads.

    Args:
        kept: a model's name, and how many samples of it are on the disk now that were not before.
        dropped: how many, of whatever model, will not be kept.
    """

    kept: Callable[[str, int], None]
    dropped: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Answer:
    """As `Collector.consider` gets it."""

    model: str
    version: int
    time: float
    request_id: str
    inputs: NDArray[Any]
    fields: Mapping[str, NDArray[Any] | None]
    flagged_B: NDArray[np.bool_] | None

    @property
    def size_bytes(self) -> int:
        return self.inputs.nbytes + ROW_BYTES * len(self.inputs)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Alike in answers that can be put together."""
        held = tuple(self.fields.get(name) is not None for name in SCORES)
        row = self.inputs.shape[1:], self.inputs.dtype.str
        return self.model, self.version, row, held, self.flagged_B is None


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
        self._most_bytes = most_bytes
        self._inbox: list[_Answer] = []
        self._inbox_bytes = 0
        self._changed = threading.Condition()
        self._arrived = self._looked_at = 0
        self._closing = False
        self._writer = SampleWriter(store, most_bytes, self._written, told.dropped, self._tend)
        self._thread = threading.Thread(target=self._choose, name="choosing", daemon=True)
        self._thread.start()

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
        """Keep the rows of an answer that the rule chooses. Returns at once.

        Whoever answers requests has better things to do: what is chosen is chosen elsewhere, of
        many answers at a time.

        Args:
            model: that answered.
            version: of it.
            inputs: [B, D...], which nobody changes any more.
            fields: of the answer, `SCORES` among them where the task has them. Of a dense output
                the mean of a row's places counts.
            flagged_B: rows above a calibrated threshold; None where none was calibrated.
            request_id: of the request.
        """
        if not self.keeps(model):
            return
        answer = _Answer(model, version, time.time(), request_id, inputs, fields, flagged_B)
        with self._changed:
            fits = self._inbox_bytes + answer.size_bytes <= self._most_bytes
            if fits and not self._closing:
                self._inbox.append(answer)
                self._inbox_bytes += answer.size_bytes
                self._arrived += 1
                if len(self._inbox) == 1:
                    self._changed.notify_all()
                return
        self._told.dropped(len(inputs))

    def discard(self, model: str | None, request_id: str | None, timeout_s: float) -> int:
        """Forget what waits of a model, a request, or a model's request; see `SampleWriter`.

        What was not looked at yet is looked at first: a row that no rule chooses is nobody's.
        """
        if not self._look_at_all(timeout_s):
            raise StoreError("rows are still being chosen from what was answered before")

        def unwanted(rows: NewRows) -> NDArray[np.bool_]:
            of_model = model in (None, rows.model)
            of_request = request_id is None or rows.request_ids == request_id
            return np.full(len(rows), of_model) & of_request

        return self._writer.discard(unwanted, timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was chosen before is written; whether it was in time."""
        return self._look_at_all(timeout_s) and self._writer.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits; whether all of it was written in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return self._writer.close(timeout_s)

    def _look_at_all(self, timeout_s: float) -> bool:
        with self._changed:
            goal = self._arrived
            return self._changed.wait_for(lambda: self._looked_at >= goal, timeout_s)

    def _choose(self) -> None:
        """On a thread of its own: the writer's may wait for its database."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._inbox or self._closing)
                if not self._inbox:
                    return
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, _GATHER_S)
                answers, self._inbox, self._inbox_bytes = self._inbox, [], 0
            for alike in _alike(answers):
                try:
                    self._offer(alike)
                except Exception:
                    log.exception("rows of %s are not kept", alike[0].model)
                    self._told.dropped(sum(len(answer.inputs) for answer in alike))
            with self._changed:
                self._looked_at += len(answers)
                self._changed.notify_all()

    def _offer(self, answers: Sequence[_Answer]) -> None:
        """Rows of answers that can be put together."""
        first = answers[0]
        keeper = self._keepers.get(first.model)
        if keeper is None:
            rule = self._rules.of(first.model)
            keeper = self._keepers[first.model] = Keeper(rule, self._quantile)
        scores = {
            name: _one_a_row([answer.fields[name] for answer in answers])
            for name in SCORES
            if first.fields.get(name) is not None
        }
        flagged = None
        if first.flagged_B is not None:
            flagged = _one_a_row([answer.flagged_B for answer in answers]) > 0
        by = scores[self._score if self._score in scores else "variance"]
        chosen = keeper.choose(by, flagged)
        room = self._writer.room(first.inputs[:1].nbytes)
        if len(chosen) > room:
            # What will not fit need not be copied.
            self._told.dropped(len(chosen) - room)
            chosen = chosen[:room]
        if not len(chosen):
            return
        lengths = [len(answer.inputs) for answer in answers]
        starts = np.cumsum([0, *lengths[:-1]])
        place = np.searchsorted(starts, chosen, side="right") - 1
        within = chosen - starts[place]
        inputs = np.stack([answers[p].inputs[row] for p, row in zip(place, within, strict=True)])
        ids = np.empty(len(chosen), dtype=np.object_)
        ids[:] = [answers[p].request_id for p in place]
        self._writer.offer(
            NewRows(
                first.model,
                first.version,
                np.array([answers[p].time for p in place]),
                ids,
                within,
                inputs,
                {name: values[chosen] for name, values in scores.items()},
            )
        )

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


def _alike(answers: Sequence[_Answer]) -> Iterable[Sequence[_Answer]]:
    groups: dict[tuple[Any, ...], list[_Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.kind, []).append(answer)
    return groups.values()


def _one_a_row(arrays: Sequence[NDArray[Any] | None]) -> NDArray[np.float64]:
    """Of all answers one number a row, [B] together."""
    parts = [array for array in arrays if array is not None]
    if parts[0].ndim > 1:
        parts = [part.reshape(len(part), -1).mean(axis=1) for part in parts]
    return np.concatenate(parts).astype(np.float64, copy=False)
