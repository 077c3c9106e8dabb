"""Joining the answers of a request that was computed in parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.inference.fields import ROWS_SECOND, Fields


def merge(parts: Sequence[Fields]) -> Fields:
    """Join parts along their rows."""
    merged: Fields = {}
    for name in parts[0]:
        arrays = [array for part in parts if (array := part[name]) is not None]
        axis = 1 if name in ROWS_SECOND else 0
        merged[name] = np.concatenate(arrays, axis=axis) if arrays else None
    return merged
