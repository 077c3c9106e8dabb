"""What waits of one model: a line for each priority, and what of it was begun and put aside."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from service.scheduling.pace import Pace
from service.scheduling.work import Need, Step, Work
from service.types import Priority

BEHIND_S = {Priority.HIGH: 0.0, Priority.NORMAL: 1.0, Priority.LOW: 10.0}
"""A work goes as if it had come so much later: it is overtaken by those of a higher priority that
come within the difference, and by none after that, so that nothing waits for ever."""

_ALL = tuple(Priority)

_LOOKED_BACK = 64
"""Works that came last, by which the next ones are judged before anything is known of them."""

MOST_PUT_ASIDE = 4
"""Steps of one model that are begun and not done, each of which holds memory."""


@dataclass(slots=True)
class PutAside:
    """A step that was begun and is not done.

    Args:
        step: it.
        had_s: seconds of the engine that it had.
    """

    step: Step
    had_s: float


@dataclass(slots=True)
class Total:
    """Of some works: how many, their rows × passes, and their inputs' bytes."""

    works: int = 0
    cost: int = 0
    size_bytes: int = 0

    def add(self, work: Work, sign: int = 1) -> None:
        """Count a work in, or with −1 out."""
        self.works += sign
        self.cost += sign * work.cost
        self.size_bytes += sign * work.size_bytes


_LEARNT = 0.1
"""Share that the last work has in the mean of what works have waited."""


class Lines:
    """What waits of one model, and what is known of it.

    `served_s` are the engine's seconds that the model had; or, where it had fewer while nothing of
    it waited, those of the model that had the turn when it came back.
    """

    def __init__(self) -> None:
        self.served_s = 0.0
        self.batches = Pace()
        self.alone = Pace()
        self.total = Total()
        self.put_aside: deque[PutAside] = deque()
        self.continued_last = False
        self.tried_s = -math.inf
        """When a step of it was begun or ended last."""
        self.doubted: int | None = None
        """Number of a work that was let in although its estimate was against it."""
        self._asked: deque[Work] = deque(maxlen=_LOOKED_BACK)
        self._least: Need | None = None
        self._lines: dict[Priority, OrderedDict[int, Work]] = {p: OrderedDict() for p in Priority}
        self.waited_s = 0.0
        """Seconds that works have waited, on average, when they come."""
        self._together = {p: Total() for p in Priority}
        self._single = {p: Total() for p in Priority}

    def note(self, work: Work) -> None:
        """Note what is asked of the model, be it let in or not."""
        self._asked.append(work)
        self.waited_s += _LEARNT * (work.waited_s - self.waited_s)
        self._least = None

    def least(self) -> Need | None:
        """Of the works that came lately, what the one needed that needed least."""
        # Asked for at the door far more often than anything comes in.
        if self._least is None and self._asked:
            self._least = min(work.need for work in self._asked)
        return self._least

    def add(self, work: Work) -> None:
        """Put a work at the end of its line."""
        self._lines[work.priority][work.number] = work
        self._count(work, 1)

    def remove(self, work: Work) -> None:
        """Take a work out of its line."""
        del self._lines[work.priority][work.number]
        self._count(work, -1)

    def _count(self, work: Work, sign: int) -> None:
        self.total.add(work, sign)
        kind = self._single if work.batch_key is None else self._together
        kind[work.priority].add(work, sign)

    @property
    def waits(self) -> bool:
        """Whether anything could go next."""
        return self.total.works > 0 or bool(self.put_aside)

    @property
    def together_cost(self) -> int:
        """Rows × passes of what waits and may run together."""
        return sum(total.cost for total in self._together.values())

    def in_order(self) -> Iterator[Work]:
        """As they go; do not change the lines meanwhile."""
        used = [line.values() for line in self._lines.values() if line]
        return iter(used[0]) if len(used) == 1 else heapq.merge(*used, key=_place)

    def first(self) -> Work | None:
        """The one that goes first."""
        return next(self.in_order(), None)

    def youngest(self, priority: Priority) -> Iterator[Work]:
        """Of one line, the last that came first."""
        return reversed(self._lines[priority].values())

    def learn(self, step: Step, seconds: float) -> None:
        """Note how long a step took; what was doubted before, and rightly, is forgotten."""
        alone = step.works[0].batch_key is None
        if any(work.number == self.doubted for work in step.works):
            if alone:
                self.alone = Pace()
            else:
                self.batches = Pace()
        (self.alone if alone else self.batches).learn(step.cost, seconds)

    def seconds_of(self, step: Step) -> float:
        """Estimate of a step."""
        pace = self.alone if step.works[0].batch_key is None else self.batches
        return pace.seconds(step.cost)

    def step_s(self, room: float) -> float:
        """Estimate of the next step of works that run together, filled as far as they go."""
        return self.batches.seconds(min(room, self.together_cost))

    def waiting_s(
        self, room: float, up_to: Priority = Priority.LOW, more: Need | None = None
    ) -> float:
        """Estimate of the engine's seconds for what waits of some priorities, and one more work.

        Args:
            room: rows × passes of a step.
            up_to: only this priority and higher ones.
            more: counts as well.
        """
        cost = single = 0.0
        works = 0
        for priority in _ALL[: up_to + 1]:
            cost += self._together[priority].cost
            works += self._single[priority].works
            single += self._single[priority].cost
        if more is not None and more.alone:
            works, single = works + 1, single + more.cost
        elif more is not None:
            cost += more.cost
        seconds = self.alone.seconds(single, works) if works else 0.0
        return seconds + (self.batches.seconds(cost, max(1.0, cost / room)) if cost else 0.0)

    def put_aside_s(self) -> float:
        """Estimate of what the steps that were begun still need."""
        return sum(max(0.0, self.seconds_of(a.step) - a.had_s) for a in self.put_aside)


def _place(work: Work) -> float:
    return work.queued_s + BEHIND_S[work.priority]
