"""The policy of what runs next, and of what is let in. Pure: no tensors, no awaits, no clock.

Every time is one of the caller's clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from service.scheduling.admission import OF_DEADLINE, Admission, Outlook
from service.scheduling.lines import MOST_PUT_ASIDE, Lines, PutAside, Total
from service.scheduling.work import Need, Step, Work
from service.types import Priority

_LEARNT = 0.1
"""Share that the last step has in the mean time of a request."""

_OF_WAITING = 0.25
"""Share of what requests wait that a step may take, if it takes longer than steps should; and how
many times as long at most."""
_LONGEST = 4.0

_NO_GAP = 1.5
"""So many times as long as it should a step takes where the engine need not have the next one at
hand: what it waits for that is little beside it, and whoever may go first waits for one only."""

_FULL = 0.5
"""Share of what a step may hold from which on it need not wait for more."""

_DOUBTED_AFTER = 5.0
"""Times its estimate after which a model that is always refused for it gets another try. So a try
that was in vain costs a fifth of the engine at most."""

_HEAD_START_S = {Priority.HIGH: 1.0, Priority.NORMAL: 0.0, Priority.LOW: -1.0}
"""Seconds of the engine that a model may be ahead of the others and still go before them, by the
priority of what it would have run."""


_NONE = Lines()
"""Of a model that nothing was asked of yet."""

_NOTHING = Work(-1, "", None, rows=0, passes=0, size_bytes=0, queued_s=0.0)
"""Fits wherever anything does."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait; but a work always fits an empty queue.

    Args:
        works: at most.
        size_bytes: of inputs.
        cost: rows × passes.
    """

    works: int
    size_bytes: int
    cost: float = math.inf

    def exceeded(self, total: Total, work: Work) -> bool:
        """Whether a work more would be too much."""
        return (
            total.works + 1 > self.works
            or total.size_bytes + work.size_bytes > self.size_bytes
            or total.cost + work.cost > self.cost
        )

    def share(self, total: Total) -> float:
        """Of the limit that it comes closest to."""
        return max(
            total.works / self.works, total.size_bytes / self.size_bytes, total.cost / self.cost
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """A step that the engine has.

    Args:
        expected_s: seconds that it is expected to take.
        whole: it is not put aside.
        longer: see `Step`.
        had_s: seconds that it had before it was put aside.
    """

    expected_s: float
    whole: bool
    longer: float
    had_s: float = 0.0


class Scheduler:
    """Takes the model that had the least of the engine; of it, the work that goes first and what
    fits beside it.

    The engine's time is shared, not its turns: of two models that always wait, one is never ahead
    of the other by more than one step, whatever their requests cost, and one with requests of high
    priority by a second more (`_HEAD_START_S`). A model of which nothing waited saves nothing up
    meanwhile. A step that takes longer than steps should may be put aside (`put_aside`); its
    model's turns then go to it and to what waits in turn.

    Works of one batch key and priority keep their order: a step ends before the first that does
    not fit.

    Where the queue is full a work displaces what has a lower priority, the last that came first;
    or, where its own model holds less than its share, the last of the model that holds most.

    Args:
        batch_cost: rows × passes of a step at most.
        batch_s: seconds that a step should take at most, by what the model's steps took before
            (see `Pace`); up to four times as long while much more waits, all of one model. A
            single work above either gets a step of its own.
        limits: of what may wait.
    """

    def __init__(self, batch_cost: int, batch_s: float, limits: QueueLimits) -> None:
        self._batch_cost = batch_cost
        self._batch_s = batch_s
        self._limits = limits
        self._models: dict[str, Lines] = {}
        self._waiting: dict[str, Lines] = {}
        self._works: dict[int, Work] = {}
        self._total = Total()
        self._hopeless: list[Work] = []
        self._turn_s = 0.0
        self._given: dict[int, _Given] = {}
        self._given_since_s = 0.0
        self._each_s = 0.0
        self.admission = Admission()

    def __len__(self) -> int:
        return len(self._works)

    @property
    def size_bytes(self) -> int:
        """Of the inputs that wait."""
        return self._total.size_bytes

    @property
    def others_wait(self) -> bool:
        """Whether the engine has something else to do than what it does. Any thread may ask."""
        return bool(self._waiting)

    def depth(self, model: str) -> int:
        """How many works of a model wait."""
        lines = self._models.get(model)
        return 0 if lines is None else lines.total.works

    # Letting in

    def add(self, work: Work, now_s: float) -> list[Work]:
        """Queue a work; those that had to leave for it.

        Raises:
            DeadlineUnreachable: by what is known, its answer would come too late.
            QueueFull: too many works, too many bytes or too much to compute waits already.
        """
        lines = self._models.get(work.model)
        if lines is None:
            lines = self._models[work.model] = Lines()
        lines.note(work)
        self._check_time(work, now_s)
        displaced = self._make_room(work, now_s)
        for other in displaced:
            self._take(other)
        self._enter(work.model, lines)
        lines.add(work)
        self._works[work.number] = work
        self._total.add(work)
        return displaced

    def outlook(
        self, models: Collection[str], priority: Priority, now_s: float, coming: int = 0
    ) -> Outlook | None:
        """What a work that came now could expect, whichever of these models it is for, if it asks
        for as much as others did lately; None where one of the models has nothing that waits.

        Args:
            models: that serve.
            priority: the work's.
            now_s: the time.
            coming: others that were let in and not added yet.
        """
        if not models or any(name not in self._waiting for name in models):
            return None
        full = ""
        if self._limits.exceeded(self._total, _NOTHING) and not self._lower(priority):
            fair = 1.0 / len(self._waiting)
            if all(self._limits.share(self._models[name].total) >= fair for name in models):
                full = self._why_full(_NOTHING)
        before = coming / len(models)
        ends = [self._soonest(name, priority, now_s, before) for name in models]
        end_s, begin_s = map(min, zip(*ends, strict=True))
        return Outlook(end_s, begin_s, full, self._each_s)

    def _soonest(
        self, model: str, priority: Priority, now_s: float, before: float
    ) -> tuple[float, float]:
        """Seconds until a work that came after so many others would be done, and would begin, if
        all needed no more than the least that the model was asked for lately."""
        least = self._models[model].least()
        if least is None:
            end_s = self._end_s(model, None, priority, now_s)
            return end_s, end_s
        together = Need(least.cost * (1 + before), least.alone)
        end_s = self._end_s(model, together, priority, now_s)
        return end_s, end_s - self._own_s(model, least)

    def wait_s(self, model: str, priority: Priority, now_s: float) -> float:
        """Estimate of when a work that came now would begin, in seconds."""
        return self._end_s(model, None, priority, now_s)

    def _check_time(self, work: Work, now_s: float) -> None:
        if not self._waiting and not self._given:
            return
        own_s = self._own_s(work.model, work.need)
        if not self._is_doubtful(work, own_s, now_s):
            end_s = self._end_s(work.model, work.need, work.priority, now_s)
            self._check_end(work, end_s, end_s - own_s, now_s)
            return
        begin_s = self._end_s(work.model, None, work.priority, now_s)
        self._check_end(work, begin_s, begin_s, now_s)
        lines = self._models[work.model]
        lines.tried_s, lines.doubted = now_s, work.number

    def _is_doubtful(self, work: Work, own_s: float, now_s: float) -> bool:
        """Whether nothing but an old estimate is against a work.

        It may have been wrong, or be of other weights. While others keep the engine busy nothing
        new would ever be learnt of a model that is refused.
        """
        lines = self._lines_of(work.model)
        if lines.waits or own_s <= OF_DEADLINE[work.priority] * (work.deadline_s - now_s):
            return False
        return now_s - lines.tried_s >= _DOUBTED_AFTER * own_s

    def _check_end(self, work: Work, end_s: float, begin_s: float, now_s: float) -> None:
        outlook = Outlook(end_s, begin_s, each_s=self._each_s)
        left_s, begin_within_s = work.deadline_s - now_s, work.begin_by_s - now_s
        self.admission.check(outlook, work.priority, left_s, begin_within_s, now_s)

    def _own_s(self, model: str, need: Need) -> float:
        lines = self._lines_of(model)
        return (lines.alone if need.alone else lines.batches).seconds(need.cost)

    def _end_s(self, model: str, more: Need | None, priority: Priority, now_s: float) -> float:
        """Estimate of the seconds until what waits of the model, and one work more, is done.

        Until then every other model had as much of the engine, where as much of it waits.
        """
        lines = self._lines_of(model)
        own_s = lines.waiting_s(self._room(model), priority, more)
        whole_s, parted_s = self._given_s(now_s)
        turn_s = self._batch_s * max((given.longer for given in self._given.values()), default=1.0)
        others_s = whole_s + min(parted_s, own_s + turn_s)
        for name, other in self._waiting.items():
            if name != model:
                others_s += min(other.waiting_s(self._room(name)), own_s)
            if other.put_aside:
                others_s += min(other.put_aside_s(), own_s)
        return own_s + others_s

    def _given_s(self, now_s: float) -> tuple[float, float]:
        """Estimates of what the engine still has to do: of steps that it does not put aside, and of
        those that it does."""
        elapsed_s = now_s - self._given_since_s
        seconds = {True: 0.0, False: 0.0}
        for given in self._given.values():
            seconds[given.whole] += max(0.0, given.expected_s - elapsed_s)
            elapsed_s = 0.0
        return seconds[True], seconds[False]

    def _make_room(self, work: Work, now_s: float) -> list[Work]:
        """Works to leave for this one; none is harmed where they are not enough."""
        if not self._works or not self._limits.exceeded(self._total, work):
            return []
        left = replace(self._total)
        leaving = []
        for other in self._may_be_displaced(work):
            leaving.append(other)
            left.add(other, -1)
            if not left.works or not self._limits.exceeded(left, work):
                return leaving
        raise self.admission.queue_full(self._why_full(work), now_s, self._each_s)

    def _lower(self, priority: Priority) -> bool:
        return any(
            next(lines.youngest(low), None) is not None
            for low in Priority
            if low > priority
            for lines in self._waiting.values()
        )

    def _may_be_displaced(self, work: Work) -> Iterator[Work]:
        largest = sorted(
            self._waiting.values(), key=lambda lines: self._limits.share(lines.total), reverse=True
        )
        for low in reversed(Priority):
            if low > work.priority:
                for lines in largest:
                    yield from lines.youngest(low)
        own = self._lines_of(work.model)
        fair = 1.0 / len({*self._waiting, work.model})
        if largest[0] is own or self._limits.share(own.total) >= fair:
            return
        left = replace(largest[0].total)
        for other in largest[0].youngest(work.priority):
            left.add(other, -1)
            if self._limits.share(left) < fair:
                return
            yield other

    def _why_full(self, work: Work) -> str:
        limits, total = self._limits, self._total
        if total.works + 1 > limits.works:
            return f"{total.works} requests are waiting, the limit (CANDOR_QUEUE_REQUESTS)"
        if total.size_bytes + work.size_bytes > limits.size_bytes:
            return (
                f"{total.size_bytes} bytes of inputs are waiting, and {work.size_bytes} more are "
                f"over the limit of {limits.size_bytes} (CANDOR_QUEUE_BYTES)"
            )
        return (
            f"{total.cost} rows x passes are waiting, and {work.cost} more are over the limit of "
            f"{limits.cost} (CANDOR_QUEUE_WORK)"
        )

    # Taking out

    def cancel(self, number: int) -> bool:
        """Forget a work that waits; whether it did."""
        work = self._works.get(number)
        if work is None:
            return False
        self._take(work)
        return True

    def expire(self, now_s: float) -> list[Work]:
        """Take out what should have begun by now."""
        found = [work for work in self._works.values() if work.begin_by_s <= now_s]
        for work in found:
            self._take(work)
        return found

    def take_hopeless(self) -> list[Work]:
        """Works whose turn came too late for their deadline, given up for others that wait."""
        found, self._hopeless = self._hopeless, []
        return found

    def schedule(self, now_s: float) -> Step | None:
        """The next step, taken off the queue; None where nothing waits.

        One that was put aside comes again as the same step.
        """
        return self._next(now_s, full=False)

    def schedule_ahead(self, now_s: float) -> Step | None:
        """A step to follow the one that runs, where waiting for that one's end would not change it.

        It has to be as good as full, and no other model may wait whose turn it could become.
        """
        if len(self._waiting) != 1 or any(g.longer > _NO_GAP for g in self._given.values()):
            return None
        return self._next(now_s, full=True)

    def _next(self, now_s: float, *, full: bool) -> Step | None:
        if not self._waiting:
            return None
        model = min(self._waiting, key=self._turn_of)
        lines = self._waiting[model]
        if lines.put_aside and (full or self._continues(lines)):
            return None if full else self._continue(model, lines, now_s)
        chosen, late, longer = self._fill(model, lines, now_s)
        if full and (
            chosen[0].batch_key is None
            or sum(work.cost for work in chosen) < _FULL * self._room(model)
        ):
            return None
        self._turn_s = lines.served_s
        lines.continued_last = False
        for work in (*chosen, *late):
            self._take(work)
        self._hopeless += late
        step = Step(tuple(chosen), longer)
        whole = step.works[0].batch_key is None
        self._give(step, _Given(lines.seconds_of(step), whole, longer), now_s)
        return step

    def _turn_of(self, model: str) -> float:
        lines = self._waiting[model]
        first = lines.first()
        return lines.served_s - (0.0 if first is None else _HEAD_START_S[first.priority])

    @staticmethod
    def _continues(lines: Lines) -> bool:
        """Whether the model's turn goes to what was put aside: every other one."""
        if not lines.total.works or len(lines.put_aside) >= MOST_PUT_ASIDE:
            return True
        return not lines.continued_last

    def _continue(self, model: str, lines: Lines, now_s: float) -> Step:
        self._turn_s = lines.served_s
        lines.continued_last = True
        aside = lines.put_aside.popleft()
        if not lines.waits:
            del self._waiting[model]
        rest_s = max(0.0, lines.seconds_of(aside.step) - aside.had_s)
        step = aside.step if aside.step.longer == 1.0 else replace(aside.step, longer=1.0)
        self._give(step, _Given(rest_s, whole=False, longer=1.0, had_s=aside.had_s), now_s)
        return step

    def _give(self, step: Step, given: _Given, now_s: float) -> None:
        if not self._given:
            self._given_since_s = now_s
        self._given[step.number] = given
        model = step.works[0].model
        self._models[model].tried_s = now_s
        if model in self._waiting:
            # Models that had equally much, as at the start, take turns.
            self._waiting[model] = self._waiting.pop(model)

    def finish(
        self, step: Step, seconds: float, now_s: float, answered: Sequence[Work] | None = None
    ) -> None:
        """Note that a step is done.

        Args:
            step: it.
            seconds: that the engine took for it since it was given out last.
            now_s: the time.
            answered: those of its works that were computed to the end; None where all were.
        """
        lines, whole_s = self._end(step, seconds, now_s)
        done = Step(step.works if answered is None else tuple(answered))
        if 2 * done.cost >= step.cost:
            lines.learn(done, whole_s)
        elif whole_s > lines.seconds_of(step):
            # Nobody waited for most of it; all would have taken longer still.
            lines.learn(step, whole_s)
        else:
            return
        each_s = whole_s / len(step.works)
        self._each_s += _LEARNT * (each_s - self._each_s) if self._each_s else each_s

    def put_aside(self, step: Step, seconds: float, now_s: float) -> None:
        """Note that a step has had its turn and is not done; see `finish`."""
        lines, had_s = self._end(step, seconds, now_s)
        self._enter(step.works[0].model, lines)
        lines.put_aside.append(PutAside(step, had_s))

    def _end(self, step: Step, seconds: float, now_s: float) -> tuple[Lines, float]:
        given = self._given.pop(step.number)
        self._given_since_s = now_s
        lines = self._models[step.works[0].model]
        lines.served_s += seconds
        lines.tried_s = now_s
        return lines, given.had_s + seconds

    def _enter(self, model: str, lines: Lines) -> None:
        if model not in self._waiting:
            self._waiting[model] = lines
            lines.served_s = max(lines.served_s, self._turn_s)

    def _fill(self, model: str, lines: Lines, now_s: float) -> tuple[list[Work], list[Work], float]:
        """Works that run together, those on the way to them that could not be done in time any
        more, and so many times as long as usual the step may take."""
        longer = self._longer(model)
        chosen, late = self._filled(lines, now_s, self._room_within(lines, longer))
        if late and longer > 1.0:
            # In a step as long as usual they may be in time.
            longer = 1.0
            chosen, late = self._filled(lines, now_s, self._room_within(lines, longer))
        return chosen, late, longer if len(chosen) > 1 else 1.0

    def _filled(self, lines: Lines, now_s: float, room: float) -> tuple[list[Work], list[Work]]:
        """The first work and those of its key that fit, and those that come too late.

        One work runs whatever is expected of it: the estimate may be wrong.
        """
        chosen: list[Work] = []
        late: list[Work] = []
        cost = 0
        begin_s = now_s + sum(self._given_s(now_s))
        step_s = lines.step_s(room)
        for work in lines.in_order():
            if chosen and work.batch_key != chosen[0].batch_key:
                continue
            # Of a step, since all its works are done when the last is.
            own_s = self._own_s(work.model, work.need)
            takes_s = own_s if work.batch_key is None else max(own_s, step_s)
            if begin_s + takes_s > work.deadline_s:
                late.append(work)
                continue
            cost += work.cost
            if chosen and cost > room:
                break
            chosen.append(work)
            if work.batch_key is None:
                break
        return (chosen, late) if chosen else ([late.pop()], late)

    def _take(self, work: Work) -> None:
        lines = self._models[work.model]
        lines.remove(work)
        if not lines.waits:
            del self._waiting[work.model]
        del self._works[work.number]
        self._total.add(work, -1)

    def _lines_of(self, model: str) -> Lines:
        return self._models.get(model, _NONE)

    def _room(self, model: str) -> float:
        """Rows × passes of a step of the model."""
        return self._room_within(self._lines_of(model), self._longer(model))

    def _room_within(self, lines: Lines, longer: float) -> float:
        return min(self._batch_cost, lines.batches.cost_within(longer * self._batch_s))

    def _longer(self, model: str) -> float:
        """So many times as long as it should a step of the model may take.

        Large steps cost less for each work, and where so much waits that whoever comes now waits
        for several of them anyway, they are what has all of it done sooner. Other models would wait
        for them, too.
        """
        if len(self._waiting) > 1:
            return 1.0
        lines = self._lines_of(model)
        waits_s = lines.waited_s + lines.batches.seconds(lines.together_cost)
        return min(max(1.0, _OF_WAITING * waits_s / self._batch_s), _LONGEST)
