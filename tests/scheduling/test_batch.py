"""Parts of an answer joined again lose no row and mix none up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inference.fields import Fields
from service.scheduling.batch import merge

sizes = st.lists(st.integers(1, 8), min_size=1, max_size=10)


def fields(start: int, stop: int) -> Fields:
    """Every value tells its row."""
    number = np.arange(start, stop, dtype=float)
    return {
        "passes": np.full(stop - start, 3),
        "mean": np.stack([number, -number], axis=1),
        "variance": number,
        "samples": np.broadcast_to(number[None, :, None], (3, stop - start, 2)),
        "quantiles": np.broadcast_to(number[None, :, None], (5, stop - start, 2)),
        "aleatoric_std": None,
    }


@given(sizes)
def test_parts_join_to_the_whole(sizes: list[int]) -> None:
    ends = np.cumsum(sizes).tolist()
    parts = [fields(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    whole, again = fields(0, ends[-1]), merge(parts)
    assert again.keys() == whole.keys()
    for name, array in whole.items():
        if array is None:
            assert again[name] is None
        else:
            np.testing.assert_array_equal(np.asarray(again[name]), array)
