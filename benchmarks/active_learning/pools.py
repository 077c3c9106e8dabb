"""Pools of pictures whose labels can be asked for, once or several times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.data import Array
from service.inference.fields import ROWS_SECOND, Fields


@dataclass(frozen=True, slots=True)
class Pool:
    """Points, each a copy of one picture: point p shows picture p mod N.

    Args:
        x: pictures [N, 1, 28, 28].
        y: their labels [N].
        copies: points that show the same picture.
        start: points whose labels are known from the start.
    """

    x: Array
    y: Array
    copies: int
    start: tuple[int, ...]

    def __len__(self) -> int:
        return self.copies * len(self.y)

    def pictures(self, points: Sequence[int]) -> Array:
        """What each of these points shows. [k] → [k]."""
        found: Array = np.asarray(points, dtype=np.int64) % len(self.y)
        return found

    def of_points(self, fields: Fields) -> Fields:
        """Fields of the pictures as fields of the points.

        With shared masks a copy's passes are its picture's, so that they are sampled once.
        """
        return {
            name: None
            if array is None
            else np.concatenate([array] * self.copies, axis=1 if name in ROWS_SECOND else 0)
            for name, array in fields.items()
        }


def draw(x: Array, y: Array, rows: int, each: int, copies: int, seed: int) -> Pool:
    """A pool of pictures drawn without replacement, the same ones however many copies it has.

    Args:
        x: pictures [M, 1, 28, 28] to draw from.
        y: their labels [M].
        rows: pictures drawn.
        each: of every class, whose labels are known from the start.
        copies: of each picture in the pool.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).permutation(len(y))[:rows]
    labels = y[drawn]
    start = [np.flatnonzero(labels == label)[:each] for label in np.unique(labels)]
    return Pool(x[drawn], labels, copies, tuple(np.concatenate(start).tolist()))
