"""Whether a request would be in time, and when to come back if it would not.

Pure, and without PyTorch: processes that only speak HTTP go by it, too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from service.errors import DeadlineUnreachable, QueueFull, Standing
from service.types import Priority

OF_DEADLINE = {Priority.HIGH: 2 / 3, Priority.NORMAL: 2 / 3, Priority.LOW: 0.5}
"""Share of its time that a request may be expected to take. Estimates err, by a third where much is
refused beside, and a queue that is full up to the deadline answers just too late; while this much
waits the engine is not short of work."""

_STANDS_S = 0.02
_OF_WAITING = 0.125

_RETRY_AFTER_S = 1.0
_LONGEST_RETRY_S = 10.0


def stands_s(wait_s: float) -> float:
    """Seconds for which a refusal is for others, too, where so much has to be waited for.

    The one after it may well have been in time. But to refuse many by one thought takes a tenth of
    what a thought for each takes, and what waits becomes shorter by an eighth at most meanwhile.
    """
    return min(_STANDS_S, _OF_WAITING * wait_s)


def late_s(
    priority: Priority, end_s: float, begin_s: float, left_s: float, begin_within_s: float
) -> float:
    """Seconds by which a request would come too late, or, negative, could come later.

    Args:
        priority: its.
        end_s: until it would be done.
        begin_s: until it would begin.
        left_s: until nobody waits for it.
        begin_within_s: that it may wait for the engine.
    """
    begin_s = max(0.0, begin_s)
    late = min(end_s - OF_DEADLINE[priority] * left_s, begin_s)
    return max(late, begin_s - begin_within_s)


class Outlook(NamedTuple):
    """What a request of one priority that came now could expect at best: whichever model it is for,
    if it needs as little as any did lately.

    Args:
        end_s: seconds until it would be done.
        begin_s: seconds until it would begin.
        full: why there is no room for it; empty where there is.
        each_s: seconds that one more before it adds.
    """

    end_s: float
    begin_s: float
    full: str = ""
    each_s: float = 0.0

    def later(self, elapsed_s: float, before: int) -> Outlook:
        """The same so many seconds later, when so many more have come."""
        more_s = before * self.each_s - elapsed_s
        end_s, begin_s = max(0.0, self.end_s + more_s), max(0.0, self.begin_s + more_s)
        return Outlook(end_s, begin_s, self.full, self.each_s)


class Admission:
    """Sends away what would be too late, each with a time of its own to come back."""

    def __init__(self) -> None:
        self._promised_s = 0.0

    def check(
        self,
        outlook: Outlook,
        priority: Priority,
        left_s: float,
        begin_within_s: float,
        now_s: float,
        stands: bool = False,
    ) -> None:
        """Refuse a request.

        Args:
            outlook: its; `each_s` is what the engine needs for one.
            priority: its.
            left_s: seconds until nobody waits for it.
            begin_within_s: seconds that it may wait for the engine.
            now_s: the time, of the monotonic clock.
            stands: whether it is of those of which the others need not be asked for a moment.

        Raises:
            DeadlineUnreachable: its answer would come too late.
            QueueFull: there is no room for it.
        """
        # Made elsewhere: an error that a name is left for in a frame that it went through, is freed
        # only when garbage is looked for.
        if outlook.full:
            raise self._no_room(outlook, now_s, stands)
        late = late_s(priority, outlook.end_s, outlook.begin_s, left_s, begin_within_s)
        if late > 0:
            raise self._too_late(outlook, late, priority, now_s, stands)

    def _no_room(self, outlook: Outlook, now_s: float, stands: bool) -> QueueFull:
        each_s = outlook.each_s
        error = self.queue_full(outlook.full, now_s, each_s)
        if stands:
            error.standing = self._standing(outlook, each_s or _RETRY_AFTER_S, math.inf, now_s)
        return error

    def _too_late(
        self, outlook: Outlook, late: float, priority: Priority, now_s: float, stands: bool
    ) -> DeadlineUnreachable:
        each_s = outlook.each_s
        error = DeadlineUnreachable(
            f"what waits would take until {outlook.end_s:.2g} seconds from now, too long for the "
            "time that this request has; send it again later, allow more time "
            "(X-Request-Timeout), or send fewer rows or passes",
            retry_after_s=self._promise(late, now_s, each_s),
        )
        if stands:
            left_s = outlook.end_s / OF_DEADLINE[priority]
            error.standing = self._standing(outlook, late, left_s, now_s)
        return error

    def _standing(
        self, outlook: Outlook, first_s: float, left_s: float, now_s: float
    ) -> Standing | None:
        lasts_s = stands_s(outlook.begin_s)
        if lasts_s <= 0.0:
            return None

        def retry_after_s(then_s: float) -> float:
            return self._promise(first_s - (then_s - now_s), then_s, outlook.each_s)

        return Standing(now_s + lasts_s, left_s, retry_after_s)

    def queue_full(self, why: str, now_s: float, each_s: float) -> QueueFull:
        """What to raise where there is no room, whatever time a request has."""
        retry_after_s = self._promise(each_s, now_s, each_s) if each_s else _RETRY_AFTER_S
        return QueueFull(why, retry_after_s=retry_after_s)

    def _promise(self, first_s: float, now_s: float, each_s: float) -> float:
        """Seconds until there would be room for a request, if those that were sent away before it
        come back as they were told.

        They are told different times, so that they do not come back all at once to a queue that has
        room for one.

        Args:
            first_s: until there is room for one.
            now_s: the time.
            each_s: until there is room for another.
        """
        soonest_s = now_s + first_s
        promised_s = max(soonest_s, self._promised_s)
        if promised_s - now_s > _LONGEST_RETRY_S:
            promised_s = soonest_s
        self._promised_s = promised_s + each_s
        return min(promised_s - now_s, _LONGEST_RETRY_S)
