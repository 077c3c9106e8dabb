"""Who is let in, by what was seen of the queue a moment ago.

To look at the queue takes longer than all else that a refusal does, and under a load far above what
can be served refusals are most of what a process does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from service.scheduling.admission import Admission, Outlook
from service.types import Priority

LOOK_S = 0.005
"""After which the queue is looked at again. Meanwhile it is taken to have become shorter by as much
time as went by, and longer by those that were let in."""


_BEHIND = {priority: [p for p in Priority if p >= priority] for priority in Priority}
"""Whom a request of a priority goes before: its own, and lower ones."""


class _Seen(NamedTuple):
    """An outlook, when it was so, and how many that go before it had been let in by then."""

    outlook: Outlook | None
    at_s: float
    let_in: int


class Door:
    """Remembers the outlook of each priority.

    Args:
        admission: refuses.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._seen: dict[Priority, _Seen] = {}
        self._let_in = dict.fromkeys(Priority, 0)
        """By priority, those that it or a lower one has before it."""

    def check(
        self,
        look: Callable[[], Outlook | None],
        priority: Priority,
        left_s: float,
        begin_within_s: float,
        now_s: float,
    ) -> None:
        """Refuse a request, or count it as let in.

        Args:
            look: gives what one of this priority could expect now; None where nobody is refused.
            priority: of the request.
            left_s: seconds until nobody waits for it.
            begin_within_s: seconds that it may wait for the engine.
            now_s: the time.

        Raises:
            DeadlineUnreachable: see `Admission.check`.
            QueueFull: see `Admission.check`.
        """
        seen = self._seen.get(priority)
        if seen is None or now_s - seen.at_s > LOOK_S:
            seen = self._seen[priority] = _Seen(look(), now_s, self._let_in[priority])
        if seen.outlook is not None:
            elapsed_s = now_s - seen.at_s
            outlook = seen.outlook.later(elapsed_s, self._let_in[priority] - seen.let_in)
            self._admission.check(outlook, priority, left_s, begin_within_s, now_s, stands=True)
        for behind in _BEHIND[priority]:
            self._let_in[behind] += 1
