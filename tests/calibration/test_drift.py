"""Drift: the index against scipy and its theory, and the window against a plain list."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.calibration.drift import (
    ReferenceBins,
    SlidingWindow,
    expected_index,
    fit_reference,
    largest_index,
    population_stability_index,
)
from service.errors import CalibrationFailed, TooFewRows


def test_the_index_is_the_symmetric_divergence_of_scipy() -> None:
    reference = ReferenceBins((0.0, 1.0, 2.0), (100, 250, 400, 250))
    live = np.array([40, 0, 50, 10])
    p, q = live + 0.5, np.array(reference.counts) + 0.5
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert population_stability_index(reference, live) == pytest.approx(expected)
    assert population_stability_index(reference, np.zeros(4)) == 0


def test_bins_lie_at_the_quantiles() -> None:
    reference = fit_reference(np.random.default_rng(0).permutation(100), bins=4)
    assert reference.edges == (24.0, 49.0, 74.0)
    assert reference.counts == (25,) * 4


def test_equal_values_make_fewer_bins_and_none_is_empty() -> None:
    values = np.repeat([0.0, 1.0, 2.0], [80, 15, 5])
    reference = fit_reference(values)
    assert reference.edges == (0.0, 1.0)
    assert reference.counts == (80, 15, 5)
    assert fit_reference(np.zeros(10)).counts == (10,)


def test_where_nothing_drifts_the_index_has_the_mean_and_the_quantile_that_are_stated() -> None:
    generator, rows, repeats = np.random.default_rng(1), 2000, 1000
    found = []
    for _ in range(repeats):
        reference = fit_reference(generator.random(rows))
        window = SlidingWindow(reference, rows)
        window.add(generator.random(rows))
        found.append(window.population_stability_index())
    expected = expected_index(reference, rows)
    assert expected == pytest.approx(9 * (1 / 2000 + 1 / 2000))
    # χ² is the limit: with 200 values a bin what is left is of the order of 1 / 200.
    error = np.std(found) / math.sqrt(repeats)
    assert abs(np.mean(found) - expected) < 5 * error + expected / 200
    # The limit holds the level of 10 % to a tenth of itself; the rest is the binomial.
    above = int((np.array(found) > largest_index(reference, rows, 0.9)).sum())
    assert stats.binom.ppf(1e-6, repeats, 0.09) <= above <= stats.binom.ppf(1 - 1e-6, repeats, 0.11)


def test_a_shift_is_seen() -> None:
    generator = np.random.default_rng(2)
    reference = fit_reference(generator.normal(size=1000))
    window = SlidingWindow(reference, 1000, threshold=2.0)
    window.add(generator.normal(size=1000) + 1)
    assert window.population_stability_index() > largest_index(reference, 1000, 1 - 1e-9)
    low, high = stats.binom.ppf([1e-7, 1 - 1e-7], 1000, stats.norm.sf(1.0)) / 1000
    assert low <= window.flagged_rate() <= high


CHUNKS = st.lists(st.lists(st.integers(-3, 12), max_size=8), max_size=12)


@given(CHUNKS, st.integers(1, 10))
def test_a_window_is_the_last_values_however_they_came(chunks: list[list[int]], size: int) -> None:
    reference = fit_reference(np.arange(10.0), bins=5)
    window, plain = SlidingWindow(reference, size, threshold=6.0), deque[int](maxlen=size)
    for chunk in chunks:
        window.add(np.array(chunk, dtype=float))
        plain.extend(chunk)
        assert window.rows == len(plain)
        counts = np.histogram(plain, [-np.inf, *(np.array(reference.edges) + 0.5), np.inf])[0]
        index = window.population_stability_index()
        assert index == pytest.approx(population_stability_index(reference, counts))
        flagged = sum(value > 6 for value in plain) / len(plain) if plain else 0
        assert window.flagged_rate() == pytest.approx(flagged)


def test_an_empty_window_claims_nothing() -> None:
    window = SlidingWindow(fit_reference(np.arange(20.0)), 5)
    assert (window.rows, window.population_stability_index(), window.flagged_rate()) == (0, 0, 0)
    assert math.isnan(window.expected_index())


def test_a_reference_survives_json() -> None:
    reference = fit_reference(np.random.default_rng(3).random(100))
    read = ReferenceBins(**json.loads(json.dumps(dataclasses.asdict(reference))))
    values = np.random.default_rng(4).random(50)
    windows = [SlidingWindow(each, 50) for each in (reference, read)]
    for window in windows:
        window.add(values)
    first, second = (window.population_stability_index() for window in windows)
    assert first == second > 0


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(TooFewRows, match="over 10 bins needs at least 10 rows; `values` has 9"):
        fit_reference(np.arange(9.0))
    with pytest.raises(CalibrationFailed, match="two bins or more, not 1"):
        fit_reference(np.arange(9.0), bins=1)
    window = SlidingWindow(fit_reference(np.arange(20.0)), 5)
    window.add([np.inf, -np.inf])
    with pytest.raises(CalibrationFailed, match="none of them nan"):
        window.add([1.0, np.nan])
    assert window.rows == 2
    with pytest.raises(CalibrationFailed, match="one row or more"):
        SlidingWindow(fit_reference(np.arange(20.0)), 0)
