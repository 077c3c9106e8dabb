"""Merging and splitting batches lose no row and mix none up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inference.prediction import Fields
from service.scheduling.batch import merge, row_numbers, split

sizes = st.lists(st.integers(1, 8), min_size=1, max_size=10)


def fields(rows: int) -> Fields:
    """Every value tells its row."""
    number = np.arange(rows, dtype=float)
    return {
        "mean": np.stack([number, -number], axis=1),
        "variance": number,
        "samples": np.broadcast_to(number[None, :, None], (3, rows, 2)),
        "quantiles": np.broadcast_to(number[None, :, None], (5, rows, 2)),
        "aleatoric_std": None,
    }


@given(sizes)
def test_each_part_has_exactly_its_rows(sizes: list[int]) -> None:
    parts = split(fields(sum(sizes)), sizes)
    start = 0
    for size, part in zip(sizes, parts, strict=True):
        mean, samples, quantiles = part["mean"], part["samples"], part["quantiles"]
        assert mean is not None
        assert samples is not None
        assert quantiles is not None
        expected = np.arange(start, start + size)
        np.testing.assert_array_equal(mean[:, 0], expected)
        np.testing.assert_array_equal(samples[1, :, 0], expected)
        assert samples.shape == (3, size, 2)
        assert quantiles.shape == (5, size, 2)
        assert part["aleatoric_std"] is None
        start += size


@given(sizes)
def test_merge_undoes_split(sizes: list[int]) -> None:
    whole = fields(sum(sizes))
    again = merge(split(whole, sizes))
    assert again.keys() == whole.keys()
    for name, array in whole.items():
        if array is None:
            assert again[name] is None
        else:
            np.testing.assert_array_equal(np.asarray(again[name]), array)


@given(sizes)
def test_rows_are_numbered_within_their_request(sizes: list[int]) -> None:
    numbers = row_numbers(sizes)
    assert len(numbers) == sum(sizes)
    assert numbers.count(0) == len(sizes)
    steps = np.diff(numbers)
    assert ((steps == 1) | (np.array(numbers[1:]) == 0)).all()
