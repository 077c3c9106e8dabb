"""Arrivals come at the rate that was asked for, the same each time."""

from __future__ import annotations

import pytest

from benchmarks.overload import arrivals


def test_arrivals_are_those_of_a_poisson_process_of_the_seed() -> None:
    rate_per_s, seconds = 200.0, 100.0
    times = list(arrivals(rate_per_s, seconds, seed=1))
    assert times == list(arrivals(rate_per_s, seconds, seed=1)) == sorted(times)
    assert 0 < times[0] < times[-1] < seconds
    # Five standard deviations of a count with that mean.
    assert len(times) == pytest.approx(rate_per_s * seconds, abs=5 * (rate_per_s * seconds) ** 0.5)
