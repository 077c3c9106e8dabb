"""A step's fixed time and the time of each row × pass are told apart, whatever sizes come."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scheduling.pace import Pace


def learnt(sizes: list[int], fixed_s: float, each_s: float) -> Pace:
    pace = Pace()
    for size in sizes:
        pace.learn(size, fixed_s + each_s * size)
    return pace


def test_before_the_first_step_there_is_no_limit() -> None:
    assert Pace().cost_within(1.0) == math.inf


@given(st.floats(1e-6, 1e-2), st.floats(0.01, 0.9))
def test_both_parts_are_found(each_s: float, share: float) -> None:
    """`share` of a step of 1,000 is fixed."""
    fixed_s = 1000 * each_s * share / (1 - share)
    pace = learnt([500, 1500, 1000, 800], fixed_s, each_s)
    within_s = 10 * (fixed_s + 1000 * each_s)
    assert pace.cost_within(within_s) == pytest.approx((within_s - fixed_s) / each_s, rel=1e-6)


def test_a_step_may_take_twice_its_fixed_time_however_short_it_should_be() -> None:
    pace = learnt([10, 20, 30], fixed_s=1.0, each_s=0.01)
    assert pace.cost_within(0.1) == pytest.approx(100)


def test_steps_of_one_size_are_doubled_until_others_were_seen() -> None:
    pace = learnt([50] * 20, fixed_s=0.05, each_s=1e-6)
    assert pace.cost_within(0.02) == pytest.approx(100)
    assert pace.cost_within(0.5) == pytest.approx(500, rel=0.01)


def test_what_was_told_apart_stays_known_while_one_size_comes() -> None:
    pace = learnt([50, 500] + [50] * 200, fixed_s=0.05, each_s=1e-3)
    assert pace.cost_within(0.25) == pytest.approx(200, rel=1e-3)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e3)), min_size=1, max_size=50))
def test_whatever_was_measured_some_work_fits(steps: list[tuple[int, float]]) -> None:
    pace = Pace()
    for cost, seconds in steps:
        pace.learn(cost, seconds)
    assert pace.cost_within(0.05) > 0


def test_requests_that_came_alone_at_first_run_together_under_load() -> None:
    """A pass costs what it costs for one row; a mean per row would keep them apart."""
    pace = learnt([50] * 100, fixed_s=0.05, each_s=1e-6)
    sizes = []
    for _ in range(8):
        size = int(min(pace.cost_within(0.02), 64 * 50))
        pace.learn(size, 0.05 + 1e-6 * size)
        sizes.append(size)
    assert sizes[0] == 100
    assert sizes[-1] == 64 * 50


def test_what_steps_will_take_is_known_once_both_parts_are() -> None:
    pace = learnt([500, 1500, 1000], fixed_s=0.05, each_s=1e-3)
    assert pace.seconds(100) == pytest.approx(0.15)
    assert pace.seconds(1000, steps=4) == pytest.approx(0.2 + 1.0)


def test_what_is_not_known_is_expected_to_take_no_longer_than_what_was_seen() -> None:
    """Nothing is refused for an estimate that has nothing to stand on."""
    assert Pace().seconds(1000) == 0.0
    assert learnt([50] * 5, fixed_s=0.05, each_s=1e-3).seconds(5000) == pytest.approx(0.1)


def test_small_steps_are_not_taken_for_as_long_as_the_only_large_one_that_was_seen() -> None:
    assert learnt([100_000], fixed_s=0.0, each_s=1e-4).seconds(50) == pytest.approx(0.005)


@given(st.floats(0.0, 1.0), st.floats(1e-5, 1e-2), st.floats(10.0, 1e4))
def test_one_pause_of_the_machine_does_not_make_all_steps_long(
    fixed_s: float, each_s: float, times: float
) -> None:
    pace = learnt([50, 100, 150, 100] * 5, fixed_s, each_s)
    usual_s = fixed_s + 100 * each_s
    pace.learn(100, times * usual_s)
    assert pace.seconds(100) < 1.3 * usual_s


def test_what_is_slower_from_now_on_is_soon_known() -> None:
    pace = learnt([50, 100, 150, 100] * 5, fixed_s=0.01, each_s=1e-3)
    for _ in range(20):
        pace.learn(100, 10 * 0.11)
    assert pace.seconds(100) == pytest.approx(10 * 0.11, rel=0.2)


def test_a_step_that_is_larger_than_any_before_may_take_as_much_longer() -> None:
    pace = learnt([10, 10, 1000], fixed_s=0.0, each_s=1e-3)
    assert pace.seconds(1000) == pytest.approx(1.0)
