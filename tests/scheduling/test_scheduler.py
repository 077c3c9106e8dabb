"""The policy: nothing lost or doubled, order kept, budgets kept, the engine's time shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import QueueFull
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.scheduling.work import Step, Work

NOW = 0.0


def work(
    number: int,
    model: str = "a",
    key: int | None = 0,
    rows: int = 1,
    passes: int = 10,
    size_bytes: int = 1,
) -> Work:
    batch_key = None if key is None else (model, key)
    return Work(number, model, batch_key, rows, passes, size_bytes, queued_s=0.0)


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
    while len(engine.scheduler):
        step = engine.step()
        assert step.cost * seconds <= batch_s * (1 + 1e-9) or len(step.works) == 1


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
