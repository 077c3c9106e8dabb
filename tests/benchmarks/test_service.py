"""What the service benchmark makes of what it measured."""

from __future__ import annotations

import os

import pytest

from benchmarks.load import Load
from benchmarks.service import ratios, share


@pytest.mark.parametrize("generator_share", [0.0, 0.5, 1.0])
def test_the_engine_alone_is_not_given_the_load_generators_time(generator_share: float) -> None:
    """A server that loses no time of its own has a share of one, whatever the generator took."""
    processors = os.cpu_count() or 1
    rate = 100 * (1 - generator_share / processors) if processors > 1 else 100.0
    if processors == 1 and generator_share > 0:
        pytest.skip("needs two processors")
    assert share(Load(rate, 0.0, 0.0, generator_share), 100.0) == pytest.approx(1)


def test_a_server_that_loses_a_tenth_has_a_share_of_nine_tenths() -> None:
    assert share(Load(90.0, 0.0, 0.0, 0.0), 100.0) == pytest.approx(0.9)


def test_candor_is_compared_with_the_best_other() -> None:
    rates = {"Candor": 30.0, "slow": 5.0, "fast": 10.0}
    rows = [{"server": s, "connections": 16, "requests_per_s": r} for s, r in rates.items()]
    assert ratios(rows) == {16: pytest.approx(3)}
