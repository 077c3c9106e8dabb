"""What waits says who would be late, and when each of them is to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineUnreachable, QueueFull
from service.scheduling.admission import Admission, Outlook, late_s, stands_s
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
    with pytest.raises(DeadlineUnreachable, match=f"until {end_s:g} seconds from now"):
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


def refusal(outlook: Outlook, left_s: float, now_s: float, stands: bool = True) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        Admission().check(outlook, Priority.NORMAL, left_s, 9.0, now_s, stands)
    return caught.value


@given(st.floats(0.1, 4.0), st.sampled_from(Priority), st.floats(0.0, 1.0))
def test_a_refusal_stands_for_whoever_would_have_been_refused(
    left_s: float, priority: Priority, part: float
) -> None:
    outlook = Outlook(2.0, 1.9, each_s=0.25)
    with pytest.raises(QueueFull) as caught:
        Admission().check(outlook, priority, 1.0, 9.0, NOW, stands=True)
    standing = caught.value.standing
    assert standing is not None
    late = late_s(priority, outlook.end_s, outlook.begin_s, left_s, 9.0)
    if abs(late) > 1e-6:
        assert standing.is_for(left_s, NOW + part * stands_s(1.9)) == (late > 0)


@given(st.floats(0.0, 100.0))
def test_it_stands_for_a_moment_in_which_little_of_what_waits_is_done(wait_s: float) -> None:
    """Or the engine would have nothing to do by the time that somebody is let in."""
    standing = refusal(Outlook(wait_s, wait_s, "no room"), 1.0, NOW).standing
    lasts_s = stands_s(wait_s)
    assert 0 <= lasts_s <= wait_s / 8
    assert (standing is None) == (lasts_s == 0)
    # Of less than that the clock of the test knows nothing.
    if standing is not None and lasts_s > 1e-9:
        assert standing.is_for(1e9, NOW + 0.99 * lasts_s)
        assert not standing.is_for(1e-9, NOW + 1.01 * lasts_s)


def test_whoever_is_told_the_same_comes_back_at_a_time_of_its_own() -> None:
    error = refusal(Outlook(2 / 3 + 0.25, 0.9, each_s=0.25), 1.0, NOW)
    assert error.standing is not None
    assert error.retry_after_s == pytest.approx(0.25)
    told = [error.standing.retry_after_s(NOW + 0.1) for _ in range(2)]
    assert told == pytest.approx([0.4, 0.65])


def test_where_it_is_not_asked_for_it_is_for_one_alone() -> None:
    assert refusal(Outlook(2.0, 1.0), 1.0, NOW, stands=False).standing is None
    assert refusal(Outlook(2.0, 1.0, "no room"), 1.0, NOW, stands=False).standing is None
