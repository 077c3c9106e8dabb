"""Fewer passes as the wait grows, never below the floor, and nobody who said how many he wants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.scheduling.degrading import Degrading
from service.types import Masks, SamplePlan


def plan(passes: int, tolerance: float | None = None) -> SamplePlan:
    return SamplePlan(passes, 0, Masks.SHARED, tolerance)


def test_it_is_off_by_default() -> None:
    assert Degrading().plan(plan(50), wait_s=1000.0).passes == 50


def test_passes_shrink_as_the_wait_grows() -> None:
    rule = Degrading(after_s=0.1, min_passes=10)
    waits = (0.0, 0.1, 0.2, 0.4, 100.0)
    assert [rule.plan(plan(50), wait_s).passes for wait_s in waits] == [50, 50, 25, 13, 10]


def test_a_tolerance_is_kept() -> None:
    assert Degrading(0.1, 10).plan(plan(50, 0.01), 100.0).passes == 50


@given(
    st.integers(2, 1000), st.floats(1e-3, 10), st.floats(0, 1e3), st.integers(2, 50),
    st.integers(1, 20),
)  # fmt: skip
def test_never_below_the_floor_never_more_than_asked_and_all_members_alike(
    passes: int, after_s: float, wait_s: float, floor: int, members: int
) -> None:
    found = Degrading(after_s, floor).plan(plan(passes), wait_s, members).passes
    assert min(passes, floor) <= found <= passes
    assert found == passes or found % members == 0
