"""What waits says who would be late, and when each of them is to come back."""

from __future__ import annotations

import pytest

from service.errors import DeadlineUnreachable, QueueFull
from service.scheduling.admission import Admission, Outlook
from service.types import Priority

NOW = 1000.0


def test_time_passes_and_others_come() -> None:
    seen = Outlook(end_s=1.0, begin_s=0.5, each_s=0.1)
    later = seen.later(0.2, before=3)
    assert (later.end_s, later.begin_s) == pytest.approx((1.1, 0.6))
    over = seen.later(5.0, before=0)
    assert (over.end_s, over.begin_s) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("end_s", "begin_s", "left_s", "within_s", "late"),
    [
        (0.6, 0.5, 1.0, 9.0, False),
        (0.7, 0.5, 1.0, 9.0, True),
        # Whoever could begin now is let in, however long it takes: nobody else would be served.
        (5.0, 0.0, 1.0, 9.0, False),
        (5.0, -1.0, 1.0, 9.0, False),
        (0.6, 0.5, 1.0, 0.4, True),
    ],
)
def test_whoever_would_take_too_much_of_its_time_is_late(
    end_s: float, begin_s: float, left_s: float, within_s: float, late: bool
) -> None:
    outlook = Outlook(end_s, begin_s)
    if not late:
        Admission().check(outlook, Priority.NORMAL, left_s, within_s, NOW)
        return
    with pytest.raises(DeadlineUnreachable, match=f"this request has {min(left_s, within_s):g} s"):
        Admission().check(outlook, Priority.NORMAL, left_s, within_s, NOW)


def test_nobody_comes_back_at_the_time_of_another() -> None:
    admission = Admission()
    told = []
    for full in ("", "no room", "", "no room"):
        outlook = Outlook(2 / 3 + 0.25, 0.9, full, each_s=0.25)
        with pytest.raises(QueueFull) as caught:
            admission.check(outlook, Priority.NORMAL, 1.0, 9.0, NOW)
        told.append(caught.value.retry_after_s)
    assert told == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_what_was_promised_long_ago_is_over_and_nobody_is_told_to_wait_for_long() -> None:
    admission = Admission()
    refusals = [admission.queue_full("no room", NOW, 4.0).retry_after_s for _ in range(4)]
    assert refusals == pytest.approx([4.0, 8.0, 4.0, 8.0])
    assert admission.queue_full("no room", NOW + 100.0, 4.0).retry_after_s == pytest.approx(4.0)
