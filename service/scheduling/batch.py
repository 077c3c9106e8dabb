"""Merging requests into one batch and splitting its answer again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np

from service.inference.prediction import Fields

_PASSES_FIRST = frozenset({"samples", "quantiles"})
"""Fields whose rows are the second dimension."""


def row_numbers(sizes: Sequence[int]) -> list[int]:
    """Number of each row within its own request: sizes [2, 3] → [0, 1, 0, 1, 2]."""
    return list(chain.from_iterable(range(size) for size in sizes))


def split(fields: Fields, sizes: Sequence[int]) -> list[Fields]:
    """Cut each field along its rows into parts of `sizes`."""
    ends = list(accumulate(sizes))
    parts: list[Fields] = []
    for size, end in zip(sizes, ends, strict=True):
        rows = slice(end - size, end)
        part: Fields = {}
        for name, array in fields.items():
            if array is None:
                part[name] = None
            else:
                part[name] = array[:, rows] if name in _PASSES_FIRST else array[rows]
        parts.append(part)
    return parts


def merge(parts: Sequence[Fields]) -> Fields:
    """Join parts along their rows: the inverse of `split`."""
    merged: Fields = {}
    for name in parts[0]:
        arrays = [array for part in parts if (array := part[name]) is not None]
        axis = 1 if name in _PASSES_FIRST else 0
        merged[name] = np.concatenate(arrays, axis=axis) if arrays else None
    return merged
