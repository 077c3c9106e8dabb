"""The policy: nothing lost or doubled, order kept, budgets kept, the engine's time shared."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineUnreachable, QueueFull
from service.scheduling.lines import BEHIND_S, MOST_PUT_ASIDE
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.scheduling.work import Step, Work
from service.types import Priority

NOW = 0.0


def work(
    number: int,
    model: str = "a",
    key: int | None = 0,
    rows: int = 1,
    passes: int = 10,
    size_bytes: int = 1,
    begin_by_s: float = math.inf,
    deadline_s: float = math.inf,
) -> Work:
    batch_key = None if key is None else (model, key)
    sizes = (rows, passes, size_bytes)
    return Work(number, model, batch_key, *sizes, NOW, begin_by_s, deadline_s)


def roomy(batch_cost: int = 100, batch_s: float = 1.0) -> Scheduler:
    return Scheduler(batch_cost, batch_s, QueueLimits(1000, 10**9))


def steps(scheduler: Scheduler) -> list[Step]:
    found = []
    while (step := scheduler.schedule(NOW)) is not None:
        found.append(step)
    return found


works = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.none() | st.integers(0, 2),
        st.integers(1, 30),
        st.integers(1, 9),
    )
)


@given(works, st.integers(1, 200), st.sets(st.integers(0, 20)))
def test_everything_that_was_not_cancelled_runs_once_in_order(
    specs: list[tuple[str, int | None, int, int]], batch_cost: int, cancelled: set[int]
) -> None:
    scheduler = roomy(batch_cost)
    added = [work(n, *spec) for n, spec in enumerate(specs)]
    for each in added:
        scheduler.add(each, NOW)
    for number in cancelled:
        assert scheduler.cancel(number) == (number < len(added))
        assert not scheduler.cancel(number)
    found = steps(scheduler)
    kept = [each for each in added if each.number not in cancelled]
    assert sorted(w.number for s in found for w in s.works) == [w.number for w in kept]
    assert len(scheduler) == 0
    for step in found:
        assert len({w.batch_key for w in step.works}) == 1
        assert [w.number for w in step.works] == sorted(w.number for w in step.works)
        assert step.cost <= batch_cost or len(step.works) == 1
        assert step.works[0].batch_key is not None or len(step.works) == 1
    for model, key in {(w.model, w.batch_key) for w in kept}:
        ran = [w for s in found for w in s.works]
        of_key = [w.number for w in ran if (w.model, w.batch_key) == (model, key)]
        assert of_key == sorted(of_key)


def test_works_that_may_run_together_do() -> None:
    scheduler = roomy(batch_cost=100)
    for number in range(12):
        scheduler.add(work(number), NOW)
    assert [len(step.works) for step in steps(scheduler)] == [10, 2]


def test_a_work_above_the_budget_runs_alone() -> None:
    scheduler = roomy(batch_cost=5)
    scheduler.add(work(0), NOW)
    scheduler.add(work(1), NOW)
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[0], [1]]


def test_an_order_is_kept_even_where_a_later_work_would_fit() -> None:
    scheduler = roomy(batch_cost=100)
    for number, rows in enumerate([5, 6, 1]):
        scheduler.add(work(number, rows=rows), NOW)
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[0], [1, 2]]


def test_a_step_is_filled_up_to_the_seconds_that_its_cost_took_before() -> None:
    scheduler = roomy(batch_cost=10_000, batch_s=0.55)
    for number in range(100):
        scheduler.add(work(number), NOW)
    learnt = scheduler.schedule(NOW)
    assert learnt is not None
    assert len(learnt.works) == 100  # nothing is known yet
    scheduler.finish(learnt, seconds=10.0, now_s=NOW)  # 0.1 s a work
    scheduler.add(work(0), NOW)
    alone = scheduler.schedule(NOW)
    assert alone is not None
    scheduler.finish(alone, seconds=0.1, now_s=NOW)
    for number in range(12):
        scheduler.add(work(number), NOW)
    assert [len(step.works) for step in steps(scheduler)] == [5, 5, 2]


def test_a_work_that_takes_longer_than_a_step_should_runs_alone() -> None:
    scheduler = roomy(batch_cost=10_000, batch_s=0.5)
    scheduler.add(work(0), NOW)
    first = scheduler.schedule(NOW)
    assert first is not None
    scheduler.finish(first, seconds=0.1, now_s=NOW)
    scheduler.add(work(1, rows=100), NOW)
    scheduler.add(work(2), NOW)
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[1], [2]]


def test_what_runs_alone_teaches_nothing_of_batches() -> None:
    scheduler = roomy(batch_cost=10_000, batch_s=0.5)
    scheduler.add(work(0, key=None), NOW)
    alone = scheduler.schedule(NOW)
    assert alone is not None
    scheduler.finish(alone, seconds=100.0, now_s=NOW)
    for number in range(1, 13):
        scheduler.add(work(number), NOW)
    assert [len(step.works) for step in steps(scheduler)] == [12]


def test_only_a_step_that_is_as_good_as_full_is_taken_ahead() -> None:
    scheduler = roomy(batch_cost=100)
    for number in range(4):
        scheduler.add(work(number), NOW)
    assert scheduler.schedule_ahead(NOW) is None
    scheduler.add(work(4), NOW)
    ahead = scheduler.schedule_ahead(NOW)
    assert ahead is not None
    assert [w.number for w in ahead.works] == [0, 1, 2, 3, 4]
    assert scheduler.schedule_ahead(NOW) is None


def test_nothing_is_taken_ahead_while_another_model_waits_for_its_turn() -> None:
    scheduler = roomy(batch_cost=100)
    scheduler.add(work(0, "a", rows=10), NOW)
    scheduler.add(work(1, "b", rows=10), NOW)
    assert scheduler.schedule_ahead(NOW) is None
    assert len(scheduler) == 2


class Engine:
    """Runs steps in no time and keeps the books: seconds by model, and the longest step."""

    def __init__(self, scheduler: Scheduler, seconds_of: dict[str, float]) -> None:
        self.scheduler = scheduler
        self.seconds_of = seconds_of
        self.served_s = dict.fromkeys(seconds_of, 0.0)
        self.longest_s = 0.0

    def step(self) -> Step:
        step = self.scheduler.schedule(NOW)
        assert step is not None
        model = step.works[0].model
        seconds = step.cost * self.seconds_of[model]
        self.scheduler.finish(step, seconds, NOW)
        self.served_s[model] += seconds
        self.longest_s = max(self.longest_s, seconds)
        return step


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=50, max_size=120),
    st.floats(1e-4, 1e-1),
    st.floats(1e-4, 1e-1),
    st.floats(0.01, 10.0),
)
def test_two_models_that_always_wait_share_the_engine_within_one_step(
    rows: list[tuple[int, int]], a_s: float, b_s: float, batch_s: float
) -> None:
    engine = Engine(roomy(1000, batch_s), {"a": a_s, "b": b_s})
    for number, (of_a, of_b) in enumerate(rows):
        engine.scheduler.add(work(2 * number, "a", rows=of_a), NOW)
        engine.scheduler.add(work(2 * number + 1, "b", rows=of_b), NOW)
    while engine.scheduler.depth("a") and engine.scheduler.depth("b"):
        engine.step()
        served_a_s, served_b_s = engine.served_s.values()
        assert abs(served_a_s - served_b_s) <= engine.longest_s * (1 + 1e-9)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=100),
    st.floats(1e-5, 1e-1),
    st.floats(0.001, 10.0),
)
def test_once_the_cost_is_known_no_step_takes_longer_than_it_should(
    rows: list[int], seconds: float, batch_s: float
) -> None:
    engine = Engine(roomy(10_000, batch_s), {"a": seconds})
    for size in (1, 2):
        engine.scheduler.add(work(0, "a", rows=size), NOW)
        engine.step()
    for number, of_one in enumerate(rows, start=1):
        engine.scheduler.add(work(number, "a", rows=of_one), NOW)
    waits_s = 10 * sum(rows) * seconds
    while len(engine.scheduler):
        step = engine.step()
        # A quarter of what waits, where that is more; but four times as long at most.
        longest_s = min(4 * batch_s, max(batch_s, waits_s / 4)) * (1 + 1e-9)
        assert step.cost * seconds <= longest_s or len(step.works) == 1
        waits_s -= step.cost * seconds


def crowded(waiting: int, waited_s: float = 0.0) -> Engine:
    """Steps that should take a second, and works that take a tenth of one and waited before."""
    engine = Engine(roomy(10**6, batch_s=1.0), {"a": 0.01, "b": 0.01})
    for model in "ab":
        for rows in (1, 2):
            engine.scheduler.add(work(0, model, rows=rows), NOW)
            engine.step()
    for number in range(1, waiting + 1):
        engine.scheduler.add(replace(work(number, "a"), waited_s=waited_s), NOW)
    return engine


@pytest.mark.parametrize(("waiting", "together"), [(5, 5), (40, 10), (80, 20), (1000, 40)])
def test_a_step_takes_longer_while_much_more_waits_anyway(waiting: int, together: int) -> None:
    assert len(crowded(waiting).step().works) == together


@pytest.mark.parametrize(("waited_s", "together"), [(0.0, 20), (4.0, 30), (8.0, 40), (80.0, 40)])
def test_what_waited_before_it_came_is_of_what_it_waits(waited_s: float, together: int) -> None:
    # Of eighty that came the mean of what they waited is all but the whole of it.
    assert len(crowded(80, 1.01 * waited_s).step().works) == together


def test_no_step_takes_longer_where_another_model_waits_for_it() -> None:
    engine = crowded(1000)
    engine.scheduler.add(work(2000, "b"), NOW)
    assert {len(engine.step().works) for _ in range(2)} == {1, 10}
    assert len(engine.step().works) == 40


@pytest.mark.parametrize(("waiting", "longer"), [(5, 1.0), (80, 2.0), (900, 4.0)])
def test_a_step_that_may_take_longer_is_put_aside_as_much_later(
    waiting: int, longer: float
) -> None:
    assert crowded(waiting).step().longer == pytest.approx(longer, rel=0.02)
    both = crowded(waiting)
    for number in range(2000, 2005):
        both.scheduler.add(work(number, "b"), NOW)
    steps_of_both = [both.step()]
    while both.scheduler.depth("a") and both.scheduler.depth("b"):
        steps_of_both.append(both.step())
    assert {step.longer for step in steps_of_both} == {1.0}


def test_once_it_was_put_aside_a_step_takes_turns_as_others_do() -> None:
    scheduler = crowded(1000).scheduler
    step = scheduler.schedule(NOW)
    assert step is not None
    assert step.longer == 4.0
    scheduler.put_aside(step, 4.0, NOW)
    again = scheduler.schedule(NOW)
    assert again is not None
    assert (again.number, again.longer) == (step.number, 1.0)


def test_nobody_is_given_up_for_a_step_that_need_not_take_so_long() -> None:
    engine = crowded(1000)
    urgent = replace(work(2000), priority=Priority.HIGH, deadline_s=NOW + 1.5)
    engine.scheduler.add(urgent, NOW)
    step = engine.step()
    assert step.works[0].number == 2000
    assert len(step.works) == 10
    assert step.longer == 1.0
    assert engine.scheduler.take_hopeless() == []


def test_the_end_of_a_step_that_takes_longer_is_waited_for() -> None:
    scheduler = crowded(1000).scheduler
    assert scheduler.schedule(NOW) is not None
    # Of another model, so that nothing but the running step is before it.
    assert scheduler.wait_s("b", Priority.HIGH, NOW) == pytest.approx(4.0, rel=0.02)


def test_nothing_is_prepared_to_follow_a_step_that_takes_longer() -> None:
    """Whoever may go first would have to wait for both."""
    usual, much = crowded(20), crowded(1000)
    for engine, follows in ((usual, True), (much, False)):
        assert engine.scheduler.schedule(NOW) is not None
        assert (engine.scheduler.schedule_ahead(NOW) is not None) == follows


def test_a_model_saves_nothing_up_while_it_idles() -> None:
    engine = Engine(roomy(batch_cost=10), {"a": 1.0, "b": 1.0})
    for number in range(20):
        engine.scheduler.add(work(number, "a"), NOW)
    for _ in range(10):
        engine.step()
    for number in range(20, 30):
        engine.scheduler.add(work(number, "b"), NOW)
    turns = "".join(engine.step().works[0].model for _ in range(10))
    assert turns.count("a") == turns.count("b") == 5


def test_models_take_turns() -> None:
    scheduler = roomy(batch_cost=10)
    for number in range(6):
        scheduler.add(work(number, "a" if number < 4 else "b"), NOW)
    assert [step.works[0].model for step in steps(scheduler)] == ["a", "b", "a", "b", "a", "a"]


def test_other_keys_of_a_model_wait_their_turn() -> None:
    scheduler = roomy()
    for number, key in enumerate([0, 1, 0, 1]):
        scheduler.add(work(number, key=key), NOW)
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[0, 2], [1, 3]]


def test_a_full_queue_refuses_by_count_and_takes_again_when_there_is_room() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(2, 10**9))
    scheduler.add(work(0, key=0), NOW)
    scheduler.add(work(1, key=1), NOW)
    with pytest.raises(QueueFull, match="2 requests are waiting") as caught:
        scheduler.add(work(2), NOW)
    assert caught.value.retry_after_s
    scheduler.schedule(NOW)
    scheduler.add(work(3), NOW)
    assert len(scheduler) == 2


def test_a_full_queue_refuses_by_bytes_but_never_what_comes_to_an_empty_one() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(10, 100))
    scheduler.add(work(0, size_bytes=500), NOW)
    with pytest.raises(QueueFull, match="500 bytes"):
        scheduler.add(work(1, size_bytes=1), NOW)
    scheduler.cancel(0)
    scheduler.add(work(2, size_bytes=60), NOW)
    scheduler.add(work(3, size_bytes=40), NOW)
    with pytest.raises(QueueFull):
        scheduler.add(work(4, size_bytes=1), NOW)


def test_depth_counts_what_waits_of_a_model() -> None:
    scheduler = roomy()
    scheduler.add(work(0, "a"), NOW)
    scheduler.add(work(1, "b"), NOW)
    assert (scheduler.depth("a"), scheduler.depth("b"), scheduler.depth("c")) == (1, 1, 0)


def learnt(seconds: float = 0.1, limits: QueueLimits | None = None) -> Scheduler:
    """Of one model `a`, a work of ten rows × passes of which takes so long, and a step two."""
    limits = limits or QueueLimits(1000, 10**9)
    engine = Engine(Scheduler(20, 1.0, limits), {"a": seconds / 10})
    for rows in (1, 2):
        engine.scheduler.add(work(-rows, rows=rows), NOW)
        engine.step()
    return engine.scheduler


def test_what_would_come_too_late_is_refused_at_once_and_told_when_to_come_back() -> None:
    scheduler = learnt(seconds=0.1)
    for number in range(20):
        scheduler.add(work(number, deadline_s=10.0), NOW)
    with pytest.raises(DeadlineUnreachable, match=r"2\.1 seconds") as caught:
        scheduler.add(work(20, deadline_s=2.5), NOW)
    # What waits and the work itself take 2.1 s, of which two thirds of 2.5 s are there.
    assert caught.value.retry_after_s == pytest.approx(2.1 - 2.5 * 2 / 3)
    scheduler.add(work(21, deadline_s=3.3), NOW)
    with pytest.raises(DeadlineUnreachable):
        scheduler.add(work(22, deadline_s=100.0, begin_by_s=1.0), NOW)
    assert len(scheduler) == 21


def test_nothing_is_refused_for_its_time_while_the_engine_is_idle_or_nothing_is_known() -> None:
    known, unknown = learnt(seconds=10.0), roomy()
    known.add(work(0, deadline_s=1.0), NOW)
    for number in range(100):
        unknown.add(work(number, deadline_s=0.01), NOW)
    assert (len(known), len(unknown)) == (1, 100)


def test_those_who_are_sent_away_are_told_different_times() -> None:
    scheduler = learnt(seconds=0.1)
    for number in range(10):
        scheduler.add(work(number, deadline_s=10.0), NOW)
    told = []
    for number in range(10, 15):
        with pytest.raises(DeadlineUnreachable) as caught:
            scheduler.add(work(number, deadline_s=1.0), NOW)
        told.append(caught.value.retry_after_s or 0.0)
    gaps = [later - sooner for sooner, later in itertools.pairwise(told)]
    # One after the other, as the engine will have room for them.
    assert gaps == pytest.approx([gaps[0]] * 4)
    assert gaps[0] > 0.05


def at_door(
    scheduler: Scheduler, left_s: float, models: Sequence[str] = ("a",), coming: int = 0
) -> None:
    outlook = scheduler.outlook(models, Priority.NORMAL, NOW, coming)
    if outlook is not None:
        scheduler.admission.check(outlook, Priority.NORMAL, left_s, math.inf, NOW)


@given(st.integers(0, 60), st.floats(0.1, 5.0))
def test_the_door_refuses_only_what_would_be_refused_inside(waiting: int, timeout_s: float) -> None:
    scheduler = learnt(seconds=0.1, limits=QueueLimits(40, 10**9))
    for number in range(min(40, waiting)):
        scheduler.add(work(number, deadline_s=100.0), NOW)
    try:
        at_door(scheduler, timeout_s)
    except QueueFull:
        with pytest.raises(QueueFull):
            scheduler.add(work(99, deadline_s=timeout_s), NOW)


def test_the_door_is_open_where_one_of_the_models_has_nothing_to_do() -> None:
    scheduler = learnt(seconds=0.1, limits=QueueLimits(20, 10**9))
    for number in range(20):
        scheduler.add(work(number, deadline_s=100.0), NOW)
    at_door(scheduler, 0.5, ["a", "idle"])
    with pytest.raises(QueueFull):
        at_door(scheduler, 0.5)


def test_the_door_expects_what_was_asked_for_lately() -> None:
    scheduler = learnt(seconds=0.1)
    for number in range(5):
        scheduler.add(work(number, deadline_s=100.0), NOW)
    at_door(scheduler, 1.0)
    scheduler.add(work(5, deadline_s=1.0), NOW)
    # What waits would be done in time, and another one like those before it would not.
    with pytest.raises(DeadlineUnreachable):
        at_door(scheduler, 1.0)


def test_the_door_expects_less_once_less_was_asked_for() -> None:
    scheduler = learnt(seconds=0.1)
    # The two that it learnt from are no longer among those that came lately.
    for number in range(64):
        scheduler.add(work(number, rows=2), NOW)

    def own_s() -> float:
        seen = scheduler.outlook(["a"], Priority.NORMAL, NOW)
        assert seen is not None
        return seen.end_s - seen.begin_s

    assert own_s() == pytest.approx(0.2)
    scheduler.add(work(64, rows=1), NOW)
    assert own_s() == pytest.approx(0.1)


def test_who_may_go_first_may_expect_more() -> None:
    scheduler = learnt(seconds=0.1)
    for number in range(6):
        scheduler.add(work(number, deadline_s=100.0), NOW)
    high, normal, low = (scheduler.outlook(["a"], priority, NOW) for priority in Priority)
    assert high is not None
    assert normal is not None
    assert low is not None
    assert high.end_s < normal.end_s == low.end_s
    assert high.begin_s < normal.begin_s == low.begin_s
    assert scheduler.outlook(["a", "idle"], Priority.NORMAL, NOW) is None


def test_the_door_counts_who_was_let_in_and_has_not_come_to_the_queue() -> None:
    scheduler = learnt(seconds=0.1)
    for number in range(3):
        scheduler.add(work(number, deadline_s=100.0), NOW)
    at_door(scheduler, 1.0, coming=2)
    with pytest.raises(DeadlineUnreachable):
        at_door(scheduler, 1.0, coming=3)


def test_a_work_whose_turn_comes_too_late_is_given_up_for_one_that_can_be_done() -> None:
    scheduler = learnt(seconds=0.1)
    scheduler.add(work(0, deadline_s=5.0), NOW)
    scheduler.add(work(1, deadline_s=9.0), NOW)
    step = scheduler.schedule(4.95)
    assert step is not None
    assert [w.number for w in step.works] == [1]
    assert [w.number for w in scheduler.take_hopeless()] == [0]
    assert scheduler.take_hopeless() == []


def test_the_last_work_runs_whatever_is_expected_of_it() -> None:
    """The estimate may be wrong, and without a step nothing better would ever be learnt."""
    scheduler = learnt(seconds=10.0)
    scheduler.add(work(0, deadline_s=1.0), NOW)
    step = scheduler.schedule(0.5)
    assert step is not None
    assert [w.number for w in step.works] == [0]


def test_what_waited_too_long_is_taken_out_and_the_rest_stays() -> None:
    scheduler = roomy()
    for number in range(4):
        scheduler.add(work(number, begin_by_s=float(number)), NOW)
    assert [w.number for w in scheduler.expire(1.5)] == [0, 1]
    assert scheduler.expire(1.5) == []
    assert scheduler.depth("a") == 2


def test_the_queue_is_bounded_by_rows_times_passes_too() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(10, 10**9, cost=25))
    scheduler.add(work(0, rows=100), NOW)
    with pytest.raises(QueueFull, match="CANDOR_QUEUE_WORK"):
        scheduler.add(work(1), NOW)
    scheduler.cancel(0)
    scheduler.add(work(2), NOW)
    scheduler.add(work(3), NOW)
    with pytest.raises(QueueFull, match="20 rows x passes"):
        scheduler.add(work(4), NOW)


def ranked(number: int, priority: Priority, queued_s: float = 0.0, model: str = "a") -> Work:
    return dataclasses.replace(work(number, model), priority=priority, queued_s=queued_s)


def test_higher_priorities_go_first_and_nothing_waits_for_ever() -> None:
    scheduler = roomy(batch_cost=10)
    scheduler.add(ranked(0, Priority.LOW), NOW)
    scheduler.add(ranked(1, Priority.NORMAL), NOW)
    scheduler.add(ranked(2, Priority.HIGH), NOW)
    # Who comes more than the difference later overtakes nobody.
    scheduler.add(ranked(3, Priority.HIGH, queued_s=1.5), NOW)
    scheduler.add(ranked(4, Priority.NORMAL, queued_s=9.5), NOW)
    scheduler.add(ranked(5, Priority.HIGH, queued_s=11.0), NOW)
    assert [s.works[0].number for s in steps(scheduler)] == [2, 1, 3, 0, 4, 5]


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 30)), max_size=30))
def test_works_go_by_when_they_came_and_by_how_much_their_priority_puts_them_behind(
    specs: list[tuple[Priority, float]],
) -> None:
    scheduler = roomy(batch_cost=1)
    added = [
        ranked(number, priority, at)
        for number, (priority, at) in enumerate(sorted(specs, key=lambda spec: spec[1]))
    ]
    for each in added:
        scheduler.add(each, NOW)
    places = [w.queued_s + BEHIND_S[w.priority] for s in steps(scheduler) for w in s.works]
    assert places == sorted(places)
    assert len(places) == len(added)


def test_a_high_priority_goes_before_other_models_until_its_own_is_a_second_ahead() -> None:
    engine = Engine(roomy(batch_cost=10), {"a": 0.04, "b": 0.04})
    for number in range(20):
        engine.scheduler.add(ranked(number, Priority.NORMAL, model="a"), NOW)
        engine.scheduler.add(ranked(100 + number, Priority.HIGH, model="b"), NOW)
    turns = "".join(engine.step().works[0].model for _ in range(16))
    # 0.4 s each: three turns make 1.2 s.
    assert turns == "bbb" + "ab" * 6 + "a"


def test_a_full_queue_lets_the_lowest_go_for_a_higher_one() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(3, 10**9))
    scheduler.add(ranked(0, Priority.LOW), NOW)
    scheduler.add(ranked(1, Priority.LOW), NOW)
    scheduler.add(ranked(2, Priority.NORMAL), NOW)
    assert [w.number for w in scheduler.add(ranked(3, Priority.NORMAL), NOW)] == [1]
    assert [w.number for w in scheduler.add(ranked(4, Priority.HIGH), NOW)] == [0]
    with pytest.raises(QueueFull):
        scheduler.add(ranked(5, Priority.NORMAL), NOW)
    with pytest.raises(QueueFull):
        scheduler.add(ranked(6, Priority.LOW), NOW)
    assert [w.number for w in scheduler.add(ranked(7, Priority.HIGH), NOW)] == [3]
    assert len(scheduler) == 3


def test_one_model_does_not_fill_the_queue_for_all() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(10, 10**9))
    for number in range(10):
        scheduler.add(work(number, "hog"), NOW)
    with pytest.raises(QueueFull):
        scheduler.add(work(10, "hog"), NOW)
    displaced = [scheduler.add(work(20 + n, "late"), NOW) for n in range(5)]
    assert [w.number for works in displaced for w in works] == [9, 8, 7, 6, 5]
    with pytest.raises(QueueFull):
        scheduler.add(work(30, "late"), NOW)
    assert (scheduler.depth("hog"), scheduler.depth("late")) == (5, 5)


def test_nobody_is_pushed_below_a_fair_share_for_one_who_has_less() -> None:
    scheduler = Scheduler(100, 1.0, QueueLimits(8, 10**9))
    for number, model in enumerate("aaabbbcc"):
        scheduler.add(work(number, model), NOW)
    with pytest.raises(QueueFull):
        scheduler.add(work(8, "c"), NOW)
    assert [scheduler.depth(model) for model in "abc"] == [3, 3, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(Priority), st.integers(1, 9)),
        max_size=60,
    )
)
def test_whatever_comes_the_queue_keeps_its_limits_and_loses_nothing(
    specs: list[tuple[str, Priority, int]],
) -> None:
    limits = QueueLimits(8, 10**9, cost=300)
    scheduler = Scheduler(100, 1.0, limits)
    inside: set[int] = set()
    for number, (model, priority, rows) in enumerate(specs):
        new = dataclasses.replace(work(number, model, rows=rows), priority=priority)
        try:
            displaced = scheduler.add(new, NOW)
        except QueueFull:
            continue
        assert all(other.priority >= priority for other in displaced)
        inside -= {other.number for other in displaced}
        inside.add(number)
        assert len(scheduler) == len(inside) <= limits.works
    assert {w.number for s in steps(scheduler) for w in s.works} == inside
    assert scheduler.size_bytes == 0


def test_a_long_step_that_is_put_aside_gives_every_other_turn_to_what_waits() -> None:
    scheduler = roomy(batch_cost=10)
    scheduler.add(work(0, rows=100), NOW)
    long = scheduler.schedule(NOW)
    assert long is not None
    turns = []
    for number in range(1, 5):
        scheduler.add(work(number), NOW)
    scheduler.put_aside(long, 0.1, NOW)
    while (step := scheduler.schedule(NOW)) is not None:
        turns.append(step.number)
        if step.number == 0 and len(turns) < 7:
            scheduler.put_aside(step, 0.1, NOW)
        else:
            scheduler.finish(step, 0.1, NOW)
    assert turns == [0, 1, 0, 2, 0, 3, 0, 4]


def test_so_many_steps_of_a_model_are_begun_at_a_time_and_not_more() -> None:
    scheduler = roomy(batch_cost=10)
    for number in range(10):
        scheduler.add(work(number, rows=100), NOW)
    begun = set()
    for _ in range(50):
        step = scheduler.schedule(NOW)
        assert step is not None
        begun.add(step.number)
        scheduler.put_aside(step, 0.1, NOW)
    assert len(begun) == MOST_PUT_ASIDE


def test_a_step_that_was_put_aside_shares_the_engine_with_other_models() -> None:
    scheduler = roomy(batch_cost=10)
    scheduler.add(work(0, "huge", rows=100), NOW)
    huge = scheduler.schedule(NOW)
    assert huge is not None
    for number in range(1, 9):
        scheduler.add(work(number, "small"), NOW)
    served = {"huge": 0.0, "small": 0.0}
    scheduler.put_aside(huge, 0.1, NOW)
    while scheduler.depth("small"):
        step = scheduler.schedule(NOW)
        assert step is not None
        served[step.works[0].model] += 0.1
        (scheduler.put_aside if step is huge else scheduler.finish)(step, 0.1, NOW)
        assert abs(served["huge"] - served["small"]) <= 0.1 + 1e-9


def test_the_estimate_of_what_the_engine_has_ends_with_it() -> None:
    scheduler = learnt(seconds=1.0)
    scheduler.add(work(0), NOW)
    step = scheduler.schedule(NOW)
    assert step is not None
    other = scheduler.wait_s("b", Priority.NORMAL, 0.25)
    assert other == pytest.approx(0.75)
    scheduler.finish(step, 1.0, 1.0)
    assert scheduler.wait_s("a", Priority.NORMAL, 1.0) == 0.0


def test_what_nobody_waited_for_teaches_nothing_but_that_it_takes_longer() -> None:
    """A client that leaves a long request at once does not make long ones short."""
    scheduler = learnt(seconds=0.1)
    for seconds, expected_s in ((0.01, 100.0), (300.0, 300.0)):
        scheduler.add(work(0, rows=1000), NOW)
        step = scheduler.schedule(NOW)
        assert step is not None
        scheduler.finish(step, seconds, NOW, answered=[])
        scheduler.add(work(1, rows=1000), NOW)
        assert scheduler.wait_s("a", Priority.NORMAL, NOW) >= 0.9 * expected_s
        scheduler.cancel(1)


def test_of_a_step_that_some_have_left_counts_what_was_answered() -> None:
    scheduler = roomy(batch_cost=1000)
    for number in range(4):
        scheduler.add(work(number, rows=10), NOW)
    step = scheduler.schedule(NOW)
    assert step is not None
    scheduler.finish(step, 3.0, NOW, step.works[:3])
    scheduler.add(work(4, rows=30), NOW)
    assert scheduler.wait_s("a", Priority.NORMAL, NOW) == pytest.approx(3.0)


def test_a_wrong_measurement_does_not_refuse_a_model_for_ever_while_others_are_busy() -> None:
    scheduler = learnt(seconds=10.0)
    busy = itertools.count(100)
    for rows in (1, 2):
        scheduler.add(work(next(busy), "b", rows=rows), NOW)
        step = scheduler.schedule(NOW)
        assert step is not None
        scheduler.finish(step, rows * 0.1, NOW)

    def asked(number: int, now_s: float) -> bool:
        try:
            scheduler.add(work(number, deadline_s=now_s + 1.0), now_s)
        except DeadlineUnreachable:
            return False
        return True

    for _ in range(20):
        scheduler.add(work(next(busy), "b"), NOW)
    answers = {number: asked(number, now_s=6.0 * number) for number in range(1, 11)}
    assert [number for number, taken in answers.items() if taken] == [9]
    step = None
    while step is None or step.works[0].model != "a":
        step = scheduler.schedule(60.0)
        assert step is not None
        scheduler.finish(step, 0.02, 60.0)
    # What was learnt then is all that counts.
    assert all(asked(number, 60.0) for number in range(12, 20))
