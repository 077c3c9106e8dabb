"""A replica as two threads and two queues: how long requests take at a given load.

The event loop reads a request, the engine takes all that wait, as far as a batch may take, and the
event loop writes each answer. Where there is one processor for both threads, each gets half of it
while both have something to do. What takes how long is `model.Cost`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from benchmarks.overload import arrivals
from benchmarks.scaling.model import Cost, capacity

_READING = 0.5
"""Share of a request's time in the event loop before the engine; the rest is its answer's."""
LOADS = tuple(round(0.95 - 0.05 * step, 2) for step in range(19))
_REQUESTS = 10_000
_NOTHING_S = 1e-12


class _Replica:
    """The state at a time; `latencies_s` holds those of what was answered by then."""

    def __init__(self, cost: Cost, processors: float, batch_s: float, most: int) -> None:
        self._cost = cost
        self._processors = processors
        self._batch_s = batch_s
        self._most = most
        self._now_s = 0.0
        self._loop: deque[tuple[float, float, bool]] = deque()
        """(seconds of work left, when the request came, whether it is the answer)."""
        self._waiting: deque[float] = deque()
        self._computed: list[float] = []
        self._engine_left_s = 0.0
        self.latencies_s: list[float] = []

    def run_until(self, then_s: float) -> None:
        """Let the threads work until a time; infinite: until nothing is left to do."""
        while self._loop or self._computed:
            step_s = self._left_s() / self._speed()
            if step_s > then_s - self._now_s:
                break
            self._work(step_s)
        if then_s < math.inf:
            self._work(then_s - self._now_s)
            self._now_s = then_s

    def come(self) -> None:
        """A request comes now."""
        self._loop.append((_READING * self._cost.http_s, self._now_s, False))

    def _speed(self) -> float:
        """Of each thread that has something to do."""
        return min(1.0, self._processors / (bool(self._loop) + bool(self._computed) or 1))

    def _left_s(self) -> float:
        """Of the thread that is done first."""
        left_s = self._engine_left_s if self._computed else math.inf
        return min(left_s, self._loop[0][0]) if self._loop else left_s

    def _work(self, seconds: float) -> None:
        """At most until one of the threads is done."""
        work_s = seconds * self._speed()
        self._now_s += seconds
        loop_ends = engine_ends = False
        if self._loop:
            left_s, came_s, answer = self._loop[0]
            self._loop[0] = (left_s - work_s, came_s, answer)
            loop_ends = left_s - work_s <= _NOTHING_S
        if self._computed:
            self._engine_left_s -= work_s
            engine_ends = self._engine_left_s <= _NOTHING_S
        if loop_ends:
            self._end_of_loops_work()
        if engine_ends:
            self._end_of_a_batch()
        if not self._computed and self._waiting:
            self._begin_a_batch()

    def _end_of_loops_work(self) -> None:
        _, came_s, answer = self._loop.popleft()
        if answer:
            self.latencies_s.append(self._now_s - came_s)
        else:
            self._waiting.append(came_s)

    def _end_of_a_batch(self) -> None:
        writing_s = (1 - _READING) * self._cost.http_s
        for number, came_s in enumerate(self._computed):
            once_s = 0.0 if number else self._cost.http_batch_s
            self._loop.append((writing_s + once_s, came_s, True))
        self._computed = []

    def _begin_a_batch(self) -> None:
        fit = self._most
        if self._cost.engine_s > 0:
            room_s = self._batch_s - self._cost.engine_batch_s
            fit = min(fit, max(1, int(room_s / self._cost.engine_s)))
        taken = min(fit, len(self._waiting))
        self._computed = [self._waiting.popleft() for _ in range(taken)]
        self._engine_left_s = self._cost.engine_batch_s + taken * self._cost.engine_s


def latencies(
    come_s: Iterable[float], cost: Cost, *, processors: float, batch_s: float, most: int
) -> list[float]:
    """Seconds that each request takes, in the order of their answers.

    Args:
        come_s: when they come, rising.
        cost: of one.
        processors: for both threads.
        batch_s: that a batch should take at most, unless one request alone takes longer.
        most: requests of a batch.
    """
    replica = _Replica(cost, processors, batch_s, most)
    for each_s in come_s:
        replica.run_until(each_s)
        replica.come()
    replica.run_until(math.inf)
    return replica.latencies_s


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def at_load(
    load: float,
    cost: Cost,
    *,
    together: float,
    processors: float,
    batch_s: float,
    most: int,
    requests: int = _REQUESTS,
) -> list[float]:
    """Latencies in seconds of requests that come at random, at a share of what is full."""
    rate_per_s = load * capacity(cost, together, processors)
    come_s = arrivals(rate_per_s, requests / rate_per_s, seed=0)
    return latencies(come_s, cost, processors=processors, batch_s=batch_s, most=most)


def highest_load(
    objective_s: float,
    cost: Cost,
    *,
    together: float,
    processors: float,
    batch_s: float,
    most: int,
    requests: int = _REQUESTS,
) -> float | None:
    """The highest of `LOADS` at which 99 in 100 requests are answered in time; None where none."""
    for load in LOADS:
        found = at_load(
            load,
            cost,
            together=together,
            processors=processors,
            batch_s=batch_s,
            most=most,
            requests=requests,
        )
        if quantile(found, 0.99) <= objective_s:
            return load
    return None
