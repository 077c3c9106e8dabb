"""The policy of what runs next. Pure: no tensors, no awaits, no clock, no thread."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from service.errors import QueueFull
from service.scheduling.pace import Pace
from service.scheduling.work import Step, Work

_RETRY_AFTER_S = 1.0

_FULL = 0.5
"""Share of what a step may hold from which on it need not wait for more."""


@dataclass(slots=True)
class _Account:
    """What is known of a model.

    Args:
        served_s: engine seconds it had; or, where it had fewer while nothing of it waited, those
            of the model that had the turn when it came back.
        pace: of its steps.
    """

    served_s: float = 0.0
    pace: Pace = field(default_factory=Pace)


class Scheduler:
    """Takes the model that had the least of the engine; of it, the oldest work and what fits.

    The engine's time is shared, not its turns: of two models that always wait, one is never ahead
    of the other by more than one step, whatever their requests cost. A model of which nothing
    waited saves nothing up meanwhile.

    Works of one batch key keep their order: a step ends before the first that does not fit.

    Args:
        batch_cost: rows × passes of a step at most.
        batch_s: seconds that a step should take at most, by what the model's steps took before
            (see `Pace`). A single work above either gets a step of its own.
        max_works: that may wait; one more is refused.
        max_bytes: of inputs that may wait; but a work always fits an empty queue.
    """

    def __init__(self, batch_cost: int, batch_s: float, max_works: int, max_bytes: int) -> None:
        self._batch_cost = batch_cost
        self._batch_s = batch_s
        self._max_works = max_works
        self._max_bytes = max_bytes
        self._queues: OrderedDict[str, OrderedDict[int, Work]] = OrderedDict()
        self._models: dict[int, str] = {}
        self._bytes = 0
        self._accounts: dict[str, _Account] = {}
        self._turn_s = 0.0

    def __len__(self) -> int:
        return len(self._models)

    @property
    def size_bytes(self) -> int:
        """Of the inputs that wait."""
        return self._bytes

    def depth(self, model: str) -> int:
        """How many works of a model wait."""
        return len(self._queues.get(model, ()))

    def add(self, work: Work) -> None:
        """Queue a work.

        Raises:
            QueueFull: too many works, or too many bytes, wait already.
        """
        if len(self) >= self._max_works:
            raise QueueFull(
                f"{len(self)} requests are waiting, the limit (CANDOR_QUEUE_REQUESTS)",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._models and self._bytes + work.size_bytes > self._max_bytes:
            raise QueueFull(
                f"{self._bytes} bytes of inputs are waiting, and {work.size_bytes} more are over "
                f"the limit of {self._max_bytes} (CANDOR_QUEUE_BYTES)",
                retry_after_s=_RETRY_AFTER_S,
            )
        queue = self._queues.get(work.model)
        if queue is None:
            queue = self._queues[work.model] = OrderedDict()
            account = self._accounts.setdefault(work.model, _Account())
            account.served_s = max(account.served_s, self._turn_s)
        queue[work.number] = work
        self._models[work.number] = work.model
        self._bytes += work.size_bytes

    def cancel(self, number: int) -> bool:
        """Forget a work that waits; whether it did."""
        model = self._models.get(number)
        if model is None:
            return False
        self._take(self._queues[model][number])
        return True

    def schedule(self) -> Step | None:
        """The next step, taken off the queue; None where nothing waits."""
        return self._next(full=False)

    def schedule_ahead(self) -> Step | None:
        """A step to follow the one that runs, where waiting for that one's end would not change it.

        It has to be as good as full, and no other model may wait whose turn it could become.
        """
        return self._next(full=True) if len(self._queues) == 1 else None

    def _next(self, *, full: bool) -> Step | None:
        if not self._queues:
            return None
        model = min(self._queues, key=lambda name: self._accounts[name].served_s)
        account = self._accounts[model]
        self._turn_s = account.served_s
        room = min(self._batch_cost, account.pace.cost_within(self._batch_s))
        chosen = self._fill(list(self._queues[model].values()), room)
        if full and sum(work.cost for work in chosen) < _FULL * room:
            return None
        for work in chosen:
            self._take(work)
        if model in self._queues:
            # Models that had equally much, as at the start, take turns.
            self._queues.move_to_end(model)
        return Step(tuple(chosen))

    def finish(self, step: Step, seconds: float) -> None:
        """Note how long the engine took for a step."""
        first = step.works[0]
        account = self._accounts[first.model]
        account.served_s += seconds
        if first.batch_key is not None:
            account.pace.learn(step.cost, seconds)

    @staticmethod
    def _fill(waiting: list[Work], room: float) -> list[Work]:
        first = waiting[0]
        chosen, cost = [first], first.cost
        if first.batch_key is None:
            return chosen
        for work in waiting[1:]:
            if work.batch_key == first.batch_key:
                cost += work.cost
                if cost > room:
                    break
                chosen.append(work)
        return chosen

    def _take(self, work: Work) -> None:
        queue = self._queues[work.model]
        del queue[work.number]
        if not queue:
            del self._queues[work.model]
        del self._models[work.number]
        self._bytes -= work.size_bytes
