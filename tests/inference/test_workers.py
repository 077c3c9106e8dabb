"""Threads give results in order, compute alone, and leave nothing running behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.inference.workers import Workers, workers


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    later = threading.Event()

    def run(item: int) -> int:
        # The first ends only when the second has.
        if item == 0:
            assert later.wait(10)
        if item == 1:
            later.set()
        return item * item

    assert list(Workers(2).in_order(run, range(20))) == [item * item for item in range(20)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("two_threads")
def test_an_operation_in_a_thread_is_not_spread_and_elsewhere_it_is_as_before() -> None:
    threads = Workers(3)
    assert list(threads.in_order(lambda _: torch.get_num_threads(), range(6))) == [1] * 6
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2


def test_items_are_asked_for_only_when_a_thread_is_about_to_be_free() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            asked.append(item)
            yield item

    results = Workers(2).in_order(lambda item: item, items())
    for number in range(5):
        assert next(results) == number
        assert len(asked) <= number + 1 + 2


def test_an_error_comes_in_its_place_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def run(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("the third")
        return item

    results = Workers(2).in_order(run, range(10))
    seen: list[int] = []
    with pytest.raises(ValueError, match="the third"):
        seen.extend(results)
    assert seen == [0, 1]
    # Three are begun at first, and another one for each result.
    assert set(begun) <= set(range(5))


def test_who_stops_early_waits_for_what_has_begun() -> None:
    inside: set[int] = set()

    def run(item: int) -> int:
        inside.add(item)
        threading.Event().wait(0.02)
        inside.remove(item)
        return item

    results = Workers(2).in_order(run, range(100))
    assert next(results) == 0
    results.close()
    assert not inside


def test_a_process_has_its_threads_once() -> None:
    assert workers(2) is workers(2)
    assert len(workers(2)) == 2
