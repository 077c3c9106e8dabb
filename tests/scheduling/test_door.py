"""Who is let in, by what was seen of the queue a moment ago."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineUnreachable, QueueFull
from service.scheduling.admission import OF_DEADLINE, Admission, Outlook, late_s
from service.scheduling.door import LOOK_S, Door
from service.types import Priority

NOW = 1000.0


@dataclass
class Queue:
    """What a look at it gives, and how often it was looked at."""

    outlook: Outlook | None
    looks: int = 0

    def look(self) -> Outlook | None:
        self.looks += 1
        return self.outlook


def refuses(
    door: Door,
    queue: Queue,
    left_s: float,
    now_s: float = NOW,
    priority: Priority = Priority.NORMAL,
) -> bool:
    try:
        door.check(queue.look, priority, left_s, math.inf, now_s)
    except QueueFull:
        return True
    return False


def test_the_queue_is_looked_at_once_in_a_while() -> None:
    door, queue = Door(Admission()), Queue(Outlook(1.0, 0.9))
    for part in range(5):
        refuses(door, queue, 0.1, NOW + part * LOOK_S / 4)
    assert queue.looks == 1
    refuses(door, queue, 0.1, NOW + 1.01 * LOOK_S)
    assert queue.looks == 2


def test_what_is_seen_counts_for_its_own_priority() -> None:
    door, queue = Door(Admission()), Queue(Outlook(1.0, 0.9))
    assert refuses(door, queue, 1.0)
    queue.outlook = Outlook(0.1, 0.0)
    assert refuses(door, queue, 1.0)
    assert not refuses(door, queue, 1.0, priority=Priority.HIGH)


def test_those_who_were_let_in_since_count_until_the_next_look_sees_them() -> None:
    share = OF_DEADLINE[Priority.NORMAL]
    each_s = share / 10
    door, queue = Door(Admission()), Queue(Outlook(0.95 * each_s, 0.5 * each_s, each_s=each_s))
    # The n-th of them is expected to end at (n - 0.05) times what each takes.
    assert [refuses(door, queue, 1.0) for _ in range(12)] == [False] * 10 + [True] * 2
    assert not refuses(door, queue, 1.0, NOW + 1.01 * LOOK_S)


def test_those_of_a_lower_priority_are_behind_and_those_of_a_higher_one_before() -> None:
    def late(first: Priority) -> bool:
        queue = Queue(Outlook(0.1, 0.05, each_s=0.1))
        door = Door(Admission())
        assert not refuses(door, queue, 10.0)
        for _ in range(20):
            refuses(door, queue, 1e9, priority=first)
        return refuses(door, queue, 1.0)

    assert [late(first) for first in Priority] == [True, True, False]


def test_a_queue_becomes_shorter_between_two_looks() -> None:
    share = OF_DEADLINE[Priority.NORMAL]
    door, queue = Door(Admission()), Queue(Outlook(share + 0.5 * LOOK_S, 0.5))
    assert refuses(door, queue, 1.0)
    assert refuses(door, queue, 1.0, NOW + 0.4 * LOOK_S)
    assert not refuses(door, queue, 1.0, NOW + 0.6 * LOOK_S)
    assert queue.looks == 1


def test_nobody_is_refused_while_there_is_no_outlook() -> None:
    door, queue = Door(Admission()), Queue(None)
    assert not any(refuses(door, queue, 1e-9) for _ in range(100))


def test_it_says_why_there_is_no_room() -> None:
    door, queue = Door(Admission()), Queue(Outlook(0.0, 0.0, "9 requests are waiting"))
    with pytest.raises(QueueFull, match="9 requests are waiting"):
        door.check(queue.look, Priority.NORMAL, 100.0, math.inf, NOW)


def test_who_may_not_wait_is_refused_though_its_deadline_is_far() -> None:
    door, queue = Door(Admission()), Queue(Outlook(2.0, 2.0))
    with pytest.raises(DeadlineUnreachable):
        door.check(queue.look, Priority.NORMAL, 100.0, 1.0, NOW)
    door.check(queue.look, Priority.NORMAL, 100.0, 3.0, NOW)


@given(st.floats(0.0, 2.0), st.floats(0.01, 2.0), st.floats(0.0, LOOK_S), st.sampled_from(Priority))
def test_right_after_a_look_it_decides_as_admission_does(
    end_s: float, left_s: float, elapsed_s: float, priority: Priority
) -> None:
    door, queue = Door(Admission()), Queue(Outlook(end_s, 0.9 * end_s))
    refuses(door, queue, left_s, NOW, priority)
    then = Outlook(end_s, 0.9 * end_s).later(elapsed_s, 0)
    late = late_s(priority, then.end_s, then.begin_s, left_s, math.inf) > 0
    queue.outlook = None
    # With nothing that each adds, who was let in before makes no difference.
    assert refuses(door, queue, left_s, NOW + elapsed_s, priority) == late
