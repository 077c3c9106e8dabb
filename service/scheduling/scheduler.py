"""The policy of what runs next. Pure: no tensors, no awaits, no clock, no thread."""

from __future__ import annotations

from collections import OrderedDict

from service.errors import QueueFull
from service.scheduling.work import Step, Work

_RETRY_AFTER_S = 1.0


class Scheduler:
    """Takes models in turn; of a model, the oldest work and all that may run with it.

    Args:
        batch_cost: rows × passes of a step; a single work above it gets a step of its own.
        max_works: that may wait; one more is refused.
        max_bytes: of inputs that may wait; but a work always fits an empty queue.
    """

    def __init__(self, batch_cost: int, max_works: int, max_bytes: int) -> None:
        self._batch_cost = batch_cost
        self._max_works = max_works
        self._max_bytes = max_bytes
        self._queues: OrderedDict[str, OrderedDict[int, Work]] = OrderedDict()
        self._models: dict[int, str] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._models)

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
        self._queues.setdefault(work.model, OrderedDict())[work.number] = work
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
        if not self._queues:
            return None
        model, queue = next(iter(self._queues.items()))
        first, *others = queue.values()
        chosen, cost = [first], first.cost
        for work in others:
            if work.batch_key == first.batch_key and cost + work.cost <= self._batch_cost:
                chosen.append(work)
                cost += work.cost
        for work in chosen:
            self._take(work)
        if model in self._queues:
            self._queues.move_to_end(model)
        return Step(tuple(chosen))

    def _take(self, work: Work) -> None:
        queue = self._queues[work.model]
        del queue[work.number]
        if not queue:
            del self._queues[work.model]
        del self._models[work.number]
        self._bytes -= work.size_bytes
