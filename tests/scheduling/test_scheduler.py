"""The policy: nothing lost or doubled, models in turn, batches within their budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import QueueFull
from service.scheduling.scheduler import Scheduler
from service.scheduling.work import Step, Work


def work(
    number: int,
    model: str = "a",
    key: object = 0,
    rows: int = 1,
    passes: int = 10,
    size_bytes: int = 1,
) -> Work:
    return Work(number, model, (model, key), rows, passes, size_bytes, queued_s=0.0)


def roomy(batch_cost: int = 100) -> Scheduler:
    return Scheduler(batch_cost, max_works=1000, max_bytes=10**9)


def steps(scheduler: Scheduler) -> list[Step]:
    found = []
    while (step := scheduler.schedule()) is not None:
        found.append(step)
    return found


works = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(1, 30), st.integers(1, 9))
)


@given(works, st.integers(1, 200), st.sets(st.integers(0, 20)))
def test_everything_that_was_not_cancelled_runs_once_in_order(
    specs: list[tuple[str, int, int, int]], batch_cost: int, cancelled: set[int]
) -> None:
    scheduler = roomy(batch_cost)
    added = [work(n, *spec) for n, spec in enumerate(specs)]
    for each in added:
        scheduler.add(each)
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
        assert sum(w.cost for w in step.works) <= batch_cost or len(step.works) == 1
    for key in {w.batch_key for w in kept}:
        of_key = [w.number for s in found for w in s.works if w.batch_key == key]
        # A large work may wait for room while smaller ones go first, never the oldest.
        firsts = [s.works[0].number for s in found if s.works[0].batch_key == key]
        assert firsts == sorted(firsts)
        assert len(of_key) == len(set(of_key))


def test_works_that_may_run_together_do() -> None:
    scheduler = roomy(batch_cost=100)
    for number in range(12):
        scheduler.add(work(number))
    assert [len(step.works) for step in steps(scheduler)] == [10, 2]


def test_a_work_above_the_budget_runs_alone() -> None:
    scheduler = roomy(batch_cost=5)
    scheduler.add(work(0))
    scheduler.add(work(1))
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[0], [1]]


def test_models_take_turns() -> None:
    scheduler = roomy(batch_cost=10)
    for number in range(6):
        scheduler.add(work(number, "a" if number < 4 else "b"))
    assert [step.works[0].model for step in steps(scheduler)] == ["a", "b", "a", "b", "a", "a"]


def test_other_keys_of_a_model_wait_their_turn() -> None:
    scheduler = roomy()
    for number, key in enumerate([0, 1, 0, 1]):
        scheduler.add(work(number, key=key))
    assert [[w.number for w in s.works] for s in steps(scheduler)] == [[0, 2], [1, 3]]


def test_a_full_queue_refuses_by_count_and_takes_again_when_there_is_room() -> None:
    scheduler = Scheduler(100, max_works=2, max_bytes=10**9)
    scheduler.add(work(0, key=0))
    scheduler.add(work(1, key=1))
    with pytest.raises(QueueFull, match="2 requests are waiting") as caught:
        scheduler.add(work(2))
    assert caught.value.retry_after_s
    scheduler.schedule()
    scheduler.add(work(3))
    assert len(scheduler) == 2


def test_a_full_queue_refuses_by_bytes_but_never_what_comes_to_an_empty_one() -> None:
    scheduler = Scheduler(100, max_works=10, max_bytes=100)
    scheduler.add(work(0, size_bytes=500))
    with pytest.raises(QueueFull, match="500 bytes"):
        scheduler.add(work(1, size_bytes=1))
    scheduler.cancel(0)
    scheduler.add(work(2, size_bytes=60))
    scheduler.add(work(3, size_bytes=40))
    with pytest.raises(QueueFull):
        scheduler.add(work(4, size_bytes=1))


def test_depth_counts_what_waits_of_a_model() -> None:
    scheduler = roomy()
    scheduler.add(work(0, "a"))
    scheduler.add(work(1, "b"))
    assert (scheduler.depth("a"), scheduler.depth("b"), scheduler.depth("c")) == (1, 1, 0)
